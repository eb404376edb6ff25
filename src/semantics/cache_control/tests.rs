use proptest::prelude::*;

use super::*;
use crate::semantics::test_support::{Fields, fields};

fn response(lines: &[&str]) -> ResponseDirectives {
    let rows: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
    ResponseDirectives::of(&fields(&rows))
}

fn max_age(lines: &[&str]) -> Option<u64> {
    response(lines).max_age.map(|lifetime| lifetime.as_secs())
}

#[test]
fn max_age_is_read_with_doubt() {
    let rows: [(&[&str], Option<u64>); 24] = [
        (&["max-age=3600"], Some(3600)),
        (&["MaX-aGe=3600"], Some(3600)),
        (&["foo, max-age=3600 ,bar"], Some(3600)),
        (&["max-age=003600"], Some(3600)),
        (&["max-age=\"3600\""], Some(3600)),
        (&["max-age=2147483648"], Some(1 << 31)),
        (&["max-age=99999999999999999999999"], Some(1 << 31)),
        (&["max-age=1800, max-age=1"], Some(1)),
        (&["max-age=1", "max-age=1800"], Some(1)),
        (&["max-age=1, extension=\"max-age=3600\""], Some(1)),
        (&["extension=\"a\\\", max-age=3600\", max-age=1"], Some(1)),
        (&["extension=\"max-age=3600\""], None),
        (&["max-age"], Some(0)),
        (&["max-age="], Some(0)),
        (&["max-age= 3600"], Some(0)),
        (&["max-age =3600"], Some(0)),
        (&["max-age='3600'"], Some(0)),
        (&["max-age=-3600"], Some(0)),
        (&["max-age=3600.0"], Some(0)),
        (&["max-age=a3600"], Some(0)),
        (&["max-age=3600a"], Some(0)),
        (&["max-age=3600; public"], Some(0)),
        (&["x=\"unclosed, max-age=3600"], Some(0)),
        (&["", ",,", "foo"], None),
    ];
    for (lines, expected) in rows {
        assert_eq!(max_age(lines), expected, "{lines:?}");
    }
}

#[test]
fn what_forbids_is_found_in_any_damage() {
    for line in [
        "no-store",
        "NO-STORE=1",
        "no-store=\"x\"",
        "max-age=60,no-store",
        "public; no-store",
        "no-store; max-age=60",
        "a=\"b, no-store",
        "no-store =x",
        "\"a\" , no-store",
    ] {
        assert!(response(&[line]).no_store, "{line}");
    }
    for line in ["x-no-store", "no-stores", "a=\"no-store\"", "a=no-store", "\"no-store\""] {
        assert!(!response(&[line]).no_store, "{line}");
    }
}

#[test]
fn no_cache_and_private_may_be_limited_to_fields() {
    let rows: [(&str, bool, bool, &[&str]); 10] = [
        ("no-cache", true, false, &[]),
        ("private", false, true, &[]),
        ("no-cache=\"a, B\"", false, false, &["a", "b"]),
        ("private=\"set-cookie\"", false, false, &["set-cookie"]),
        ("private=set-cookie", false, false, &["set-cookie"]),
        ("no-cache=\"a\", no-cache", true, false, &["a"]),
        ("no-cache=\"\"", true, false, &[]),
        ("private=\" , \"", false, true, &[]),
        ("private=\"a b\"", false, true, &[]),
        ("private=\"a\"; x", false, true, &[]),
    ];
    for (line, no_cache, private, withheld) in rows {
        let found = response(&[line]);
        assert_eq!((found.no_cache, found.private), (no_cache, private), "{line}");
        assert_eq!(found.withheld, withheld, "{line}");
    }
}

#[test]
fn public_is_believed_only_in_a_sound_list() {
    assert!(response(&["public"]).public);
    assert!(!response(&["private; public"]).public);
    assert!(!response(&["a=\"b, public"]).public);
}

#[test]
fn endless_lists_count_as_no_store() {
    let many = vec!["a"; MOST_DIRECTIVES + 1].join(",");
    assert!(response(&[&many]).no_store);
    let long = format!("a=\"{}\"", "x".repeat(MOST_BYTES));
    assert!(response(&[&long]).no_store);
    let enough = vec!["a"; MOST_DIRECTIVES].join(",");
    assert!(!response(&[&enough]).no_store);
}

