//! Coded copies of what is stored: made once, in the background, under the fate of their response.

use std::io::Read as _;

use serde_json::json;

use crate::support::edge::{HOST, Plan};
use crate::support::{
    Connection, Edge, Ended, Gate, H2, Origin, Piece, Reply, Response, pattern, side_by_side, until,
};

const LENGTH: usize = 20_000;
const ALL: &str = "compress = [\"zstd\", \"br\", \"gzip\"]";

fn page() -> Reply {
    Reply::fresh(pattern(LENGTH)).field("Content-Type", "text/html").field("ETag", "\"1\"")
}

fn plan(origin: &Origin) -> Plan {
    Edge::before(origin).site(ALL)
}

async fn accepting(edge: &Edge, target: &str, codings: &str) -> Response {
    edge.get_with(target, &[("Accept-Encoding", codings)]).await
}

async fn came_to(edge: &Edge, coding: &str, outcome: &str, count: f64) {
    let name = format!("atoll_codings_total{{coding=\"{coding}\",outcome=\"{outcome}\"}}");
    edge.metric_becomes(&name, count).await;
}

/// Stores the target, has its first coding of this name made, and gives the coded answer.
async fn coded(edge: &Edge, target: &str, coding: &str) -> Response {
    edge.fill(target).await;
    let first = accepting(edge, target, coding).await;
    assert_eq!(first.field("content-encoding"), None, "nobody waits for a coder");
    came_to(edge, coding, "made", 1.0).await;
    let answer = accepting(edge, target, coding).await;
    assert_eq!(answer.field("content-encoding"), Some(coding), "{answer:?}");
    answer
}

fn decode(coding: &str, coded: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match coding {
        "zstd" => zstd::Decoder::new(coded).unwrap().read_to_end(&mut out),
        "br" => brotli::Decompressor::new(coded, 4096).read_to_end(&mut out),
        "gzip" => flate2::read::GzDecoder::new(coded).read_to_end(&mut out),
        other => panic!("{other:?} is no coding"),
    };
    read.unwrap();
    out
}

fn tag(answer: &Response) -> String {
    answer.field("etag").expect("a tag").to_owned()
}

/// A body that no coding makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

