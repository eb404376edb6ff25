//! Every selector of a purge, alone and in lists: what it kills, and what it leaves.

use serde_json::{Value, json};

use crate::support::edge::HOST;
use crate::support::{Edge, Origin, Reply};

/// Numbered by request, fresh, with the tags `t` and the path's own.
fn numbered() -> Origin {
    Origin::start(|seen| {
        let own = seen.target.replace(['/', '?'], "-");
        Reply::fresh(format!("v{}", seen.nth)).field("Cache-Tag", &format!("t, {own}"))
    })
}

async fn hits(edge: &Edge, host: &str, target: &str) -> bool {
    let answer = edge.ask("GET", host, target, &[]).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    edge.settled().await;
    answer.says("hit")
}

async fn fill_all(edge: &Edge, urls: &[(&str, &str)]) {
    for (host, target) in urls {
        hits(edge, host, target).await;
    }
}

/// Purges, and asserts which of these URLs are gone and which are left.
async fn purge_leaves(purge: Value, gone: &[(&str, &str)], left: &[(&str, &str)]) {
    let origin = numbered();
    let edge = Edge::start(&origin);
    fill_all(&edge, gone).await;
    fill_all(&edge, left).await;
    edge.purge(purge.clone()).await;
    for (host, target) in left {
        assert!(hits(&edge, host, target).await, "{purge}: {host}{target} is left");
    }
    for (host, target) in gone {
        assert!(!hits(&edge, host, target).await, "{purge}: {host}{target} is gone");
        assert!(hits(&edge, host, target).await, "{purge}: {host}{target} is stored anew");
    }
}

#[tokio::test]
async fn a_prefix_kills_what_lies_below_on_its_host() {
    purge_leaves(
        json!({ "prefixes": ["https://Site.test:444/news/"] }),
        &[
            (HOST, "/news/"),
            (HOST, "/news/1"),
            (HOST, "/news/?page=2"),
            (HOST, "/news/a/b?c"),
            (HOST, "/news//"),
            ("site.test:8080", "/news/1"),
        ],
        &[(HOST, "/news"), (HOST, "/newsletter"), (HOST, "/x/news/"), ("other.test", "/news/1")],
    )
    .await;
}

#[tokio::test]
async fn a_host_is_killed_whatever_the_port() {
    purge_leaves(
        json!({ "hosts": ["SITE.test"] }),
        &[(HOST, "/"), (HOST, "/a?b"), ("site.test:8080", "/a")],
        &[("other.test", "/"), ("a.site.test", "/")],
    )
    .await;
}

#[tokio::test]
async fn a_pattern_kills_what_matches_it_whole() {
    purge_leaves(
        json!({ "globs": ["*.test/*/draft-*.html", "site.test/*?preview=*"] }),
        &[
            (HOST, "/a/draft-1.html"),
            (HOST, "/a/b/draft-.HTML"),
            ("other.test", "/x/draft-9.html"),
            (HOST, "/a?preview=1"),
        ],
        &[(HOST, "/draft-1.html"), (HOST, "/a/draft-1.html?x"), ("other.test", "/a?preview=1")],
    )
    .await;
}

#[tokio::test]
async fn a_list_of_all_kinds_is_carried_out_together() {
    purge_leaves(
        json!({
            "urls": [format!("http://{HOST}/one")],
            "tags": ["-two"],
            "prefixes": ["site.test/three/"],
            "hosts": ["four.test"],
            "globs": ["*.five"],
        }),
        &[
            (HOST, "/one"),
            (HOST, "/two"),
            (HOST, "/three/x"),
            ("four.test", "/"),
            (HOST, "/x.five"),
        ],
        &[(HOST, "/"), (HOST, "/three"), ("other.test", "/one"), (HOST, "/x.five?")],
    )
    .await;
}

#[tokio::test]
async fn a_list_with_a_fault_in_it_purges_nothing() {
    let origin = numbered();
    let edge = Edge::before(&origin)
        .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
        .start();
    edge.fill("/a").await;
    let epoch = edge.metric("atoll_epoch").await;
    for (fault, field) in [
        (json!({ "prefixes": ["site.test/a"] }), "prefixes"),
        (json!({ "prefixes": ["foreign.test/"] }), "prefixes"),
        (json!({ "hosts": ["foreign.test"] }), "hosts"),
        (json!({ "hosts": ["*"] }), "hosts"),
        (json!({ "globs": ["*"] }), "globs"),
        (json!({ "globs": ["foreign.test/*"] }), "globs"),
        (json!({ "urls": [""] }), "urls"),
        (json!({ "tags": ["a", ""] }), "tags"),
    ] {
        let mut body = fault.clone();
        let good = format!("http://{HOST}/a");
        if body["urls"].is_null() {
            body["urls"] = json!([good]);
        }
        let answer = edge.manage("POST", "/v1/purge", Some(body)).await;
        assert_eq!(answer.status(), 400, "{fault}: {answer:?}");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["field"], field, "{fault}");
    }
    assert!((edge.metric("atoll_epoch").await - epoch).abs() < 0.5);
    edge.get("/a").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn every_selector_can_be_soft_or_asked_to_check() {
    for selector in [
        json!({ "urls": [format!("http://{HOST}/a/b")] }),
        json!({ "tags": ["t"] }),
        json!({ "prefixes": ["site.test/a/"] }),
        json!({ "hosts": ["site.test"] }),
        json!({ "globs": ["site.test/*b"] }),
        json!({ "all": true, "site": "main" }),
        json!({ "all": true }),
    ] {
        let origin = Origin::start(|seen| match seen.field("if-none-match") {
            Some("\"1\"") => Reply::not_modified(),
            _ => Reply::fresh(format!("v{}", seen.nth))
                .without("Cache-Control")
                .field("Cache-Control", "max-age=600, stale-while-revalidate=600")
                .field("Cache-Tag", "t")
                .field("ETag", "\"1\""),
        });
        let edge = Edge::start(&origin);
        edge.fill("/a/b").await.expect(200, "v1", "fwd=uri-miss");
        let mut soft = selector.clone();
        soft["mode"] = json!("soft");
        edge.purge(soft).await;
        edge.fill("/a/b").await.expect(200, "v1", "hit");
        assert_eq!(origin.requests(), 2, "{selector}: refreshed behind the stale answer");
        edge.get("/a/b").await.expect(200, "v1", "hit");
        let mut check = selector.clone();
        check["mode"] = json!("check");
        edge.purge(check).await;
        edge.fill("/a/b").await.expect(200, "v1", "fwd-status=304");
        assert_eq!(origin.requests(), 3, "{selector}: confirmed before it was used");
        edge.purge(selector.clone()).await;
        edge.fill("/a/b").await.expect(200, "v4", "fwd=uri-miss");
    }
}

