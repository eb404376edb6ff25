//! `No-Vary-Search`: which parts of a query make no difference (draft-ietf-httpbis-no-vary-search).
//!
//! An origin may say of a response that some parameters of its URL, or their order, do not matter.
//! Then a request whose query differs in nothing else may be answered from it:
//!
//! ```text
//! No-Vary-Search: params=("utm_source")     /a?utm_source=x&b=1   is as good as   /a?b=1
//! No-Vary-Search: params, except=("id")     all but `id` is as good as absent
//! No-Vary-Search: key-order                 /a?b=1&c=2            is as good as   /a?c=2&b=1
//! ```
//!
//! Two queries are equivalent under such a rule where they reduce to the same bytes. Queries are
//! read as `application/x-www-form-urlencoded`, but compared byte by byte where they are not UTF-8:
//! that finds less, never more. Without a rule that says something, only the same query is the same.
//!
//! Read as browsers do and as the newer drafts say: `except` beside `params`, or by itself.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};

use crate::semantics::key::push;

/// The field.
pub const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// Longest value that is read, in bytes.
const MOST_BYTES: usize = 4096;
/// Parameters that one rule may name.
const MOST_NAMES: usize = 64;

/// What of a query does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoVarySearch {
    params: Params,
    /// The order of parameters with different names matters.
    ordered: bool,
}

/// Names are decoded, sorted, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Params {
    /// These do not matter.
    Without(Box<[Box<[u8]>]>),
    /// Only these matter.
    Only(Box<[Box<[u8]>]>),
}

impl NoVarySearch {
    /// Reads the field of a response; `None` where it is absent, broken, or says that everything
    /// matters.
    #[must_use]
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let lines: Vec<&[u8]> =
            response.get_all(NO_VARY_SEARCH).iter().map(HeaderValue::as_bytes).collect();
        if lines.is_empty() {
            return None;
        }
        let text = lines.join(&b", "[..]);
        if text.len() > MOST_BYTES {
            return None;
        }
        let found: Dictionary = Parser::new(&text).parse().ok()?;
        let ordered = match found.get("key-order") {
            None => true,
            Some(entry) => !boolean(entry)?,
        };
        let params = match (found.get("params"), found.get("except")) {
            (None, None) => Params::Without(Box::default()),
            (None, Some(ListEntry::InnerList(list))) => Params::Only(names(list)?),
            (Some(ListEntry::InnerList(list)), None) => Params::Without(names(list)?),
            (Some(entry), except) => match (boolean(entry)?, except) {
                (true, None) => Params::Only(Box::default()),
                (true, Some(ListEntry::InnerList(list))) => Params::Only(names(list)?),
                (false, None) => Params::Without(Box::default()),
                (_, Some(_)) => return None,
            },
            (None, Some(ListEntry::Item(_))) => return None,
        };
        let rule = Self { params, ordered };
        (!rule.ordered || !matches!(&rule.params, Params::Without(none) if none.is_empty()))
            .then_some(rule)
    }

    /// What of a query matters, for comparison: equal for two queries exactly if they are
    /// equivalent under this rule.
    #[must_use]
    pub fn reduced(&self, query: Option<&str>) -> Vec<u8> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name.as_bytes()), decoded(value.as_bytes()))
            })
            .filter(|(name, _)| self.matters(name))
            .collect();
        if !self.ordered {
            // Stable: the order of values of one name does matter.
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        let mut out = Vec::with_capacity(query.map_or(0, str::len) + pairs.len() * 8);
        for (name, value) in &pairs {
            push(&mut out, name);
            push(&mut out, value);
        }
        out
    }

    /// The rule itself, for comparison and for hashing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, names) = match &self.params {
            Params::Without(names) => (0, names),
            Params::Only(names) => (1, names),
        };
        let mut out = vec![kind, u8::from(self.ordered)];
        names.iter().for_each(|name| push(&mut out, name));
        out
    }

    /// Bytes that the names take in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (Params::Without(names) | Params::Only(names)) = &self.params;
        names.iter().map(|name| name.len() + 32).sum()
    }

    fn matters(&self, name: &[u8]) -> bool {
        let among = |names: &[Box<[u8]>]| names.binary_search_by(|own| (**own).cmp(name)).is_ok();
        match &self.params {
            Params::Without(names) => !among(names),
            Params::Only(names) => among(names),
        }
    }
}

