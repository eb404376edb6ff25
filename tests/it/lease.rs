//! A node that may have missed purges: without a lease an answer holds only what the origin confirmed
//! or sent to a request that left after this one had come.

mod position;
mod together;

use std::time::Duration;

use crate::support::edge::HOST;
use crate::support::origin::Seen;
use crate::support::{Edge, File, H2, Origin, Reply, Response, Version, pattern, until};

const ASKED: &str = "atoll_without_lease_total{site=\"main\",without_lease=\"revalidate\"}";

/// A resource with a validator that never changes.
fn steady(seen: &Seen) -> Reply {
    match seen.field("if-none-match") {
        Some("\"1\"") => Reply::not_modified().field("ETag", "\"1\""),
        _ => Reply::fresh("v1").field("ETag", "\"1\""),
    }
}

/// A resource that is another one each time.
fn changing(seen: &Seen) -> Reply {
    Reply::fresh(format!("v{}", seen.nth)).field("ETag", &format!("\"{}\"", seen.nth))
}

fn is_an_error(answer: &Response) -> bool {
    matches!(answer.status(), 502..=504)
}

#[tokio::test]
async fn a_fresh_response_is_confirmed_first_until_the_lease_is_back() {
    let origin = Origin::start(steady);
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "v1", "stored");
    edge.get("/a").await.expect(200, "v1", "hit");
    edge.no_lease();
    for count in 2..4 {
        let answer = edge.fill("/a").await;
        answer.expect(200, "v1", "fwd=stale").expect(200, "v1", "fwd-status=304");
        answer.expect(200, "v1", "detail=no-lease");
        assert_eq!(origin.count("/a"), count);
    }
    assert_eq!(edge.metric(ASKED).await, 2.0);
    edge.lease();
    edge.get("/a").await.expect(200, "v1", "hit");
    assert_eq!((origin.count("/a"), edge.metric(ASKED).await), (3, 2.0));
}

#[tokio::test]
async fn what_the_origin_has_meanwhile_is_the_answer() {
    let origin = Origin::start(changing);
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.no_lease();
    edge.fill("/a").await.expect(200, "v2", "fwd=stale");
    edge.fill("/b").await.expect(200, "v1", "fwd=uri-miss").expect(200, "v1", "detail=no-lease");
    edge.lease();
    edge.get("/a").await.expect(200, "v2", "hit");
}

#[tokio::test]
async fn a_lease_runs_out_by_itself() {
    let origin = Origin::start(steady);
    let edge = Edge::start(&origin);
    edge.lease();
    edge.fill("/a").await;
    edge.get("/a").await.expect(200, "v1", "hit");
    edge.lease_for(Duration::from_millis(300));
    until("the lease to run out", || async { edge.fill("/a").await.says("detail=no-lease") }).await;
    assert!(origin.count("/a") >= 2);
}

#[tokio::test]
async fn an_origin_that_is_silent_leaves_an_error_and_nothing_stale() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/fresh" => Reply::fresh("v1").field("ETag", "\"1\""),
        "/plain" => Reply::fresh("v1"),
        "/while" => {
            Reply::stale("v1", "\"1\"").field("Cache-Control", "stale-while-revalidate=600")
        }
        _ => Reply::stale("v1", "\"1\"").field("Cache-Control", "stale-if-error=600"),
    });
    let edge = Edge::start(&origin);
    let targets = ["/fresh", "/plain", "/while", "/error"];
    for target in targets {
        edge.fill(target).await.expect(200, "v1", "stored");
    }
    origin.stop().await;
    edge.get("/error").await.expect(200, "v1", "detail=stale-if-error");
    edge.no_lease();
    let conditions: [&[(&str, &str)]; 3] =
        [&[], &[("If-None-Match", "\"1\"")], &[("Range", "bytes=0-0")]];
    for target in targets {
        for fields in conditions {
            let answer = edge.get_with(target, fields).await;
            assert!(is_an_error(&answer), "{target} {fields:?}: {answer:?}");
        }
        let answer = edge.ask("HEAD", HOST, target, &[]).await;
        assert!(is_an_error(&answer), "HEAD {target}: {answer:?}");
        let cached = edge.get_with(target, &[("Cache-Control", "only-if-cached")]).await;
        assert_eq!(cached.status(), 504, "{target}");
    }
    edge.lease();
    edge.get("/fresh").await.expect(200, "v1", "hit");
    edge.get("/error").await.expect(200, "v1", "detail=stale-if-error");
}

#[tokio::test]
async fn errors_of_the_origin_are_shown_and_not_bridged() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => Reply::stale("v1", "\"1\"").field("Cache-Control", "stale-if-error=600"),
        _ => Reply::new(500).body("oh"),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/a").await.expect(200, "v1", "detail=stale-if-error");
    edge.no_lease();
    assert_eq!(edge.fill("/a").await.status(), 500);
    assert_eq!(edge.get_with("/a", &[("Range", "bytes=0-0")]).await.status(), 500);
}

