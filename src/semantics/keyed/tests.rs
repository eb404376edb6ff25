use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::message::Refusal;
use crate::semantics::normalise::normalise;
use crate::semantics::test_support::{Fields, fields, get, head, request};
use crate::semantics::{CacheKey, KeySecret, VaryFields};

const SECRET: KeySecret = KeySecret([1, 2]);

fn policy(key: KeyPolicy) -> Policy {
    Policy { key: Some(Box::new(key)), ..Policy::default() }
}

fn cookies(names: &[&str]) -> Option<Vec<Box<str>>> {
    Some(names.iter().map(|name| Box::from(*name)).collect())
}

fn without(patterns: &[&str]) -> QueryKey {
    QueryKey { keep: Keep::Without(Names::new(patterns.iter().copied())), sorted: false }
}

/// Everything at once.
fn shop() -> KeyPolicy {
    KeyPolicy {
        query: without(&["utm_*"]),
        headers: vec![HeaderName::from_static("x-shop"), HeaderName::from_static("x-tier")],
        cookies: cookies(&["currency", "theme"]),
        device: true,
        languages: vec![HeaderValue::from_static("en"), HeaderValue::from_static("de")],
    }
}

fn applied(mut request: Request, policy: &Policy) -> Request {
    apply_key_policy(&mut request, policy);
    request
}

fn key(request: &Request, policy: &Policy) -> CacheKey {
    CacheKey::of(SECRET, "s", request, policy)
}

#[test]
fn the_origin_gets_what_is_in_the_key_and_nothing_else() {
    let wanted: [(Fields<'_>, Fields<'_>); 9] = [
        (&[], &[("atoll-device", "desktop"), ("accept-language", "en")]),
        (
            &[("cookie", "sid=1; theme=dark;currency=EUR; theme=light; currency")],
            &[("cookie", "currency=EUR; theme=dark; theme=light")],
        ),
        (&[("cookie", "sid=1; Currency=EUR; xcurrency=1")], &[]),
        (&[("x-shop", " a ,b"), ("x-shop", "c")], &[("x-shop", "a,b,c")]),
        (&[("x-shop", "")], &[("x-shop", "")]),
        (&[("x-shop", "a"), ("x_shop", "b"), ("x_tier", "1")], &[("x-shop", "a")]),
        (
            &[("user-agent", "iPhone"), ("sec-ch-ua-model", "x"), ("user_agent", "iPad")],
            &[("atoll-device", "phone")],
        ),
        (&[("accept-language", "fr, de-AT;q=0.1")], &[("accept-language", "de")]),
        (&[("accept_language", "de"), ("accept", "*/*")], &[("accept", "*/*")]),
    ];
    let policy = policy(shop());
    for (given, expected) in wanted {
        let found = applied(get("http://h/a?utm_source=x&b=2", given), &policy);
        assert_eq!(found.target(), "/a?b=2");
        let mut whole = fields(&[("atoll-device", "desktop"), ("accept-language", "en")]);
        for (name, value) in &fields(expected) {
            whole.insert(name, value.clone());
        }
        assert_eq!(found.headers, whole, "{given:?}");
    }
}

#[test]
fn no_cookies_and_untouched_cookies_differ() {
    let given = get("http://h/", &[("cookie", "a=1; b=2")]);
    let none = policy(KeyPolicy { cookies: cookies(&[]), ..KeyPolicy::default() });
    assert!(!applied(given.clone(), &none).headers.contains_key("cookie"));
    let sorted = QueryKey { keep: Keep::All, sorted: true };
    let untouched = policy(KeyPolicy { query: sorted, ..KeyPolicy::default() });
    assert_eq!(applied(given.clone(), &untouched).headers, given.headers);
}

#[test]
fn the_default_and_a_policy_that_passes_leave_a_request_as_it_is() {
    let given: Fields<'_> = &[("cookie", "sid=1"), ("user-agent", "x"), ("x-shop", "a , b")];
    let given = get("http://h/a?utm_source=x", given);
    let pass = Policy { pass: true, ..policy(shop()) };
    for policy in [Policy::default(), pass] {
        let found = applied(given.clone(), &policy);
        assert_eq!((found.target(), &found.headers), (given.target(), &given.headers));
        assert_eq!(key(&found, &policy), key(&given, &Policy::default()));
        assert_eq!(key_fields(&found, &policy).count(), 0);
        assert_eq!(stored_target("/a?utm_a=1".into(), &policy), "/a?utm_a=1");
    }
}

