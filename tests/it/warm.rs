//! Warm-up: fetched before clients ask, the way that clients' requests go.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::edge::{HOST, Plan};
use crate::support::{Edge, Gate, Origin, Reply, until};

const WARMER: &str = "a-token-that-warms-up";

fn before(origin: &Origin) -> Plan {
    Edge::before(origin).token(WARMER, &["warm"], &[])
}

fn url(path: &str) -> String {
    format!("http://{HOST}{path}")
}

async fn ask(edge: &Edge, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let answer = edge.manage_as(Some(WARMER), method, path, body).await;
    (answer.status(), serde_json::from_slice(&answer.body).unwrap())
}

/// Starts a warm-up, and gives its path.
async fn begin(edge: &Edge, body: Value) -> String {
    let (status, told) = ask(edge, "POST", "/v1/warm", Some(body)).await;
    assert_eq!(status, 202, "{told}");
    format!("/v1/warm/{}", told["id"].as_str().unwrap())
}

/// Waits until it has another state than `running`.
async fn ended(edge: &Edge, path: &str) -> Value {
    until("the warm-up to end", || async {
        ask(edge, "GET", path, None).await.1["state"] != "running"
    })
    .await;
    ask(edge, "GET", path, None).await.1
}

/// A warm-up from its beginning to its end.
async fn warm(edge: &Edge, mut body: Value) -> Value {
    body["rate"] = json!(1000);
    let path = begin(edge, body).await;
    ended(edge, &path).await
}

#[tokio::test]
async fn what_is_fetched_ahead_answers_clients_from_memory() {
    let origin = Origin::start(|seen| Reply::fresh(format!("at {}", seen.target)));
    let edge = before(&origin).start();
    let urls = [url("/a"), url("/b?c=1"), url("/d")];
    let told = warm(&edge, json!({ "urls": urls })).await;
    for (name, expected) in [
        ("state", json!("done")),
        ("total", json!(3)),
        ("done", json!(3)),
        ("stored", json!(3)),
        ("hits", json!(0)),
        ("failed", json!(0)),
        ("remaining", json!(0)),
        ("bytes", json!("at /aat /b?c=1at /d".len())),
        ("errors", json!({})),
    ] {
        assert_eq!(told[name], expected, "{name} in {told:#}");
    }
    edge.settled().await;
    let requests = "atoll_requests_total{site=\"main\",cache=\"miss\",status=\"2xx\"}";
    assert!(edge.metric(requests).await < 0.5, "a warm-up is no client traffic");
    for target in ["/a", "/b?c=1", "/d"] {
        edge.get(target).await.expect(200, &format!("at {target}"), "hit");
        let seen = origin.last(target).await;
        assert_eq!(
            (seen.field("host"), seen.field("x-forwarded-for")),
            (Some(HOST), Some("127.0.0.1"))
        );
    }
    let told = warm(&edge, json!({ "urls": urls })).await;
    assert_eq!((&told["hits"], &told["stored"]), (&json!(3), &json!(0)), "{told:#}");
    assert_eq!(origin.requests(), 3, "what is there is left as it is");
}

#[tokio::test]
async fn each_variant_is_fetched() {
    let origin = Origin::start(|seen| {
        Reply::fresh(seen.field("accept-language").unwrap_or("none"))
            .field("Vary", "Accept-Language")
    });
    let edge = before(&origin).start();
    let sets = json!([{ "accept-language": "de" }, { "accept-language": "fr" }]);
    let told = warm(&edge, json!({ "urls": [url("/a")], "headers": sets })).await;
    assert_eq!(told["stored"], 2, "{told:#}");
    edge.settled().await;
    for language in ["de", "fr"] {
        edge.get_with("/a", &[("Accept-Language", language)]).await.expect(200, language, "hit");
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_sitemap_is_read_through_the_edge_and_leads_nowhere_else() {
    let elsewhere = Origin::serving(Reply::fresh("never"));
    let foreign = elsewhere.address;
    let pack = |text: String| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(text.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let origin = Origin::start(move |seen| match &*seen.target {
        "/sitemap.xml" => Reply::fresh(format!(
            "<sitemapindex><sitemap><loc>{}</loc></sitemap><sitemap><loc>{}</loc></sitemap>\
             <sitemap><loc>http://{foreign}/map</loc></sitemap></sitemapindex>",
            url("/one.xml"),
            url("/two.xml.gz"),
        )),
        "/one.xml" => Reply::ok(format!(
            "<urlset><url><loc>{}</loc></url><url><loc>http://{foreign}/x</loc></url>\
             <url><loc>http://two.test/x</loc></url></urlset>",
            url("/a?b=1&amp;c=2"),
        )),
        "/two.xml.gz" => Reply::ok(pack(format!("<urlset><loc>{}</loc></urlset>", url("/d")))),
        _ => Reply::fresh("page"),
    });
    let edge = Edge::before(&origin)
        .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
        .another_site("name = \"two\"\nhosts = [\"two.test\"]\norigin = \"main\"")
        .token(WARMER, &["warm"], &["main"])
        .start();
    let told = warm(&edge, json!({ "sitemap": url("/sitemap.xml") })).await;
    assert_eq!(
        (&told["state"], &told["total"], &told["stored"]),
        (&json!("done"), &json!(2), &json!(2)),
        "{told:#}"
    );
    assert_eq!(told["skipped"], 3, "one sitemap and two pages are of others: {told:#}");
    edge.settled().await;
    edge.get("/a?b=1&c=2").await.expect(200, "page", "hit");
    edge.get("/d").await.expect(200, "page", "hit");
    assert_eq!(elsewhere.requests(), 0, "only origins of sites are asked");
    assert_eq!(origin.count("/x"), 0, "the other site is not the token's");
}

#[tokio::test]
async fn a_sitemap_that_is_none_fails() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/gone" => Reply::new(404),
        "/moved" => Reply::new(302).field("Location", "http://169.254.169.254/"),
        _ => Reply::ok("<html>no map</html>"),
    });
    let edge = before(&origin).start();
    for (path, why) in
        [("/gone", "status-404"), ("/moved", "status-302"), ("/html", "sitemap-empty")]
    {
        let told = warm(&edge, json!({ "sitemap": url(path) })).await;
        assert_eq!(told["state"], "failed", "{told:#}");
        assert_eq!(told["errors"], json!({ why: 1 }), "{told:#}");
        assert_eq!(told["failures"][0]["url"], json!(url(path)));
    }
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn failures_are_counted_by_kind() {
    let origin = Origin::start(|seen| match seen.target.split('?').next().unwrap_or_default() {
        "/gone" => Reply::new(404),
        "/broken" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        "/private" => Reply::ok("x").field("Cache-Control", "private"),
        _ => Reply::fresh("x"),
    });
    let edge = before(&origin).start();
    let urls = ["/gone", "/gone?2", "/broken", "/private", "/fine", "/../up"].map(url);
    let told = warm(&edge, json!({ "urls": urls })).await;
    assert_eq!((&told["done"], &told["stored"]), (&json!(6), &json!(1)), "{told:#}");
    assert_eq!(told["not_stored"], 1, "{told:#}");
    let errors = told["errors"].as_object().unwrap();
    assert_eq!(
        told["failed"].as_u64().unwrap(),
        errors.values().filter_map(Value::as_u64).sum::<u64>()
    );
    assert_eq!(told["failed"], 4, "{told:#}");
    assert_eq!(errors["dot-segments"], 1, "{told:#}");
    edge.get("/private").await.expect(200, "x", "fwd=uri-miss");
}

#[tokio::test]
async fn a_purge_kills_what_a_warm_up_is_fetching() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.field("x-forwarded-for") {
        Some("127.0.0.1") => Reply::fresh("old").field("Cache-Tag", "t").gate(&held),
        _ => Reply::fresh("new"),
    });
    let edge = before(&origin).start();
    let path = begin(&edge, json!({ "urls": [url("/a")] })).await;
    gate.reached(1).await;
    edge.purge_tag("t").await;
    gate.open();
    assert_eq!(ended(&edge, &path).await["done"], 1);
    edge.settled().await;
    let requests = origin.count("/a");
    edge.get("/a").await;
    assert_eq!(origin.count("/a"), requests + 1, "what the purge reached answers nobody");
}