#[tokio::test]
async fn each_coding_decodes_to_the_original() {
    let origin = Origin::serving(page().field("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"));
    let edge = plan(&origin).start();
    for coding in ["zstd", "br", "gzip"] {
        let answer = coded(&edge, "/a", coding).await;
        assert!(answer.says("hit"), "{}", answer.cache());
        assert_eq!(decode(coding, &answer.body), pattern(LENGTH), "{coding}");
        let length = answer.body.len().to_string();
        assert_eq!(answer.field("content-length"), Some(&*length));
        assert!(answer.body.len() < LENGTH / 3, "{length} bytes");
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
        assert!(tag(&answer).starts_with(&format!("\"1-{coding}.")), "{}", tag(&answer));
        assert_eq!(answer.field("content-type"), Some("text/html"));
        assert_eq!(answer.field("last-modified"), Some("Wed, 21 Oct 2015 07:28:00 GMT"));
    }
    let plain = edge.get("/a").await;
    assert_eq!((plain.body.to_vec(), tag(&plain)), (pattern(LENGTH), "\"1\"".to_owned()));
    assert_eq!(plain.field("vary"), Some("Accept-Encoding"), "caches behind us must know");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn the_client_ranks_and_we_choose_among_equals() {
    let origin = Origin::serving(page());
    let edge = plan(&origin).start();
    for coding in ["zstd", "br", "gzip"] {
        coded(&edge, "/a", coding).await;
    }
    for (accept, expected) in [
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip, br", Some("br")),
        ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", Some("gzip")),
        ("zstd;q=0, *", Some("br")),
        ("x-gzip", Some("gzip")),
        ("identity;q=0, br;q=0.1", Some("br")),
        ("br;q=0.5, identity", None),
        ("br;q=0, zstd;q=0, gzip;q=0", None),
        ("deflate", None),
        ("*;q=0, identity", None),
    ] {
        let answer = accepting(&edge, "/a", accept).await;
        assert_eq!(answer.field("content-encoding"), expected, "{accept}");
        let body = expected.map_or(answer.body.to_vec(), |coding| decode(coding, &answer.body));
        assert_eq!(body, pattern(LENGTH), "{accept}");
    }
    let kept = [("Accept-Encoding", "br"), ("Cache-Control", "no-transform")];
    assert_eq!(edge.get_with("/a", &kept).await.field("content-encoding"), None);
}

#[tokio::test]
async fn what_may_not_be_coded_goes_as_it_came() {
    let origin = Origin::start(|seen| {
        let page = || Reply::fresh(pattern(LENGTH)).field("ETag", "\"1\"");
        let text = || page().field("Content-Type", "text/css");
        match &*seen.target {
            "/image" => page().field("Content-Type", "image/png"),
            "/untyped" => page(),
            "/small" => Reply::fresh("x".repeat(1000)).field("Content-Type", "text/css"),
            "/large" => text().body(pattern(60_000)),
            "/coded" => text().field("Content-Encoding", "gzip"),
            "/kept" => {
                text().without("Cache-Control").field("Cache-Control", "max-age=60, no-transform")
            }
            "/cdn" => text()
                .without("Cache-Control")
                .field("Cache-Control", "no-transform")
                .field("CDN-Cache-Control", "max-age=60"),
            "/digest" => text().field("Repr-Digest", "sha-256=:AAAA:"),
            "/404" => Reply::new(404)
                .body(pattern(LENGTH))
                .field("Cache-Control", "max-age=60")
                .field("Content-Type", "text/css"),
            _ => text(),
        }
    });
    let edge = plan(&origin).site("compress_up_to = \"50KiB\"").start();
    let targets =
        ["/image", "/untyped", "/small", "/large", "/coded", "/kept", "/cdn", "/digest", "/404"];
    for target in targets {
        edge.fill(target).await;
        let hit = accepting(&edge, target, "br").await;
        assert!(hit.says("hit"), "{target}: {}", hit.cache());
        assert_eq!(hit.field("vary"), None, "{target} never differs");
    }
    // The queue is in order: when this one is done, the others would be, too.
    let answer = coded(&edge, "/text", "br").await;
    assert_eq!(decode("br", &answer.body), pattern(LENGTH));
    for target in targets {
        let hit = accepting(&edge, target, "br").await;
        let expected = (target == "/coded").then_some("gzip");
        assert_eq!(hit.field("content-encoding"), expected, "{target}");
    }
}

#[tokio::test]
async fn a_rule_without_the_key_codes_nothing() {
    let origin = Origin::serving(page());
    let edge = Edge::before(&origin).rule("/on", ALL).start();
    coded(&edge, "/on", "br").await;
    edge.fill("/off").await;
    let off = accepting(&edge, "/off", "br").await;
    assert_eq!((off.field("content-encoding"), off.field("vary")), (None, None));
    assert_eq!(off.body, pattern(LENGTH));
}

#[tokio::test]
async fn many_clients_have_it_made_once() {
    let origin = Origin::serving(page());
    let edge = plan(&origin).start();
    edge.fill("/a").await;
    let plain = edge.plain();
    let asked = (0..50).map(|_| async move {
        let mut connection = Connection::open(plain).await;
        connection.get(HOST, "/a", &[("Accept-Encoding", "br, gzip")]).await
    });
    for answer in side_by_side(asked).await {
        let body = match answer.field("content-encoding") {
            Some(coding) => decode(coding, &answer.body),
            None => answer.body.to_vec(),
        };
        assert_eq!(body, pattern(LENGTH));
    }
    came_to(&edge, "br", "made", 1.0).await;
    coded(&edge, "/a", "gzip").await;
    came_to(&edge, "br", "made", 1.0).await;
    came_to(&edge, "gzip", "made", 1.0).await;
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_does_not_shrink_is_tried_once() {
    let origin = Origin::serving(Reply::fresh(noise(LENGTH)).field("Content-Type", "text/x"));
    let edge = plan(&origin).start();
    edge.fill("/a").await;
    accepting(&edge, "/a", "br").await;
    came_to(&edge, "br", "not-smaller", 1.0).await;
    for accept in ["br", "br, gzip", "br, zstd;q=0.5"] {
        let answer = accepting(&edge, "/a", accept).await;
        assert_eq!((answer.field("content-encoding"), answer.body.len()), (None, LENGTH));
    }
    // The queue is in order: when this is made, another try would have been, too.
    edge.fill("/b").await;
    accepting(&edge, "/b", "gzip").await;
    came_to(&edge, "gzip", "not-smaller", 1.0).await;
    came_to(&edge, "br", "not-smaller", 1.0).await;
}

#[tokio::test]
async fn ranges_are_of_the_coded_bytes_and_join_up() {
    let origin = Origin::serving(page());
    let edge = plan(&origin).start();
    let whole = coded(&edge, "/a", "br").await;
    let (tag, length) = (tag(&whole), whole.body.len());
    let middle = length / 2;
    let mut joined = Vec::new();
    for (range, start, end) in [
        (format!("bytes=0-{}", middle - 1), 0, middle - 1),
        (format!("bytes={middle}-"), middle, length - 1),
    ] {
        let fields = [("Accept-Encoding", "br"), ("Range", &*range), ("If-Range", &*tag)];
        let part = edge.get_with("/a", &fields).await;
        assert_eq!((part.status(), part.field("etag")), (206, Some(&*tag)), "{part:?}");
        let expected = format!("bytes {start}-{end}/{length}");
        assert_eq!(part.field("content-range"), Some(&*expected));
        assert_eq!(part.field("content-encoding"), Some("br"));
        assert_eq!(part.field("vary"), Some("Accept-Encoding"));
        joined.extend_from_slice(&part.body);
    }
    assert_eq!(decode("br", &joined), pattern(LENGTH));
    let part = |accept: &'static str, condition: String| {
        let edge = &edge;
        async move {
            let fields =
                [("Accept-Encoding", accept), ("Range", "bytes=0-9"), ("If-Range", &*condition)];
            edge.get_with("/a", &fields).await
        }
    };
    let other = part("br", "\"1\"".to_owned()).await;
    assert_eq!(other.status(), 200, "a part of the one may not be joined to the other");
    let other = part("identity", tag).await;
    assert_eq!((other.status(), other.body.len()), (200, LENGTH));
    let same = part("identity", "\"1\"".to_owned()).await;
    assert_eq!((same.status(), same.body.to_vec()), (206, pattern(10)));
}

#[tokio::test]
async fn a_date_allows_no_part_where_codings_share_it() {
    let modified = "Wed, 21 Oct 2015 07:28:00 GMT";
    let origin = Origin::serving(page().field("Last-Modified", modified));
    let edge = plan(&origin).start();
    coded(&edge, "/a", "br").await;
    for (accept, length) in [("identity", Some(LENGTH)), ("br", None)] {
        let fields = [("Accept-Encoding", accept), ("Range", "bytes=0-9"), ("If-Range", modified)];
        let answer = edge.get_with("/a", &fields).await;
        assert_eq!(answer.status(), 200, "{accept}");
        assert!(length.is_none_or(|length| length == answer.body.len()));
    }
}

#[tokio::test]
async fn each_copy_is_confirmed_by_its_own_tag() {
    let origin = Origin::serving(page());
    let edge = plan(&origin).start();
    let own = tag(&coded(&edge, "/a", "br").await);
    let other_print = "\"1-br.0123456789abcdef\"";
    for (accept, none_match, status, expected) in [
        ("br", &*own, 304, &*own),
        ("br", "\"1\"", 304, "\"1\""),
        ("br", other_print, 304, other_print),
        ("br, gzip", &*own, 304, &*own),
        ("br", "*", 304, &*own),
        ("identity", "*", 304, "\"1\""),
        ("gzip", &*own, 200, "\"1\""),
        ("br", "\"2\"", 200, &*own),
        ("br", "\"2-br.0123456789abcdef\"", 200, &*own),
        ("br", "\"1-br\"", 200, &*own),
    ] {
        let fields = [("Accept-Encoding", accept), ("If-None-Match", none_match)];
        let answer = edge.get_with("/a", &fields).await;
        assert_eq!(answer.status(), status, "{accept} {none_match}");
        assert_eq!(answer.field("etag"), Some(expected), "{accept} {none_match}");
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
        if status == 304 {
            assert_eq!(answer.field("content-encoding"), None);
        }
    }
}

#[tokio::test]
async fn the_origin_is_asked_in_its_own_words() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        _ if seen.method == "PUT" => Reply::new(204),
        Some("\"1\"") => Reply::new(304).field("ETag", "\"1\""),
        _ => page().without("Cache-Control").field("Cache-Control", "private"),
    });
    let edge = plan(&origin).start();
    let tag = "\"1-br.0123456789abcdef\"";
    // The key is remembered as uncacheable, so that the second request is passed on.
    edge.fill("/a").await;
    let fields = [("Accept-Encoding", "br"), ("If-None-Match", tag)];
    let answer = edge.get_with("/a", &fields).await;
    assert_eq!((answer.status(), answer.field("etag")), (304, Some(tag)));
    let seen = origin.last("/a").await;
    assert_eq!(seen.field("if-none-match"), Some("\"1\""));
    assert_eq!(seen.field("accept-encoding"), Some("br"), "what is not stored the origin codes");
    let put = edge.ask("PUT", HOST, "/a", &[("If-Match", tag), ("Content-Length", "0")]).await;
    assert_eq!(put.status(), 204);
    assert_eq!(origin.last("/a").await.field("if-match"), Some("\"1\""));
    let part = [("Range", "bytes=0-1"), ("If-Range", tag)];
    edge.get_with("/a", &part).await;
    assert_eq!(origin.last("/a").await.field("if-range"), Some(tag), "of other bytes no part");
}