#[test]
fn every_method_is_rewritten_alike() {
    let policy = policy(shop());
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let given: Fields<'_> = &[("cookie", "sid=1"), ("range", "bytes=0-1")];
        let found = applied(request(method, "http://h/a?utm_source=x", given), &policy);
        assert_eq!((found.target(), found.headers.contains_key("cookie")), ("/a".into(), false));
        assert_eq!(found.headers["range"], "bytes=0-1");
    }
}

#[test]
fn a_client_cannot_name_its_own_class() {
    let policy = policy(shop());
    let given: Fields<'_> = &[("atoll-device", "phone"), ("Atoll_Device", "tablet")];
    let found = applied(get("http://h/", given), &policy);
    assert_eq!(found.headers["atoll-device"], "desktop");
    assert!(!found.headers.contains_key("atoll_device"));
    let plain = get("http://h/", given);
    assert!(plain.headers.is_empty(), "{:?}", plain.headers);
}

/// Case F09 of a hostile client: what stands in a value never passes for another part of the key.
#[test]
fn values_cannot_pass_for_other_parts_of_the_key() {
    let policy = policy(KeyPolicy { device: false, languages: Vec::new(), ..shop() });
    let requests: [(&str, Fields<'_>); 17] = [
        ("http://h/a", &[]),
        ("http://h/a", &[("x-shop", "")]),
        ("http://h/a", &[("x-tier", "")]),
        ("http://h/a", &[("x-shop", "1"), ("x-tier", "23")]),
        ("http://h/a", &[("x-shop", "12"), ("x-tier", "3")]),
        ("http://h/a", &[("x-shop", "123")]),
        ("http://h/a", &[("x-tier", "123")]),
        ("http://h/a", &[("x-shop", "?b=1")]),
        ("http://h/a?b=1", &[]),
        ("http://h/a%3Fb=1", &[]),
        ("http://h/a%23b=1", &[]),
        ("http://h/a", &[("x-shop", "#b=1")]),
        ("http://h/a", &[("x-shop", "%3Fb=1")]),
        ("http://h/a", &[("x-shop", "\u{e4}\u{0308}")]),
        ("http://h/a", &[("cookie", "currency=1")]),
        ("http://h/a", &[("x-tier", "currency=1")]),
        ("http://h/a", &[("cookie", "theme=1")]),
    ];
    let keys: Vec<CacheKey> = requests
        .iter()
        .map(|(url, given)| key(&applied(get(url, given), &policy), &policy))
        .collect();
    for (at, one) in keys.iter().enumerate() {
        for (other_at, other) in keys.iter().enumerate() {
            let said = format!("{:?} {:?}", requests[at], requests[other_at]);
            assert_eq!(one == other, at == other_at, "{said}");
            assert_eq!(one.hash == other.hash, at == other_at, "{said}");
        }
    }
}

/// Case F10: key and origin have one form of the path, which is the client's but for the case of
/// escapes; dot segments are nobody's.
#[test]
fn the_path_in_the_key_is_the_path_at_the_origin() {
    let policy = policy(shop());
    let rows = [
        ("/a%2fb", "/a%2Fb"),
        ("/a/b", "/a/b"),
        ("/a//b", "/a//b"),
        ("/a;x/b", "/a;x/b"),
        ("/a/b;x", "/a/b;x"),
        ("/A/b", "/A/b"),
        ("/a/b/", "/a/b/"),
        ("/%61/b", "/%61/b"),
        ("/a%5Cb", "/a%5Cb"),
    ];
    let mut keys = Vec::new();
    for (path, expected) in rows {
        let url = format!("http://h{path}?utm_a=1");
        let found = applied(get(&url, &[]), &policy);
        assert_eq!(found.target(), expected);
        keys.push(key(&found, &policy).parts);
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "two paths have one key");
    for path in ["/a/./b", "/a/../b", "/a/%2e%2e/b", "/a/%2E./b", "/..;x/b"] {
        let refusal = normalise(head("GET", &format!("http://h{path}"), &[])).err();
        assert_eq!(refusal, Some(Refusal::DotSegments), "{path}");
    }
    assert!(get("http://h/a%2f..%2fb", &[]).ambiguous, "and so never stored");
}

#[test]
fn what_is_settled_by_the_key_makes_no_variants() {
    let rows = [
        ("User-Agent", None),
        ("Sec-CH-UA-Model, Atoll-Device", None),
        ("Accept-Language, Cookie", None),
        ("X-Shop, Accept-Encoding", Some(1)),
        ("Accept", Some(1)),
    ];
    let policy = policy(shop());
    for (vary, expected) in rows {
        let found = VaryFields::of(&fields(&[("vary", vary)]), 8, &policy).unwrap();
        assert_eq!(found.map(|found| found.names().len()), expected, "{vary}");
    }
    let untouched = KeyPolicy { cookies: None, ..shop() };
    let untouched = Policy { key: Some(Box::new(untouched)), ..Policy::default() };
    let judged = VaryFields::of(&fields(&[("vary", "Cookie")]), 8, &untouched);
    assert!(judged.is_err(), "cookies that go on untouched are not in the key");
    assert!(VaryFields::of(&fields(&[("vary", "*")]), 8, &policy).is_err());
}

#[test]
fn some_fields_have_no_place_in_a_key() {
    let refused = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "host",
        "connection",
        "te",
        "x-forwarded-for",
        "x-original-url",
        "range",
        "if-none-match",
        "via",
        "x-request-id",
        "accept-encoding",
        "atoll-device",
        "atoll-cache-key",
    ];
    for name in refused {
        assert!(judge_key_header(&HeaderName::from_static(name)).is_err(), "{name}");
    }
    for name in ["x-shop", "accept", "origin", "save-data", "user-agent", "accept-language"] {
        assert!(judge_key_header(&HeaderName::from_static(name)).is_ok(), "{name}");
    }
}

