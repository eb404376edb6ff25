//! How answers leave: their fields, their pages, and answers that send elsewhere.

use std::io::Write as _;
use std::path::PathBuf;

use super::shows;
use crate::support::certificate::Folder;
use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::{Edge, Origin, Reply};

#[tokio::test]
async fn response_fields_are_changed_as_an_answer_leaves() {
    let origin = Origin::start(|asked| match &*asked.target {
        "/gone" => Reply::new(404).field("X-Powered-By", "x"),
        "/private" => Reply::ok("alice").field("Cache-Control", "private"),
        "/cookie" => Reply::ok("alice").field("Set-Cookie", "sid=alice"),
        _ => Reply::stale("page", "\"a\"").field("X-Powered-By", "x").field("Vary", "X-Shop"),
    });
    let keys = "response_headers = { set = { X-Frame-Options = \"DENY\", Cache-Control = \"public, max-age=9\" }, \
                append = { Vary = \"Origin\" }, remove = [\"X-Powered-By\"] }";
    let edge = Edge::before(&origin).site(keys).rule("/plain", "response_headers = {}").start();
    for cache in ["stored", "fwd=stale", "fwd=stale"] {
        let answer = edge.fill("/a").await;
        shows(&answer, "page", cache);
        assert_eq!(answer.field("x-powered-by"), None);
        assert_eq!(answer.field("x-frame-options"), Some("DENY"));
        assert_eq!(answer.field("cache-control"), Some("public, max-age=9"));
        assert_eq!(answer.head.all("vary"), ["X-Shop", "Origin"]);
    }
    let unchanged = edge.get_with("/a", &[("If-None-Match", "\"a\"")]).await;
    assert_eq!((unchanged.status(), unchanged.field("x-frame-options")), (304, Some("DENY")));
    let gone = edge.get("/gone").await;
    assert_eq!((gone.field("x-powered-by"), gone.field("x-frame-options")), (None, Some("DENY")));
    // What belongs to one client is not made public, and what is refused here is not kept.
    assert_eq!(edge.get("/private").await.field("cache-control"), Some("private"));
    assert_ne!(edge.get("/cookie").await.field("cache-control"), Some("public, max-age=9"));
    let alice = [("Authorization", "Bearer alice")];
    assert_ne!(edge.get_with("/x", &alice).await.field("cache-control"), Some("public, max-age=9"));
    let refused = edge.raw(request("TRACE", HOST, "/a", &[]), "TRACE").await;
    assert_eq!(refused.field("cache-control"), Some("no-store"));
    assert_eq!(edge.get("/plain").await.field("x-powered-by"), Some("x"));
}

/// A folder with error pages, and the key that names them.
fn pages() -> (Folder, String) {
    let folder = Folder::new();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    };
    let (one, any) = (write("502.html", "<p>one"), write("any.txt", "any"));
    let keys = format!("error_pages = {{ 502 = {one:?}, 5xx = {any:?}, 403 = {any:?} }}");
    (folder, keys)
}

