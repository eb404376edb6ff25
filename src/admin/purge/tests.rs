use serde_json::json;

use super::super::tests::{Answer, Bench, bench};
use super::*;

async fn purge(bench: &Bench, token: &str, body: &str) -> Answer {
    bench.ask("POST", "/v1/purge", token, body).await
}

fn site(name: &str) -> Arc<str> {
    Arc::from(name)
}

fn url(name: &str, target: &str) -> Selector {
    Selector::Url { site: site(name), host: format!("{name}.example"), target: target.into() }
}

fn prefix(name: &str, path: &str) -> Selector {
    Selector::Prefix { site: site(name), host: format!("{name}.example"), path: path.into() }
}

fn host(name: &str) -> Selector {
    Selector::Host { site: site(name), host: format!("{name}.example") }
}

fn glob(name: &str, pattern: &str) -> Selector {
    Selector::Glob { site: site(name), glob: crate::purge::Glob::parse(pattern).unwrap() }
}

fn tag(name: &str, tag: &str) -> Selector {
    Selector::Tag { site: site(name), tag: tag.into() }
}

#[tokio::test]
async fn a_purge_means_what_it_names() {
    let whole = |name| Selector::Site { site: site(name) };
    let rows = [
        (
            "purge",
            json!({"site": "shop", "tags": ["A", "b", "a"]}),
            vec![tag("shop", "a"), tag("shop", "b")],
        ),
        ("purge", json!({"tags": ["a"]}), vec![tag("shop", "a"), tag("blog", "a")]),
        ("blogger", json!({"tags": ["a"]}), vec![tag("blog", "a")]),
        ("purge", json!({"all": true, "site": "shop"}), vec![whole("shop")]),
        ("purge-all", json!({"all": true}), vec![Selector::All]),
        ("blogger", json!({"all": true}), vec![whole("blog")]),
        ("purge", json!({"urls": ["https://shop.example"]}), vec![url("shop", "/")]),
        (
            "purge",
            json!({"site": "shop", "urls": ["http://SHOP.example:8080/a%c3?x=1"], "all": false}),
            vec![url("shop", "/a%C3?x=1")],
        ),
        (
            "all",
            json!({"urls": ["https://shop.example/a?utm_source=x", "https://blog.example/a?utm_source=x"]}),
            vec![url("shop", "/a?utm_source=x"), url("blog", "/a?utm_source=x")],
        ),
        (
            "purge",
            json!({"urls": ["https://blog.example/?q", "https://shop.example?q"], "tags": ["t"], "site": "blog"}),
            vec![],
        ),
        (
            "all",
            json!({"urls": ["https://blog.example/?q", "https://shop.example?q"]}),
            vec![url("blog", "/?q"), url("shop", "/?q")],
        ),
        (
            "purge",
            json!({"prefixes": ["shop.example/", "HTTPS://Shop.example.:8443/a%c3//b/"]}),
            vec![prefix("shop", "/"), prefix("shop", "/a%C3//b/")],
        ),
        (
            "purge",
            json!({"hosts": ["Blog.example", "http://shop.example:81", "blog.example."]}),
            vec![host("blog"), host("shop")],
        ),
        (
            "purge",
            json!({"globs": ["shop.example/*.JPG", "*/draft-*"]}),
            vec![
                glob("shop", "shop.example/*.jpg"),
                glob("shop", "*/draft-*"),
                glob("blog", "*/draft-*"),
            ],
        ),
        ("purge", json!({"site": "blog", "globs": ["*?v=*"]}), vec![glob("blog", "*?v=*")]),
        ("blogger", json!({"globs": ["*?v=*"]}), vec![glob("blog", "*?v=*")]),
        (
            "purge",
            json!({"site": "shop", "tags": ["t"], "globs": ["*.css"], "hosts": ["shop.example"],
                   "prefixes": ["shop.example/a/"], "urls": ["https://shop.example/"]}),
            vec![
                url("shop", "/"),
                prefix("shop", "/a/"),
                host("shop"),
                glob("shop", "*.css"),
                tag("shop", "t"),
            ],
        ),
    ];
    for (token, body, expected) in rows {
        let bench = bench();
        let answer = purge(&bench, token, &body.to_string()).await;
        let purges = bench.control.purges.lock().unwrap();
        if expected.is_empty() {
            assert_eq!((answer.status, purges.len()), (400, 0), "{body}");
            continue;
        }
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        assert_eq!(*purges, [(expected, Strength::Hard)], "{body}");
    }
}

