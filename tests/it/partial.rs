//! Incomplete responses: kept, answered from, put together, completed, and purged like any other.

use serde_json::json;

use crate::support::edge::HOST;
use crate::support::origin::Seen;
use crate::support::{Edge, Ended, Gate, Origin, Piece, Reply, Response, pattern};

pub(crate) const LENGTH: usize = 1000;

/// First and last byte that a request asks for.
pub(crate) fn asked(seen: &Seen) -> Option<(usize, usize)> {
    let (first, last) = seen.field("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some(match (first, last) {
        ("", last) => (LENGTH - last.parse::<usize>().unwrap(), LENGTH - 1),
        (first, "") => (first.parse().unwrap(), LENGTH - 1),
        (first, last) => (first.parse().unwrap(), last.parse().unwrap()),
    })
}

/// Bytes of the whole as 206, fresh for a minute.
pub(crate) fn part(first: usize, last: usize) -> Reply {
    Reply::new(206)
        .body(&pattern(LENGTH)[first..=last])
        .field("Content-Range", &format!("bytes {first}-{last}/{LENGTH}"))
        .field("Cache-Control", "max-age=60")
}

/// What was asked for, under a strong validator.
pub(crate) fn serve(seen: &Seen) -> Reply {
    match asked(seen) {
        Some((first, last)) => part(first, last),
        None => Reply::fresh(pattern(LENGTH)),
    }
    .field("ETag", "\"1\"")
    .field("Content-Type", "text/x")
}

pub(crate) async fn ranged(edge: &Edge, range: &str) -> Response {
    edge.fill_with("/a", &[("Range", range)]).await
}

#[track_caller]
pub(crate) fn is_part(answer: &Response, first: usize, last: usize, cache: &str) {
    let expected = format!("bytes {first}-{last}/{LENGTH}");
    assert_eq!((answer.status(), answer.field("content-range")), (206, Some(&*expected)));
    assert_eq!((answer.ended, &answer.body[..]), (Ended::Clean, &pattern(LENGTH)[first..=last]));
    assert!(answer.says(cache), "{cache} is not in {}", answer.cache());
}

#[track_caller]
pub(crate) fn is_whole(answer: &Response, cache: &str) {
    assert_eq!((answer.status(), answer.field("content-range")), (200, None), "{answer:?}");
    assert_eq!((answer.ended, &answer.body[..]), (Ended::Clean, &pattern(LENGTH)[..]));
    assert!(answer.says(cache), "{cache} is not in {}", answer.cache());
}

#[tokio::test]
async fn a_part_answers_what_lies_within_it() {
    let origin = Origin::start(serve);
    let edge = Edge::start(&origin);
    let first = ranged(&edge, "bytes=800-").await;
    is_part(&first, 800, 999, "fwd=uri-miss");
    assert!(first.says("stored"), "{}", first.cache());
    for (range, first, last) in [
        ("bytes=800-", 800, 999),
        ("bytes=-200", 800, 999),
        ("bytes=-1", 999, 999),
        ("bytes=850-860", 850, 860),
        ("bytes=990-5000", 990, 999),
    ] {
        let answer = ranged(&edge, range).await;
        is_part(&answer, first, last, "hit");
        assert_eq!(answer.field("content-type"), Some("text/x"));
        assert!(answer.field("age").is_some());
    }
    let beyond = ranged(&edge, "bytes=1000-").await;
    beyond.expect(416, "", "hit");
    assert_eq!(beyond.field("content-range"), Some("bytes */1000"));
    let two = ranged(&edge, "bytes=800-801,-2").await;
    assert_eq!(two.status(), 206);
    assert!(two.field("content-type").unwrap().starts_with("multipart/byteranges"), "{two:?}");
    assert_eq!(origin.requests(), 1);
    is_part(&ranged(&edge, "bytes=700-810").await, 700, 810, "fwd=partial");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn conditions_are_honoured_on_a_part() {
    let origin = Origin::start(serve);
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-99").await;
    let with = |condition| [("Range", "bytes=0-9"), condition];
    is_part(&edge.get_with("/a", &with(("If-Range", "\"1\""))).await, 0, 9, "hit");
    let fields = with(("If-None-Match", "\"1\""));
    edge.get_with("/a", &fields).await.expect(304, "", "hit");
    edge.get_with("/a", &[("If-None-Match", "\"1\"")]).await.expect(304, "", "hit");
    let fields = [("Range", "bytes=0-9"), ("Cache-Control", "only-if-cached")];
    is_part(&edge.get_with("/a", &fields).await, 0, 9, "hit");
    assert_eq!(origin.requests(), 1);
    let other = edge.get_with("/a", &with(("If-Range", "\"2\""))).await;
    assert!(other.says("fwd=partial"), "{}", other.cache());
    assert_eq!(origin.requests(), 2, "another version is the origin's to send");
}

#[tokio::test]
async fn neither_head_nor_whole_comes_from_a_part() {
    let origin = Origin::start(serve);
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-99").await;
    let head = edge.ask("HEAD", HOST, "/a", &[]).await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("1000")));
    assert_eq!(origin.requests(), 2);
    let wanted = edge.get_with("/a", &[("Cache-Control", "only-if-cached")]).await;
    assert_eq!(wanted.status(), 504);
    is_whole(&edge.fill("/a").await, "fwd=partial");
}

