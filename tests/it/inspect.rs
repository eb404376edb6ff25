//! What is stored under a URL, as the admin listener and `atoll inspect` show it.

use serde_json::{Value, json};

use crate::support::edge::HOST;
use crate::support::{Edge, Origin, Reply, until};

async fn entry(edge: &Edge, url: &str) -> Value {
    let answer = edge.manage("GET", &format!("/v1/cache/entry?url={url}"), None).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn every_variant_is_shown_with_what_it_rests_on() {
    let reply = Reply::fresh("hello").field("Vary", "Accept-Language").field("Cache-Tag", "a, b");
    let origin = Origin::serving(reply.field("ETag", "\"x\""));
    let edge = Edge::start(&origin);
    for language in ["de", "fr"] {
        edge.fill_with("/a?b=1", &[("Accept-Language", language)]).await;
    }
    let told = entry(&edge, &format!("http://{HOST}/a%3Fb=1")).await;
    assert_eq!(told["stored"].as_array().unwrap().len(), 2, "{told:#}");
    for (pointer, expected) in [
        ("/site/name", json!("main")),
        ("/key/query", json!("b=1")),
        ("/stored/0/vary", json!("accept-language: fr")),
        ("/stored/1/vary", json!("accept-language: de")),
        ("/stored/0/state", json!("alive")),
        ("/stored/0/status", json!(200)),
        ("/stored/0/body_bytes", json!(5)),
        ("/stored/0/source", json!("max-age")),
        ("/stored/0/lifetime_seconds", json!(60.0)),
        ("/stored/0/tags", json!(2)),
        ("/stored/0/tag_names", json!("a, b")),
        ("/stored/0/etag", json!("\"x\"")),
        ("/parts", json!([])),
    ] {
        assert_eq!(told.pointer(pointer), Some(&expected), "{pointer} in {told:#}");
    }
    let ttl = told["stored"][0]["ttl_seconds"].as_i64().unwrap();
    assert!((50..=60).contains(&ttl), "{ttl}");
    assert_eq!(origin.requests(), 2, "looking asks nobody");
}

#[tokio::test]
async fn what_a_purge_killed_is_shown_as_dead_or_is_gone() {
    let origin = Origin::serving(Reply::fresh("x").field("Cache-Tag", "t"));
    let edge = Edge::start(&origin);
    let url = format!("http://{HOST}/a");
    assert_eq!(entry(&edge, &url).await["stored"], json!([]));
    edge.fill("/a").await;
    edge.purge(json!({ "tags": ["t"], "mode": "soft" })).await;
    let told = entry(&edge, &url).await;
    assert_eq!(told["stored"][0]["state"], "soft", "{told:#}");
    assert!(told["stored"][0]["ttl_seconds"].as_i64().unwrap() <= 0, "{told:#}");
    edge.purge_tag("t").await;
    let told = entry(&edge, &url).await;
    for stored in told["stored"].as_array().unwrap() {
        assert_eq!(stored["state"], "dead", "{told:#}");
    }
    until("the sweep to give it back", || async {
        entry(&edge, &url).await["stored"] == json!([])
    })
    .await;
}

#[tokio::test]
async fn incomplete_responses_and_coded_copies_are_shown() {
    let text = "a word and ".repeat(500);
    let whole = text.clone();
    let origin = Origin::start(move |seen| match seen.field("range") {
        Some(_) => Reply::new(206)
            .body(&whole[..100])
            .field("Cache-Control", "max-age=60")
            .field("ETag", "\"x\"")
            .field("Content-Range", &format!("bytes 0-99/{}", whole.len())),
        None => Reply::fresh(&whole).field("Content-Type", "text/plain"),
    });
    let edge = Edge::before(&origin).site("compress = [\"gzip\"]").start();
    edge.get_with("/part", &[("Range", "bytes=0-99")]).await;
    let url = format!("http://{HOST}/part");
    until("the part to be stored", || async {
        entry(&edge, &url).await["parts"][0]["ranges"] == json!("0-99")
    })
    .await;
    let told = entry(&edge, &url).await;
    assert_eq!(told["stored"], json!([]), "a part is no complete response");
    assert_eq!(told["parts"][0]["total_bytes"], json!(text.len()));

    edge.fill("/whole").await;
    let url = format!("http://{HOST}/whole");
    until("the coded copy to be made", || async {
        edge.get_with("/whole", &[("Accept-Encoding", "gzip")]).await;
        let told = entry(&edge, &url).await;
        told["stored"][0]["codings"].as_str().is_some_and(|codings| codings.starts_with("gzip ("))
    })
    .await;
}

#[tokio::test]
async fn a_token_sees_its_own_sites_only() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin)
        .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
        .another_site("name = \"two\"\nhosts = [\"two.test\"]\norigin = \"main\"")
        .token("reader-of-two-01234", &["read"], &["two"])
        .token("warmer-of-two-01234", &["warm"], &["two"])
        .start();
    for (token, query, status) in [
        ("reader-of-two-01234", "url=http://two.test/a", 200),
        ("reader-of-two-01234", "url=http%3A%2F%2Ftwo.test%2Fa", 200),
        ("reader-of-two-01234", "url=http://site.test/a", 403),
        ("reader-of-two-01234", "url=http://SITE.test.:8080/a", 403),
        ("reader-of-two-01234", "url=http://nobody.test/", 400),
        ("reader-of-two-01234", "url=http://two.test/../x", 400),
        ("reader-of-two-01234", "url=http://two.test/&header=host:%20site.test", 400),
        ("reader-of-two-01234", "url=http://two.test/&header=x", 400),
        ("reader-of-two-01234", "url=http://two.test/&site=main", 400),
        ("reader-of-two-01234", "url=http://two.test/&url=http://site.test/", 400),
        ("reader-of-two-01234", "url=%zz", 400),
        ("reader-of-two-01234", "", 400),
        ("warmer-of-two-01234", "url=http://two.test/a", 403),
    ] {
        let target = format!("/v1/cache/entry?{query}");
        let answer = edge.manage_as(Some(token), "GET", &target, None).await;
        assert_eq!(answer.status(), status, "{query}: {answer:?}");
    }
}

