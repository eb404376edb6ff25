use serde_json::{Value, json};

use super::super::tests::{Answer, Bench, bench};
use super::*;

async fn explain(bench: &Bench, token: &str, body: &str) -> Answer {
    bench.ask("POST", "/v1/explain", token, body).await
}

#[tokio::test]
async fn what_is_described_becomes_the_head_of_a_request() {
    let rows = [
        (json!({"url": "https://shop.example/a?b=1"}), "GET https /a?b=1 host=shop.example"),
        (json!({"url": "http://shop.example:81"}), "GET http / host=shop.example:81"),
        (json!({"url": "http://shop.example?q"}), "GET http /?q host=shop.example"),
        (
            json!({"method": "HEAD", "url": "http://shop.example/", "headers": {"Range": "bytes=0-1"}}),
            "HEAD http / range=bytes=0-1 host=shop.example",
        ),
        (
            json!({"url": "http://shop.example/", "headers": [["a", "1"], ["A", " 2 "]]}),
            "GET http / a=1 a=2 host=shop.example",
        ),
        (
            json!({"url": "http://shop.example/", "headers": {"host": "other.example"}}),
            "GET http / shop.example host=other.example",
        ),
        (json!({"url": "http://shop.example/../x"}), "GET http /../x host=shop.example"),
        (json!({"url": "http://nobody.test/"}), "GET http / host=nobody.test"),
    ];
    for (body, expected) in rows {
        let bench = bench();
        let answer = explain(&bench, "read", &body.to_string()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        assert_eq!(answer.json()["decision"]["decision"], "hit");
        assert_eq!(*bench.control.explained.lock().unwrap(), [expected], "{body}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_named() {
    let long = "x".repeat(HEAD_BYTES);
    let many = vec![["a", ""]; crate::telemetry::test_config().limits.fields + 1];
    let url = "http://shop.example/";
    let rows = [
        (json!(null), "body", None),
        (json!([url]), "body", None),
        (json!({}), "body", None),
        (json!({"url": url, "body": "x"}), "body", None),
        (json!({"url": url, "headers": "a: b"}), "body", None),
        (json!({"url": url, "headers": [["a"]]}), "body", None),
        (json!({"url": url, "headers": {"a": 1}}), "body", None),
        (json!({"url": url, "method": null}), "body", None),
        (json!({"url": "/a"}), "url", Some("url")),
        (json!({"url": "ftp://shop.example/"}), "url", Some("url")),
        (json!({"url": "http://shop.example/#a"}), "url", Some("url")),
        (json!({"url": "http://shop.example/a b"}), "url", Some("url")),
        (json!({"url": url, "method": "G T"}), "value", Some("method")),
        (json!({"url": url, "headers": {"a b": "c"}}), "value", Some("headers")),
        (json!({"url": url, "headers": {"a": "b\r\nc: d"}}), "value", Some("headers")),
        (json!({"url": url, "headers": many}), "too-many", Some("headers")),
    ];
    for (body, code, field) in rows {
        let bench = bench();
        let answer = explain(&bench, "read", &body.to_string()).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (400, &Value::from(code)), "{body}");
        assert_eq!(problem.get("field").and_then(Value::as_str), field, "{body}");
        assert!(bench.control.explained.lock().unwrap().is_empty());
    }
    let body = json!({"url": url, "headers": {"a": long}}).to_string();
    assert_eq!(explain(&bench(), "read", &body).await.status, 413);
}

#[tokio::test]
async fn a_token_is_told_about_its_sites_only() {
    let rows = [
        ("blogger", "https://blog.example/", 200),
        ("blogger", "https://SHOP.example:8443/", 403),
        ("stranger", "https://shop.example/", 403),
        ("purge", "https://shop.example/", 403),
        ("all", "https://shop.example/", 200),
    ];
    for (token, url, status) in rows {
        let bench = bench();
        let answer = explain(&bench, token, &json!({"url": url}).to_string()).await;
        assert_eq!(answer.status, status, "{token} {url}");
        assert_eq!(bench.control.explained.lock().unwrap().is_empty(), status != 200);
    }
}