#[tokio::test]
async fn parts_of_two_clients_make_a_whole() {
    let origin = Origin::start(serve);
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-599").await;
    let second = ranged(&edge, "bytes=400-999").await;
    is_part(&second, 400, 999, "fwd=partial");
    let whole = edge.get("/a").await;
    is_whole(&whole, "hit");
    assert_eq!((whole.field("etag"), whole.field("content-type")), (Some("\"1\""), Some("text/x")));
    let head = edge.ask("HEAD", HOST, "/a", &[]).await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("1000")));
    is_part(&ranged(&edge, "bytes=300-700").await, 300, 700, "hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_date_is_a_validator_where_it_is_old_enough() {
    for (modified, strong) in [(1_000_000_000, true), (1_000_000_059, false)] {
        let date = |seconds| {
            httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
        };
        let (made, changed) = (date(1_000_000_059), date(modified));
        let origin = Origin::start(move |seen| {
            let reply = match asked(seen) {
                Some((first, last)) => part(first, last),
                None => Reply::fresh(pattern(LENGTH)),
            };
            reply
                .field("CDN-Cache-Control", "max-age=2000000000")
                .field("Date", &made)
                .field("Last-Modified", &changed)
        });
        let edge = Edge::start(&origin);
        ranged(&edge, "bytes=0-599").await;
        is_whole(&edge.fill("/a").await, "stored");
        let seen = origin.seen("/a", 1).await;
        let conditions: Vec<&str> = seen.iter().filter_map(|seen| seen.field("if-range")).collect();
        assert_eq!(!conditions.is_empty(), strong, "{conditions:?}");
    }
}

#[tokio::test]
async fn without_a_validator_nothing_is_put_together() {
    let origin = Origin::start(|seen| match asked(seen) {
        Some((first, last)) => part(first, last).field("ETag", "W/\"1\""),
        None => Reply::fresh(pattern(LENGTH)),
    });
    let edge = Edge::start(&origin);
    for (range, first, last) in [("bytes=0-99", 0, 99), ("bytes=100-199", 100, 199)] {
        is_part(&ranged(&edge, range).await, first, last, "stored");
    }
    for (range, first, last) in [("bytes=0-99", 0, 99), ("bytes=100-199", 100, 199)] {
        is_part(&ranged(&edge, range).await, first, last, "hit");
    }
    assert_eq!(origin.requests(), 2);
    let fields = [("Range", "bytes=0-99"), ("If-Range", "W/\"1\"")];
    assert!(!edge.get_with("/a", &fields).await.says("hit"));
    for range in ["bytes=0-98", "bytes=0-0099", "bytes=0-199"] {
        assert!(!ranged(&edge, range).await.says("hit"), "{range}");
    }
}