#[tokio::test]
async fn all_variants_ranges_and_the_head_go_with_their_prefix() {
    let origin = Origin::start(|seen| {
        let language = seen.field("accept-language").unwrap_or("-").to_owned();
        Reply::fresh(format!("{language}-version-{}", seen.nth)).field("Vary", "Accept-Language")
    });
    for selector in [
        json!({ "prefixes": ["site.test/a/"] }),
        json!({ "hosts": ["site.test"] }),
        json!({ "globs": ["*/a/*"] }),
    ] {
        let edge = Edge::start(&origin);
        for language in ["de", "en", "fr"] {
            edge.fill_with("/a/b", &[("Accept-Language", language)]).await;
        }
        edge.purge(selector.clone()).await;
        let german = ("Accept-Language", "de");
        let head = edge.ask("HEAD", HOST, "/a/b", &[german]).await;
        assert!(!head.says("hit"), "{selector}: {}", head.cache());
        let part = edge.get_with("/a/b", &[german, ("Range", "bytes=0-1")]).await;
        assert!(!part.says("hit"), "{selector}: {}", part.cache());
        for language in ["de", "en", "fr"] {
            let answer = edge.fill_with("/a/b", &[("Accept-Language", language)]).await;
            assert!(!answer.says("hit"), "{selector} {language}: {}", answer.cache());
        }
    }
}

#[tokio::test]
async fn rows_that_fold_purge_more_and_never_less() {
    let origin = numbered();
    let edge = Edge::before(&origin).limits("purge_rows = 16\npurge_globs = 2").start();
    edge.fill("/0").await;
    edge.fill("/other").await;
    let tags: Vec<String> = (0..40).map(|number| format!("-{number}")).collect();
    edge.purge(json!({ "tags": tags })).await;
    let answer = edge.fill("/0").await;
    assert!(!answer.says("hit"), "its row folded: {}", answer.cache());
    for pattern in ["*/a*", "*/b*", "*/c*"] {
        edge.purge(json!({ "globs": [pattern] })).await;
    }
    edge.fill("/another").await;
    edge.metric_becomes("atoll_purge_rows", 0.0).await;
    edge.fill("/another").await.expect(200, "v1", "hit");
}

#[tokio::test]
async fn a_dry_run_tells_what_the_purge_then_does() {
    let origin = numbered();
    let edge = Edge::start(&origin);
    for number in 0..7 {
        edge.fill(&format!("/a/{number}")).await;
    }
    edge.fill("/b").await;
    let body =
        json!({ "prefixes": ["site.test/a/"], "tags": ["-b"], "urls": ["http://site.test/a/1"] });
    let mut dry = body.clone();
    dry["dry_run"] = json!(true);
    let answer = edge.manage("POST", "/v1/purge", Some(dry)).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let preview: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&preview["dry_run"], &preview["matched"]), (&json!(true), &json!(8)), "{preview}");
    assert_eq!(preview["stored"], json!(8));
    assert!(preview["bytes"].as_u64() > Some(8 * 500), "{preview}");
    assert!((edge.metric("atoll_epoch").await).abs() < 0.5, "nothing was purged");
    edge.get("/a/0").await.expect(200, "v1", "hit");
    let receipt = edge.purge(body).await;
    let path = format!("/v1/purges/{}", receipt["id"].as_str().unwrap());
    crate::support::until("the sweep", || async { !told(&edge, &path).await["matched"].is_null() })
        .await;
    let past = told(&edge, &path).await;
    assert_eq!((&past["matched"], &past["freed"]), (&preview["matched"], &preview["bytes"]));
    assert_eq!((&past["count"], &past["token"]), (&json!(3), &json!("all")));
    assert_eq!(past["from"], json!("127.0.0.1"));
    assert_eq!(
        past["selectors"][1],
        json!({ "kind": "prefix", "site": "main", "value": "site.test/a/" })
    );
}

async fn told(edge: &Edge, path: &str) -> Value {
    let answer = edge.manage("GET", path, None).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn what_a_soft_purge_hit_is_counted_and_nothing_is_freed() {
    let origin = numbered();
    let edge = Edge::start(&origin);
    for number in 0..3 {
        edge.fill(&format!("/{number}")).await;
    }
    let receipt = edge.purge(json!({ "hosts": ["site.test"], "mode": "soft" })).await;
    let path = format!("/v1/purges/{}", receipt["id"].as_str().unwrap());
    crate::support::until("the sweep", || async { !told(&edge, &path).await["matched"].is_null() })
        .await;
    let past = told(&edge, &path).await;
    assert_eq!((&past["matched"], &past["freed"]), (&json!(3), &json!(0)), "{past}");
}
