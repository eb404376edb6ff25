use proptest::prelude::*;

use super::*;
use crate::semantics::test_support::{Fields, fields, get, head};

fn refusal(head: RequestHead) -> Option<Refusal> {
    normalise(head).err()
}

#[test]
fn host_has_one_canonical_form() {
    let rows = [
        ("http://EXAMPLE.org/", Some(("example.org", 80, "example.org"))),
        ("http://example.org./", Some(("example.org", 80, "example.org"))),
        ("http://example.org:80/", Some(("example.org", 80, "example.org"))),
        ("http://example.org:/", Some(("example.org", 80, "example.org"))),
        ("https://example.org:443/", Some(("example.org", 443, "example.org"))),
        ("https://example.org:80/", Some(("example.org", 80, "example.org:80"))),
        ("http://example.org.:8080/", Some(("example.org", 8080, "example.org:8080"))),
        (
            "http://xn--bcher-kva.example/",
            Some(("xn--bcher-kva.example", 80, "xn--bcher-kva.example")),
        ),
        ("http://[2001:DB8:0::1]:81/", Some(("[2001:db8::1]", 81, "[2001:db8::1]:81"))),
        ("http://127.0.0.1/", Some(("127.0.0.1", 80, "127.0.0.1"))),
        ("http://u@h/", None),
        ("http://h:0/", None),
        ("http://h:65536/", None),
        ("http://h:+80/", None),
        ("http://h:80:80/", None),
        ("http://h h/", None),
        ("http://h%2e/", None),
        ("http://.h/", None),
        ("http://a..b/", None),
        ("http://./", None),
        ("http:///", None),
        ("http://[::1/", None),
        ("http://[::1]x/", None),
        ("http://[fe80::1%25eth0]/", None),
        ("http://h,h/", None),
    ];
    for (url, expected) in rows {
        let found = normalise(head("GET", url, &[])).ok();
        let found = found.map(|found| (found.host.clone(), found.port, found.host_field()));
        let expected =
            expected.map(|(host, port, field)| (host.to_owned(), port, field.to_owned()));
        assert_eq!(found, expected, "{url}");
    }
}

#[test]
fn host_is_there_once_and_agrees_with_the_target() {
    let with = |authority: Option<&str>, version, hosts: &[&str]| {
        let mut head = head("GET", "http://h/", &[]);
        head.headers.remove("host");
        for host in hosts {
            head.headers.append("host", HeaderValue::from_str(host).unwrap());
        }
        RequestHead { authority: authority.map(str::to_owned), version, ..head }
    };
    let rows: [(Option<&str>, Version, &[&str], bool); 12] = [
        (None, Version::HTTP_11, &[], false),
        (None, Version::HTTP_11, &["h", "h"], false),
        (None, Version::HTTP_10, &[], false),
        (Some("h"), Version::HTTP_10, &[], true),
        (Some("h"), Version::HTTP_11, &[], false),
        (Some("h"), Version::HTTP_11, &["H."], true),
        (Some("h:80"), Version::HTTP_11, &["h"], true),
        (Some("h"), Version::HTTP_11, &["i"], false),
        (Some("h"), Version::HTTP_11, &["h:81"], false),
        (Some("h"), Version::HTTP_2, &[], true),
        (Some("h"), Version::HTTP_2, &["i"], false),
        (None, Version::HTTP_2, &["h"], true),
    ];
    for (authority, version, hosts, accepted) in rows {
        let expected = (!accepted).then_some(Refusal::Host);
        let found = refusal(with(authority, version, hosts));
        assert_eq!(found, expected, "{authority:?} {version:?} {hosts:?}");
    }
}

#[test]
fn target_is_rewritten_by_hex_case_only() {
    let rows = [
        ("/a%2fb?c=%c3%a9", "/a%2Fb?c=%C3%A9"),
        ("/a//b///c", "/a//b///c"),
        ("/A;x=1/b?", "/A;x=1/b?"),
        ("/a?b?c&d=100%", "/a?b?c&d=100%"),
        ("/a?q=%4x%zz%5b", "/a?q=%4x%zz%5B"),
        ("/a.b/..c/...", "/a.b/..c/..."),
        ("/a|b?{x}", "/a|b?{x}"),
        ("/a?b=../..", "/a?b=../.."),
        ("/%252e%252e/", "/%252e%252e/"),
        ("/account%0ax.css", "/account%0Ax.css"),
    ];
    for (target, expected) in rows {
        let request = get(&format!("http://h{target}"), &[]);
        assert_eq!(request.target(), expected);
        assert!(!request.ambiguous, "{target}");
    }
}

