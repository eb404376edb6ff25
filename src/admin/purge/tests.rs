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
            vec![url("shop", "/a"), url("blog", "/a?utm_source=x")],
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
        let mut body = json!({"tags": ["a"], "mode": "soft", "timeout": "5s"});
        if !wait.is_null() {
            body["wait"] = wait;
        }
        let answer = purge(&bench, "purge", &body.to_string()).await.json();
        let number = bench.control.purges.lock().unwrap().len();
        assert_eq!(answer["id"], format!("n1.00ff.{number}"));
        assert_eq!(answer["epoch"], 40 + number);
        assert_eq!(answer["state"], state);
        assert!(answer["took_ms"].as_f64().is_some_and(|took| took >= 0.0));
        assert!(answer["matched"].is_null() && answer["freed"].is_null());
        assert_eq!(answer.as_object().unwrap().len(), 6);
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
        (r#"{"prefixes":["/a"]}"#, "unsupported-field", Some("prefixes")),
        (r#"{"tags":["a"],"hosts":null}"#, "unsupported-field", Some("hosts")),
        (r#"{"tags":["a"],"globs":[]}"#, "unsupported-field", Some("globs")),
        (r#"{"tags":["a"],"dry_run":false}"#, "unsupported-field", Some("dry_run")),
        (r#"{"tags":["a"],"refetch":true}"#, "unsupported-field", Some("refetch")),
        (r#"{"all":true,"tags":["a"]}"#, "conflict", Some("all")),
        (r#"{"tags":["a"],"site":"none"}"#, "unknown-site", Some("site")),
        (r#"{"tags":["a"],"site":""}"#, "unknown-site", Some("site")),
        (r#"{"tags":[""]}"#, "value", Some("tags")),
        (r#"{"tags":["*"]}"#, "value", Some("tags")),
        (r#"{"tags":[" a"]}"#, "value", Some("tags")),
        (r#"{"tags":["a\u0000b"]}"#, "value", Some("tags")),
        (r#"{"tags":["a"],"mode":"check"}"#, "value", Some("mode")),
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