#[tokio::test]
async fn purges_of_every_kind_kill_the_siblings() {
    let origin = Origin::start(|seen| {
        let body = format!("{}{}", seen.nth, "x".repeat(LENGTH));
        Reply::fresh(body).field("Content-Type", "text/html").field("Surrogate-Key", "t")
    });
    let edge = plan(&origin).start();
    edge.fill("/a").await;
    for (round, purge) in [
        (1, json!({ "tags": ["t"] })),
        (2, json!({ "urls": [format!("http://{HOST}/a")] })),
        (3, json!({ "all": true })),
    ] {
        accepting(&edge, "/a", "br").await;
        came_to(&edge, "br", "made", f64::from(round)).await;
        let answer = accepting(&edge, "/a", "br").await;
        let text = decode("br", &answer.body);
        assert!(text.starts_with(format!("{round}x").as_bytes()), "round {round}: an old copy");
        edge.purge(purge).await;
        let after = accepting(&edge, "/a", "br").await;
        assert!(after.says("fwd=uri-miss"), "{}", after.cache());
        assert_eq!(after.field("content-encoding"), None);
        assert!(after.text().starts_with(&format!("{}x", round + 1)));
        edge.settled().await;
    }
}

#[tokio::test]
async fn a_confirmed_response_keeps_its_siblings() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        None => Reply::stale(pattern(LENGTH), "\"1\"")
            .field("Content-Type", "text/html")
            .without("Cache-Control")
            .field("Cache-Control", "max-age=101, stale-while-revalidate=1000"),
        Some("\"1\"") => Reply::not_modified(),
        Some(other) => panic!("asked about {other}"),
    });
    let edge = plan(&origin).start();
    let before = coded(&edge, "/a", "br").await;
    edge.purge(json!({ "all": true, "mode": "soft" })).await;
    // Stale, and refreshed behind it: the copy still serves.
    let stale = accepting(&edge, "/a", "br").await;
    assert_eq!(stale.body, before.body);
    origin.seen("/a", 2).await;
    edge.settled().await;
    let after = accepting(&edge, "/a", "br").await;
    assert!(after.says("hit"), "{}", after.cache());
    assert_eq!((tag(&after), &after.body), (tag(&before), &before.body));
    came_to(&edge, "br", "made", 1.0).await;
}