#[test]
fn targets_that_are_read_in_two_ways_are_refused() {
    let rows = [
        ("/..", Refusal::DotSegments),
        ("/a/../b", Refusal::DotSegments),
        ("/a/./b", Refusal::DotSegments),
        ("/a/.", Refusal::DotSegments),
        ("/a/%2e%2E/b", Refusal::DotSegments),
        ("/a/.%2e/b", Refusal::DotSegments),
        ("/a/..;x=1/b", Refusal::DotSegments),
        ("/a/..%3bx/b", Refusal::DotSegments),
        ("/a#b", Refusal::Target),
        ("/a\\b", Refusal::Target),
        ("/a b", Refusal::Target),
        ("/a\"b", Refusal::Target),
        ("/a<b", Refusal::Target),
        ("/a%", Refusal::Target),
        ("/a%2", Refusal::Target),
        ("/a%zz", Refusal::Target),
        ("/\u{e9}", Refusal::Target),
        ("/\u{7f}", Refusal::Target),
    ];
    for (target, expected) in rows {
        assert_eq!(
            refusal(head("GET", &format!("http://h{target}"), &[])),
            Some(expected),
            "{target}"
        );
    }
    for target in ["a/b", "", ":80/", "@evil/"] {
        let head = RequestHead { target: target.to_owned(), ..head("GET", "http://h/", &[]) };
        assert_eq!(refusal(head), Some(Refusal::Target), "{target}");
    }
}

#[test]
fn asterisk_is_for_options() {
    let star = |method| RequestHead { target: "*".into(), ..head(method, "http://h/", &[]) };
    assert_eq!(normalise(star("OPTIONS")).unwrap().target(), "*");
    assert_eq!(refusal(star("GET")), Some(Refusal::Target));
}

#[test]
fn encoded_slashes_around_dots_make_a_path_ambiguous() {
    let rows = [
        ("/account/..%2fstatic/x.css", true),
        ("/a/%2e%2e%5cb", true),
        ("/a%2f.%2fb", true),
        ("/a%2f..b", false),
        ("/a%2fb", false),
    ];
    for (path, expected) in rows {
        assert_eq!(get(&format!("http://h{path}"), &[]).ambiguous, expected, "{path}");
    }
}

#[test]
fn fields_that_are_not_end_to_end_or_not_to_be_believed_go() {
    let request = get(
        "http://h/",
        &[
            ("connection", "close, X-Forwarded-For, Via, CDN-Loop, x-mine"),
            ("connection", "X-Other"),
            ("via", "1.1 a"),
            ("cdn-loop", "a"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("keep-alive", "1"),
            ("te", "trailers, chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("proxy-authorization", "x"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-prefix", "/evil"),
            ("forwarded", "for=1"),
            ("x-real-ip", "1"),
            ("true-client-ip", "1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("x-host", "evil"),
            ("proxy", "evil"),
            ("early-data", "1"),
            ("expect", "100-Continue"),
            ("content-length", "0"),
            ("accept", "*/*"),
            ("range", "bytes=0-1"),
            ("if-none-match", "\"a\""),
            ("x-kept", "\u{e9}"),
        ],
    );
    let mut names: Vec<&str> = request.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "if-none-match", "range", "x-kept"]);
}

