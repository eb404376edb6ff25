use std::sync::Arc;

use http::Version;
use http::header::VIA;
use http_body_util::BodyExt as _;

use super::*;
use crate::cli::demo::site::HTML;
use crate::message::Scheme;

/// The demo site without waiting.
fn quick() -> Demo {
    Demo { slow: Duration::ZERO, ..Demo::new() }
}

/// Asks `demo` and returns the answer with its body.
fn ask(
    demo: &Demo,
    method: Method,
    target: &str,
    fields: &[(HeaderName, &str)],
) -> (Response, String) {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let request = Request {
        head: RequestHead {
            method,
            scheme: Scheme::Http,
            authority: None,
            target: target.to_owned(),
            version: Version::HTTP_11,
            headers,
        },
        body: Body::Empty,
        client: Arc::new(Client {
            address: ([127, 0, 0, 1], 1).into(),
            local: ([127, 0, 0, 1], 2).into(),
            tls: None,
            trusted_hop: false,
            told_by: crate::semantics::ToldBy::default(),
        }),
        interim: Interim::default(),
        arrived: Now::at(1_800_000_000),
        upgrade: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.unwrap().block_on(async {
        let mut response = demo.serve(request).await;
        let body = std::mem::replace(&mut response.body, Body::Empty);
        let bytes = body.collect().await.unwrap().to_bytes();
        (response, String::from_utf8_lossy(&bytes).into_owned())
    })
}

fn field(response: &Response, name: impl http::header::AsHeaderName) -> Option<&str> {
    response.headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn every_path_answers_with_a_lifetime_and_a_validator() {
    let demo = quick();
    for route in &ROUTES {
        let (response, body) = ask(&demo, Method::GET, route.path, &[]);
        assert_eq!(response.status, StatusCode::OK, "{}", route.path);
        assert_eq!(field(&response, CACHE_CONTROL), Some(route.caching));
        assert_eq!(field(&response, ORIGIN_ANSWER), Some("1"));
        assert!(field(&response, ETAG).is_some() && field(&response, DATE).is_some());
        assert!(!body.is_empty());
    }
}

#[test]
fn every_link_on_the_pages_leads_somewhere() {
    let demo = quick();
    for route in ROUTES.iter().filter(|route| route.media == HTML) {
        let (_, body) = ask(&demo, Method::GET, route.path, &[]);
        for attribute in ["href=\"/", "src=\"/"] {
            for rest in body.split(attribute).skip(1) {
                let path = format!("/{}", rest.split(['"', '#']).next().unwrap());
                assert!(ROUTES.iter().any(|route| route.path == path), "{path}");
            }
        }
    }
}

#[test]
fn the_version_counts_the_answers_of_each_path_apart() {
    let demo = quick();
    for expected in ["\"version\": 1", "\"version\": 2"] {
        let (response, body) = ask(&demo, Method::GET, "/api/articles/2", &[]);
        assert!(body.contains(expected), "{body}");
        assert_eq!(field(&response, "surrogate-key"), Some("articles article-2 pass"));
    }
    let (_, body) = ask(&demo, Method::GET, "/demo/hits?now", &[]);
    assert!(body.contains("\"/api/articles/2\": 2"), "{body}");
    assert!(body.contains("\"/api/articles/1\": 0"), "{body}");
}

#[test]
fn validators_give_304() {
    let demo = quick();
    let (first, _) = ask(&demo, Method::GET, "/mark.svg", &[]);
    let etag = field(&first, ETAG).unwrap().to_owned();
    let weak = format!("\"other\", W/{etag}");
    for (name, value, expected) in [
        (IF_NONE_MATCH, etag.as_str(), 304),
        (IF_NONE_MATCH, &weak, 304),
        (IF_NONE_MATCH, "\"other\"", 200),
        (IF_MODIFIED_SINCE, EDITED, 304),
        (IF_MODIFIED_SINCE, "Wed, 31 Dec 2025 09:00:00 GMT", 200),
        (IF_MODIFIED_SINCE, "yesterday", 200),
        (VIA, "1.1 atoll", 200),
    ] {
        let (response, body) = ask(&demo, Method::GET, "/mark.svg", &[(name, value)]);
        assert_eq!(response.status, expected, "{value}");
        assert_eq!(body.is_empty(), expected == 304);
        assert_eq!(field(&response, ETAG), Some(etag.as_str()));
    }
}

#[test]
fn the_page_that_fails_does_so_on_demand_and_bears_no_lifetime_then() {
    let demo = quick();
    for (query, answer, status) in [("on", 200, 503), ("off", 200, 200), ("maybe", 400, 200)] {
        let (response, _) = ask(&demo, Method::POST, &format!("/demo/fail?{query}"), &[]);
        assert_eq!(response.status, answer);
        let (response, _) = ask(&demo, Method::GET, "/fail", &[]);
        assert_eq!(response.status, status, "{query}");
        let expected =
            if status == 200 { "public, max-age=2, stale-if-error=600" } else { "no-store" };
        assert_eq!(field(&response, CACHE_CONTROL), Some(expected));
    }
}

#[test]
fn the_language_follows_the_visitor() {
    let demo = quick();
    for (wish, expected) in [
        ("", "en"),
        ("de", "de"),
        ("fr-CH, fr;q=0.9, en;q=0.8", "fr"),
        ("en;q=0.2, de-AT;q=0.7", "de"),
        ("pl", "en"),
        ("de;q=0, fr;q=nonsense", "en"),
    ] {
        let (response, body) = ask(&demo, Method::GET, "/welcome", &[(ACCEPT_LANGUAGE, wish)]);
        assert_eq!(field(&response, CONTENT_LANGUAGE), Some(expected), "{wish}");
        assert_eq!(field(&response, VARY), Some("accept-language"));
        assert!(body.contains(&format!("<html lang=\"{expected}\">")));
    }
}

#[test]
fn what_is_not_there_and_what_is_not_done_say_so() {
    let demo = quick();
    let (response, _) = ask(&demo, Method::GET, "/nothing", &[]);
    assert_eq!(response.status, StatusCode::NOT_FOUND);
    let (response, _) = ask(&demo, Method::DELETE, "/", &[]);
    assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(field(&response, ALLOW), Some("GET, HEAD"));
    let (response, _) = ask(&demo, Method::GET, "/demo/fail", &[]);
    assert_eq!(field(&response, ALLOW), Some("POST"));
}
