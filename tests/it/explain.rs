//! What an edge says it would do and why: to operators, to nobody else, and truly.

use serde_json::{Value, json};

use crate::support::edge::{HOST, TOKEN};
use crate::support::{Edge, Gate, Origin, Reply, Response, until};

/// What the edge would do with a request.
async fn explain(edge: &Edge, body: Value) -> Value {
    let answer = edge.manage("POST", "/v1/explain", Some(body)).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// What it would do with a plain GET.
async fn explain_get(edge: &Edge, target: &str) -> Value {
    explain(edge, json!({ "url": format!("http://{HOST}{target}") })).await
}

#[tokio::test]
async fn a_hit_is_explained_with_all_that_it_rests_on() {
    let reply = Reply::fresh("hello").field("Cache-Tag", "a, b").field("Vary", "Accept-Encoding");
    let origin = Origin::serving(reply.field("ETag", "\"x\""));
    let edge = Edge::before(&origin)
        .site("stale_if_error = \"1h\"")
        .rule("/shop", "stale_while_revalidate = \"30s\"")
        .start();
    edge.fill_with("/shop/a?b=1", &[("Accept-Encoding", "br")]).await;
    edge.fill_with("/shop/a?b=1", &[("Accept-Encoding", "gzip")]).await;
    let described = json!({
        "url": format!("http://{HOST}/shop/a?b=1"),
        "headers": [["accept-encoding", "br"]],
    });
    let told = explain(&edge, described).await;
    for (pointer, expected) in [
        ("/decision/decision", json!("hit")),
        ("/decision/reason", json!("fresh")),
        ("/decision/outcome", json!("hit")),
        ("/site/name", json!("main")),
        ("/site/rule", json!("/shop")),
        ("/site/origin", json!("main")),
        ("/policy/stale_while_revalidate_seconds", json!(30.0)),
        ("/key/host", json!(HOST)),
        ("/key/path", json!("/shop/a")),
        ("/key/query", json!("b=1")),
        ("/stored/0/vary", json!("accept-encoding: gzip")),
        ("/stored/0/selected", json!(false)),
        ("/stored/1/vary", json!("accept-encoding: br")),
        ("/stored/1/selected", json!(true)),
        ("/stored/1/state", json!("alive")),
        ("/stored/1/status", json!(200)),
        ("/stored/1/body_bytes", json!(5)),
        ("/stored/1/tags", json!(2)),
        ("/freshness/source", json!("max-age")),
        ("/freshness/lifetime_seconds", json!(60.0)),
        ("/freshness/fresh_for_seconds", json!(60.0)),
        ("/freshness/stale_if_error_seconds", json!(3600.0)),
        ("/purging/lease", json!(true)),
        ("/purges", json!([])),
        ("/origin/asked", json!("no")),
        ("/origin/if_none_match", json!("\"x\"")),
        ("/origin/stored_stands_in_on_error", json!(true)),
    ] {
        assert_eq!(told.pointer(pointer), Some(&expected), "{pointer} in {told:#}");
    }
    let age = told["freshness"]["age_seconds"].as_f64().unwrap();
    assert!((0.0..10.0).contains(&age), "{age}");
    assert_eq!(told.get("fill"), None);
}

#[tokio::test]
async fn what_a_rule_makes_of_the_key_is_told() {
    let origin = Origin::serving(Reply::fresh("x"));
    let keys = "key_query = \"sorted\"\nkey_headers = [\"x-kind\"]\nkey_cookies = [\"who\"]";
    let edge = Edge::before(&origin).site(keys).start();
    let cookie = "who=s3cret; other=b";
    edge.fill_with("/a?c&b", &[("X-Kind", "new"), ("Cookie", cookie)]).await;
    let url = format!("http://{HOST}/a?b&c");
    let headers = json!({ "x-kind": "new", "cookie": cookie });
    let told = explain(&edge, json!({ "url": url, "headers": headers })).await;
    assert_eq!(told["decision"]["decision"], "hit", "{told:#}");
    assert_eq!(told["request"]["url"], json!(url));
    assert_eq!(told["key"]["query"], "b&c");
    let fields = told["key"]["fields"].as_str().unwrap();
    assert!(fields.contains("x-kind: new") && fields.contains("cookie: (10 bytes"), "{fields}");
    assert!(!told.to_string().contains("s3cret"), "{told:#}");
    let told = explain(&edge, json!({ "url": url })).await;
    assert_eq!(told["decision"]["reason"], "nothing-stored", "{told:#}");
}

#[tokio::test]
async fn explaining_changes_nothing() {
    let origin = Origin::serving(Reply::fresh("x").field("Cache-Tag", "t"));
    let edge = Edge::start(&origin);
    assert_eq!(explain_get(&edge, "/a").await["decision"]["decision"], "fill");
    assert_eq!(origin.requests(), 0);
    edge.fill("/a").await;
    edge.purge_tag("t").await;
    let hits = edge.metric("atoll_fills_total").await;
    for _ in 0..3 {
        let told = explain_get(&edge, "/a").await;
        assert_eq!(told["decision"]["decision"], "fill", "{told:#}");
    }
    assert!((edge.metric("atoll_killed_total").await).abs() < 0.5, "it counted a look-up");
    assert!((edge.metric("atoll_fills_total").await - hits).abs() < 0.5);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_purges_did_is_told_row_by_row() {
    let origin = Origin::serving(
        Reply::ok("x")
            .field("Cache-Control", "max-age=60, stale-while-revalidate=600")
            .field("Cache-Tag", "t, other"),
    );
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let old = edge.purge(json!({ "tags": ["nobody-bears-it"] })).await["epoch"].clone();
    let soft = edge.purge(json!({ "tags": ["T"], "mode": "soft" })).await["epoch"].clone();
    let told = explain_get(&edge, "/a").await;
    assert_eq!(told["decision"]["decision"], "hit-stale", "{told:#}");
    assert_eq!(told["purging"]["state"], "soft");
    assert_eq!(told["purging"]["born"].as_u64().unwrap() + 1, old.as_u64().unwrap());
    let rows = told["purges"].as_array().unwrap();
    // The sweep may have dropped the row, after it wrote the verdict onto the response.
    for row in rows {
        assert_eq!((&row["selector"], &row["names"]), (&json!("tag"), &json!("t")));
        assert_eq!((&row["strength"], &row["epoch"]), (&json!("soft"), &soft));
        assert_eq!(row["applies"], true);
    }
    edge.purge_path("/a").await;
    edge.get("/a").await.expect(200, "x", "fwd=uri-miss");
}

#[tokio::test]
async fn why_it_was_not_stored_is_remembered() {
    let origin = Origin::serving(Reply::ok("x").field("Cache-Control", "private, max-age=60"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let told = explain_get(&edge, "/a").await;
    assert_eq!(told["decision"]["decision"], "pass");
    assert_eq!(told["decision"]["detail"], "uncacheable");
    assert_eq!(told["uncacheable"]["reason"], "private");
    assert!(told["decision"]["text"].as_str().unwrap().contains("not shared (private)"));
    assert!(told["uncacheable"]["for_seconds"].as_f64().unwrap() > 1.0);
    assert_eq!(told["origin"]["asked"], "as-it-came");
}

#[tokio::test]
async fn a_fill_under_way_is_told() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::fresh("x").gate(&held));
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    client.send(format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    origin.seen("/a", 1).await;
    let told = explain_get(&edge, "/a").await;
    assert_eq!(told["decision"]["outcome"], "collapsed", "{told:#}");
    assert_eq!(told["fill"]["origin_has_begun_to_answer"], false);
    assert_eq!(told["fill"]["readers"], 1);
    gate.open();
    client.response("GET").await.expect(200, "x", "stored");
    edge.settled().await;
    assert_eq!(explain_get(&edge, "/a").await.get("fill"), None);
}

#[tokio::test]
async fn nobodys_secrets_are_told() {
    let vary = "Authorization, X-Api-Key, X-Plain";
    let reply = Reply::ok("x").field("Cache-Control", "public, max-age=60").field("Vary", vary);
    let origin = Origin::serving(reply);
    let edge = Edge::start(&origin);
    let fields =
        [("Authorization", "Bearer s3cret"), ("X-Api-Key", "s3cret"), ("X-Plain", "shown")];
    edge.fill_with("/a", &fields).await.expect(200, "x", "stored");
    let told = explain_get(&edge, "/a").await;
    assert_eq!(told["decision"]["forward"], "vary-miss", "{told:#}");
    let vary = told["stored"][0]["vary"].as_str().unwrap();
    assert!(vary.contains("x-plain: shown") && vary.contains("13 bytes"), "{vary}");
    assert!(!told.to_string().contains("s3cret"), "{told:#}");
}

/// What two equal requests have in common.
fn essence(answer: &Response) -> (u16, Vec<Vec<&str>>, &str) {
    let names = ["vary", "cache-control", "content-length", "via", "atoll-explain", "connection"];
    let fields = names.iter().map(|name| answer.head.all(name));
    (answer.status(), fields.collect(), answer.text())
}

#[tokio::test]
async fn the_field_tells_whoever_may_look_and_nobody_else() {
    let origin = Origin::serving(Reply::fresh("x").field("Vary", "Atoll-Explain, Accept-Encoding"));
    let edge = Edge::before(&origin)
        .token("reader-of-main-0123", &["read"], &["main"])
        .token("reader-of-else-0123", &["read"], &["elsewhere"])
        .token("purger-of-main-0123", &["purge", "warm"], &[])
        .another_site("name = \"elsewhere\"\nhosts = [\"elsewhere.test\"]\norigin = \"main\"")
        .start();
    edge.fill("/stored").await;
    for target in ["/stored", "/missed", "/passed"] {
        let method = if target == "/passed" { "PUT" } else { "GET" };
        let plain = edge.ask(method, HOST, target, &[]).await;
        let wrong: [&[(&str, &str)]; 6] = [
            &[("Atoll-Explain", "no-token-that-is-known")],
            &[("Atoll-Explain", "reader-of-else-0123")],
            &[("Atoll-Explain", "purger-of-main-0123")],
            &[("Atoll-Explain", "")],
            &[("Atoll-Explain", TOKEN), ("Atoll-Explain", TOKEN)],
            &[("Atoll_Explain", TOKEN)],
        ];
        for fields in wrong {
            let answer = edge.ask(method, HOST, target, fields).await;
            assert_eq!(answer.field("atoll-explain"), None, "{fields:?}");
            assert_eq!(essence(&answer), essence(&plain), "{fields:?}");
        }
        for token in [TOKEN, "reader-of-main-0123"] {
            let answer = edge.ask(method, HOST, target, &[("Atoll-Explain", token)]).await;
            let line = answer.field("atoll-explain").expect("an explanation");
            assert!(line.starts_with("atoll; decision="), "{line}");
            assert!(line.contains("; site=\"main\"; rule=\"/\""), "{line}");
            let decision = if method == "PUT" { "pass" } else { "hit" };
            assert!(line.contains(&format!("decision={decision};")), "{line}");
        }
    }
    let elsewhere = [("Atoll-Explain", "reader-of-else-0123")];
    let answer = edge.ask("GET", "elsewhere.test", "/a", &elsewhere).await;
    let line = answer.field("atoll-explain").expect("an explanation");
    assert!(line.contains("decision=fill; reason=nothing-stored; fwd=uri-miss"), "{line}");
    for target in ["/stored", "/missed", "/passed", "/a"] {
        for seen in origin.seen(target, 1).await {
            let head = String::from_utf8_lossy(&seen.raw).to_ascii_lowercase();
            assert!(!head.contains("explain") && !head.contains("0123"), "{head}");
        }
    }
}

#[tokio::test]
async fn guessing_at_the_door_for_clients_leads_nowhere() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let told = |answer: &Response| answer.field("atoll-explain").is_some();
    assert!(told(&edge.get_with("/a", &[("Atoll-Explain", TOKEN)]).await));
    for guess in 0..25 {
        let guess = format!("a-guess-that-is-wrong-{guess}");
        let answer = edge.get_with("/a", &[("Atoll-Explain", &guess)]).await;
        answer.expect(200, "x", "hit");
        assert!(!told(&answer));
    }
    let locked = edge.get_with("/a", &[("Atoll-Explain", TOKEN)]).await;
    assert!(!told(locked.expect(200, "x", "hit")));
    // Operators are not locked out by what strangers do elsewhere, and not for long.
    assert_eq!(edge.manage("GET", "/v1/status", None).await.status(), 200);
    until("the field to be heard again", || async {
        told(&edge.get_with("/a", &[("Atoll-Explain", TOKEN)]).await)
    })
    .await;
}

#[tokio::test]
async fn a_token_is_told_about_its_sites_only() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin)
        .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
        .another_site("name = \"two\"\nhosts = [\"two.test\"]\norigin = \"main\"")
        .token("reader-of-two-01234", &["read"], &["two"])
        .start();
    for (url, status) in [
        ("http://two.test/a", 200),
        ("http://site.test/a", 403),
        ("http://SITE.test.:8080/a", 403),
        ("http://nobody.test/", 200),
        ("http://two.test/../x", 200),
    ] {
        let body = Some(json!({ "url": url }));
        let answer = edge.manage_as(Some("reader-of-two-01234"), "POST", "/v1/explain", body).await;
        assert_eq!(answer.status(), status, "{url}: {answer:?}");
    }
    // The target's host is the one that was judged, whatever `Host` says.
    let body = json!({ "url": "http://two.test/a", "headers": { "host": "site.test" } });
    let answer =
        edge.manage_as(Some("reader-of-two-01234"), "POST", "/v1/explain", Some(body)).await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&told["decision"]["reason"], told.get("site")), (&json!("host"), None));
    let told = explain(&edge, json!({ "url": "http://nobody.test/" })).await;
    assert_eq!(told["decision"]["reason"], "unknown-host");
}

