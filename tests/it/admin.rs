//! The admin listener, and that nobody gets to it from outside.

use serde_json::{Value, json};

use crate::support::edge::{HOST, TOKEN};
use crate::support::{Connection, Edge, Origin, Reply, until};

#[tokio::test]
async fn every_path_asks_for_the_right_token() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin)
        .token("reader-token-0123456", &["read"], &[])
        .token("purger-token-0123456", &["purge"], &["main"])
        .start();
    let tag = || Some(json!({ "tags": ["t"] }));
    let all = || Some(json!({ "all": true }));
    let reader = Some("reader-token-0123456");
    let purger = Some("purger-token-0123456");
    for (token, method, path, body, status) in [
        (None, "GET", "/v1/status", None, 401),
        (None, "POST", "/v1/purge", tag(), 401),
        (Some("wrong-token-01234567"), "POST", "/v1/purge", tag(), 401),
        (reader, "GET", "/v1/status", None, 200),
        (reader, "GET", "/v1/origins", None, 200),
        (reader, "POST", "/v1/purge", tag(), 403),
        (reader, "POST", "/v1/reset", None, 403),
        (reader, "POST", "/v1/drain", None, 403),
        (purger, "POST", "/v1/purge", tag(), 200),
        (purger, "POST", "/v1/purge", all(), 403),
        (purger, "GET", "/v1/status", None, 403),
        (purger, "GET", "/v1/nothing", None, 404),
        (None, "GET", "/v1/purges", None, 401),
        (purger, "GET", "/v1/purges", None, 403),
        (purger, "GET", "/v1/purges/edge.0.1", None, 403),
        (reader, "GET", "/v1/purges", None, 200),
        (reader, "GET", "/v1/purges/edge.0.1", None, 404),
        (None, "GET", "/nothing", None, 404),
    ] {
        let answer = edge.manage_as(token, method, path, body).await;
        assert_eq!(answer.status(), status, "{token:?} {method} {path}: {answer:?}");
        if status >= 400 {
            assert_eq!(answer.field("content-type"), Some("application/problem+json"));
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(problem["status"], json!(status));
        }
    }
    assert_eq!(edge.get("/a").await.status(), 200, "nothing was drained");
}

#[tokio::test]
async fn it_says_how_it_is() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.get("/a").await;
    assert_eq!(edge.manage_as(None, "GET", "/healthz", None).await.status(), 200);
    assert_eq!(edge.manage_as(None, "GET", "/readyz", None).await.status(), 200);
    let status = edge.manage("GET", "/v1/status", None).await;
    let status: Value = serde_json::from_slice(&status.body).unwrap();
    assert!(status.to_string().contains(&edge.plain().to_string()), "{status}");
    let metrics = edge.manage_as(None, "GET", "/metrics", None).await;
    assert!(metrics.field("content-type").unwrap().starts_with("text/plain"));
    for (name, least) in [
        ("atoll_requests_total{site=\"main\",cache=\"hit\",status=\"2xx\"}", 1.0),
        ("atoll_requests_total{site=\"main\",cache=\"miss\",status=\"2xx\"}", 1.0),
        ("atoll_fills_total", 1.0),
        ("atoll_origin_requests_total{origin=\"main\"}", 1.0),
        ("atoll_connections_total", 2.0),
        ("atoll_ready", 1.0),
    ] {
        let value = edge.metric(name).await;
        assert!(value >= least, "{name} {value}");
    }
    let text = metrics.text();
    let entries = text.lines().filter(|line| line.starts_with("atoll_store_entries{"));
    let entries: f64 =
        entries.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!((entries - 1.0).abs() < 0.5, "{entries} entries");
}

#[tokio::test]
async fn an_unwell_origin_shows_in_the_body_only() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    origin.stop().await;
    edge.get("/a").await;
    assert_eq!(edge.manage_as(None, "GET", "/readyz", None).await.status(), 200);
}

#[tokio::test]
async fn clients_of_a_site_do_not_reach_it() {
    let origin = Origin::serving(Reply::ok("from the origin"));
    let edge = Edge::start(&origin);
    let before = edge.metric("atoll_epoch").await;
    for path in ["/metrics", "/readyz", "/v1/status"] {
        assert_eq!(edge.get(path).await.text(), "from the origin");
    }
    let purge = edge.ask("PURGE", HOST, "/a", &[]).await;
    assert_eq!(purge.status(), 405);
    assert_eq!(edge.post("/v1/purge", "{\"all\":true}").await.text(), "from the origin");
    let epoch = edge.purge(json!({ "tags": ["t"] })).await["epoch"].as_f64().unwrap();
    assert!((epoch - before - 1.0).abs() < 0.5, "something was purged in between");
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let mut slowed = None;
    for guess in 0..200 {
        let token = format!("a-guess-that-is-wrong-{guess}");
        let answer = edge.manage_as(Some(&token), "GET", "/v1/status", None).await;
        assert!(matches!(answer.status(), 401 | 429), "{answer:?}");
        if answer.status() == 429 {
            slowed = answer.field("retry-after").map(str::to_owned);
            break;
        }
    }
    assert!(slowed.is_some());
    assert_eq!(edge.manage_as(None, "GET", "/healthz", None).await.status(), 200);
}

