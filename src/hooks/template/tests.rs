use proptest::prelude::*;
use serde_json::json;

use super::*;

fn expand(text: &str, kind: Kind, event: &Value) -> Result<Vec<String>, Refusal> {
    let template = Template::parse(text, kind).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut out = Vec::new();
    template.expand(event, 100, &mut out).map(|()| out)
}

#[test]
fn values_stand_where_their_pointers_stand() {
    let event = json!({
        "entry": {"id": 17, "slug": "a b/ü", "live": true, "none": null, "empty": ""},
        "tags": [{"name": "x"}, {"no": 1}, {"name": "y"}],
        "commits": [{"id": "c1", "files": ["a/b.md", "c.md"]}, {"id": "c2", "files": ["d.md"]}],
        "link": "https://www.example.org/a%20b?x=1",
        "lang": "de",
    });
    let rows: [(&str, Kind, &[&str]); 16] = [
        ("front", Kind::Tag, &["front"]),
        ("article:{/entry/id}", Kind::Tag, &["article:17"]),
        ("{/entry/live}", Kind::Tag, &["true"]),
        ("{/lang}:{/tags/*/name}", Kind::Tag, &["de:x", "de:y"]),
        ("a:{/entry/none}", Kind::Tag, &[]),
        ("a:{/entry/empty}", Kind::Tag, &[]),
        ("a:{/entry}", Kind::Tag, &[]),
        ("a:{/tags}", Kind::Tag, &[]),
        ("https://h/{/lang}/{/entry/slug}", Kind::Url, &["https://h/de/a%20b%2F%C3%BC"]),
        ("https://h/{/lang}/{+/entry/slug}", Kind::Url, &["https://h/de/a%20b/%C3%BC"]),
        ("{/link}", Kind::Url, &["https://www.example.org/a%20b?x=1"]),
        (
            "https://h/{+/commits/*/files/*}",
            Kind::Url,
            &["https://h/a/b.md", "https://h/c.md", "https://h/d.md"],
        ),
        ("{/lang}.example.org", Kind::Host, &["de.example.org"]),
        ("h/{/entry/slug}/", Kind::Prefix, &["h/a%20b%2F%C3%BC/"]),
        ("h/{/missing}/", Kind::Prefix, &[]),
        ("{/commits/1/id}", Kind::Tag, &["c2"]),
    ];
    for (text, kind, expected) in rows {
        assert_eq!(expand(text, kind, &event).expect(text), expected, "{text}");
    }
}

#[test]
fn values_cannot_break_out() {
    let event = |value: &str| json!({ "v": value });
    for value in ["a b", "a,b", "a\tb", "a\nb", "\u{7f}", " ", "a\u{a0}b"] {
        let found = expand("t:{/v}", Kind::Tag, &event(value));
        assert_eq!(found, Err(Refusal::Unfit(Kind::Tag)), "{value:?}");
    }
    for (text, value) in [
        ("https://h/{/v}", ".."),
        ("https://h/{/v}/x", "."),
        ("https://h/.{/v}", "."),
        ("https://h/%2e{/v}?q", "."),
        ("https://h/{+/v}", "a/../b"),
        ("h/{/v}/", ".."),
    ] {
        let kind = if text.starts_with("https") { Kind::Url } else { Kind::Prefix };
        assert_eq!(expand(text, kind, &event(value)), Err(Refusal::Unfit(kind)), "{text} {value}");
    }
    for value in ["a/b", "a:80", "a@b", "a b", "*", "ü"] {
        let found = expand("{/v}.example.org", Kind::Host, &event(value));
        assert_eq!(found, Err(Refusal::Unfit(Kind::Host)), "{value}");
    }
    let found = expand("https://h/{/v}", Kind::Url, &event("?a=b#c&d%2e%2e/..\\"));
    assert_eq!(found.expect("fine"), ["https://h/%3Fa%3Db%23c%26d%252e%252e%2F..%5C"]);
}

#[test]
fn output_is_bounded() {
    let many = json!({ "all": vec![json!({"n": 1}); 101], "long": "x".repeat(TEXT_BYTES + 1) });
    assert_eq!(expand("t{/all/*/n}", Kind::Tag, &many), Err(Refusal::TooMany));
    assert_eq!(expand("{/long}", Kind::Tag, &many), Err(Refusal::TooLong));
    let wide = json!({ "v": "ü".repeat(TEXT_BYTES / 4) });
    assert_eq!(expand("https://h/{/v}", Kind::Url, &wide), Err(Refusal::TooLong));
}

#[test]
fn what_is_no_template_is_refused() {
    let long = "x".repeat(TEMPLATE_BYTES + 1);
    let many = "{/a}".repeat(2 * MOST_POINTERS + 1);
    for (text, kind) in [
        ("", Kind::Tag),
        ("{/a", Kind::Tag),
        ("a}", Kind::Tag),
        ("{a}", Kind::Tag),
        ("{{/a}}", Kind::Tag),
        ("{+/a}", Kind::Tag),
        ("{+/a}", Kind::Host),
        ("{/a~}", Kind::Tag),
        ("{/a/*/b}{/c/*/d}", Kind::Tag),
        ("www.example.org/{/a}", Kind::Url),
        ("{/scheme}://h/", Kind::Url),
        (&long, Kind::Tag),
        (&many, Kind::Tag),
    ] {
        assert!(Template::parse(text, kind).is_err(), "{text}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-c*]{0,1}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Tag, Kind::Url, Kind::Prefix, Kind::Host])
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_expands_within_its_bounds(
        text in "(https://h/)?([a-z/~*.]|\\{\\+?(/[a-c*]){0,4}\\}|[{}%]|.){0,12}",
        kind in any_kind(),
        event in any_json(),
        most in 0_usize..8,
    ) {
        if let Ok(template) = Template::parse(&text, kind) {
            let mut out = Vec::new();
            let ended = template.expand(&event, most, &mut out);
            prop_assert!(out.len() <= most);
            prop_assert!(out.iter().all(|text| text.len() <= TEXT_BYTES));
            prop_assert!(ended != Err(Refusal::TooMany) || out.len() == most);
        }
    }

    #[test]
    fn bytes_keep_what_the_fuzz_target_looks_for(
        kind in 0_u8..4,
        text in "(https://h/|h/)?([a-z/.?:]|\\{\\+?(/v){0,2}(/\\*)?\\}){0,8}",
        event in prop_oneof![
            any_json().prop_map(|event| event.to_string()),
            any_json().prop_map(|value| json!({ "v": [value] }).to_string()),
            ".{0,20}",
        ],
        noise in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        crate::hooks::check::template(&[&[kind], text.as_bytes(), b"\n", event.as_bytes()].concat());
        crate::hooks::check::template(&noise);
    }

    #[test]
    fn a_value_in_a_url_stays_within_its_segment(value in ".{1,20}") {
        let event = json!({ "v": value });
        if let Ok(found) = expand("https://h/a/{/v}/z?q={/v}&r", Kind::Url, &event) {
            let uri: http::Uri = found[0].parse().expect("a URL");
            prop_assert_eq!(uri.host(), Some("h"));
            let segments: Vec<&str> = uri.path().split('/').collect();
            prop_assert_eq!(segments.len(), 4);
            prop_assert_eq!((segments[1], segments[3]), ("a", "z"));
            prop_assert!(segments[2] != "." && segments[2] != "..");
            prop_assert_eq!(uri.query().map(|query| query.matches(['&', '=']).count()), Some(2));
        }
    }
}