#[tokio::test]
async fn a_client_that_waits_for_the_origins_word_is_told_of_its_own_copy() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        None => Reply::stale(pattern(LENGTH), "\"1\"").field("Content-Type", "text/html"),
        Some(_) => Reply::not_modified().field("ETag", "\"1\""),
    });
    let edge = plan(&origin).start();
    edge.fill("/a").await;
    let tag = "\"1-br.0123456789abcdef\"";
    let fields = [("Accept-Encoding", "br"), ("If-None-Match", tag)];
    let answer = edge.fill_with("/a", &fields).await;
    assert!(answer.says("fwd=stale"), "{}", answer.cache());
    assert_eq!((answer.status(), answer.field("etag")), (304, Some(tag)));
    assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
    assert_eq!(origin.last("/a").await.field("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn a_304_that_forbids_to_transform_ends_the_coding() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        None => page(),
        Some(_) => Reply::new(304).field("Cache-Control", "max-age=60, no-transform"),
    });
    let edge = plan(&origin).start();
    coded(&edge, "/a", "br").await;
    edge.purge(json!({ "all": true, "mode": "soft" })).await;
    edge.fill("/a").await.expect(200, std::str::from_utf8(&pattern(LENGTH)).unwrap(), "fwd=stale");
    let after = accepting(&edge, "/a", "br").await;
    assert_eq!((after.field("content-encoding"), after.field("vary")), (None, None));
}

