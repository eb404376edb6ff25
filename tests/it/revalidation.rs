//! Asking the origin whether what is stored still holds.

use crate::support::edge::HOST;
use crate::support::{Edge, Gate, Origin, Reply};

#[tokio::test]
async fn a_304_freshens_what_is_stored() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        None => Reply::stale("v1", "\"1\"").field("X-Old", "1").field("X-Both", "old"),
        Some(_) => Reply::not_modified().field("X-Both", "new"),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
    let second = edge.fill("/a").await;
    second.expect(200, "v1", "fwd=stale").expect(200, "v1", "fwd-status=304");
    let hit = edge.get("/a").await;
    hit.expect(200, "v1", "hit");
    assert_eq!((hit.field("x-old"), hit.field("x-both")), (Some("1"), Some("new")));
    let seen = origin.seen("/a", 2).await;
    assert_eq!(seen[1].field("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn a_200_takes_the_place_of_what_is_stored() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => Reply::stale("v1", "\"1\""),
        _ => Reply::fresh("v2").field("ETag", "\"2\""),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
    edge.fill("/a").await.expect(200, "v2", "fwd=stale");
    edge.get("/a").await.expect(200, "v2", "hit");
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn last_modified_is_a_validator_too() {
    let modified = "Wed, 21 Oct 2015 07:28:00 GMT";
    let origin = Origin::start(move |seen| match seen.field("if-modified-since") {
        Some(since) if since == modified => Reply::not_modified(),
        _ => Reply::fresh("v1").field("Age", "100").field("Last-Modified", modified),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/a").await.expect(200, "v1", "fwd-status=304");
    edge.get("/a").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn a_304_for_something_else_is_asked_again_without_conditions() {
    let origin = Origin::start(|seen| match (seen.nth, seen.field("if-none-match")) {
        (1, _) => Reply::stale("v1", "\"1\""),
        (_, Some(_)) => Reply::not_modified().field("ETag", "\"2\""),
        (_, None) => Reply::fresh("v2").field("ETag", "\"2\""),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/a").await.expect(200, "v2", "fwd=stale");
    edge.get("/a").await.expect(200, "v2", "hit");
    assert_eq!(origin.count("/a"), 3);
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_a_bad_answer() {
    let origin = Origin::start(|seen| match (&*seen.target, seen.nth) {
        ("/b", 1) => Reply::stale("v1", "\"1\""),
        _ => Reply::not_modified().field("ETag", "\"2\""),
    });
    let edge = Edge::start(&origin);
    assert_eq!(edge.fill("/a").await.status(), 502);
    edge.fill("/b").await;
    assert_eq!(edge.fill("/b").await.status(), 502, "twice a 304 for something else");
}

#[tokio::test]
async fn a_304_that_forbids_storing_ends_what_was_stored() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        Some(_) => Reply::new(304).field("Cache-Control", "private"),
        None => Reply::stale(format!("v{}", seen.nth), "\"1\""),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
    assert_eq!(edge.fill("/a").await.text(), "v1");
    assert_eq!(edge.fill("/a").await.text(), "v3", "nothing is left to ask about");
}

#[tokio::test]
async fn no_cache_is_confirmed_on_each_use() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        Some(_) => Reply::new(304),
        None => Reply::ok("v1").field("Cache-Control", "no-cache").field("ETag", "\"1\""),
    });
    let edge = Edge::start(&origin);
    for round in 1..=3 {
        let answer = edge.fill("/a").await;
        assert_eq!((answer.text(), origin.count("/a")), ("v1", round));
        assert_eq!(answer.says("fwd-status=304"), round > 1, "{}", answer.cache());
    }
}

/// F26
#[tokio::test]
async fn a_cookie_that_comes_with_a_304_reaches_one_client() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        None => Reply::stale("v1", "\"1\"").field("X-Hello", "everybody"),
        Some(_) => Reply::not_modified().field("Set-Cookie", "a=ann").field("X-Hello", "ann"),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let own = edge.fill("/a").await;
    own.expect(200, "v1", "fwd-status=304");
    assert_eq!(own.field("set-cookie"), Some("a=ann"));
    let hit = edge.get("/a").await;
    hit.expect(200, "v1", "hit");
    assert_eq!((hit.field("set-cookie"), hit.field("x-hello")), (None, Some("everybody")));
}

/// A HEAD can freshen what has no validator, but only if it may be shared by its own words.
#[tokio::test]
async fn a_silent_head_brings_others_nothing_of_its_own() {
    let origin = Origin::start(|seen| match (&*seen.method, &*seen.target) {
        ("HEAD", "/silent") => Reply::ok("v1").field("X-Hello", "ann"),
        ("HEAD", _) => Reply::fresh("v1").field("X-Hello", "everybody"),
        _ => Reply::fresh(format!("v{}", seen.nth))
            .field("Age", "100")
            .field("Cache-Control", "public, stale-if-error=600"),
    });
    let edge = Edge::start(&origin);
    for (target, cache) in [("/silent", "fwd=stale"), ("/open", "hit")] {
        edge.fill(target).await;
        let own = edge.ask("HEAD", HOST, target, &[]).await;
        assert!(own.says("fwd=stale"), "{}", own.cache());
        let next = edge.fill(target).await;
        assert!(next.field("x-hello") != Some("ann"), "{next:?}");
        assert!(next.says(cache), "{target} {}", next.cache());
    }
}

#[tokio::test]
async fn a_head_that_forbids_sharing_ends_what_is_stored() {
    let origin = Origin::start(|seen| match &*seen.method {
        "HEAD" => Reply::ok("v1").field("ETag", "\"1\"").field("Cache-Control", "private"),
        _ => Reply::stale(format!("v{}", seen.nth), "\"1\""),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
    edge.ask("HEAD", HOST, "/a", &[]).await;
    edge.fill("/a").await.expect(200, "v3", "fwd=uri-miss");
}

#[tokio::test]
async fn a_client_that_has_it_gets_304_after_the_origin_confirmed() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        Some("\"1\"") => Reply::not_modified(),
        _ => Reply::stale("v1", "\"1\""),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let answer = edge.fill_with("/a", &[("If-None-Match", "\"1\"")]).await;
    answer.expect(304, "", "fwd=stale");
    edge.get("/a").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn conditions_of_clients_do_not_shape_what_is_stored() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        Some(_) => Reply::new(304),
        None => Reply::fresh("v1").field("ETag", "\"1\""),
    });
    let edge = Edge::start(&origin);
    let answer = edge.fill_with("/a", &[("If-None-Match", "\"1\"")]).await;
    assert_eq!(answer.status(), 304, "{answer:?}");
    edge.get("/a").await.expect(200, "v1", "hit");
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn preconditions_for_changes_go_to_the_origin() {
    let origin = Origin::start(|seen| match seen.field("if-match") {
        Some("\"old\"") => Reply::new(412),
        _ => Reply::fresh("v1").field("ETag", "\"1\""),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    assert_eq!(edge.ask("GET", HOST, "/a", &[("If-Match", "\"old\"")]).await.status(), 412);
    edge.get("/a").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn a_head_with_credentials_says_nothing_about_what_is_everybodys() {
    let origin = Origin::start(|seen| match seen.field("authorization") {
        Some(_) => Reply::ok("mine, and longer").field("ETag", "\"mine\""),
        None => Reply::fresh("everybody's").field("ETag", "\"1\""),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let head = edge.ask("HEAD", HOST, "/a", &[("Authorization", "Basic YTpi")]).await;
    assert_eq!(head.field("etag"), Some("\"mine\""));
    edge.get("/a").await.expect(200, "everybody's", "hit");
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn where_policy_says_so_the_origin_judges_conditions_that_nothing_stored_can() {
    let tagged = |text: String| Reply::fresh(text).field("ETag", "\"1\"");
    let origin = Origin::start(move |seen| match (&*seen.target, seen.field("if-none-match")) {
        ("/ignores", _) => tagged(format!("v{}", seen.nth)),
        (_, Some("\"1\"")) => Reply::not_modified().field("Set-Cookie", "own=1"),
        ("/no-validator", _) => Reply::fresh("v"),
        _ => tagged(format!("v{}", seen.nth)),
    });
    let edge = Edge::before(&origin).site("forward_conditions = true").start();
    let known = [("If-None-Match", "\"1\"")];
    // A 304 is the answer to the one that asked, and nothing is kept of it.
    let own = edge.fill_with("/a", &known).await;
    own.expect(304, "", "detail=condition");
    assert_eq!(own.field("set-cookie"), Some("own=1"));
    let first = edge.fill("/a").await;
    first.expect(200, "v2", "fwd=uri-miss");
    assert_eq!(first.field("set-cookie"), None);
    // What is stored judges for itself.
    edge.get_with("/a", &known).await.expect(304, "", "hit");
    assert_eq!(origin.count("/a"), 2);
    // A whole answer is everybody's.
    edge.fill_with("/b", &[("If-None-Match", "\"0\"")]).await.expect(200, "v1", "stored");
    edge.get("/b").await.expect(200, "v1", "hit");
    assert_eq!(origin.seen("/b", 1).await[0].field("if-none-match"), Some("\"0\""));
    // The origin has judged; the edge does not judge again.
    edge.fill_with("/ignores", &known).await.expect(200, "v1", "stored");
    // Nothing to ask by: the client's condition is as good as none.
    edge.fill("/no-validator").await;
    edge.purge(serde_json::json!({"all": true, "mode": "soft"})).await;
    edge.fill_with("/no-validator", &known).await.expect(304, "", "detail=condition");
    // A purge is a purge.
    edge.purge_path("/a").await;
    edge.fill_with("/a", &known).await.expect(304, "", "detail=condition");
    edge.fill("/a").await.expect(200, "v4", "fwd=uri-miss");
}

#[tokio::test]
async fn who_waits_with_a_client_that_gets_304_asks_anew() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.field("if-none-match") {
        Some(_) => Reply::not_modified().gate(&held),
        None => Reply::fresh("v1").field("ETag", "\"1\""),
    });
    let edge = Edge::before(&origin).site("forward_conditions = true").start();
    let known = [("If-None-Match", "\"1\"")];
    let ((), one, other) = tokio::join!(
        async {
            edge.metric_becomes("atoll_collapsed_total", 1.0).await;
            gate.open();
        },
        edge.get_with("/a", &known),
        async {
            origin.seen("/a", 1).await;
            edge.get("/a").await
        },
    );
    one.expect(304, "", "fwd=uri-miss");
    other.expect(200, "v1", "fwd=uri-miss");
}