fn boolean(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::Boolean(value) => Some(value),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    }
}

fn names(list: &InnerList) -> Option<Box<[Box<[u8]>]>> {
    if list.items.len() > MOST_NAMES {
        return None;
    }
    let mut names: Vec<Box<[u8]>> = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let BareItem::String(name) = &item.bare_item else { return None };
        names.push(decoded(name.as_str().as_bytes()).into_boxed_slice());
    }
    names.sort();
    names.dedup();
    Some(names.into_boxed_slice())
}

/// `+` as a blank, then percent-decoded; a `%` that begins no escape is itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        out.push(match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, behind @ ..]) => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => {
                    rest = behind;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => *byte,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::fields;

    fn rule(value: &str) -> Option<NoVarySearch> {
        NoVarySearch::of(&fields(&[("no-vary-search", value)]))
    }

    #[test]
    fn a_broken_field_and_one_that_says_nothing_are_none() {
        for value in [
            "",
            "unknown-key",
            "key-order=?0",
            "params=?0",
            "params=()",
            "key-order=\"not a boolean\"",
            "params=\"not a boolean or inner list\"",
            "params=(not-a-string)",
            "params=(\"a\"), except=(\"x\")",
            "params=(), except=()",
            "params=?0, except=(\"x\")",
            "params, except=(not-a-string)",
            "params, except=\"not an inner list\"",
            "params, except=?1",
            "except=?1",
            "key-order, params=1",
            "key-order=1, params",
            "params=(\"a\"",
            "(",
        ] {
            assert_eq!(rule(value), None, "{value}");
        }
        assert_eq!(NoVarySearch::of(&fields(&[])), None);
        let many = (0..65).map(|i| format!("\"p{i}\"")).collect::<Vec<_>>().join(" ");
        assert_eq!(rule(&format!("params=({many})")), None);
        assert_eq!(rule(&format!("params=(\"{}\")", "x".repeat(4096))), None);
    }

    #[test]
    fn what_says_the_same_is_the_same_rule() {
        let rows = [
            ("params", "params=?1"),
            ("params", "params, except=()"),
            ("params", "except=()"),
            ("params, except=(\"x\" \"y\")", "except=(\"y\" \"x\" \"x\")"),
            ("key-order", "key-order=?1, unknown=2"),
            ("params=(\"a\" \"b\")", "params=(\"%62\" \"a\")"),
            ("params=(\"a b\")", "params=(\"a+b\")"),
        ];
        for (one, other) in rows {
            assert!(rule(one).is_some(), "{one}");
            assert_eq!(rule(one), rule(other), "{one} {other}");
            assert_eq!(rule(one).unwrap().encode(), rule(other).unwrap().encode());
        }
        let lines = fields(&[("no-vary-search", "key-order"), ("no-vary-search", "params")]);
        assert_eq!(NoVarySearch::of(&lines), rule("key-order, params"));
        let distinct =
            ["params", "key-order", "key-order, params", "params=(\"a\")", "except=(\"a\")"];
        for (at, one) in distinct.iter().enumerate() {
            for other in &distinct[at + 1..] {
                assert_ne!(rule(one).unwrap().encode(), rule(other).unwrap().encode());
            }
        }
    }

    #[test]
    fn queries_are_equivalent_where_they_differ_only_in_what_does_not_matter() {
        let rows = [
            ("params", Some("a=1"), None, true),
            ("params", Some(""), None, true),
            ("params=(\"u\")", Some("u=1&a=1"), Some("a=1&u"), true),
            ("params=(\"u\")", Some("u=1&a=1"), Some("a=2"), false),
            ("params=(\"u\")", Some("u=1"), None, true),
            ("params=(\"u\")", Some("U=1"), None, false),
            ("params=(\"u\")", Some("a=1&b=2"), Some("b=2&a=1"), false),
            ("key-order, params=(\"u\")", Some("a=1&b=2"), Some("b=2&u&a=1"), true),
            ("key-order", Some("a=1&a=2"), Some("a=2&a=1"), false),
            ("key-order", Some("b=1&a=2&b=3"), Some("a=2&b=1&b=3"), true),
            ("key-order", Some("b=1&a=2&b=3"), Some("b=3&a=2&b=1"), false),
            ("except=(\"id\")", Some("id=1&x=2"), Some("y=3&id=1"), true),
            ("except=(\"id\")", Some("id=1"), Some("id=2"), false),
            ("except=(\"id\")", Some("id=1"), None, false),
            // As the form parser reads them.
            ("key-order", Some("a=x"), Some("%61=%78"), true),
            ("key-order", Some("a=x&&&&"), Some("a=x"), true),
            ("key-order", Some("a="), Some("a"), true),
            ("key-order", Some("a=%20"), Some("a=+"), true),
            ("key-order", Some("a=b=c"), Some("a=b%3Dc"), true),
            ("key-order", Some("a%3Db=c"), Some("a=b=c"), false),
            ("key-order", Some("a=1%26b=2"), Some("a=1&b=2"), false),
            ("key-order", Some("a=%2B"), Some("a=+"), false),
            ("key-order", Some("a=%"), Some("a=%25"), true),
            ("key-order", Some("a=%f6"), Some("a=%F7"), false),
            ("params=(\"%C3%A9+%E6%B0%97\")", Some("%c3%a9%20%E6%B0%97=3"), None, true),
            ("params=(\"\")", Some("=3"), None, true),
        ];
        for (value, one, other, equivalent) in rows {
            let rule = rule(value).unwrap();
            assert_eq!(
                rule.reduced(one) == rule.reduced(other),
                equivalent,
                "{value} {one:?} {other:?}"
            );
        }
    }

    /// Writes what is left as a query again.
    fn written(reduced: &[u8]) -> String {
        let mut texts = Vec::new();
        let mut rest = reduced;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (text, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            texts.push(text.iter().map(|byte| format!("%{byte:02X}")).collect::<String>());
            rest = after;
        }
        texts.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect::<Vec<_>>().join("&")
    }

    const RULES: [&str; 5] = [
        "params",
        "key-order",
        "params=(\"a\" \"b\")",
        "key-order, params=(\"a\")",
        "key-order, params, except=(\"a\")",
    ];

    proptest! {
        #[test]
        fn reducing_twice_is_reducing_once(query in "[ab%25=&+]{0,20}", number in 0..RULES.len()) {
            let rule = rule(RULES[number]).unwrap();
            let once = rule.reduced(Some(&query));
            prop_assert_eq!(rule.reduced(Some(&written(&once))), once);
        }

        /// A parameter that does not matter may come and go; one that matters may not.
        #[test]
        fn only_what_matters_makes_a_difference(
            before in "([c-f]=[0-9]&){0,3}", after in "(&[c-f]=[0-9]){0,3}", value in "[0-9]{1,3}",
        ) {
            let rule = rule("params=(\"a\")").unwrap();
            let without = rule.reduced(Some(&format!("{before}{after}")));
            prop_assert_eq!(&rule.reduced(Some(&format!("{before}a={value}{after}"))), &without);
            prop_assert_ne!(&rule.reduced(Some(&format!("{before}b={value}{after}"))), &without);
        }

        #[test]
        fn any_value_and_any_query_are_read_without_panic(
            value in "[ -~]{0,40}", query in "[ -~]{0,40}",
        ) {
            if let Some(rule) = rule(&value) {
                let _ = rule.reduced(Some(&query));
            }
        }
    }
}