#[test]
fn repeated_singletons_foreign_expectations_and_nominated_framing_are_refused() {
    let rows: [(Fields<'_>, Option<Refusal>); 10] = [
        (&[("range", "bytes=0-1"), ("range", "bytes=0-2")], Some(Refusal::RepeatedField)),
        (&[("authorization", "a"), ("authorization", "a")], Some(Refusal::RepeatedField)),
        (&[("content-type", "a/b"), ("content-type", "a/b")], Some(Refusal::RepeatedField)),
        (&[("if-none-match", "\"a\""), ("if-none-match", "\"b\"")], None),
        (&[("expect", "100-continue")], None),
        (&[("expect", "200-ok")], Some(Refusal::Expectation)),
        (&[("expect", "100-continue"), ("expect", "x")], Some(Refusal::Expectation)),
        (&[("connection", "Host")], Some(Refusal::NominatedField)),
        (
            &[("connection", "close"), ("connection", "a, Content-Length")],
            Some(Refusal::NominatedField),
        ),
        (&[("connection", "transfer-encoding")], Some(Refusal::NominatedField)),
    ];
    for (headers, expected) in rows {
        let mut head = head("GET", "http://h/", &[]);
        for (name, value) in &fields(headers) {
            head.headers.append(name.clone(), value.clone());
        }
        assert_eq!(refusal(head), expected, "{headers:?}");
    }
}

#[test]
fn cookie_crumbs_become_one_line() {
    let request = get("http://h/", &[("cookie", "a=1"), ("cookie", "b=2")]);
    let lines: Vec<_> = request.headers.get_all("cookie").iter().collect();
    assert_eq!(lines, ["a=1; b=2"]);
}

#[test]
fn a_wish_for_too_many_ranges_is_a_wish_for_the_whole() {
    for (count, kept) in [(1, true), (16, true), (17, false), (2700, false)] {
        let range = format!("bytes={}", vec!["0-"; count].join(", ,"));
        let request = get("http://h/", &[("range", &range), ("if-range", "\"1\"")]);
        assert_eq!((request.has_range(), request.headers.len()), (kept, 2 * usize::from(kept)));
    }
}

#[test]
fn what_asks_us_alone_is_taken_out() {
    let rows: [(Fields<'_>, bool, Option<&str>); 6] = [
        (&[], false, None),
        (&[("atoll-cache-key", "")], true, None),
        (&[("Atoll-Explain", "secret")], false, Some("secret")),
        (&[("atoll-explain", "a"), ("atoll-explain", "b")], false, None),
        (&[("atoll_explain", "secret"), ("Atoll_Cache-Key", "1")], false, None),
        (&[("connection", "atoll-explain"), ("atoll-explain", "secret")], false, None),
    ];
    for (headers, key, explain) in rows {
        let request = get("http://h/", headers);
        assert!(request.headers.is_empty(), "{:?}", request.headers);
        assert_eq!(request.asks.key, key, "{headers:?}");
        assert_eq!(request.asks.explain.as_deref().map(|v| v.to_str().unwrap()), explain);
        assert!(!format!("{request:?}").contains("secret"));
    }
}

#[test]
fn the_purges_that_a_request_names_are_for_us_alone() {
    let name = "Atoll-Purge-Position";
    let request = get("http://h/", &[(name, "a/1, b/2"), ("accept", "*/*"), (name, "c")]);
    assert_eq!(request.headers.len(), 1);
    let lines: Vec<_> = request.asks.positions.iter().map(|line| line.to_str().unwrap()).collect();
    assert_eq!(lines, ["a/1, b/2", "c"]);
    assert!(get("http://h/", &[]).asks.positions.is_empty());
}

proptest! {
    #[test]
    fn normalising_twice_changes_nothing(
        host in "[A-Za-z0-9.]{1,12}(:[0-9]{1,5})?",
        target in "/([a-zA-Z.%/;]|%2[eEfF5]){0,20}(\\?[ -~]{0,12})?",
    ) {
        let first = normalise(head("GET", &format!("http://{host}/"), &[]))
            .ok()
            .zip(canonical_target(target).ok());
        if let Some((request, once)) = first {
            let written = format!("http://{}/", request.host_field());
            let again = normalise(head("GET", &written, &[])).unwrap();
            prop_assert_eq!((again.host, again.port), (request.host, request.port));
            let text = match &once.query {
                Some(query) => format!("{}?{query}", once.path),
                None => once.path.clone(),
            };
            prop_assert_eq!(canonical_target(text).unwrap(), once);
        }
    }

    #[test]
    fn any_target_and_host_are_judged_without_panic(target in "\\PC{0,40}", host in "\\PC{0,20}") {
        let _ = canonical_target(target);
        let _ = canonical_authority(&host, Scheme::Http);
    }
}
