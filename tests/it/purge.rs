//! The second promise: never answer with what a purge has killed.
//!
//! The stories around fills hold the origin at a gate, purge, and open the gate: what was asked
//! for before the purge may be answered with the old, what is asked for after it never.

use serde_json::json;

use crate::support::edge::HOST;
use crate::support::{Connection, Edge, Ended, Gate, Origin, Piece, Reply, until};

/// Tagged `t`, fresh, numbered by request.
fn tagged(nth: usize) -> Reply {
    Reply::fresh(format!("v{nth}")).field("Surrogate-Key", "t other")
}

async fn ask(edge: &Edge) -> Connection {
    let mut client = edge.connect().await;
    client.ask(HOST, "/a", &[]).await;
    client
}

/// How the stories below purge: by each selector.
fn purges() -> [serde_json::Value; 7] {
    [
        json!({ "prefixes": [format!("{HOST}/")] }),
        json!({ "hosts": [HOST] }),
        json!({ "globs": [format!("{HOST}/a*")] }),
        json!({ "tags": ["t"] }),
        json!({ "urls": [format!("http://{HOST}/a")] }),
        json!({ "all": true, "site": "main" }),
        json!({ "all": true }),
    ]
}

#[tokio::test]
async fn a_purge_while_the_fill_waits_for_its_head() {
    for purge in purges() {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |seen| match seen.nth {
            1 => tagged(1).gate(&held),
            nth => tagged(nth),
        });
        let edge = Edge::start(&origin);
        let mut before = ask(&edge).await;
        gate.reached(1).await;
        edge.purge(purge.clone()).await;
        let mut after = ask(&edge).await;
        until("the second request", || async {
            edge.metric("atoll_client_requests_total{version=\"1\"}").await >= 2.0
        })
        .await;
        gate.open();
        let answer = before.response("GET").await;
        assert!(matches!(answer.text(), "v1" | "v2"), "{purge}: {answer:?}");
        assert_eq!(after.response("GET").await.text(), "v2", "{purge}");
        edge.settled().await;
        edge.get("/a").await.expect(200, "v2", "hit");
        assert_eq!(origin.requests(), 2, "{purge}");
    }
}

#[tokio::test]
async fn a_purge_while_the_fill_streams() {
    for purge in purges() {
        let gate = Gate::new();
        let pieces = vec![Piece::data("old "), Piece::gate(&gate), Piece::data("end")];
        let origin = Origin::start(move |seen| match seen.nth {
            1 => tagged(1).chunked(pieces.clone()),
            nth => tagged(nth),
        });
        let edge = Edge::start(&origin);
        let mut before = ask(&edge).await;
        before.head("GET").await;
        before.body_bytes(4).await;
        edge.purge(purge.clone()).await;
        // The old one is still arriving; who asks now gets a fill of their own, shared again.
        let new = edge.get("/a").await;
        assert_eq!((new.status(), new.text()), (200, "v2"), "{purge}");
        gate.open();
        assert_eq!(before.rest().await, ("end".into(), Ended::Clean), "begun before, not cut");
        edge.settled().await;
        edge.get("/a").await.expect(200, "v2", "hit");
        assert_eq!(origin.requests(), 2, "{purge}");
    }
}

#[tokio::test]
async fn a_purge_while_a_304_is_under_way() {
    for purge in purges() {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |seen| match (seen.nth, seen.field("if-none-match")) {
            (1, _) => Reply::stale("v1", "\"1\"").field("Surrogate-Key", "t"),
            (_, Some(_)) => Reply::not_modified().gate(&held),
            (_, None) => Reply::fresh("v2").field("ETag", "\"2\"").field("Surrogate-Key", "t"),
        });
        let edge = Edge::start(&origin);
        edge.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
        let mut before = ask(&edge).await;
        gate.reached(1).await;
        edge.purge(purge.clone()).await;
        let mut after = ask(&edge).await;
        until("the third request", || async {
            edge.metric("atoll_client_requests_total{version=\"1\"}").await >= 3.0
        })
        .await;
        gate.open();
        let answer = before.response("GET").await;
        assert!(matches!(answer.text(), "v1" | "v2"), "{purge}: {answer:?}");
        assert_eq!(after.response("GET").await.text(), "v2", "{purge}");
        edge.settled().await;
        edge.get("/a").await.expect(200, "v2", "hit");
        let seen = origin.seen("/a", 3).await;
        assert_eq!(seen[2].field("if-none-match"), None, "nothing is left to ask about");
    }
}