#[tokio::test]
async fn errors_have_the_pages_of_the_site() {
    let origin = Origin::start(|asked| match &*asked.target {
        "/broken" => Reply::raw("nonsense\r\n\r\n"),
        "/own" => Reply::new(502).body("the origin's").field("ETag", "\"x\""),
        "/grpc" => Reply::new(503).body("x").field("Content-Type", "application/grpc"),
        _ => Reply::fresh("fine"),
    });
    let (_folder, keys) = pages();
    let edge = Edge::before(&origin)
        .site(&keys)
        .rule("/own", "error_pages_for_origin = true")
        .rule("/grpc", "error_pages_for_origin = true")
        .rule("/denied", "deny = [\"127.0.0.0/8\"]")
        .start();
    let broken = edge.get("/broken").await;
    broken.expect(502, "<p>one", "fwd=uri-miss");
    assert_eq!(broken.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(broken.field("cache-control"), Some("no-store"));
    let head = edge.ask("HEAD", HOST, "/broken", &[]).await;
    assert_eq!((head.status(), head.field("content-length")), (502, Some("6")));
    let program = edge.get_with("/broken", &[("Accept", "application/json")]).await;
    assert!(program.text().starts_with("502 Bad Gateway"), "{program:?}");
    assert_eq!(edge.get("/denied").await.text(), "any");
    let own = edge.get("/own").await;
    assert_eq!((own.text(), own.field("etag")), ("<p>one", None));
    assert_eq!(own.field("cache-control"), Some("no-store"));
    assert_eq!(edge.get("/grpc").await.text(), "x");
    shows(&edge.fill("/fine").await, "fine", "stored");
    origin.stop().await;
    assert_eq!(edge.get("/down").await.field("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_stale_answer_is_better_than_any_page() {
    let origin = Origin::start(|asked| match (&*asked.target, asked.nth) {
        ("/a", 1) => Reply::stale("old", "\"a\""),
        _ => Reply::new(502).body("broken"),
    });
    let (_folder, keys) = pages();
    let edge = Edge::before(&origin)
        .site(&keys)
        .site("error_pages_for_origin = true\nstale_if_error = \"1h\"")
        .start();
    edge.fill("/a").await;
    shows(&edge.fill("/a").await, "old", "stale-if-error");
    assert_eq!(edge.get("/b").await.text(), "<p>one");
}

#[tokio::test]
async fn plain_requests_and_other_hosts_are_sent_on_in_one_step() {
    let origin = Origin::serving(Reply::fresh("page"));
    let edge = Edge::before(&origin)
        .tls(&[&["site.test", "www.site.test"]])
        .site("https = \"redirect\"\ncanonical_host = \"site.test\"\nhttps_port = 8443")
        .site("redirect_cache_control = \"max-age=60\"")
        .start();
    let to = |answer: &crate::support::Response| {
        (answer.status(), answer.field("location").map(str::to_owned))
    };
    let www = edge.ask("GET", "www.site.test", "//evil.test/a?b=%2F", &[]).await;
    assert_eq!(to(&www), (301, Some("https://site.test:8443//evil.test/a?b=%2F".to_owned())));
    assert_eq!(www.field("cache-control"), Some("max-age=60"));
    let posted = edge.post("/a", "x").await;
    assert_eq!(to(&posted), (308, Some("https://site.test:8443/a".to_owned())));
    assert_eq!(origin.requests(), 0, "it is answered before anything is looked up");
    shows(&edge.get("/.well-known/acme-challenge/x").await, "page", "");
    edge.purge_path("/a").await;
    let told = edge
        .manage(
            "POST",
            "/v1/explain",
            Some(serde_json::json!({ "url": format!("http://{HOST}/a") })),
        )
        .await;
    assert!(told.text().contains("https://site.test:8443/a"), "{}", told.text());
}

#[tokio::test]
async fn a_redirect_of_a_rule_is_never_stored() {
    let origin = Origin::serving(Reply::fresh("page"));
    let edge = Edge::before(&origin)
        .site("default_lifetime = \"1h\"\nstatus_lifetime = { 3xx = \"1h\" }")
        .rule("/old", "redirect = { to = \"/new{rest}{query}\", status = 301 }")
        .rule("/old/kept", "redirect = \"none\"")
        .start();
    for query in ["?a", "?b"] {
        let answer = edge.get(&format!("/old/x{query}")).await;
        assert_eq!(answer.status(), 301);
        assert_eq!(answer.field("location"), Some(&*format!("http://{HOST}/new/x{query}")));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.field("cache-status"), None);
    }
    assert_eq!(
        edge.ask("GET", "h.test:81", "/old", &[]).await.field("location"),
        Some("http://h.test:81/new")
    );
    shows(&edge.fill("/old/kept").await, "page", "stored");
    assert_eq!(origin.requests(), 1);
}