#[tokio::test]
async fn conditions_of_the_client_are_judged_by_what_the_origin_confirmed() {
    let origin = Origin::start(steady);
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.get_with("/a", &[("If-None-Match", "\"1\"")]).await.expect(304, "", "hit");
    edge.no_lease();
    let known = edge.fill_with("/a", &[("If-None-Match", "\"1\"")]).await;
    known.expect(304, "", "fwd=stale").expect(304, "", "fwd-status=304");
    edge.fill_with("/a", &[("If-None-Match", "\"0\"")]).await.expect(200, "v1", "fwd=stale");
    assert_eq!(origin.count("/a"), 3);
}

#[tokio::test]
async fn head_and_ranges_ask_the_origin_too() {
    let origin = Origin::start(|seen| match (&*seen.target, seen.field("if-none-match")) {
        ("/a", Some("\"1\"")) => Reply::not_modified(),
        ("/a", _) => Reply::fresh("0123456789").field("ETag", "\"1\""),
        _ => Reply::fresh(format!("012345678{}", seen.nth)),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/b").await;
    edge.no_lease();
    let part = edge.fill_with("/a", &[("Range", "bytes=2-4")]).await;
    part.expect(206, "234", "fwd=stale").expect(206, "234", "fwd-status=304");
    // Nothing to ask with: the range goes on as it came, and the origin sends what it has.
    let whole = edge.fill_with("/b", &[("Range", "bytes=9-9")]).await;
    assert_eq!((whole.status(), whole.text()), (200, "0123456782"));
    let seen = origin.seen("/b", 2).await;
    assert_eq!(seen[1].field("range"), Some("bytes=9-9"));
    assert!(!edge.ask("HEAD", HOST, "/a", &[]).await.says("hit"));
    assert_eq!(origin.count("/a"), 3);
}

#[tokio::test]
async fn incomplete_responses_are_not_used_unconfirmed() {
    let origin = Origin::start(|seen| {
        let all = pattern(1000);
        let whole = || Reply::fresh(&all).field("ETag", "\"1\"");
        match seen.field("range") {
            Some("bytes=0-499") => Reply::new(206)
                .body(&all[..500])
                .field("Cache-Control", "max-age=60")
                .field("Content-Range", "bytes 0-499/1000")
                .field("ETag", "\"1\""),
            _ => whole(),
        }
    });
    let edge = Edge::start(&origin);
    let first = [("Range", "bytes=0-499")];
    edge.fill_with("/a", &first).await;
    assert!(edge.get_with("/a", &first).await.says("hit"));
    edge.no_lease();
    for count in 2..4 {
        let answer = edge.fill_with("/a", &first).await;
        assert_eq!(answer.status(), 206);
        assert!(!answer.says("hit") && answer.says("detail=no-lease"), "{}", answer.cache());
        assert_eq!(origin.count("/a"), count);
    }
    origin.stop().await;
    assert!(is_an_error(&edge.get_with("/a", &first).await));
    edge.lease();
    assert!(edge.get_with("/a", &first).await.says("hit"));
}

#[tokio::test]
async fn coded_copies_are_not_used_unconfirmed() {
    let origin = Origin::start(|seen| {
        let body = || Reply::fresh(pattern(20_000)).field("Content-Type", "text/html");
        match seen.field("if-none-match") {
            Some("\"1\"") => Reply::not_modified().field("ETag", "\"1\""),
            _ => body().field("ETag", "\"1\""),
        }
    });
    let edge = Edge::before(&origin).site("compress = [\"gzip\"]").start();
    edge.fill("/a").await;
    let gzip = [("Accept-Encoding", "gzip")];
    edge.get_with("/a", &gzip).await;
    edge.metric_becomes("atoll_codings_total{coding=\"gzip\",outcome=\"made\"}", 1.0).await;
    let coded = edge.get_with("/a", &gzip).await;
    assert_eq!(coded.field("content-encoding"), Some("gzip"));
    let tag = coded.field("etag").unwrap();
    edge.no_lease();
    assert_eq!(origin.count("/a"), 1);
    let asked = edge.fill_with("/a", &gzip).await;
    assert!(asked.says("fwd-status=304") && asked.says("detail=no-lease"), "{}", asked.cache());
    let known = [("Accept-Encoding", "gzip"), ("If-None-Match", tag)];
    assert_eq!(edge.fill_with("/a", &known).await.status(), 304);
    assert_eq!(origin.count("/a"), 3);
    origin.stop().await;
    for fields in [&gzip[..], &known[..]] {
        assert!(is_an_error(&edge.get_with("/a", fields).await));
    }
}

#[tokio::test]
async fn what_another_query_brought_is_not_used() {
    let origin = Origin::start(|_| Reply::fresh("v1").field("No-Vary-Search", "params=(\"utm\")"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.get("/a?utm=1").await.expect(200, "v1", "hit");
    edge.no_lease();
    edge.fill("/a?utm=2").await.expect(200, "v1", "fwd=uri-miss");
    assert_eq!(origin.count("/a?utm=2"), 1);
}

#[tokio::test]
async fn segments_are_used_under_a_head_that_the_origin_confirmed() {
    let file = std::sync::Arc::new(File::new(Version::new(1 << 20, 1).field("ETag", "\"1\"")));
    let answers = std::sync::Arc::clone(&file);
    let origin = Origin::start(move |seen| answers.reply(seen));
    let edge = Edge::before(&origin).site("segment = \"256KiB\"").start();
    let range = [("Range", "bytes=0-9")];
    let bytes = |answer: &Response| answer.body.to_vec();
    edge.fill_with("/f", &range).await;
    assert!(edge.get_with("/f", &range).await.says("hit"));
    let before = origin.count("/f");
    edge.no_lease();
    let same = edge.fill_with("/f", &range).await;
    assert_eq!((same.status(), bytes(&same)), (206, file.version().bytes(0..=9)));
    assert!(!same.says("hit") && origin.count("/f") > before, "{}", same.cache());
    file.becomes(Version::new(1 << 20, 2).field("ETag", "\"2\""));
    let new = edge.fill_with("/f", &range).await;
    assert_eq!((new.status(), bytes(&new)), (206, file.version().bytes(0..=9)));
    origin.stop().await;
    assert!(is_an_error(&edge.get_with("/f", &range).await));
}

#[tokio::test]
async fn connections_that_were_there_before_are_judged_request_by_request() {
    let origin = Origin::start(steady);
    let edge = Edge::before(&origin).plain_h2().start();
    edge.fill("/a").await;
    let mut h2 = H2::plain(edge.plain(), HOST).await;
    let mut h1 = edge.connect().await;
    h2.get("/a", &[]).await.expect(200, "v1", "hit");
    h1.ask(HOST, "/a", &[]).await;
    h1.response("GET").await.expect(200, "v1", "hit");
    edge.no_lease();
    h2.get("/a", &[]).await.expect(200, "v1", "detail=no-lease");
    h1.ask(HOST, "/a", &[]).await;
    h1.response("GET").await.expect(200, "v1", "detail=no-lease");
    edge.settled().await;
    edge.lease();
    h2.get("/a", &[]).await.expect(200, "v1", "hit");
    h1.ask(HOST, "/a", &[]).await;
    h1.response("GET").await.expect(200, "v1", "hit");
    assert_eq!(origin.count("/a"), 3);
}

#[tokio::test]
async fn a_site_that_serves_on_stands_beside_one_that_does_not() {
    let origin = Origin::start(changing);
    let servers = [origin.address];
    let edge = Edge::before(&origin)
        .rule("/static", "without_lease = \"serve\"")
        .origin("other", &servers)
        .another_site(
            "name = \"serving\"\nhosts = [\"serving.test\"]\norigin = \"other\"\n\
             without_lease = \"serve\"",
        )
        .start();
    let serving = async |target: &str| edge.ask("GET", "serving.test", target, &[]).await;
    edge.fill("/a").await;
    edge.fill("/static/a").await;
    serving("/s").await;
    edge.settled().await;
    edge.no_lease();
    edge.fill("/a").await.expect(200, "v2", "detail=no-lease");
    edge.get("/static/a").await.expect(200, "v1", "hit").expect(200, "v1", "detail=no-lease");
    serving("/s").await.expect(200, "v1", "hit").expect(200, "v1", "detail=no-lease");
    let served = "atoll_without_lease_total{site=\"serving\",without_lease=\"serve\"}";
    assert_eq!((edge.metric(served).await, edge.metric(ASKED).await), (1.0, 1.0));
    edge.lease();
    let answer = serving("/s").await;
    assert!(answer.says("hit") && !answer.says("detail=no-lease"), "{}", answer.cache());
}

#[tokio::test]
async fn readiness_and_explanations_tell_of_it() {
    let origin = Origin::start(steady);
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let ready = async || edge.manage_as(None, "GET", "/readyz", None).await.status();
    let explain = async || {
        let asked = serde_json::json!({ "url": format!("http://{HOST}/a") });
        edge.manage("POST", "/v1/explain", Some(asked)).await.text().to_owned()
    };
    assert_eq!(ready().await, 200);
    edge.no_lease();
    assert_eq!(ready().await, 503);
    assert!(explain().await.contains("no-lease"));
    edge.lease();
    assert_eq!(ready().await, 200);
    assert!(!explain().await.contains("no-lease"));
}