#[tokio::test]
async fn without_a_validator_the_newest_answer_alone_is_cut() {
    for purge in purges() {
        let origin = Origin::start(|seen| serve(seen).without("ETag").field("Surrogate-Key", "t"));
        let edge = Edge::start(&origin);
        ranged(&edge, "bytes=0-99").await;
        is_part(&ranged(&edge, "bytes=-200").await, 800, 999, "stored");
        for (range, first, last) in
            [("bytes=800-", 800, 999), ("bytes=-1", 999, 999), ("bytes=850-860", 850, 860)]
        {
            is_part(&edge.get_with("/a", &[("Range", range)]).await, first, last, "hit");
        }
        assert_eq!(origin.requests(), 2);
        let fields = [("Range", "bytes=850-860"), ("If-Range", "\"1\"")];
        assert!(!edge.get_with("/a", &fields).await.says("hit"), "nothing to compare");
        let older = edge.get_with("/a", &[("Range", "bytes=1-2")]).await;
        is_part(&older, 1, 2, "fwd=uri-miss");
        edge.settled().await;
        is_part(&edge.get_with("/a", &[("Range", "bytes=1-2")]).await, 1, 2, "hit");
        edge.purge(purge).await;
        is_part(&ranged(&edge, "bytes=2-2").await, 2, 2, "fwd=uri-miss");
    }
}

#[tokio::test]
async fn what_contradicts_itself_answers_the_same_range_as_it_came() {
    let origin = Origin::start(|seen| match seen.field("range") {
        Some(_) => Reply::new(206)
            .body("01234")
            .field("ETag", "\"1\"")
            .field("Content-Range", "bytes 4-9/10")
            .field("Cache-Control", "max-age=60"),
        None => Reply::fresh("0123456789"),
    });
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=-5").await.expect(206, "01234", "stored");
    let again = ranged(&edge, "bytes=-5").await;
    again.expect(206, "01234", "hit");
    assert_eq!(again.field("content-range"), Some("bytes 4-9/10"));
    ranged(&edge, "bytes=5-6").await.expect(206, "01234", "fwd=uri-miss");
    edge.fill("/a").await.expect(200, "0123456789", "fwd=uri-miss");
    assert_eq!(origin.seen("/a", 3).await[2].field("range"), None);
}

#[tokio::test]
async fn a_part_that_breaks_off_is_not_kept() {
    let short = |pieces: Vec<Piece>| {
        Reply::new(206)
            .sized(100, pieces)
            .field("Content-Range", "bytes 0-99/1000")
            .field("ETag", "\"1\"")
            .field("Cache-Control", "max-age=60")
    };
    let origin = Origin::start(move |seen| match (&*seen.target, seen.nth) {
        ("/a", 1) => short(vec![Piece::data(pattern(50)), Piece::Reset]),
        ("/chunked", 1) => short(vec![]).chunked(vec![Piece::data(pattern(50))]),
        ("/long", 1) => short(vec![]).chunked(vec![Piece::data(pattern(200))]),
        ("/close", 1) => short(vec![]).until_close(vec![Piece::data(pattern(100))]),
        _ => serve(seen),
    });
    let edge = Edge::start(&origin);
    assert_eq!(ranged(&edge, "bytes=0-99").await.ended, Ended::CutOff);
    is_part(&ranged(&edge, "bytes=0-99").await, 0, 99, "fwd=uri-miss");
    for target in ["/chunked", "/long", "/close"] {
        edge.fill_with(target, &[("Range", "bytes=0-99")]).await;
        let again = edge.fill_with(target, &[("Range", "bytes=0-99")]).await;
        is_part(&again, 0, 99, "fwd=uri-miss");
    }
}

