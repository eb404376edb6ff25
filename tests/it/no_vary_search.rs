//! Answers that are as good for other queries than the one that brought them.

use serde_json::json;

use crate::support::edge::HOST;
use crate::support::{Edge, Gate, Origin, Reply};

/// Fresh, numbered over all queries, with this rule.
fn ruled(rule: &'static str) -> Origin {
    let count = std::sync::atomic::AtomicUsize::new(0);
    Origin::start(move |seen| {
        let nth = 1 + count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        match &*seen.method {
            "GET" => Reply::fresh(format!("v{nth}")).field("No-Vary-Search", rule),
            _ => Reply::new(204),
        }
    })
}

const CAMPAIGNS: &str = "params=(\"utm_source\" \"utm_medium\")";

#[tokio::test]
async fn a_query_that_differs_in_nothing_that_matters_is_a_hit() {
    let origin = ruled(CAMPAIGNS);
    let edge = Edge::start(&origin);
    edge.fill("/a?id=1").await.expect(200, "v1", "fwd=uri-miss");
    for target in ["/a?utm_source=x&id=1", "/a?id=1&utm_medium", "/a?id=%31&&", "/a?id=1"] {
        edge.get(target).await.expect(200, "v1", "hit");
    }
    assert_eq!(edge.ask("HEAD", HOST, "/a?id=1&utm_source=y", &[]).await.status(), 200);
    let part = edge.get_with("/a?id=1&utm_source=z", &[("Range", "bytes=1-1")]).await;
    assert_eq!((part.status(), part.text()), (206, "1"));
    assert_eq!(origin.requests(), 1);
    for target in ["/a?id=2", "/a", "/a?id=1&x", "/b?id=1&utm_source=x"] {
        assert!(!edge.fill(target).await.says("hit"), "{target}");
    }
    let other = edge.ask("GET", "other.test", "/a?id=1&utm_source=x", &[]).await;
    assert!(!other.says("hit"), "{other:?}");
    assert_eq!(origin.requests(), 6);
    // What came last for what matters is what is used.
    edge.get("/a?utm_source=x&id=2").await.expect(200, "v2", "hit");
}