#[tokio::test]
async fn the_watch_listener_shows_numbers_and_nothing_else() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).watched().start();
    for (path, status) in
        [("/metrics", 200), ("/healthz", 200), ("/readyz", 200), ("/v1/status", 404), ("/", 404)]
    {
        let mut client = Connection::open(edge.watch()).await;
        let bearer = format!("Bearer {TOKEN}");
        let fields = [("Authorization", &*bearer), ("Connection", "close")];
        assert_eq!(client.get("watch.test", path, &fields).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn the_access_log_tells_each_request_on_a_line() {
    let origin = Origin::serving(Reply::fresh("hello"));
    let (plan, path) = Edge::before(&origin).access_log("json");
    let edge = plan.start();
    let miss = edge.fill_with("/a?x=%22", &[("User-Agent", "a \"browser\"\u{1b}")]).await;
    assert_eq!(miss.status(), 400, "an escape in a field is refused");
    let miss = edge.fill_with("/a?x=%22", &[("User-Agent", "a \"browser\"")]).await;
    let hit = edge.get("/a?x=%22").await;
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    };
    until("three lines", || async { lines().len() == 3 }).await;
    let text = std::fs::read_to_string(&path).unwrap();
    for (answer, status) in [(&miss, "200"), (&hit, "200")] {
        let id = answer.field("x-request-id").unwrap();
        let line = text.lines().find(|line| line.contains(id)).expect("a line with its id");
        for part in ["/a?x=%22", "main", "GET", "127.0.0.1", status] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}

#[tokio::test]
async fn the_store_says_its_budget_and_what_purges_took() {
    let origin = Origin::serving(Reply::fresh("hello").field("Cache-Tag", "t"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.purge_tag("t").await;
    edge.fill("/a").await.expect(200, "hello", "stored");
    // Either the lookup met it, or the sweep came first.
    let killed = edge.metric("atoll_killed_total").await;
    let purged = edge.metric("atoll_purged_total").await;
    assert!(killed + purged >= 1.0, "{killed} {purged}");
    assert!(edge.metric("atoll_store_budget_bytes").await > 0.0);
}

#[tokio::test]
async fn a_purge_that_is_sent_again_is_answered_again_and_done_once() {
    let origin = Origin::start(|seen| Reply::fresh(format!("v{}", seen.nth)));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let send = async |key: &str, body: Value| {
        let fields = [("Idempotency-Key", key)];
        edge.manage_with(Some(TOKEN), "POST", "/v1/purge", &fields, Some(body)).await
    };
    let body = json!({ "prefixes": [format!("{HOST}/")] });
    let first = send("publish-17", body.clone()).await;
    assert_eq!(first.status(), 200);
    edge.fill("/a").await.expect(200, "v2", "fwd=uri-miss");
    let again = send("publish-17", body.clone()).await;
    assert_eq!((again.status(), again.text()), (200, first.text()));
    edge.get("/a").await.expect(200, "v2", "hit");
    let other = send("publish-17", json!({ "hosts": [HOST] })).await;
    assert_eq!(other.status(), 422, "{other:?}");
    edge.get("/a").await.expect(200, "v2", "hit");
    assert_eq!(send("publish-18", body).await.status(), 200);
    edge.fill("/a").await.expect(200, "v3", "fwd=uri-miss");
}

#[tokio::test]
async fn the_purges_of_late_are_told_newest_first() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin).token("purger-token-0123456", &["purge"], &["main"]).start();
    edge.fill("/a").await;
    edge.purge_tag("one").await;
    let body = Some(json!({ "globs": ["*.css"], "mode": "soft" }));
    let purger = Some("purger-token-0123456");
    assert_eq!(edge.manage_as(purger, "POST", "/v1/purge", body).await.status(), 200);
    assert_eq!(edge.post("/a", "changed").await.status(), 200);
    assert!((edge.metric("atoll_epoch").await - 3.0).abs() < 0.5, "it invalidated what is stored");
    let answer = edge.manage("GET", "/v1/purges", None).await;
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let purges = answer["purges"].as_array().unwrap();
    assert_eq!(purges.len(), 2, "what traffic invalidates is not among them: {answer}");
    assert_eq!((&purges[0]["mode"], &purges[1]["mode"]), (&json!("soft"), &json!("hard")));
    assert_eq!(purges[0]["selectors"][0]["value"], "*.css");
    assert_eq!(purges[1]["token"], "all");
    assert_ne!(purges[0]["token"], "all");
    let one = edge.manage("GET", "/v1/purges?limit=1", None).await;
    let one: Value = serde_json::from_slice(&one.body).unwrap();
    assert_eq!(one["purges"].as_array().unwrap().len(), 1);
    assert_eq!(one["purges"][0]["id"], purges[0]["id"]);
}