#[test]
fn targeted_fields_replace_cache_control_when_valid() {
    let rows: [(Fields<'_>, Source, Option<u64>, bool); 16] = [
        (&[("cdn-cache-control", "max-age=10")], Source::Cdn, Some(10), false),
        (&[("cdn-cache-control", "max-age=10, max-age=20")], Source::Cdn, Some(20), false),
        (&[("cdn-cache-control", "max-age=99999999999")], Source::Cdn, Some(1 << 31), false),
        (&[("cdn-cache-control", "max-age=-5")], Source::Cdn, Some(0), false),
        (
            &[("cdn-cache-control", "max-age=10"), ("cdn-cache-control", "no-store")],
            Source::Cdn,
            Some(10),
            true,
        ),
        (
            &[("cdn-cache-control", "max-age=10"), ("cache-control", "no-store")],
            Source::Cdn,
            Some(10),
            false,
        ),
        (&[("cdn-cache-control", "foo"), ("cache-control", "max-age=5")], Source::Cdn, None, false),
        (&[("cdn-cache-control", "max-age=10;a=b")], Source::Cdn, Some(10), false),
        (&[("cdn-cache-control", "no-store=?0, max-age=1")], Source::Cdn, Some(1), false),
        (&[("cdn-cache-control", "no-store=1")], Source::Cdn, None, true),
        (
            &[("atoll-cache-control", "max-age=1"), ("cdn-cache-control", "max-age=2")],
            Source::Atoll,
            Some(1),
            false,
        ),
        (
            &[("cdn-cache-control", ""), ("cache-control", "max-age=5")],
            Source::CacheControl,
            Some(5),
            false,
        ),
        (
            &[("cdn-cache-control", "max-age =10"), ("cache-control", "max-age=5")],
            Source::CacheControl,
            Some(5),
            false,
        ),
        (&[("cdn-cache-control", "MaX-aGe=10")], Source::CacheControl, None, false),
        (&[("cdn-cache-control", "max-age=10, &&&")], Source::CacheControl, None, false),
        (
            &[("cdn-cache-control", "max-age=\"10\""), ("cache-control", "no-store")],
            Source::CacheControl,
            None,
            true,
        ),
    ];
    for (headers, source, max_age, no_store) in rows {
        let found = ResponseDirectives::of(&fields(headers));
        let age = found.max_age.map(|lifetime| lifetime.as_secs());
        assert_eq!((found.source, age, found.no_store), (source, max_age, no_store), "{headers:?}");
    }
    let found =
        ResponseDirectives::of(&fields(&[("cdn-cache-control", "private=\"a\", no-cache")]));
    assert!(!found.private && found.no_cache);
    assert_eq!(found.withheld, ["a"]);
}

#[test]
fn request_directives_are_read() {
    let of = |headers: Fields<'_>| RequestDirectives::of(&fields(headers));
    let none = RequestDirectives::default();
    assert_eq!(of(&[("cache-control", "nothing-to-see-here"), ("pragma", "foo")]), none);
    assert!(of(&[("pragma", "no-cache")]).no_cache);
    assert!(!of(&[("pragma", "no-cache"), ("cache-control", "foo")]).no_cache);
    assert!(of(&[("cache-control", "foo, Only-If-Cached")]).only_if_cached);
    let all = of(&[("cache-control", "no-store, max-age=5, max-stale=7, min-fresh=3, max-age=2")]);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert!(all.no_store);
    assert_eq!((all.max_age, all.max_stale, all.min_fresh), (seconds(2), seconds(7), seconds(3)));
    assert_eq!(of(&[("cache-control", "max-stale")]).max_stale, seconds(1 << 31));
}

proptest! {
    #[test]
    fn any_field_is_read_without_panic(line in "[ -~\t]{0,80}") {
        let headers = fields(&[("cache-control", line.as_str()), ("cdn-cache-control", line.as_str())]);
        let _ = (ResponseDirectives::of(&headers), RequestDirectives::of(&headers));
    }

    #[test]
    fn a_sound_no_store_is_found_behind_anything_that_closes_its_quotes(
        before in "[a-z=;, ]{0,20}",
    ) {
        let line = format!("{before},no-store");
        prop_assert!(response(&[&line]).no_store);
    }
}