#[test]
fn statuses_that_are_never_stored_get_no_lifetime_from_policy() {
    use crate::semantics::StatusLifetimes;
    use crate::semantics::test_support::judged;
    let mut lifetimes = StatusLifetimes::default();
    for class in 2..=5 {
        lifetimes.set_class(class, std::time::Duration::from_secs(60));
    }
    let policy = Policy { status_lifetime: lifetimes, ..Policy::default() };
    for status in StatusLifetimes::NEVER {
        assert!(StatusCode::from_u16(status).is_ok());
        assert!(judged(status, &[], &policy).is_err(), "{status}");
    }
}

/// A request as a client may write it: what is keyed and what is not, in any mixture.
fn any_request() -> impl Strategy<Value = Request> {
    let field = || proptest::option::of("[ab, ]{0,3}");
    let query = proptest::option::of("([ab]=[01]|utm_x=[01]|&){0,5}");
    let cookie = proptest::option::of("((currency|theme|sid)=[01]; ){0,4}");
    let agent = proptest::option::of("(iPhone|iPad|Android|curl)[ x]?");
    let language = proptest::option::of("(de|en|fr|\\*)(;q=0[.][0-9])?, (de|en-US)");
    (query, field(), field(), cookie, agent, language).prop_map(
        |(query, shop, tier, cookie, agent, language)| {
            let mut rows = Vec::new();
            let given = [
                ("x-shop", shop),
                ("x-tier", tier),
                ("cookie", cookie),
                ("user-agent", agent),
                ("accept-language", language),
            ];
            for (name, value) in &given {
                rows.extend(value.as_deref().map(|value| (*name, value)));
            }
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            get(&format!("http://h/a{query}"), &rows)
        },
    )
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let query = prop_oneof![
        Just(QueryKey::default()),
        Just(QueryKey { keep: Keep::All, sorted: true }),
        Just(QueryKey { keep: Keep::None, sorted: false }),
        Just(without(&["utm_*"])),
        Just(QueryKey { keep: Keep::Only(Names::new(["a"])), sorted: true }),
    ];
    let names = prop_oneof![Just(None), Just(cookies(&[])), Just(cookies(&["theme", "currency"]))];
    (query, 0..3_usize, names, any::<bool>(), any::<bool>()).prop_map(
        |(query, headers, cookies, device, languages)| {
            let all = shop();
            let headers = all.headers.into_iter().take(headers).collect();
            let languages = if languages { all.languages } else { Vec::new() };
            policy(KeyPolicy { query, headers, cookies, device, languages })
        },
    )
}