#[tokio::test]
async fn half_a_part_is_nothing() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => {
            let pieces = vec![Piece::data(pattern(50)), Piece::gate(&held), Piece::data("6")];
            part(0, 50).sized(51, pieces).field("ETag", "\"1\"")
        }
        _ => serve(seen),
    });
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    client.ask(HOST, "/a", &[("Range", "bytes=0-50")]).await;
    client.head("GET").await;
    client.body_bytes(50).await;
    // It is not shared while it arrives, and gone with the client that asked for it.
    is_part(&edge.get_with("/a", &[("Range", "bytes=0-9")]).await, 0, 9, "fwd=uri-miss");
    drop(client);
    is_part(&ranged(&edge, "bytes=20-50").await, 20, 50, "fwd=partial");
    assert_eq!(origin.requests(), 3);
}

/// By tag, by URL, by site, by everything.
pub(crate) fn purges() -> [serde_json::Value; 4] {
    [
        json!({ "tags": ["t"] }),
        json!({ "urls": [format!("http://{HOST}/a")] }),
        json!({ "all": true, "site": "main" }),
        json!({ "all": true }),
    ]
}

#[tokio::test]
async fn a_purge_kills_parts_and_excerpts() {
    for strong in [true, false] {
        for purge in purges() {
            let origin = Origin::start(move |seen| {
                let reply = serve(seen).field("Surrogate-Key", "t");
                if strong { reply } else { reply.without("ETag") }
            });
            let edge = Edge::start(&origin);
            ranged(&edge, "bytes=0-99").await;
            is_part(&ranged(&edge, "bytes=0-99").await, 0, 99, "hit");
            edge.purge(purge.clone()).await;
            is_part(&ranged(&edge, "bytes=0-99").await, 0, 99, "fwd=uri-miss");
            edge.purge(purge).await;
            is_whole(&edge.fill("/a").await, "fwd=uri-miss");
            let seen = origin.seen("/a", 3).await;
            assert_eq!(seen[2].field("range"), None, "nothing is left to complete");
        }
    }
}

#[tokio::test]
async fn what_is_joined_answers_to_the_tags_of_both() {
    for tag in ["one", "other"] {
        let origin = Origin::start(|seen| {
            let tag = if seen.nth == 1 { "one" } else { "other" };
            serve(seen).field("Surrogate-Key", tag)
        });
        let edge = Edge::start(&origin);
        ranged(&edge, "bytes=0-99").await;
        ranged(&edge, "bytes=100-199").await;
        is_part(&ranged(&edge, "bytes=50-150").await, 50, 150, "hit");
        edge.purge_tag(tag).await;
        is_part(&ranged(&edge, "bytes=0-9").await, 0, 9, "fwd=uri-miss");
        assert_eq!(origin.requests(), 3, "{tag}");
    }
}

#[tokio::test]
async fn another_validator_takes_the_parts_place() {
    let origin = Origin::start(|seen| {
        let (first, last) = asked(seen).unwrap();
        part(first, last).field("ETag", if seen.nth == 1 { "\"1\"" } else { "\"2\"" })
    });
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-99").await;
    ranged(&edge, "bytes=100-199").await;
    let new = ranged(&edge, "bytes=150-160").await;
    is_part(&new, 150, 160, "hit");
    assert_eq!(new.field("etag"), Some("\"2\""));
    is_part(&ranged(&edge, "bytes=0-9").await, 0, 9, "fwd=partial");
}

#[tokio::test]
async fn the_newest_fields_are_those_of_all() {
    let origin = Origin::start(|seen| serve(seen).field("X-Nth", &seen.nth.to_string()));
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-99").await;
    ranged(&edge, "bytes=100-199").await;
    assert_eq!(ranged(&edge, "bytes=0-9").await.field("x-nth"), Some("2"));
    let whole = edge.fill("/a").await;
    assert_eq!((whole.status(), whole.field("x-nth")), (200, Some("3")));
    assert_eq!(edge.get("/a").await.field("x-nth"), Some("3"));
}