#[tokio::test]
async fn order_and_everything_may_not_matter_and_a_broken_rule_is_none() {
    let rows: [(&'static str, &str, bool); 6] = [
        ("key-order", "/a?b=2&a=1", true),
        ("key-order", "/a?b=2&a=2", false),
        ("params", "/a", true),
        ("params, except=(\"a\")", "/a?a=1", true),
        ("params, except=(\"a\")", "/a?b=2", false),
        ("params=(\"b\"", "/a?a=1", false),
    ];
    for (rule, target, hit) in rows {
        let edge = {
            let origin = ruled(rule);
            let edge = Edge::start(&origin);
            edge.fill("/a?a=1&b=2").await;
            assert_eq!(edge.get(target).await.says("hit"), hit, "{rule} {target}");
            edge
        };
        drop(edge);
    }
}

/// A purge of what the client asks for counts, and one of what is stored; long after, too.
#[tokio::test]
async fn what_a_purge_killed_under_either_url_is_not_used() {
    let both = ["/a?id=1&utm_source=x", "/a?id=1"];
    for purged in both {
        let origin = ruled(CAMPAIGNS);
        let edge = Edge::start(&origin);
        edge.fill("/a?id=1").await;
        edge.get(both[0]).await.expect(200, "v1", "hit");
        edge.purge_path(purged).await;
        // Its row goes when all that is stored has been checked against it.
        edge.metric_becomes("atoll_purge_rows", 0.0).await;
        edge.fill(both[0]).await.expect(200, "v2", "fwd=uri-miss");
        edge.get(both[0]).await.expect(200, "v2", "hit");
        // A third URL finds the newest.
        edge.get("/a?id=1&utm_source=third").await.expect(200, "v2", "hit");
    }
    for selector in [json!({ "all": true, "site": "main" }), json!({ "all": true })] {
        let origin = ruled(CAMPAIGNS);
        let edge = Edge::start(&origin);
        edge.fill("/a?id=1").await;
        edge.purge(selector.clone()).await;
        edge.metric_becomes("atoll_purge_rows", 0.0).await;
        assert!(!edge.fill(both[0]).await.says("hit"), "{selector}");
    }
    let origin = ruled(CAMPAIGNS);
    let edge = Edge::start(&origin);
    edge.fill("/a?id=1").await;
    edge.purge(json!({ "urls": [format!("http://{HOST}{}", both[0])], "mode": "soft" })).await;
    assert!(!edge.fill(both[0]).await.says("hit"), "stale under that name");
    edge.get("/a?id=1").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn a_change_of_the_asked_url_ends_the_use_of_another_for_it() {
    let origin = ruled("params");
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.get("/a?x=1").await.expect(200, "v1", "hit");
    edge.ask("DELETE", HOST, "/a?x=1", &[]).await;
    edge.fill("/a?x=1").await.expect(200, "v3", "fwd=uri-miss");
    edge.get("/a").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn a_fill_that_a_change_of_another_url_overtook_is_not_used_for_that() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match (&*seen.method, &*seen.target) {
        ("GET", "/a") => Reply::fresh("old").field("No-Vary-Search", "params").gate(&held),
        ("GET", _) => Reply::fresh("new").field("No-Vary-Search", "params"),
        _ => Reply::new(204),
    });
    let edge = Edge::start(&origin);
    let mut first = edge.connect().await;
    first.ask(HOST, "/a", &[]).await;
    gate.reached(1).await;
    edge.ask("DELETE", HOST, "/a?x=1", &[]).await;
    gate.open();
    first.response("GET").await;
    edge.settled().await;
    edge.get("/a?x=2").await.expect(200, "old", "hit");
    edge.fill("/a?x=1").await.expect(200, "new", "fwd=uri-miss");
}

#[tokio::test]
async fn what_one_user_got_is_not_used_for_another() {
    let origin = Origin::start(|seen| {
        let user = seen.field("x-user").or(seen.field("authorization")).unwrap_or("nobody");
        let reply = Reply::ok(user).field("No-Vary-Search", "params");
        match &*seen.target {
            target if target.starts_with("/vary") => {
                reply.field("Cache-Control", "max-age=60").field("Vary", "X-User")
            }
            target if target.starts_with("/private") => reply.field("Cache-Control", "private"),
            _ => reply.field("Cache-Control", "max-age=60"),
        }
    });
    let edge = Edge::start(&origin);
    for path in ["/vary", "/private"] {
        edge.fill_with(path, &[("X-User", "one")]).await;
        let answer = edge.fill_with(&format!("{path}?x"), &[("X-User", "two")]).await;
        assert_eq!(answer.text(), "two", "{path}");
    }
    edge.get_with("/vary?y", &[("X-User", "one")]).await.expect(200, "one", "hit");
    // What strangers were shown is not for who shows a secret, and the other way round.
    edge.fill("/plain").await;
    let secret = [("Authorization", "Basic eDp5")];
    assert_eq!(edge.fill_with("/plain?x", &secret).await.text(), "Basic eDp5");
    edge.get("/plain?x").await.expect(200, "nobody", "hit");
}

#[tokio::test]
async fn what_is_stale_is_asked_for_under_the_name_that_the_client_used() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/a" => Reply::stale("old", "\"1\"").field("No-Vary-Search", "params"),
        _ => Reply::fresh("new").field("No-Vary-Search", "params"),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/a?x").await.expect(200, "new", "fwd=uri-miss");
    let seen = origin.seen("/a?x", 1).await;
    assert_eq!(seen[0].field("if-none-match"), None, "it is another URL's validator");
    edge.get("/a?y").await.expect(200, "new", "hit");
    // What is stored under the name itself goes first, whatever is fresher elsewhere.
    edge.get("/a").await.expect(200, "old", "fwd=stale");
}

#[tokio::test]
async fn a_window_is_used_and_the_refresh_goes_by_the_asked_name() {
    let origin = Origin::start(|seen| {
        let reply =
            Reply::ok(format!("{} {}", seen.target, seen.nth)).field("No-Vary-Search", "params");
        match &*seen.target {
            "/a" => reply
                .field("Cache-Control", "max-age=60, stale-while-revalidate=600")
                .field("Age", "100"),
            _ => reply.field("Cache-Control", "max-age=60"),
        }
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/a?x").await.expect(200, "/a 1", "hit");
    origin.seen("/a?x", 1).await;
    edge.settled().await;
    edge.get("/a?y").await.expect(200, "/a?x 1", "hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn the_key_policy_comes_first() {
    let origin = ruled("params=(\"b\")");
    let edge = Edge::before(&origin).site("key_query = { without = [\"a\"] }").start();
    edge.fill("/x?a=1&b=1&c=1").await.expect(200, "v1", "fwd=uri-miss");
    assert_eq!(origin.count("/x?b=1&c=1"), 1);
    edge.get("/x?c=1&a=7").await.expect(200, "v1", "hit");
    edge.fill("/x?a=1&b=1").await.expect(200, "v2", "fwd=uri-miss");
}
