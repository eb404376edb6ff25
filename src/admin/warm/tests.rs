use serde_json::{Value, json};

use crate::admin::tests::{bench, bench_of};
use crate::telemetry::test_config;

async fn post(body: &Value) -> (u16, Value) {
    let answer = bench().ask("POST", "/v1/warm", "blogger", &body.to_string()).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let url = "https://blog.example/a";
    let many: Vec<Value> = (0..17).map(|at| json!({ "x-a": at.to_string() })).collect();
    for (body, status, code) in [
        (json!({ "urls": [url] }), 202, None),
        (json!({ "sitemap": url, "rate": 0.5 }), 202, None),
        (
            json!({ "urls": [url], "headers": [{ "accept-encoding": "br" }, [["a", "b"]]] }),
            202,
            None,
        ),
        (json!([]), 400, Some("body")),
        (json!({}), 400, Some("source")),
        (json!({ "urls": [url], "sitemap": url }), 400, Some("source")),
        (json!({ "urls": [] }), 400, Some("empty")),
        (json!({ "urls": [url], "more": 1 }), 400, Some("body")),
        (json!({ "urls": ["/a"] }), 400, Some("url")),
        (json!({ "urls": ["ftp://blog.example/a"] }), 400, Some("url")),
        (json!({ "urls": ["https://u:p@blog.example/a"] }), 400, Some("foreign-host")),
        (json!({ "urls": [url, "https://elsewhere.test/"] }), 400, Some("foreign-host")),
        (json!({ "urls": [url, "https://shop.example/a"] }), 403, Some("site")),
        (json!({ "sitemap": "https://shop.example/sitemap.xml" }), 403, Some("site")),
        (json!({ "sitemap": "http://169.254.169.254/latest/" }), 400, Some("foreign-host")),
        (json!({ "urls": [url], "rate": 0 }), 400, Some("value")),
        (json!({ "urls": [url], "rate": 1e9 }), 400, Some("value")),
        (json!({ "urls": [url], "headers": many }), 400, Some("too-many")),
        (json!({ "urls": [url], "headers": [{ "a b": "c" }] }), 400, Some("value")),
        (json!({ "urls": [url], "headers": [{ "x": "a\r\nb" }] }), 400, Some("value")),
    ] {
        let (got, answer) = post(&body).await;
        assert_eq!(got, status, "{body}: {answer}");
        assert_eq!(answer.get("code").and_then(Value::as_str), code, "{body}: {answer}");
    }
}

#[tokio::test]
async fn fields_that_make_an_answer_somebodys_own_are_refused() {
    for name in [
        "Authorization",
        "COOKIE",
        "Proxy-Authorization",
        "Host",
        "Connection",
        "Transfer-Encoding",
        "Range",
        "If-None-Match",
        "X-Forwarded-For",
        "X_Forwarded_Host",
        "Atoll-Explain",
        "Upgrade",
        "Content-Length",
        "Cache-Control",
        "CDN-Loop",
        "TE",
    ] {
        let body = json!({ "urls": ["https://blog.example/a"], "headers": [{ name: "x" }] });
        let (status, answer) = post(&body).await;
        assert_eq!((status, &answer["code"]), (400, &json!("field")), "{name}: {answer}");
    }
}

#[tokio::test]
async fn requests_of_one_warm_up_are_bounded() {
    let mut config = test_config();
    config.admin.warm_urls = 3;
    let bench = bench_of(config);
    let urls = |count: usize| (0..count).map(|at| format!("https://blog.example/{at}"));
    for (count, sets, status) in [(3, 1, 202), (4, 1, 400), (1, 3, 202), (2, 2, 400)] {
        let headers: Vec<Value> = (0..sets).map(|at| json!({ "x": at.to_string() })).collect();
        let body = json!({ "urls": urls(count).collect::<Vec<_>>(), "headers": headers });
        let answer = bench.ask("POST", "/v1/warm", "warm", &body.to_string()).await;
        assert_eq!(answer.status, status, "{count} x {sets}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_token_of_one_site_sees_its_own_warm_ups_only() {
    let bench = bench();
    let body = json!({ "urls": ["https://blog.example/a"] }).to_string();
    let answer = bench.ask("POST", "/v1/warm", "blogger", &body).await;
    assert_eq!(answer.header("location"), "/v1/warm/n1.00000000000000ff.w1");
    bench.ask("POST", "/v1/warm", "warm", &body).await;
    for (token, path, status) in [
        ("blogger", "/v1/warm/n1.00000000000000ff.w1", 200),
        ("blogger", "/v1/warm/n1.00000000000000ff.w2", 404),
        ("warm", "/v1/warm/n1.00000000000000ff.w1", 200),
        ("warm", "/v1/warm/n1.00000000000000ff.w2", 200),
        ("warm", "/v1/warm/n1.00000000000000ff.w3", 404),
    ] {
        for method in ["GET", "DELETE"] {
            assert_eq!(bench.ask(method, path, token, "").await.status, status, "{token} {path}");
        }
    }
    for (token, count) in [("blogger", 1), ("warm", 2)] {
        let listed = bench.ask("GET", "/v1/warm", token, "").await.json();
        assert_eq!(listed["warm_ups"].as_array().unwrap().len(), count, "{token}: {listed}");
    }
}