/// Numbers that look random and are the same each time.
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

fn reply_for(target: &str, nth: usize) -> Reply {
    let reply = |line: &str| Reply::ok("hello world").field("Cache-Control", line);
    let tagged = |reply: Reply| reply.field("Cache-Tag", "t").field("ETag", "\"e\"");
    match target.split('/').nth(1).unwrap_or_default() {
        "fresh" => tagged(reply("max-age=600")),
        "bare" => reply("max-age=600"),
        "stale" => tagged(reply("max-age=0")),
        "window" => tagged(reply("max-age=600, stale-while-revalidate=600")),
        "checked" => tagged(reply("no-cache")),
        "vary" => tagged(reply("max-age=600").field("Vary", "Accept-Encoding")),
        "shared" => reply("public, max-age=600"),
        "private" => reply("private"),
        "turns" if nth.is_multiple_of(2) => reply("no-store"),
        _ => reply("max-age=600"),
    }
}

/// The parameters of `Cache-Status` that are known before the origin answers.
fn foretold_part(cache: &str) -> Vec<&str> {
    let known = |part: &&str| {
        *part == "hit" || part.starts_with("fwd=") || matches!(*part, "detail=uncacheable")
    };
    cache.split("; ").filter(known).collect()
}

#[tokio::test]
async fn what_is_foretold_is_what_happens() {
    let origin = Origin::start(|seen| reply_for(&seen.target, seen.nth));
    let edge = Edge::before(&origin)
        .limits("uncacheable_memory = \"1h\"")
        .rule("/honest", "honour_request_directives = true")
        .rule("/pass", "pass = true")
        .rule("/keyed", "key_query = \"sorted\"\nkey_headers = [\"x-kind\"]")
        .start();
    let targets = [
        "/fresh/1",
        "/fresh/2",
        "/bare/1",
        "/stale/1",
        "/window/1",
        "/checked/1",
        "/vary/1",
        "/shared/1",
        "/private/1",
        "/turns/1",
        "/honest/1",
        "/pass/1",
        "/keyed/1?a&b",
        "/keyed/1?b&a",
        "/a%2f..%2fb",
    ];
    let fields: [&[(&str, &str)]; 13] = [
        &[],
        &[],
        &[],
        &[("Accept-Encoding", "br")],
        &[("Accept-Encoding", "gzip")],
        &[("X-Kind", "a")],
        &[("Authorization", "Basic abc")],
        &[("Range", "bytes=0-3")],
        &[("If-None-Match", "\"e\"")],
        &[("If-Match", "\"e\"")],
        &[("Cache-Control", "only-if-cached")],
        &[("Cache-Control", "no-cache")],
        &[("Cache-Control", "max-stale=100"), ("Range", "bytes=1-2")],
    ];
    let mut draws = Draws(20_260_101);
    let mut met = std::collections::BTreeSet::new();
    for step in 0..600 {
        let target = *draws.pick(&targets);
        match draws.below(20) {
            0 => drop(edge.purge(json!({ "tags": ["t"], "mode": "soft" })).await),
            1 => drop(edge.purge_tag("t").await),
            2 => drop(edge.purge_path(target).await),
            _ => {}
        }
        let method = *draws.pick(&["GET", "GET", "GET", "GET", "HEAD", "OPTIONS"]);
        let with = *draws.pick(&fields);
        let url = format!("http://{HOST}{target}");
        let told = explain(&edge, json!({ "method": method, "url": url, "headers": with })).await;
        let mut all = with.to_vec();
        all.push(("Atoll-Explain", TOKEN));
        let answer = edge.ask(method, HOST, target, &all).await;
        edge.settled().await;
        let decision = told["decision"]["decision"].as_str().unwrap();
        met.insert(decision.to_owned());
        let what = format!("step {step}: {method} {target} {with:?}: {told:#}");
        let line = answer.field("atoll-explain").expect("an explanation");
        assert!(line.contains(&format!("decision={decision};")), "{line} in {what}");
        if decision == "only-if-cached" {
            assert_eq!(answer.status(), 504, "{what}");
            continue;
        }
        let foretold = told["decision"]["cache_status"].as_str().unwrap();
        assert_eq!(foretold_part(answer.cache()), foretold_part(foretold), "{what}");
    }
    let all = ["fill", "hit", "hit-stale", "only-if-cached", "pass", "revalidate"];
    assert_eq!(met.iter().collect::<Vec<_>>(), all, "a kind of decision was never met");
}