#[tokio::test]
async fn many_jumps_leave_a_bounded_number_of_pieces_and_right_bytes() {
    let origin = Origin::start(serve);
    let edge = Edge::start(&origin);
    // The first is the smallest, and so the one that must go.
    ranged(&edge, "bytes=0-1").await;
    for nth in 1..=16 {
        let first = nth * 50;
        ranged(&edge, &format!("bytes={first}-{}", first + 9)).await;
    }
    assert_eq!(origin.requests(), 17);
    for nth in 1..=16 {
        let first = nth * 50;
        let answer = ranged(&edge, &format!("bytes={first}-{}", first + 9)).await;
        is_part(&answer, first, first + 9, "hit");
    }
    is_part(&ranged(&edge, "bytes=0-1").await, 0, 1, "fwd=partial");
    is_whole(&edge.fill("/a").await, "stored");
    let whole = origin.seen("/a", 19).await;
    assert_eq!(whole[18].field("range"), None, "more than one gap: the whole");
}

#[tokio::test]
async fn what_belongs_to_one_user_is_not_kept_and_strangers_parts_are_not_shown() {
    let origin = Origin::start(|seen| {
        let (first, last) = asked(seen).unwrap_or((0, 0));
        let reply = part(first, last).field("ETag", "\"1\"");
        match &*seen.target {
            "/private" => {
                reply.without("Cache-Control").field("Cache-Control", "private, max-age=60")
            }
            "/cookie" => reply.field("Set-Cookie", "a=b"),
            "/no-store" => reply.without("Cache-Control").field("Cache-Control", "no-store"),
            "/silent" => reply.without("Cache-Control"),
            "/vary" => reply.field("Vary", "*"),
            _ => reply,
        }
    });
    let edge = Edge::start(&origin);
    for target in ["/private", "/cookie", "/no-store", "/silent", "/vary"] {
        for _ in 0..2 {
            let answer = edge.fill_with(target, &[("Range", "bytes=0-9")]).await;
            is_part(&answer, 0, 9, "fwd=uri-miss");
            assert!(!answer.says("stored"), "{target}");
        }
    }
    let named = [("Range", "bytes=0-9"), ("Authorization", "Basic eA==")];
    assert!(!edge.fill_with("/a", &named).await.says("stored"));
    assert!(ranged(&edge, "bytes=0-9").await.says("stored"));
    assert!(!edge.fill_with("/a", &named).await.says("hit"), "a stranger's");
    assert!(ranged(&edge, "bytes=0-9").await.says("hit"));
    let body =
        "GET /a HTTP/1.1\r\nHost: site.test\r\nRange: bytes=20-29\r\nContent-Length: 1\r\n\r\nx";
    assert!(!edge.raw(body, "GET").await.says("stored"), "it may be an answer to the body");
}

#[tokio::test]
async fn a_variant_has_parts_of_its_own() {
    let origin = Origin::start(|seen| {
        let tag = format!("\"{}\"", seen.field("x-lang").unwrap());
        serve(seen).without("ETag").field("ETag", &tag).field("Vary", "X-Lang")
    });
    let edge = Edge::start(&origin);
    for round in ["stored", "hit"] {
        for language in ["de", "fr"] {
            let fields = [("Range", "bytes=0-9"), ("X-Lang", language)];
            let answer = edge.fill_with("/a", &fields).await;
            is_part(&answer, 0, 9, round);
            assert_eq!(answer.field("etag"), Some(&*format!("\"{language}\"")));
        }
    }
    is_whole(&edge.fill_with("/a", &[("X-Lang", "fr")]).await, "fwd=partial");
    is_whole(&edge.fill_with("/a", &[("X-Lang", "fr")]).await, "hit");
    let seen = origin.seen("/a", 3).await;
    assert_eq!(seen[2].field("if-range"), Some("\"fr\""));
}

#[tokio::test]
async fn a_stale_part_goes_on_as_it_came_and_is_renewed_by_the_answer() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => serve(seen).field("Age", "100"),
        _ => serve(seen),
    });
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-99").await;
    is_part(&ranged(&edge, "bytes=50-59").await, 50, 59, "fwd=stale");
    let seen = origin.seen("/a", 2).await;
    assert_eq!(
        (seen[1].field("range"), seen[1].field("if-none-match")),
        (Some("bytes=50-59"), None)
    );
    is_part(&ranged(&edge, "bytes=0-99").await, 0, 99, "hit");
}

