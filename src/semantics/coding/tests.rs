use proptest::prelude::*;

use super::*;
use crate::semantics::test_support::{Fields, fields, get, request};

const PRINT: Print = [0x5d, 0x0c, 0x2f, 0x1e, 0x77, 0xa9, 0x0b, 0x34];

fn policy(codings: &[Coding]) -> Compression {
    Compression { codings: codings.to_vec(), ..Compression::default() }
}

fn all() -> Compression {
    policy(&Coding::ALL)
}

#[test]
fn what_may_be_coded() {
    let text = ("content-type", "text/html; charset=utf-8");
    let rows: [(Fields<'_>, bool); 26] = [
        (&[text], true),
        (&[("content-type", "TEXT/Plain")], true),
        (&[("content-type", "application/problem+json")], true),
        (&[("content-type", "image/svg+xml")], true),
        (&[("content-type", "application/JSON;charset=x")], true),
        (&[("content-type", "application/jsonx")], false),
        (&[("content-type", "image/png")], false),
        (&[("content-type", "text")], false),
        (&[("content-type", "")], false),
        (&[], false),
        (&[text, text], false),
        (&[text, ("content-encoding", "gzip")], false),
        (&[text, ("content-encoding", "identity")], true),
        (&[text, ("content-encoding", "identity, x-own")], false),
        (&[text, ("cache-control", "max-age=1, No-Transform")], false),
        (&[text, ("cache-control", "max-age=1; no-transform")], false),
        (&[text, ("cache-control", "no-transform"), ("cdn-cache-control", "max-age=9")], false),
        (&[text, ("cache-control", "max-age=9"), ("cdn-cache-control", "no-transform")], false),
        (&[text, ("atoll-cache-control", "no-transform, max-age=9")], false),
        (&[text, ("content-range", "bytes 0-1/2")], false),
        (&[text, ("content-md5", "x")], false),
        (&[text, ("repr-digest", "x")], false),
        (&[text, ("content-digest", "x")], false),
        (&[text, ("signature", "x")], false),
        (&[text, ("etag", "W/\"a\"")], true),
        (&[text, ("etag", "a")], false),
    ];
    for (headers, expected) in rows {
        let found = may_be_coded(StatusCode::OK, &fields(headers), Some(5000), &all());
        assert_eq!(found, expected, "{headers:?}");
    }
    let rows = [
        (200, Some(1023), false),
        (200, Some(1024), true),
        (200, Some(8 << 20), true),
        (200, Some((8 << 20) + 1), false),
        (200, None, true),
        (206, Some(5000), false),
        (404, Some(5000), false),
    ];
    for (status, length, expected) in rows {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(may_be_coded(status, &fields(&[text]), length, &all()), expected, "{length:?}");
    }
    assert!(!may_be_coded(StatusCode::OK, &fields(&[text]), Some(5000), &policy(&[])));
}

#[test]
fn patterns_are_read() {
    for text in ["text/*", "+json", "application/json", "Image/SVG+xml", "application/vnd.a.b-c"] {
        assert!(TypePattern::parse(text).is_some(), "{text}");
    }
    for text in
        ["", "text", "*", "*/*", "*/json", "text/", "/json", "+", "text/*x", "a/b; q=1", "a b/c"]
    {
        assert_eq!(TypePattern::parse(text), None, "{text}");
    }
    let matches = |pattern: &str, essence: &[u8]| {
        TypePattern::parse(pattern).is_some_and(|pattern| pattern.matches(essence))
    };
    assert!(matches("text/*", b"text/x"));
    assert!(!matches("text/*", b"textual/x") && !matches("text/*", b"tex"));
    assert!(matches("+xml", b"a/b+XML") && !matches("+xml", b"a/xml") && !matches("+xml", b"ml"));
}

fn wanted(accept: Option<&str>, ours: &[Coding]) -> Vec<Coding> {
    let headers = accept.map(|accept| fields(&[("accept-encoding", accept)])).unwrap_or_default();
    Weights::of(&headers).preferred(ours).to_vec()
}

#[test]
fn codings_are_chosen_by_weight_then_by_our_preference() {
    use Coding::{Br, Gzip, Zstd};
    let ours = [Zstd, Br, Gzip];
    let rows: [(Option<&str>, &[Coding]); 24] = [
        (None, &[]),
        (Some(""), &[]),
        (Some("identity"), &[]),
        (Some("gzip, deflate, br, zstd"), &[Zstd, Br, Gzip]),
        (Some("gzip, deflate, br"), &[Br, Gzip]),
        (Some("GZIP"), &[Gzip]),
        (Some("x-gzip"), &[Gzip]),
        (Some("gzip;q=1.0, br;q=0.5"), &[Gzip, Br]),
        (Some("zstd;q=0, br, gzip;q=0.000"), &[Br]),
        (Some("*"), &[Zstd, Br, Gzip]),
        (Some("*;q=0"), &[]),
        (Some("br, *;q=0"), &[Br]),
        (Some("br;q=0, *"), &[Zstd, Gzip]),
        (Some("identity;q=0, gzip;q=0.1"), &[Gzip]),
        (Some("identity, gzip;q=0.9"), &[]),
        (Some("identity;q=0.5, gzip;q=0.9, br;q=0.4"), &[Gzip]),
        (Some("identity;q=1, *;q=0"), &[]),
        (Some("gzip;q=0.5, *"), &[Zstd, Br]),
        (Some("br;q=2"), &[]),
        (Some("br;q=x, gzip"), &[Gzip]),
        (Some("br;level=4, gzip"), &[Gzip]),
        (Some("br, br;q=0"), &[]),
        (Some("x-gzip, gzip;q=0"), &[]),
        (Some("brotli, compress, deflate"), &[]),
    ];
    for (accept, expected) in rows {
        assert_eq!(wanted(accept, &ours), expected, "{accept:?}");
    }
    assert_eq!(wanted(Some("gzip, br, zstd"), &[Gzip, Br]), [Gzip, Br]);
    assert_eq!(wanted(Some(&["br"; 33].join(",")), &ours), [], "nobody means so long a list");
    let two = fields(&[("accept-encoding", "br;q=0.5"), ("accept-encoding", "gzip")]);
    assert_eq!(Weights::of(&two).preferred(&ours).to_vec(), [Gzip, Br]);
}

fn negotiated(request: Fields<'_>, stored: Fields<'_>) -> Option<Negotiation> {
    let stored = [&[("content-type", "text/html")], stored].concat();
    let status = StatusCode::OK;
    negotiate(&get("http://h/", request), status, &fields(&stored), Some(5000), &all())
}

#[test]
fn what_the_client_has_it_keeps() {
    let coded = "\"a-br.5d0c2f1e77a90b34\"";
    let tag = || Known::Coded(HeaderValue::from_static(coded));
    let rows = [
        ("br", "\"a\"", "\"a\"", Known::Identity),
        ("br", "W/\"a\"", "\"a\"", Known::Identity),
        ("br, identity;q=0", "\"a\"", "\"a\"", Known::Nothing),
        ("br", coded, "\"a\"", tag()),
        ("br;q=0.1, identity", coded, "\"a\"", tag()),
        ("br", coded, "W/\"a\"", tag()),
        ("br", "\"a\", \"a-br.5d0c2f1e77a90b34\"", "\"a\"", tag()),
        ("gzip", "\"a\", \"a-br.5d0c2f1e77a90b34\"", "\"a\"", Known::Identity),
        ("br", "\"x\", \"a-br.5d0c2f1e77a90b34\"", "\"a\"", tag()),
        ("gzip", coded, "\"a\"", Known::Nothing),
        ("br;q=0, *", coded, "\"a\"", Known::Nothing),
        ("br", coded, "\"b\"", Known::Nothing),
        ("br", "\"a-br\"", "\"a\"", Known::Nothing),
        ("br", "*", "\"a\"", Known::Nothing),
    ];
    for (accept, none_match, etag, expected) in rows {
        let request = [("accept-encoding", accept), ("if-none-match", none_match)];
        let found = negotiated(&request, &[("etag", etag)]).unwrap();
        assert_eq!(found.known, expected, "{accept} {none_match} {etag}");
    }
    let untagged = negotiated(&[("accept-encoding", "br"), ("if-none-match", coded)], &[]).unwrap();
    assert_eq!(untagged.known, Known::Nothing);
}

#[test]
fn a_request_may_forbid_to_transform_and_a_date_allows_no_part() {
    let accept = ("accept-encoding", "br");
    let plain = negotiated(&[accept], &[]).unwrap();
    assert_eq!((plain.wanted.as_slice(), plain.whole_only), (&[Coding::Br][..], false));
    let kept = negotiated(&[accept, ("cache-control", "no-transform")], &[]).unwrap();
    assert!(kept.wanted.is_empty());
    let date = ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT");
    let range = ("range", "bytes=0-1");
    assert!(negotiated(&[range, date], &[]).unwrap().whole_only);
    assert!(!negotiated(&[range, ("if-range", "\"a\"")], &[]).unwrap().whole_only);
    assert!(!negotiated(&[date], &[]).unwrap().whole_only);
    assert_eq!(negotiated(&[accept], &[("content-encoding", "gzip")]), None);
}

#[test]
fn a_sibling_has_a_tag_of_its_own_and_the_rest_of_the_fields() {
    let stored = fields(&[
        ("content-type", "text/html"),
        ("etag", "\"a\""),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("content-encoding", "identity"),
    ]);
    let expected = fields(&[
        ("content-type", "text/html"),
        ("etag", "\"a-zstd.5d0c2f1e77a90b34\""),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("content-encoding", "zstd"),
    ]);
    assert_eq!(coded_fields(&stored, Coding::Zstd, PRINT), expected);
    let weak = coded_fields(&fields(&[("etag", "W/\"a\"")]), Coding::Gzip, PRINT);
    assert_eq!(weak.get("etag").unwrap(), "W/\"a-gzip.5d0c2f1e77a90b34\"");
    let zeros = coded_fields(&fields(&[("etag", "\"\"")]), Coding::Br, [0; 8]);
    assert_eq!(zeros.get("etag").unwrap(), "\"-br.0000000000000000\"");
}

#[test]
fn vary_is_noted_once() {
    let rows: [(&[&str], &[&str]); 7] = [
        (&[], &["Accept-Encoding"]),
        (&[""], &["Accept-Encoding"]),
        (&["Accept-Language"], &["Accept-Language, Accept-Encoding"]),
        (&["a", "b"], &["a, b, Accept-Encoding"]),
        (&["a, accept-ENCODING"], &["a, accept-ENCODING"]),
        (&["a", "Accept-Encoding"], &["a", "Accept-Encoding"]),
        (&["*"], &["*"]),
    ];
    for (before, after) in rows {
        let lines = |values: &[&str]| {
            fields(&values.iter().map(|value| ("vary", *value)).collect::<Vec<_>>())
        };
        let mut headers = lines(before);
        add_vary(&mut headers);
        assert_eq!(headers, lines(after), "{before:?}");
    }
}

#[test]
fn the_origin_is_asked_about_its_own_tags() {
    let coded = "\"a-br.5d0c2f1e77a90b34\"";
    let rows = [
        ("if-none-match", coded, "\"a\""),
        ("if-none-match", "W/\"a-gzip.5d0c2f1e77a90b34\" , \"b\"", "W/\"a\", \"b\""),
        ("if-match", coded, "\"a\""),
        ("if-range", coded, coded),
        ("if-none-match", "*", "*"),
        ("if-none-match", "\"a-gzip\", x", "\"a-gzip\", x"),
        ("if-none-match", "\"a-br.5D0C2F1E77A90B34\"", "\"a-br.5D0C2F1E77A90B34\""),
        ("if-none-match", "\"a-deflate.5d0c2f1e77a90b34\"", "\"a-deflate.5d0c2f1e77a90b34\""),
        ("if-none-match", "a-br.5d0c2f1e77a90b34\"", "a-br.5d0c2f1e77a90b34\""),
    ];
    for (name, before, after) in rows {
        let mut headers = fields(&[(name, before)]);
        conditions_of_origin(&mut headers);
        assert_eq!(headers, fields(&[(name, after)]), "{before}");
    }
}

#[test]
fn a_304_of_the_origin_names_the_copy_that_the_client_has() {
    let coded = "\"a-br.5d0c2f1e77a90b34\"";
    let rows: [(&str, Fields<'_>, Fields<'_>); 4] = [
        (coded, &[("etag", "\"a\"")], &[("etag", coded), ("vary", "Accept-Encoding")]),
        ("\"a\", \"a-br.5d0c2f1e77a90b34\"", &[("etag", "\"a\"")], &[("etag", "\"a\"")]),
        (coded, &[("etag", "\"b\"")], &[("etag", "\"b\"")]),
        (coded, &[], &[]),
    ];
    for (none_match, before, after) in rows {
        let mut headers = fields(before);
        let request = fields(&[("if-none-match", none_match)]);
        relayed(&request, StatusCode::NOT_MODIFIED, &mut headers, None, &all());
        assert_eq!(headers, fields(after), "{none_match}");
    }
    let mut page = fields(&[("content-type", "text/html")]);
    relayed(&fields(&[]), StatusCode::OK, &mut page, Some(2000), &all());
    assert_eq!(page.get("vary").unwrap(), "Accept-Encoding");
}

#[test]
fn head_has_what_get_has() {
    let head = request("HEAD", "http://h/", &[("accept-encoding", "br"), ("range", "bytes=0-1")]);
    let stored = fields(&[("content-type", "text/html")]);
    let found = negotiate(&head, StatusCode::OK, &stored, Some(2000), &all()).unwrap();
    assert_eq!(found.wanted.as_slice(), [Coding::Br]);
}

proptest! {
    #[test]
    fn a_tag_of_ours_is_turned_back_into_the_origins(
        etag in "(W/)?\"[!#-~]{0,20}\"", coding in 0_usize..CODINGS, print: Print,
    ) {
        let stored = fields(&[("etag", &etag)]);
        let coded = coded_fields(&stored, Coding::ALL[coding], print).remove("etag").unwrap();
        let taken = CodedTag::parse(coded.as_bytes()).unwrap();
        prop_assert_eq!(taken.coding, Coding::ALL[coding]);
        prop_assert!(taken.is_of(etag.as_bytes()));
        prop_assert_eq!(taken.origins(), etag.as_bytes());
        prop_assert!(coded.as_bytes() != etag.as_bytes());
    }

    #[test]
    fn any_fields_are_negotiated_without_panic(
        accept in "[ -~]{0,60}", none_match in "[ -~]{0,40}", etag in "[ -~]{0,20}",
    ) {
        let request = [("accept-encoding", &*accept), ("if-none-match", &*none_match)];
        let _ = negotiated(&request, &[("etag", &*etag)]);
        let mut headers = fields(&request);
        conditions_of_origin(&mut headers);
    }

    #[test]
    fn no_coding_is_wanted_that_is_excluded_or_not_named(
        weights in proptest::collection::vec(("(zstd|br|gzip|identity|\\*)", 0_u16..=10), 0..6),
    ) {
        let members: Vec<String> = weights
            .iter()
            .map(|(name, tenths)| format!("{name};q={}.{}", tenths / 10, tenths % 10))
            .collect();
        for coding in wanted(Some(&members.join(", ")), &Coding::ALL) {
            let named = |name: &str| weights.iter().any(|(own, weight)| own == name && *weight > 0);
            let excluded = weights.iter().any(|(own, weight)| own == coding.name() && *weight == 0);
            prop_assert!(!excluded && (named(coding.name()) || named("*")));
        }
    }
}