#[tokio::test]
async fn a_purge_while_a_background_refresh_is_under_way() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::stale("v1", "\"1\"")
            .without("Cache-Control")
            .field("Cache-Control", "max-age=60, stale-while-revalidate=600"),
        2 => Reply::not_modified().gate(&held),
        _ => Reply::fresh("v2"),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.get("/a").await.expect(200, "v1", "hit");
    gate.reached(1).await;
    edge.purge_path("/a").await;
    let mut after = ask(&edge).await;
    gate.open();
    assert_eq!(after.response("GET").await.text(), "v2");
    edge.settled().await;
    edge.get("/a").await.expect(200, "v2", "hit");
}

#[tokio::test]
async fn nothing_purged_stands_in_for_an_origin_that_is_down() {
    let origin = Origin::start(|_| {
        tagged(1)
            .without("Cache-Control")
            .field("Cache-Control", "max-age=60, stale-if-error=600, stale-while-revalidate=600")
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.purge_tag("t").await;
    origin.stop().await;
    let answer = edge.get("/a").await;
    assert!(matches!(answer.status(), 502 | 503), "{answer:?}");
}

#[tokio::test]
async fn waiters_after_the_purge_share_one_new_fill() {
    let (old, new) = (Gate::new(), Gate::new());
    let (first, second) = (old.clone(), new.clone());
    let origin = Origin::start(move |seen| match seen.nth {
        1 => tagged(1).gate(&first),
        nth => tagged(nth).gate(&second),
    });
    let edge = Edge::start(&origin);
    let mut before = ask(&edge).await;
    old.reached(1).await;
    edge.purge_tag("t").await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(ask(&edge).await);
    }
    until("all requests", || async {
        edge.metric("atoll_client_requests_total{version=\"1\"}").await >= 11.0
    })
    .await;
    old.open();
    new.reached(1).await;
    new.open();
    before.response("GET").await;
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "v2");
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn tags_kill_what_bears_them_from_whatever_field_in_whatever_case() {
    let origin = Origin::start(|seen| {
        let reply = Reply::fresh(format!("v{}", seen.nth));
        match &*seen.target {
            "/surrogate" => reply.field("Surrogate-Key", "x News y"),
            "/cache" => reply.field("Cache-Tag", "x, NEWS"),
            "/edge" => reply.field("Edge-Cache-Tag", "news,x"),
            "/xkey" => reply.field("xkey", "x").field("xkey", "nEWS"),
            "/groups" => reply.field("Cache-Groups", "\"news\", \"x\""),
            _ => reply.field("Surrogate-Key", "x newsletter"),
        }
    });
    let edge = Edge::start(&origin);
    let bearing = ["/surrogate", "/cache", "/edge", "/xkey", "/groups"];
    for target in bearing {
        edge.fill(target).await;
    }
    edge.fill("/without").await;
    edge.purge_tag("neWS").await;
    for target in bearing {
        let answer = edge.fill(target).await;
        assert_eq!((answer.text(), answer.says("hit")), ("v2", false), "{target}");
    }
    edge.get("/without").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn a_url_stands_for_all_its_variants_and_ports_and_nothing_else() {
    let origin = Origin::start(|seen| {
        Reply::fresh(format!("{}{}", seen.field("accept-language").unwrap_or("-"), seen.nth))
            .field("Vary", "Accept-Language")
    });
    let edge = Edge::start(&origin);
    let get = async |host: &str, target: &str, language: &str| {
        let answer = edge.ask("GET", host, target, &[("Accept-Language", language)]).await;
        edge.settled().await;
        answer
    };
    let killed = [(HOST, "/a", "de"), (HOST, "/a", "en"), ("site.test:8080", "/a", "de")];
    let left = [(HOST, "/a?q", "de"), (HOST, "/a/", "de"), ("other.test", "/a", "de")];
    for (host, target, language) in killed.into_iter().chain(left) {
        get(host, target, language).await;
    }
    edge.purge(json!({ "urls": ["https://SITE.test/a"] })).await;
    for (host, target, language) in killed {
        let answer = get(host, target, language).await;
        assert!(!answer.says("hit"), "{host} {target} {language}: {}", answer.cache());
    }
    for (host, target, language) in left {
        let answer = get(host, target, language).await;
        assert!(answer.says("hit"), "{host} {target} {language}: {}", answer.cache());
    }
    let head = edge.ask("HEAD", HOST, "/a", &[("Accept-Language", "de")]).await;
    assert!(head.says("hit"), "the new one: {}", head.cache());
}

#[tokio::test]
async fn sites_are_purged_apart() {
    let origin =
        Origin::start(|seen| Reply::fresh(format!("v{}", seen.nth)).field("Cache-Tag", "t"));
    let edge = Edge::before(&origin)
        .first_site("name = \"one\"\nhosts = [\"one.test\"]\norigin = \"main\"")
        .another_site("name = \"two\"\nhosts = [\"two.test\"]\norigin = \"main\"\n")
        .start();
    let hit = async |host: &str| {
        let answer = edge.ask("GET", host, "/a", &[]).await;
        edge.settled().await;
        answer.says("hit")
    };
    assert_eq!((hit("one.test").await, hit("two.test").await), (false, false));
    edge.purge(json!({ "site": "one", "tags": ["t"] })).await;
    assert_eq!((hit("one.test").await, hit("two.test").await), (false, true));
    edge.purge(json!({ "site": "two", "all": true })).await;
    assert_eq!((hit("one.test").await, hit("two.test").await), (true, false));
    edge.purge(json!({ "tags": ["t"] })).await;
    assert_eq!((hit("one.test").await, hit("two.test").await), (false, false));
    edge.purge(json!({ "all": true })).await;
    assert_eq!((hit("one.test").await, hit("two.test").await), (false, false));
    assert_eq!((hit("one.test").await, hit("two.test").await), (true, true));
}

#[tokio::test]
async fn a_soft_purge_makes_stale_and_lets_the_windows_run() {
    let origin = Origin::start(|seen| {
        tagged(seen.nth)
            .without("Cache-Control")
            .field("Cache-Control", "max-age=600, stale-while-revalidate=600")
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.get("/a").await.expect(200, "v1", "hit");
    edge.purge(json!({ "tags": ["t"], "mode": "soft" })).await;
    edge.fill("/a").await.expect(200, "v1", "hit");
    edge.get("/a").await.expect(200, "v2", "hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_soft_purge_without_a_window_asks_the_origin() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        Some("\"1\"") => Reply::not_modified(),
        _ => tagged(seen.nth).field("ETag", "\"1\""),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.purge(json!({ "urls": [format!("http://{HOST}/a")], "mode": "soft" })).await;
    edge.fill("/a").await.expect(200, "v1", "fwd-status=304");
    edge.get("/a").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn a_hard_purge_after_a_soft_one_kills() {
    let origin = Origin::start(|seen| {
        tagged(seen.nth)
            .without("Cache-Control")
            .field("Cache-Control", "max-age=600, stale-while-revalidate=600")
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.purge(json!({ "tags": ["t"] })).await;
    edge.purge(json!({ "tags": ["t"], "mode": "soft" })).await;
    edge.fill("/a").await.expect(200, "v2", "fwd=uri-miss");
}

#[tokio::test]
async fn what_bears_more_tags_than_can_be_kept_is_not_stored() {
    let many = |count: usize| (0..count).map(|i| format!("t{i}")).collect::<Vec<_>>().join(" ");
    let origin = Origin::start(move |seen| {
        let tags = match &*seen.target {
            "/128" => many(128),
            "/129" => many(129),
            "/256" => "t".repeat(256),
            "/257" => "t".repeat(257),
            _ => vec!["t".repeat(250); 66].join(" "),
        };
        Reply::fresh("x").field("Surrogate-Key", &tags)
    });
    let edge = Edge::start(&origin);
    for (target, stored) in
        [("/128", true), ("/129", false), ("/256", true), ("/257", false), ("/16500", false)]
    {
        edge.fill(target).await;
        let again = edge.fill(target).await;
        assert_eq!(again.status(), 200, "{target}");
        assert_eq!(again.says("hit"), stored, "{target}: {}", again.cache());
    }
}

#[tokio::test]
async fn a_purge_that_names_nothing_is_refused() {
    let origin = Origin::serving(tagged(1));
    let edge = Edge::before(&origin)
        .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
        .start();
    edge.fill("/a").await;
    for body in [
        json!({}),
        json!({ "site": "main" }),
        json!({ "tags": [] }),
        json!({ "tags": [""] }),
        json!({ "tags": ["*"] }),
        json!({ "urls": [""] }),
        json!({ "urls": ["/a"] }),
        json!({ "urls": ["http://foreign.test/a"] }),
        json!({ "site": "nobody", "tags": ["t"] }),
        json!({ "all": false }),
        json!({ "all": true, "tags": ["t"] }),
        json!({ "prefixes": ["http://site.test"] }),
        json!({ "hosts": ["*"] }),
        json!({ "globs": ["*"] }),
        json!({ "tags": ["t"], "dry_run": null }),
        json!({ "tags": ["t"], "refetch": 0 }),
        json!({ "tags": ["t"], "refetch": 1_000_000 }),
        json!({ "tags": ["t"], "sort": "hard" }),
        json!([{ "tags": ["t"] }]),
        json!(null),
    ] {
        let answer = edge.manage("POST", "/v1/purge", Some(body.clone())).await;
        assert_eq!(answer.status(), 400, "{body}: {answer:?}");
        assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{body}");
    }
    edge.get("/a").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn the_receipt_names_the_purge_and_epochs_rise() {
    let origin = Origin::serving(tagged(1));
    let edge = Edge::start(&origin);
    let first = edge.purge_tag("t").await;
    let second = edge.purge(json!({ "tags": ["t"], "wait": "everywhere", "timeout": "1s" })).await;
    let id = |receipt: &serde_json::Value| receipt["id"].as_str().unwrap().to_owned();
    let parts: Vec<String> = id(&first).split('.').map(str::to_owned).collect();
    assert_eq!((parts.len(), &*parts[0], &*parts[2]), (3, "edge", "1"), "{first}");
    assert_eq!(id(&second), format!("edge.{}.2", parts[1]));
    assert!(second["epoch"].as_u64() > first["epoch"].as_u64());
    assert_eq!((&first["state"], &second["state"]), (&json!("acknowledged"), &json!("everywhere")));
    assert!(first["took_ms"].is_number() && first["matched"].is_null());
}

#[tokio::test]
async fn reset_empties_the_store_and_outruns_fills() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match (&*seen.target, seen.nth) {
        ("/a", 1) => tagged(1).gate(&held),
        (_, nth) => tagged(nth),
    });
    let edge = Edge::start(&origin);
    edge.get("/b").await;
    let mut before = ask(&edge).await;
    gate.reached(1).await;
    assert_eq!(edge.manage("POST", "/v1/reset", None).await.status(), 200);
    gate.open();
    before.response("GET").await;
    edge.settled().await;
    for target in ["/a", "/b"] {
        edge.fill(target).await.expect(200, "v2", "fwd=uri-miss");
    }
}

#[tokio::test]
async fn the_sweep_gives_memory_back() {
    let origin = Origin::start(|seen| tagged(seen.nth));
    let edge = Edge::start(&origin);
    for number in 0..10 {
        edge.fill(&format!("/{number}")).await;
    }
    edge.purge_tag("t").await;
    edge.metric_becomes("atoll_purged_total", 10.0).await;
    edge.metric_becomes("atoll_purge_rows", 0.0).await;
    edge.fill("/1").await.expect(200, "v2", "fwd=uri-miss");
}

/// The 304 takes the tag away by which what it confirms was killed meanwhile.
#[tokio::test]
async fn a_purge_by_a_tag_that_the_304_under_way_takes_away() {
    for mode in ["hard", "check", "soft"] {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |seen| match (seen.nth, seen.field("if-none-match")) {
            (1, _) => Reply::stale("v1", "\"1\"").field("Surrogate-Key", "t"),
            (2, Some(_)) => Reply::not_modified().field("Surrogate-Key", "u").gate(&held),
            _ => Reply::fresh("v2").field("ETag", "\"2\"").field("Surrogate-Key", "u"),
        });
        let edge = Edge::start(&origin);
        edge.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
        let mut before = ask(&edge).await;
        gate.reached(1).await;
        edge.purge(json!({ "tags": ["t"], "mode": mode })).await;
        let mut after = ask(&edge).await;
        until("the third request", || async {
            edge.metric("atoll_client_requests_total{version=\"1\"}").await >= 3.0
        })
        .await;
        gate.open();
        before.response("GET").await;
        assert_eq!(after.response("GET").await.text(), "v2", "{mode}");
        edge.settled().await;
        edge.get("/a").await.expect(200, "v2", "hit");
    }
}