#[tokio::test]
async fn a_part_stands_in_for_an_origin_that_fails() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => serve(seen)
            .field("Age", "100")
            .without("Cache-Control")
            .field("Cache-Control", "max-age=60, stale-if-error=600"),
        _ => Reply::new(503),
    });
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-99").await;
    is_part(&ranged(&edge, "bytes=50-59").await, 50, 59, "detail=stale-if-error");
    assert_eq!(ranged(&edge, "bytes=50-159").await.status(), 503);
    origin.stop().await;
    is_part(&ranged(&edge, "bytes=50-59").await, 50, 59, "detail=stale-if-error");
    edge.purge_path("/a").await;
    assert!(ranged(&edge, "bytes=50-59").await.status() >= 500, "never what a purge killed");
}

#[tokio::test]
async fn a_change_invalidates_what_is_incomplete() {
    for strong in [true, false] {
        let origin = Origin::start(move |seen| match &*seen.method {
            "POST" => Reply::new(204),
            _ if strong => serve(seen),
            _ => serve(seen).without("ETag"),
        });
        let edge = Edge::start(&origin);
        ranged(&edge, "bytes=0-99").await;
        is_part(&ranged(&edge, "bytes=0-99").await, 0, 99, "hit");
        edge.post("/a", "x").await;
        is_part(&ranged(&edge, "bytes=0-99").await, 0, 99, "fwd=uri-miss");
    }
}

#[tokio::test]
async fn a_head_tells_that_a_part_is_out_of_date() {
    let origin = Origin::start(|seen| match (&*seen.method, seen.nth) {
        ("HEAD", 2) => serve(seen),
        ("HEAD", _) => Reply::fresh("x").field("ETag", "\"2\""),
        _ => serve(seen),
    });
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-99").await;
    edge.ask("HEAD", HOST, "/a", &[]).await;
    is_part(&ranged(&edge, "bytes=0-99").await, 0, 99, "hit");
    edge.ask("HEAD", HOST, "/a", &[]).await;
    is_part(&ranged(&edge, "bytes=0-99").await, 0, 99, "fwd=stale");
}

#[tokio::test]
async fn an_answer_to_if_range_is_kept_only_with_what_has_its_fields() {
    let origin = Origin::start(|seen| match seen.field("if-range") {
        Some(_) => serve(seen).without("Content-Type"),
        None => serve(seen),
    });
    let edge = Edge::start(&origin);
    let known = [("Range", "bytes=100-199"), ("If-Range", "\"1\"")];
    assert!(!edge.fill_with("/a", &known).await.says("stored"));
    ranged(&edge, "bytes=0-99").await;
    assert!(edge.fill_with("/a", &known).await.says("stored"));
    let both = ranged(&edge, "bytes=50-150").await;
    is_part(&both, 50, 150, "hit");
    assert_eq!(both.field("content-type"), Some("text/x"));
    let whole = edge.fill("/a").await;
    is_whole(&whole, "fwd=partial");
    assert_eq!(whole.field("content-type"), Some("text/x"));
}

#[tokio::test]
async fn a_length_that_nobody_knows_promises_nothing() {
    let origin = Origin::start(|seen| match asked(seen) {
        Some((first, last)) => part(first, last)
            .without("Content-Range")
            .field("Content-Range", &format!("bytes {first}-{last}/*"))
            .field("ETag", "\"1\""),
        None => Reply::fresh(pattern(LENGTH)).field("ETag", "\"1\""),
    });
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=900-999").await;
    let hit = ranged(&edge, "bytes=910-919").await;
    assert_eq!((hit.status(), hit.field("content-range")), (206, Some("bytes 910-919/*")));
    assert!(hit.says("hit"), "{}", hit.cache());
    for range in ["bytes=910-", "bytes=-5"] {
        assert!(ranged(&edge, range).await.says("fwd=partial"), "{range}");
    }
    is_whole(&edge.fill("/a").await, "fwd=uri-miss");
}