#[tokio::test]
async fn variants_have_siblings_of_their_own() {
    let origin = Origin::start(|seen| {
        let language = seen.field("accept-language").unwrap_or("none");
        Reply::fresh(language.repeat(5000))
            .field("Content-Type", "text/html")
            .field("Vary", "Accept-Language")
    });
    let edge = plan(&origin).start();
    let mut made = 0.0;
    for language in ["de", "fr"] {
        let fields = [("Accept-Language", language), ("Accept-Encoding", "br")];
        let first = edge.fill_with("/a", &fields).await;
        assert_eq!(first.field("vary"), Some("Accept-Language, Accept-Encoding"));
        edge.get_with("/a", &fields).await;
        made += 1.0;
        came_to(&edge, "br", "made", made).await;
    }
    for language in ["de", "fr"] {
        let fields = [("Accept-Language", language), ("Accept-Encoding", "br")];
        let answer = edge.get_with("/a", &fields).await;
        assert_eq!(answer.field("content-encoding"), Some("br"));
        assert_eq!(decode("br", &answer.body), language.repeat(5000).into_bytes());
        assert_eq!(answer.field("vary"), Some("Accept-Language, Accept-Encoding"));
    }
    assert_eq!(origin.requests(), 2, "our own Vary makes no variants");
}

#[tokio::test]
async fn a_user_with_authorization_gets_no_copy_of_what_strangers_saw() {
    let origin = Origin::start(|seen| match seen.field("authorization") {
        None => page(),
        Some(_) => Reply::ok("yours alone").field("Cache-Control", "private"),
    });
    let edge = plan(&origin).start();
    coded(&edge, "/a", "br").await;
    let fields = [("Authorization", "Basic x"), ("Accept-Encoding", "br")];
    let answer = edge.get_with("/a", &fields).await;
    assert_eq!((answer.status(), answer.text()), (200, "yours alone"));
}