#[tokio::test]
async fn one_that_is_stopped_asks_no_more() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::fresh("x").gate(&held));
    let edge = before(&origin).admin_keys("warm_jobs = 1").start();
    let urls: Vec<String> = (0..200).map(|at| url(&format!("/{at}"))).collect();
    let path = begin(&edge, json!({ "urls": urls, "rate": 1000 })).await;
    gate.reached(32).await;
    let (status, told) = ask(&edge, "POST", "/v1/warm", Some(json!({ "urls": [url("/z")] }))).await;
    assert_eq!((status, &told["code"]), (429, &json!("busy")), "{told}");
    let (status, told) = ask(&edge, "DELETE", &path, None).await;
    assert_eq!((status, &told["state"]), (200, &json!("stopped")));
    assert_eq!(told["remaining"], 200, "nothing had been answered: {told:#}");
    gate.open();
    edge.settled().await;
    assert_eq!(origin.requests(), 32, "as many at once, and none after");
    let told = warm(&edge, json!({ "urls": [url("/z")] })).await;
    assert_eq!(told["state"], "done", "there is room again: {told:#}");
    let (_, listed) = ask(&edge, "GET", "/v1/warm", None).await;
    let states: Vec<&Value> =
        listed["warm_ups"].as_array().unwrap().iter().map(|w| &w["state"]).collect();
    assert_eq!(states, [&json!("done"), &json!("stopped")], "the newest first");
}

#[tokio::test]
async fn it_ends_when_the_node_drains() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::fresh("x").gate(&held));
    let edge = before(&origin).drain_notice("5s").start();
    let mut client = edge.connect().await;
    client.send(format!("GET /held HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let path = begin(&edge, json!({ "urls": [url("/a"), url("/b")] })).await;
    gate.reached(2).await;
    edge.drain();
    assert_eq!(ended(&edge, &path).await["state"], "drained");
    let (status, told) = ask(&edge, "POST", "/v1/warm", Some(json!({ "urls": [url("/c")] }))).await;
    assert_eq!((status, &told["code"]), (503, &json!("draining")), "{told}");
    gate.open();
    client.response("GET").await.expect(200, "x", "stored");
}

#[tokio::test]
async fn who_may_warm_up_and_what() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin)
        .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
        .another_site("name = \"two\"\nhosts = [\"two.test\"]\norigin = \"main\"")
        .token("warmer-of-two-01234", &["warm"], &["two"])
        .token("reader-of-all-01234", &["read", "purge"], &[])
        .start();
    for (token, url, status) in [
        (None, "http://two.test/a", 401),
        (Some("reader-of-all-01234"), "http://two.test/a", 403),
        (Some("warmer-of-two-01234"), "http://site.test/a", 403),
        (Some("warmer-of-two-01234"), "http://SITE.test.:80/a", 403),
        (Some("warmer-of-two-01234"), "http://nobody.test/", 400),
    ] {
        for body in [json!({ "urls": [url] }), json!({ "sitemap": url })] {
            let answer = edge.manage_as(token, "POST", "/v1/warm", Some(body)).await;
            assert_eq!(answer.status(), status, "{token:?} {url}: {answer:?}");
        }
    }
    assert_eq!(origin.requests(), 0);
}