#[tokio::test]
async fn the_answer_identifies_the_purge() {
    let bench = bench();
    for (wait, state) in [
        (json!(null), "acknowledged"),
        (json!("local"), "local"),
        (json!("everywhere"), "everywhere"),
    ] {
        let mut body = json!({"tags": ["a"], "site": "shop", "mode": "soft", "timeout": "5s"});
        if !wait.is_null() {
            body["wait"] = wait;
        }
        let answer = purge(&bench, "purge", &body.to_string()).await.json();
        let number = bench.control.purges.lock().unwrap().len();
        assert_eq!(answer["id"], format!("n1.00000000000000ff.{number}"));
        assert_eq!(answer["epoch"], number);
        assert_eq!(answer["state"], state);
        assert!(answer["took_ms"].as_f64().is_some_and(|took| took >= 0.0));
        assert!(answer["matched"].is_null() && answer["freed"].is_null());
        let told = if state == "local" { 6 } else { 11 };
        assert_eq!(
            answer.as_object().unwrap().len(),
            told,
            "who does not wait is not told: {answer}"
        );
        assert_eq!(bench.control.purges.lock().unwrap()[number - 1].1, Strength::Soft);
    }
}

#[tokio::test]
async fn what_is_empty_unknown_or_not_built_is_refused() {
    let rows = [
        ("", "body", None),
        ("null", "body", None),
        ("[]", "body", None),
        (r#"["shop",[],["a"]]"#, "body", None),
        ("{", "body", None),
        (r#"{"tags":["a"]} x"#, "body", None),
        (r#"{"tags":["a"],"tags":["b"]}"#, "body", None),
        (r#"{"tags":["a"],"site":null}"#, "body", None),
        (r#"{"tags":null}"#, "body", None),
        (r#"{"tags":"a"}"#, "body", None),
        (r#"{"tags":[1]}"#, "body", None),
        (r#"{"all":"true"}"#, "body", None),
        (r#"{"tag":["a"]}"#, "body", None),
        ("{}", "empty-selector", None),
        (r#"{"site":"shop"}"#, "empty-selector", None),
        (r#"{"all":false}"#, "empty-selector", None),
        (r#"{"urls":[],"tags":[]}"#, "empty-selector", None),
        (r#"{"prefixes":[],"hosts":[],"globs":[]}"#, "empty-selector", None),
        (r#"{"dry_run":true}"#, "empty-selector", None),
        (r#"{"all":true,"hosts":["shop.example"]}"#, "conflict", Some("all")),
        (r#"{"tags":["a"],"hosts":null}"#, "body", None),
        (r#"{"tags":["a"],"dry_run":null}"#, "body", None),
        (r#"{"tags":["a"],"dry_run":"yes"}"#, "body", None),
        (r#"{"prefixes":[""]}"#, "prefix", Some("prefixes")),
        (r#"{"prefixes":["/a/"]}"#, "prefix", Some("prefixes")),
        (r#"{"prefixes":["shop.example"]}"#, "prefix", Some("prefixes")),
        (r#"{"prefixes":["shop.example/a"]}"#, "prefix", Some("prefixes")),
        (r#"{"prefixes":["shop.example/a/?b/"]}"#, "prefix", Some("prefixes")),
        (r#"{"prefixes":["shop.example/*/"]}"#, "prefix", Some("prefixes")),
        (r#"{"prefixes":["shop.example/a/../"]}"#, "prefix", Some("prefixes")),
        (r#"{"prefixes":["*/"]}"#, "prefix", Some("prefixes")),
        (r#"{"prefixes":["foreign.test/a/"]}"#, "foreign-host", Some("prefixes")),
        (r#"{"prefixes":["blog.example/a/"],"site":"shop"}"#, "foreign-host", Some("prefixes")),
        (r#"{"hosts":[""]}"#, "host", Some("hosts")),
        (r#"{"hosts":["*"]}"#, "host", Some("hosts")),
        (r#"{"hosts":["*.example"]}"#, "host", Some("hosts")),
        (r#"{"hosts":["shop.example/"]}"#, "host", Some("hosts")),
        (r#"{"hosts":["foreign.test"]}"#, "foreign-host", Some("hosts")),
        (r#"{"hosts":["blog.example"],"site":"shop"}"#, "foreign-host", Some("hosts")),
        (r#"{"globs":[""]}"#, "glob", Some("globs")),
        (r#"{"globs":["*"]}"#, "glob", Some("globs")),
        (r#"{"globs":["*/*"]}"#, "glob", Some("globs")),
        (r#"{"globs":["shop.example:80/*"]}"#, "glob", Some("globs")),
        (r#"{"globs":["shop.example./*"]}"#, "glob", Some("globs")),
        (r#"{"globs":["/a/*"]}"#, "glob", Some("globs")),
        (r#"{"globs":["foreign.test/*"]}"#, "foreign-host", Some("globs")),
        (r#"{"globs":["blog.example/*"],"site":"shop"}"#, "foreign-host", Some("globs")),
        (r#"{"tags":["a"],"refetch":true}"#, "body", None),
        (r#"{"tags":["a"],"refetch":null}"#, "body", None),
        (r#"{"tags":["a"],"refetch":0}"#, "value", Some("refetch")),
        (r#"{"tags":["a"],"refetch":1001}"#, "value", Some("refetch")),
        (r#"{"all":true,"tags":["a"]}"#, "conflict", Some("all")),
        (r#"{"tags":["a"],"site":"none"}"#, "unknown-site", Some("site")),
        (r#"{"tags":["a"],"site":""}"#, "unknown-site", Some("site")),
        (r#"{"tags":[""]}"#, "value", Some("tags")),
        (r#"{"tags":["*"]}"#, "value", Some("tags")),
        (r#"{"tags":[" a"]}"#, "value", Some("tags")),
        (r#"{"tags":["a\u0000b"]}"#, "value", Some("tags")),
        (r#"{"tags":["a"],"mode":"firm"}"#, "value", Some("mode")),
        (r#"{"tags":["a"],"guard":null}"#, "body", None),
        (r#"{"tags":["a"],"guard":"5%"}"#, "body", None),
        (r#"{"tags":["a"],"guard":-1}"#, "body", None),
        (r#"{"tags":["a"],"guard":101}"#, "value", Some("guard")),
        (r#"{"guard":5}"#, "empty-selector", None),
        (r#"{"tags":["a"],"wait":"all"}"#, "value", Some("wait")),
        (r#"{"tags":["a"],"timeout":"5"}"#, "value", Some("timeout")),
        (r#"{"tags":["a"],"timeout":"6m"}"#, "value", Some("timeout")),
        (r#"{"urls":[""]}"#, "url", Some("urls")),
        (r#"{"urls":["*"]}"#, "url", Some("urls")),
        (r#"{"urls":["/path"]}"#, "url", Some("urls")),
        (r#"{"urls":["shop.example/x"]}"#, "url", Some("urls")),
        (r#"{"urls":["ftp://shop.example/"]}"#, "url", Some("urls")),
        (r#"{"urls":["https://shop.example/#x"]}"#, "url", Some("urls")),
        (r#"{"urls":["https://me@shop.example/"]}"#, "url", Some("urls")),
        (r#"{"urls":["https://shop.example/a/../b"]}"#, "url", Some("urls")),
        (r#"{"urls":["https://shop.example/a b"]}"#, "url", Some("urls")),
        (r#"{"urls":["https://foreign.test/"]}"#, "foreign-host", Some("urls")),
        (r#"{"urls":["https://blog.example/"],"site":"shop"}"#, "foreign-host", Some("urls")),
    ];
    let bench = bench();
    for (body, code, field) in rows {
        let answer = purge(&bench, "all", body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{body}");
        assert_eq!(problem.get("field").and_then(|name| name.as_str()), field, "{body}");
    }
    assert!(bench.control.purges.lock().unwrap().is_empty());
}

#[tokio::test]
async fn unknown_field_is_named() {
    let answer = purge(&bench(), "all", r#"{"tags":["a"],"soft":true}"#).await;
    assert!(answer.json()["detail"].as_str().unwrap().contains("`soft`"), "{}", answer.body);
}

#[tokio::test]
async fn a_token_reaches_its_sites_only() {
    let rows = [
        ("blogger", r#"{"tags":["a"],"site":"shop"}"#, 403),
        ("blogger", r#"{"tags":["a"],"site":"none"}"#, 403),
        ("blogger", r#"{"all":true,"site":"shop"}"#, 403),
        ("blogger", r#"{"urls":["https://shop.example/"]}"#, 403),
        ("blogger", r#"{"urls":["https://blog.example/"]}"#, 200),
        ("purge", r#"{"all":true}"#, 403),
        ("purge", r#"{"all":true,"site":"shop"}"#, 200),
        ("stranger", r#"{"all":true}"#, 400),
        ("stranger", r#"{"tags":["a"]}"#, 400),
        ("stranger", r#"{"globs":["*.css"]}"#, 400),
        ("blogger", r#"{"prefixes":["shop.example/"]}"#, 403),
        ("blogger", r#"{"prefixes":["blog.example/"]}"#, 200),
        ("blogger", r#"{"hosts":["shop.example"]}"#, 403),
        ("blogger", r#"{"globs":["shop.example/*"]}"#, 403),
        ("blogger", r#"{"globs":["blog.example/*","*.css"]}"#, 200),
    ];
    for (token, body, status) in rows {
        let bench = bench();
        let answer = purge(&bench, token, body).await;
        assert_eq!(answer.status, status, "{token} {body}: {}", answer.body);
        let purges = bench.control.purges.lock().unwrap().len();
        assert_eq!(purges, usize::from(status == 200));
    }
}

#[tokio::test]
async fn purging_faster_than_allowed_waits() {
    let bench = bench();
    let tags: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    let body = json!({"site": "shop", "tags": tags}).to_string();
    assert_eq!(purge(&bench, "purge", &body).await.status, 200);
    let answer = purge(&bench, "purge", &body).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(purge(&bench, "all", &body).await.status, 200, "another token has its own rate");
    assert_eq!(bench.control.purges.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn one_purge_takes_so_many_selectors_and_no_more() {
    let deep = format!("shop.example{}/", "/a".repeat(32));
    let globs: Vec<_> = (0..65).map(|number| format!("shop.example/{number}*")).collect();
    let mut config = crate::telemetry::test_config();
    config.admin.purge_selectors = 3;
    config.admin.body_bytes = 1 << 20;
    config.admin.purges_per_second = 1000;
    let few = super::super::tests::bench_of(config.clone());
    config.admin.purge_selectors = 1000;
    let many = super::super::tests::bench_of(config);
    let rows = [
        (&few, json!({"tags": ["a", "b"], "hosts": ["shop.example"]}), 200, ""),
        (
            &few,
            json!({"tags": ["a", "b"], "hosts": ["shop.example", "shop.example"]}),
            400,
            "too-many",
        ),
        (&many, json!({"globs": globs[1..]}), 200, ""),
        (&many, json!({"globs": globs}), 400, "too-many"),
        (&many, json!({"prefixes": [deep]}), 400, "prefix"),
        (&many, json!({"prefixes": [deep.replacen("/a", "", 1)]}), 200, ""),
    ];
    for (bench, body, status, code) in rows {
        let answer = purge(bench, "all", &body.to_string()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        if status != 200 {
            assert_eq!(answer.json()["code"], code, "{body}");
        }
    }
}

#[tokio::test]
async fn every_strength_can_be_asked_for() {
    let bench = bench();
    for (mode, strength) in
        [("hard", Strength::Hard), ("check", Strength::Check), ("soft", Strength::Soft)]
    {
        let body = json!({"site": "shop", "hosts": ["shop.example"], "mode": mode});
        assert_eq!(purge(&bench, "purge", &body.to_string()).await.status, 200);
        let purges = bench.control.purges.lock().unwrap();
        assert_eq!(*purges.last().unwrap(), (vec![host("shop")], strength));
    }
}

#[tokio::test]
async fn a_dry_run_counts_and_purges_nothing() {
    let bench = bench();
    let body = json!({"tags": ["a"], "mode": "soft", "dry_run": true}).to_string();
    for (token, stored) in [("purge", json!(100)), ("blogger", json!(null))] {
        let answer = purge(&bench, token, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let preview = answer.json();
        assert_eq!((&preview["dry_run"], &preview["mode"]), (&json!(true), &json!("soft")));
        assert_eq!((&preview["stored"], &preview["bytes"]), (&stored, &json!(4096)));
        assert_eq!(preview["matched"], preview["selectors"]);
        assert!(preview["id"].is_null() && preview["epoch"].is_null());
    }
    assert!(bench.control.purges.lock().unwrap().is_empty());
    let whole = purge(&bench, "purge", r#"{"all":true,"dry_run":true}"#).await;
    assert_eq!(whole.status, 403, "it needs the right to what it tries");
    let _walking = bench.admin.walks.try_acquire().unwrap();
    let busy = purge(&bench, "purge", &body).await;
    assert_eq!((busy.status, &busy.json()["code"]), (429, &json!("busy")));
    assert_eq!(busy.header("retry-after"), "1");
}

#[tokio::test]
async fn a_guarded_purge_looks_first() {
    let bench = bench();
    let body = |percent: u8| json!({"tags": ["a"], "guard": percent}).to_string();
    // Of a hundred stored responses it would hit two, one for each site.
    let refused = purge(&bench, "purge", &body(1)).await;
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("guard")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("2 of 100"), "{}", refused.body);
    assert!(bench.control.purges.lock().unwrap().is_empty());
    assert_eq!(purge(&bench, "purge", &body(2)).await.status, 200);
    // A token that is bound to sites is told of these only: there, it would hit all.
    let bound = purge(&bench, "blogger", &body(99)).await;
    assert_eq!(bound.status, 409);
    assert!(bound.json()["detail"].as_str().unwrap().contains("1 of 1 "), "{}", bound.body);
    assert_eq!(purge(&bench, "blogger", &body(100)).await.status, 200);
    // What was done already is answered without another look.
    let send = async |token: &str, percent: u8| {
        let fields = [("idempotency-key", "k")];
        bench.ask_with("POST", "/v1/purge", token, &fields, &body(percent)).await
    };
    assert_eq!(send("all", 2).await.status, 200);
    let _walking = bench.admin.walks.try_acquire().unwrap();
    assert_eq!(send("all", 2).await.status, 200);
    assert_eq!(send("all", 3).await.status, 422);
    assert_eq!(send("purge", 2).await.status, 429);
    assert_eq!(bench.control.purges.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_purge_that_is_sent_again_with_its_key_has_one_effect() {
    let bench = bench();
    let send = async |token: &str, key: &str, body: &str| {
        let fields = [("idempotency-key", key)];
        let answer = bench.ask_with("POST", "/v1/purge", token, &fields, body).await;
        (answer.status, answer.json())
    };
    let body = r#"{"tags":["a"],"site":"shop"}"#;
    let first = send("purge", "k-1", body).await;
    assert_eq!(first.0, 200);
    assert_eq!(send("purge", "k-1", body).await, first);
    assert_eq!(bench.control.purges.lock().unwrap().len(), 1);
    let other = send("purge", "k-1", r#"{"tags":["b"],"site":"shop"}"#).await;
    assert_eq!((other.0, &other.1["code"]), (422, &json!("idempotency-conflict")));
    assert_eq!(send("purge", "bad key", body).await.1["code"], "idempotency-key");
    assert_eq!(bench.control.purges.lock().unwrap().len(), 1);
    assert_ne!(send("purge", "k-2", body).await.1["id"], first.1["id"]);
    assert_ne!(send("all", "k-1", body).await.1["id"], first.1["id"], "keys are a token's own");
    // A dry run is no purge: the purge itself may follow under the key.
    let dry = r#"{"tags":["a"],"site":"shop","dry_run":true}"#;
    assert_eq!(send("purge", "k-3", dry).await.0, 200);
    assert_eq!(send("purge", "k-3", body).await.0, 200);
    assert_eq!(bench.control.purges.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn the_past_is_told_to_whom_it_concerns() {
    let bench = bench();
    for (token, body) in [
        ("purge", r#"{"tags":["A"],"site":"blog","mode":"soft"}"#),
        ("blogger", r#"{"prefixes":["blog.example/a/"]}"#),
        ("purge", r#"{"urls":["https://shop.example/?q"],"tags":["t"],"site":"shop"}"#),
        ("all", r#"{"all":true}"#),
        ("all", r#"{"all":true,"site":"blog"}"#),
    ] {
        assert_eq!(purge(&bench, token, body).await.status, 200);
    }
    let ids = async |token: &str, path: &str| -> Vec<String> {
        let answer = bench.ask("GET", path, token, "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let purges = answer.json()["purges"].as_array().unwrap().clone();
        purges.iter().map(|purge| purge["id"].as_str().unwrap().to_owned()).collect()
    };
    let named = |numbers: &[u64]| -> Vec<String> {
        numbers.iter().map(|number| format!("n1.00000000000000ff.{number}")).collect()
    };
    assert_eq!(ids("read", "/v1/purges").await, named(&[5, 4, 3, 2, 1]));
    assert_eq!(ids("read", "/v1/purges?limit=2").await, named(&[5, 4]));
    assert_eq!(ids("blogger", "/v1/purges").await, named(&[5, 2, 1]));
    let told = bench.ask("GET", "/v1/purges/n1.00000000000000ff.3", "read", "").await.json();
    assert_eq!((&told["token"], &told["from"]), (&json!("purge"), &json!("127.0.0.1")));
    assert_eq!(
        (&told["mode"], &told["count"], &told["epoch"]),
        (&json!("hard"), &json!(2), &json!(3))
    );
    assert_eq!(
        told["selectors"],
        json!([
            {"kind": "url", "site": "shop", "value": "shop.example/?q"},
            {"kind": "tag", "site": "shop", "value": "t"},
        ])
    );
    assert!(told["at"].as_str().unwrap().ends_with('Z') && told["matched"].is_null());
    let told = bench.ask("GET", "/v1/purges/n1.00000000000000ff.5", "blogger", "").await.json();
    assert_eq!(told["selectors"], json!([{"kind": "site", "value": "blog"}]));
    for (token, path, status) in [
        ("read", "/v1/purges/n1.00000000000000ff.9", 404),
        ("read", "/v1/purges/n1.00000000000000fe.1", 404),
        ("read", "/v1/purges/x", 404),
        ("blogger", "/v1/purges/n1.00000000000000ff.3", 404),
        ("blogger", "/v1/purges/n1.00000000000000ff.4", 404),
        ("purge", "/v1/purges", 403),
        ("read", "/v1/purges/", 404),
        ("read", "/v1/purges/n1.00000000000000ff.1/x", 404),
        ("read", "/v1/purges?limit=0", 400),
        ("read", "/v1/purges?limit=a", 400),
        ("read", "/v1/purges?most=1", 400),
        ("read", "/v1/purges/n1.00000000000000ff.1?x", 400),
    ] {
        assert_eq!(bench.ask("GET", path, token, "").await.status, status, "{token} {path}");
    }
    assert_eq!(
        bench.ask("DELETE", "/v1/purges/n1.00000000000000ff.1", "all", "").await.status,
        405
    );
}