/// What the origin sees of what the policy keys, read without asking the policy's own list.
fn keyed(request: &Request, policy: &Policy) -> (String, Vec<Option<HeaderValue>>) {
    let key = policy.key.as_ref().unwrap();
    let wanted = [
        ("x-shop", !key.headers.is_empty()),
        ("x-tier", key.headers.len() > 1),
        ("cookie", key.cookies.is_some()),
        ("atoll-device", key.device),
        ("accept-language", !key.languages.is_empty()),
    ];
    let wanted = wanted.into_iter().filter(|(_, wanted)| *wanted);
    (request.target(), wanted.map(|(name, _)| request.headers.get(name).cloned()).collect())
}

proptest! {
    #[test]
    fn keys_are_equal_exactly_if_the_origin_sees_the_same(
        policy in any_policy(), one in any_request(), other in any_request(),
    ) {
        let (one, other) = (applied(one, &policy), applied(other, &policy));
        let same = keyed(&one, &policy) == keyed(&other, &policy);
        prop_assert_eq!(key(&one, &policy).parts == key(&other, &policy).parts, same);
        prop_assert_eq!(key(&one, &policy) == key(&other, &policy), same);
    }

    #[test]
    fn what_is_dropped_reaches_neither_key_nor_origin(
        given in any_request(),
        noise in "utm_[a-z]=[a-z%+;]{0,5}",
        sid in "[a-z0-9]{1,8}",
        model in "[a-z]{0,5}",
    ) {
        let policy = policy(shop());
        let mut other = given.clone();
        let query = given.query.clone().unwrap_or_default();
        other.query = Some(if sid.len() % 2 == 0 { format!("{noise}&{query}") } else { format!("{query}&{noise}") });
        let kept = given.headers.get("cookie").map_or("", |line| line.to_str().unwrap());
        let line = format!("sid={sid}; {kept}; other={sid}");
        other.headers.insert("cookie", line.parse().unwrap());
        other.headers.insert("sec-ch-ua-model", model.parse().unwrap());
        other.headers.insert("accept_language", "de".parse().unwrap());
        let (one, other) = (applied(given, &policy), applied(other, &policy));
        prop_assert_eq!(key(&one, &policy), key(&other, &policy));
        prop_assert_eq!(one.target(), other.target());
        prop_assert_eq!(one.headers, other.headers);
    }

    #[test]
    fn whatever_bytes_a_client_sends_only_keyed_cookies_go_on(
        line in proptest::collection::vec(prop_oneof![32_u8..127, 128_u8..=255, Just(b';'), Just(b'=')], 0..60),
        named in any::<bool>(),
    ) {
        let policy = policy(shop());
        let mut given = get("http://h/", &[]);
        let line = if named { [&b"theme="[..], &line].concat() } else { line };
        for name in ["cookie", "x-shop", "user-agent", "accept-language"] {
            given.headers.insert(name, HeaderValue::from_bytes(&line).unwrap());
        }
        let once = applied(given, &policy);
        let kept = once.headers.get("cookie").map_or(&[][..], HeaderValue::as_bytes).to_vec();
        for cookie in kept.split(|byte| *byte == b';').filter(|_| !kept.is_empty()) {
            let cookie = cookie.trim_ascii();
            prop_assert!(cookie.starts_with(b"theme=") || cookie.starts_with(b"currency="));
        }
        prop_assert!(!named || !kept.is_empty());
    }

    #[test]
    fn a_purge_of_a_url_names_what_a_request_for_it_is_stored_under(
        policy in any_policy(), given in any_request(),
    ) {
        let target = given.target();
        let stored = applied(given, &policy).target();
        prop_assert_eq!(&stored_target(target, &policy), &stored);
        prop_assert_eq!(&stored_target(stored.clone(), &policy), &stored);
    }
}