/// Tags that are asked for most, with their site, in the eyes of a token.
async fn hot_tags(edge: &Edge, token: &str, query: &str) -> Vec<(String, String)> {
    let target = format!("/v1/cache/top?of=tags{query}");
    let answer = edge.manage_as(Some(token), "GET", &target, None).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = told["tags"].as_array().unwrap().iter();
    rows.map(|row| (text(row, "site"), text(row, "tag"))).collect()
}

#[tokio::test]
async fn the_hottest_tags_are_told_to_those_whose_sites_have_them() {
    let origin = Origin::start(|seen| {
        let body = "x".repeat(if seen.target == "/film" { 5000 } else { 10 });
        match &*seen.target {
            "/private" => {
                Reply::ok(body).field("Cache-Control", "no-store").field("Cache-Tag", "own")
            }
            target => Reply::fresh(body).field("Cache-Tag", &format!("all, {}", &target[1..])),
        }
    });
    let edge = Edge::before(&origin)
        .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
        .another_site("name = \"two\"\nhosts = [\"two.test\"]\norigin = \"main\"")
        .token("reader-of-all-012345", &["read"], &[])
        .token("reader-of-two-012345", &["read"], &["two"])
        .start();
    for (host, target, times) in
        [("site.test", "/news", 9), ("site.test", "/film", 3), ("two.test", "/shop", 5)]
    {
        for _ in 0..times {
            assert_eq!(edge.ask("GET", host, target, &[]).await.status(), 200);
            edge.settled().await;
        }
    }
    assert_eq!(edge.ask("GET", "site.test", "/private", &[]).await.status(), 200);
    let tag = |site: &str, tag: &str| (site.to_owned(), tag.to_owned());
    let by_requests = [
        tag("main", "all"),
        tag("main", "news"),
        tag("two", "all"),
        tag("two", "shop"),
        tag("main", "film"),
    ];
    until("all of them to be counted", || async {
        hot_tags(&edge, "reader-of-all-012345", "").await == by_requests
    })
    .await;
    let by_bytes = hot_tags(&edge, "reader-of-all-012345", "&by=bytes&limit=2").await;
    assert_eq!(by_bytes, [tag("main", "all"), tag("main", "film")]);
    let of_two = hot_tags(&edge, "reader-of-two-012345", "").await;
    assert_eq!(of_two, [tag("two", "all"), tag("two", "shop")]);
    let warmer = edge.manage_as(Some("nobody-at-all-012345"), "GET", "/v1/cache/top?of=tags", None);
    assert_eq!(warmer.await.status(), 401);
}