#[tokio::test]
async fn head_has_the_fields_of_the_coding() {
    let origin = Origin::serving(page());
    let edge = plan(&origin).start();
    let get = coded(&edge, "/a", "br").await;
    let head = edge.ask("HEAD", HOST, "/a", &[("Accept-Encoding", "br")]).await;
    let length = get.body.len().to_string();
    assert_eq!((head.status(), head.field("content-length")), (200, Some(&*length)));
    assert_eq!(head.field("content-encoding"), Some("br"));
    assert_eq!(tag(&head), tag(&get));
    let head = edge.ask("HEAD", HOST, "/a", &[]).await;
    assert_eq!(head.field("content-length"), Some(&*LENGTH.to_string()));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn over_http2_and_large() {
    let body = pattern(3_000_000);
    let origin = Origin::serving(Reply::fresh(&body).field("Content-Type", "application/json"));
    let edge = plan(&origin).tls(&[]).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let accept = [("accept-encoding", "gzip, br, zstd")];
    let first = client.get("/a", &accept).await;
    assert_eq!(
        (first.field("content-encoding"), first.field("vary")),
        (None, Some("Accept-Encoding"))
    );
    edge.settled().await;
    client.get("/a", &accept).await;
    came_to(&edge, "zstd", "made", 1.0).await;
    let answer = client.get("/a", &accept).await;
    assert_eq!(answer.field("content-encoding"), Some("zstd"));
    assert!(decode("zstd", &answer.body) == body);
    let head = client.whole("HEAD", "/a", &accept, None).await.unwrap();
    assert_eq!(head.field("content-length"), Some(&*answer.body.len().to_string()));
}

#[tokio::test]
async fn what_is_still_arriving_goes_as_it_comes() {
    let gate = Gate::new();
    let body = pattern(LENGTH);
    let pieces = vec![Piece::data(&body[..9000]), Piece::gate(&gate), Piece::data(&body[9000..])];
    let reply = page().chunked(pieces);
    let origin = Origin::serving(reply);
    let edge = plan(&origin).start();
    let mut connection = edge.connect().await;
    connection.ask(HOST, "/a", &[("Accept-Encoding", "br")]).await;
    let head = connection.head("GET").await;
    assert_eq!(
        (head.field("content-encoding"), head.field("vary")),
        (None, Some("Accept-Encoding"))
    );
    gate.open();
    let (whole, _) = connection.rest().await;
    assert_eq!(whole, body);
    edge.settled().await;
    let answer = coded(&edge, "/a", "br").await;
    assert_eq!(decode("br", &answer.body), body);
}

#[tokio::test]
async fn a_broken_fill_leaves_nothing_to_code() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => page().sized(LENGTH, vec![Piece::data(&pattern(LENGTH)[..9000]), Piece::Close]),
        _ => page(),
    });
    let edge = plan(&origin).start();
    let broken = accepting(&edge, "/a", "br").await;
    assert_eq!(broken.ended, Ended::CutOff);
    edge.settled().await;
    let answer = coded(&edge, "/a", "br").await;
    assert_eq!(decode("br", &answer.body), pattern(LENGTH));
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_full_queue_is_counted_and_asked_again() {
    // Big enough to keep the coder busy while the others come.
    let origin =
        Origin::serving(Reply::fresh(pattern(200_000)).field("Content-Type", "text/plain"));
    let edge = plan(&origin).limits("coding_jobs = 1").start();
    let targets: Vec<String> = (0..6).map(|number| format!("/{number}")).collect();
    for target in &targets {
        edge.fill(target).await;
    }
    let plain = edge.plain();
    let asked = targets.clone().into_iter().map(|target| async move {
        let mut connection = Connection::open(plain).await;
        connection.get(HOST, &target, &[("Accept-Encoding", "br")]).await
    });
    for answer in side_by_side(asked).await {
        assert_eq!((answer.status(), answer.body.len()), (200, 200_000));
    }
    let full = "atoll_codings_total{coding=\"br\",outcome=\"queue-full\"}";
    assert!(edge.metric(full).await >= 1.0, "six jobs found room for two");
    for target in &targets {
        until("each to be coded in the end", || async {
            accepting(&edge, target, "br").await.field("content-encoding") == Some("br")
        })
        .await;
    }
}
