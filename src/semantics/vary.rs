//! `Vary`: which request fields choose among the variants under one key (RFC 9111 section 4.1).
//!
//! Values are normalised before they are compared, so that browsers that write one preference in
//! ten ways share one variant. What may be normalised depends on the field: order means nothing in
//! `Accept-Language` (the weights do), blanks around commas mean nothing in lists. Secrets are
//! compared byte by byte.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::semantics::key::{push, take};
use crate::semantics::policy::Policy;
use crate::semantics::storable::NotStored;

/// Field names of `Vary`: in lower case, sorted, each once, bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaryFields {
    names: Box<[HeaderName]>,
}

/// Fields that differ from request to request by our own doing or are removed from it: a response
/// that depends on one belongs to one request only.
const NEVER_SHARED: [&str; 8] = [
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded",
    "forwarded",
    "x-real-ip",
    "true-client-ip",
    "traceparent",
    "tracestate",
];

impl VaryFields {
    /// Reads `Vary` of a response; `None` where it names nothing that can differ under one key.
    ///
    /// # Errors
    /// Why the response cannot be shared: `*`, `Cookie` unless policy allows, or too many names.
    pub fn of(
        response: &HeaderMap,
        most: usize,
        policy: &Policy,
    ) -> Result<Option<Self>, NotStored> {
        let mut names: Vec<HeaderName> = Vec::new();
        for line in response.get_all(header::VARY) {
            for name in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if name.is_empty() {
                    continue;
                }
                // `*` is no field name, and neither is anything else that nobody could send.
                let name =
                    HeaderName::from_bytes(name).map_err(|_not_a_name| NotStored::VaryAny)?;
                if name.as_str() == "*" || NEVER_SHARED.contains(&name.as_str()) {
                    return Err(NotStored::VaryAny);
                }
                if name == header::COOKIE && !policy.vary_on_cookie && !policy.settles(&name) {
                    return Err(NotStored::VaryCookie);
                }
                // Host and scheme are in the key, and what policy puts there.
                if name != header::HOST && !policy.settles(&name) && !names.contains(&name) {
                    if names.len() == most {
                        return Err(NotStored::VaryTooMany);
                    }
                    names.push(name);
                }
            }
        }
        if names.contains(&header::ACCEPT_ENCODING) && is_oddly_coded(response) {
            return Err(NotStored::VaryAny);
        }
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        Ok((!names.is_empty()).then(|| Self { names: names.into_boxed_slice() }))
    }

    /// The names.
    #[must_use]
    pub fn names(&self) -> &[HeaderName] {
        &self.names
    }

    /// Normalised values of the named fields of a request, each behind its name and length. Equal
    /// for two requests exactly if one variant serves both.
    #[must_use]
    pub fn secondary(&self, request: &HeaderMap) -> Vec<u8> {
        self.values(request, None)
    }

    /// As [`Self::secondary`], with the preference for languages narrowed to its one favourite:
    /// where [`Self::secondary`] finds nothing, a variant whose
    /// [`Self::secondary_in_language`] this is is what the origin would choose, too (RFC 9110
    /// sections 12.1 and 12.5.4). `None` where the
    /// request has no single favourite or languages do not matter.
    #[must_use]
    pub fn secondary_of_favourite(&self, request: &HeaderMap) -> Option<Vec<u8>> {
        if !self.names.contains(&header::ACCEPT_LANGUAGE) {
            return None;
        }
        let weighted = weighted_list(&joined(request, &header::ACCEPT_LANGUAGE)?)?;
        let (first, rest) = weighted.split_first()?;
        let alone = rest.first().is_none_or(|second| second.weight < first.weight);
        if !alone || first.weight == 0 || first.name == b"*" {
            return None;
        }
        Some(self.values(request, Some(&first.name)))
    }

    /// The second name of the variant that is stored under `secondary` and has the fields
    /// `response`: all other values as they are, the preference for languages replaced by the one
    /// language that it came in. `None` where it has not exactly one `Content-Language` or
    /// languages do not matter.
    #[must_use]
    pub fn secondary_in_language(&self, secondary: &[u8], response: &HeaderMap) -> Option<Vec<u8>> {
        if !self.names.contains(&header::ACCEPT_LANGUAGE) {
            return None;
        }
        let language = joined(response, &header::CONTENT_LANGUAGE)?.to_ascii_lowercase();
        let language = language.trim_ascii();
        if language.is_empty() || language.contains(&b',') {
            return None;
        }
        let mut out = Vec::with_capacity(secondary.len() + language.len());
        let mut rest = secondary;
        for name in &self.names {
            let (value, after) = split_value(rest, name)?;
            if *name == header::ACCEPT_LANGUAGE {
                push(&mut out, name.as_str().as_bytes());
                push_language(&mut out, language);
            } else {
                out.extend_from_slice(value);
            }
            rest = after;
        }
        Some(out)
    }

    /// Fields of a request that selects the variant stored under `secondary`. `None` where a field
    /// matters that may be somebody's own: only what programs say of themselves is said again.
    #[must_use]
    pub fn asking_for(&self, secondary: &[u8]) -> Option<HeaderMap> {
        let mut request = HeaderMap::new();
        let mut rest = secondary;
        for name in &self.names {
            let (row, after) = split_value(rest, name)?;
            rest = after;
            let (mark, mut value) = row.get(4 + name.as_str().len()..)?.split_first()?;
            if *mark == 0 {
                continue;
            }
            let value = take(&mut value)?;
            if !says_nothing_of_a_person(name) {
                return None;
            }
            let value = HeaderValue::from_bytes(&written_out(name, value)).ok()?;
            request.insert(name, value);
        }
        // What cannot be written as it was read would ask for another variant.
        (self.secondary(&request) == secondary).then_some(request)
    }

    fn values(&self, request: &HeaderMap, language: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for name in &self.names {
            push(&mut out, name.as_str().as_bytes());
            match language {
                Some(language) if *name == header::ACCEPT_LANGUAGE => {
                    push_language(&mut out, language);
                }
                _ => match normalised(request, name) {
                    Some(value) => {
                        out.push(1);
                        push(&mut out, &value);
                    }
                    None => out.push(0),
                },
            }
        }
        out
    }
}

/// Whether a field speaks of a program, not of who uses it.
fn says_nothing_of_a_person(name: &HeaderName) -> bool {
    const SUCH: [HeaderName; 5] = [
        header::ACCEPT,
        header::ACCEPT_CHARSET,
        header::ACCEPT_ENCODING,
        header::ACCEPT_LANGUAGE,
        header::USER_AGENT,
    ];
    SUCH.contains(name) || name.as_str() == "save-data" || name.as_str().starts_with("sec-ch-")
}

/// The value of a field from what [`normalised`] made of it.
fn written_out(name: &HeaderName, value: &[u8]) -> Vec<u8> {
    let list = match *name {
        header::ACCEPT_ENCODING => members::<1>(value, |[accepted]| u16::from(accepted) * 1000),
        header::ACCEPT_LANGUAGE | header::ACCEPT_CHARSET => members::<2>(value, u16::from_le_bytes),
        _ => None,
    };
    let Some(list) = list else { return value.to_vec() };
    let written = list.into_iter().map(|Weighted { name, weight }| match weight {
        1000 => name,
        weight => [name, format!(";q=0.{weight:03}").into_bytes()].concat(),
    });
    written.collect::<Vec<_>>().join(&b","[..])
}

/// Reads a list of names, each with a weight in so many bytes; `None` where it is none.
fn members<const N: usize>(mut row: &[u8], weight: fn([u8; N]) -> u16) -> Option<Vec<Weighted>> {
    let mut list = Vec::new();
    while !row.is_empty() {
        let name = take(&mut row)?.to_vec();
        let (bytes, rest) = row.split_first_chunk::<N>()?;
        list.push(Weighted { name, weight: weight(*bytes) });
        row = rest;
    }
    Some(list)
}

/// Appends a language in the place of a preference for languages; no preference looks like it.
fn push_language(out: &mut Vec<u8>, language: &[u8]) {
    out.push(2);
    push(out, language);
}

/// Takes the value of one field, name included, off the front of a row of them.
fn split_value<'a>(row: &'a [u8], name: &HeaderName) -> Option<(&'a [u8], &'a [u8])> {
    let part = |row: &[u8]| {
        let length = row.first_chunk::<4>().map(|length| u32::from_le_bytes(*length))?;
        usize::try_from(length).ok()?.checked_add(4)
    };
    let named = part(row)?;
    debug_assert_eq!(row.get(4..named), Some(name.as_str().as_bytes()), "the names are the row's");
    let length = match row.get(named)? {
        0 => named + 1,
        _ => part(row.get(named + 1..)?)?.checked_add(named + 1)?,
    };
    row.split_at_checked(length)
}

/// Value of a field as it counts for comparison; `None` where it is absent.
fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let value = joined(request, name)?;
    Some(match *name {
        header::COOKIE | header::AUTHORIZATION | header::USER_AGENT | header::REFERER => value,
        header::ACCEPT_ENCODING => codings(&value),
        header::ACCEPT_LANGUAGE | header::ACCEPT_CHARSET => match weighted_list(&value) {
            Some(list) => encode_weighted(&list),
            None => value,
        },
        _ => trimmed_list(&value),
    })
}

/// All lines of a field as one value (RFC 9110 section 5.3).
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut value = lines.next()?.to_vec();
    for line in lines {
        value.extend_from_slice(b", ");
        value.extend_from_slice(line);
    }
    Some(value)
}

/// A list without blanks around its commas, empty members aside; quoted strings are left alone.
pub(super) fn trimmed_list(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    let mut add = |piece: &[u8]| {
        let piece = piece.trim_ascii();
        if !piece.is_empty() {
            if !out.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(piece);
        }
    };
    for (at, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                add(value.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    add(value.get(start..).unwrap_or_default());
    out
}

/// A member of a weighted list; the weight in thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Weighted {
    name: Vec<u8>,
    weight: u16,
}

/// A list with weights (RFC 9110 section 12.4.2): in lower case, by falling weight, then by name.
/// `None` where it is not one, or so long that it is no preference of a person.
fn weighted_list(value: &[u8]) -> Option<Vec<Weighted>> {
    const MOST: usize = 64;
    let mut list: Vec<Weighted> = Vec::new();
    for member in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if member.is_empty() {
            continue;
        }
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next()?.to_ascii_lowercase();
        let weight = match (parts.next(), parts.next()) {
            (None, _) => 1000,
            (Some(parameter), None) => weight(parameter)?,
            (Some(_), Some(_)) => return None,
        };
        if name.is_empty() || list.len() == MOST {
            return None;
        }
        list.push(Weighted { name, weight });
    }
    list.sort_by(|one, other| {
        other.weight.cmp(&one.weight).then_with(|| one.name.cmp(&other.name))
    });
    list.dedup();
    Some(list)
}

/// `q=0.8` in thousandths.
pub(super) fn weight(parameter: &[u8]) -> Option<u16> {
    let digits = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, fraction) = match digits.split_first()? {
        (first @ (b'0' | b'1'), []) => (*first, &[][..]),
        (first @ (b'0' | b'1'), [b'.', fraction @ ..]) if fraction.len() <= 3 => (*first, fraction),
        _ => return None,
    };
    let mut weight = u16::from(whole - b'0') * 1000;
    for (digit, unit) in fraction.iter().zip([100, 10, 1]) {
        if !digit.is_ascii_digit() {
            return None;
        }
        weight += u16::from(*digit - b'0') * unit;
    }
    (weight <= 1000).then_some(weight)
}

fn encode_weighted(list: &[Weighted]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * 12);
    for member in list {
        push(&mut out, &member.name);
        out.extend_from_slice(&member.weight.to_le_bytes());
    }
    out
}

/// `Accept-Encoding` as the set of what is acceptable: any coding that is may be sent, whatever
/// its weight, so two clients that accept the same can share what the origin chose for one.
fn codings(value: &[u8]) -> Vec<u8> {
    let Some(list) = weighted_list(value) else {
        return value.to_vec();
    };
    let mut names: Vec<(Vec<u8>, bool)> = list
        .into_iter()
        .map(|member| {
            let name = match member.name.as_slice() {
                b"x-gzip" => b"gzip".to_vec(),
                b"x-compress" => b"compress".to_vec(),
                _ => member.name,
            };
            (name, member.weight > 0)
        })
        // What nobody sends cannot be chosen; made-up names would only make variants.
        .filter(|(name, _)| is_coding(name) || name == b"*" || name == b"identity")
        // Acceptable unless it is excluded, so naming it changes nothing.
        .filter(|(name, accepted)| !(name == b"identity" && *accepted))
        .collect();
    names.sort();
    names.dedup();
    let mut out = Vec::with_capacity(32);
    for (name, accepted) in names {
        push(&mut out, &name);
        out.push(u8::from(accepted));
    }
    out
}

/// Whether a content coding is one that origins use on the web (RFC 9110 section 8.4.1, RFC 7932,
/// RFC 8878).
fn is_coding(name: &[u8]) -> bool {
    [&b"gzip"[..], b"br", b"zstd", b"deflate", b"compress", b"dcb", b"dcz"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a response is coded in a way that no `Accept-Encoding` is told apart by.
fn is_oddly_coded(response: &HeaderMap) -> bool {
    response.get_all(header::CONTENT_ENCODING).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|name| {
            let usual = name.strip_prefix(b"x-").unwrap_or(name);
            !name.is_empty() && !name.eq_ignore_ascii_case(b"identity") && !is_coding(usual)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::{Fields, fields};

    fn vary(value: &str) -> VaryFields {
        VaryFields::of(&fields(&[("vary", value)]), 8, &Policy::default()).unwrap().unwrap()
    }

    #[test]
    fn a_variant_is_asked_for_again_unless_that_takes_something_of_a_persons_own() {
        let rows: [(&str, Fields<'_>, bool); 8] = [
            ("Accept-Encoding", &[("accept-encoding", "gzip, br;q=0, deflate")], true),
            ("Accept-Encoding", &[], true),
            ("Accept-Encoding", &[("accept-encoding", "gzip;v=1;q=0.5")], true),
            ("Accept-Language", &[("accept-language", "de-DE, de;q=0.9, en;q=0.007, *;q=0")], true),
            ("Accept-Language, User-Agent", &[("user-agent", "one/1 (two)")], true),
            ("Sec-CH-UA-Mobile, Accept", &[("sec-ch-ua-mobile", "?1"), ("accept", "a/b")], true),
            ("X-Account", &[], true),
            ("X-Account", &[("x-account", "17")], false),
        ];
        for (names, request, may) in rows {
            let fields = vary(names);
            let secondary = fields.secondary(&super::super::test_support::fields(request));
            let again = fields.asking_for(&secondary);
            assert_eq!(again.is_some(), may, "{names} {request:?}");
            if let Some(again) = again {
                assert_eq!(fields.secondary(&again), secondary, "{names} {request:?} {again:?}");
            }
        }
        let cookies = Policy { vary_on_cookie: true, ..Policy::default() };
        let fields = VaryFields::of(&fields(&[("vary", "Cookie")]), 8, &cookies).unwrap().unwrap();
        let secondary =
            fields.secondary(&super::super::test_support::fields(&[("cookie", "id=1")]));
        assert_eq!(fields.asking_for(&secondary), None);
        assert_eq!(fields.asking_for(b"abc"), None);
    }

    #[test]
    fn names_are_judged() {
        let policy = Policy::default();
        let rows: [(Fields<'_>, Result<Option<usize>, NotStored>); 10] = [
            (&[], Ok(None)),
            (&[("vary", "")], Ok(None)),
            (&[("vary", "Host")], Ok(None)),
            (&[("vary", "Foo, foo, BAR")], Ok(Some(2))),
            (&[("vary", "*")], Err(NotStored::VaryAny)),
            (&[("vary", "Foo, *")], Err(NotStored::VaryAny)),
            (&[("vary", ", *")], Err(NotStored::VaryAny)),
            (&[("vary", "a"), ("vary", "*")], Err(NotStored::VaryAny)),
            (&[("vary", "a b")], Err(NotStored::VaryAny)),
            (&[("vary", "Cookie")], Err(NotStored::VaryCookie)),
        ];
        for (headers, expected) in rows {
            let found = VaryFields::of(&fields(headers), 8, &policy);
            assert_eq!(
                found.map(|found| found.map(|it| it.names().len())),
                expected,
                "{headers:?}"
            );
        }
        let many = fields(&[("vary", "a,b,c,d,e,f,g,h,i")]);
        assert_eq!(VaryFields::of(&many, 8, &policy), Err(NotStored::VaryTooMany));
        let forwarded = fields(&[("vary", "X-Forwarded-For")]);
        assert_eq!(VaryFields::of(&forwarded, 8, &policy), Err(NotStored::VaryAny));
        let cookies = Policy { vary_on_cookie: true, ..Policy::default() };
        assert!(VaryFields::of(&fields(&[("vary", "Cookie")]), 8, &cookies).is_ok());
    }

    #[test]
    fn values_that_mean_the_same_are_equal() {
        let rows = [
            ("foo", "1,2", " 1, 2 ", true),
            ("foo", "1, 2", "1 2", false),
            ("foo", "\"a, b\"", "\"a,b\"", false),
            ("foo", "a", "A", false),
            ("accept-language", "en, de", "de, en", true),
            ("accept-language", "en, de", " EN ,   de", true),
            ("accept-language", "en;q=0.8, de", "de;q=1.0, en;q=0.80", true),
            ("accept-language", "en;q=0.8, de", "de;q=0.8, en", false),
            ("accept-encoding", "gzip, br", "br;q=0.5,gzip, identity", true),
            ("accept-encoding", "gzip, br", "gzip, br;q=0", false),
            ("accept-encoding", "x-gzip", "gzip", true),
            ("accept-encoding", "gzip", "identity", false),
            ("user-agent", "a, b", "a,b", false),
        ];
        for (name, one, other, equal) in rows {
            let vary = vary(name);
            let one = vary.secondary(&fields(&[(name, one)]));
            let other = vary.secondary(&fields(&[(name, other)]));
            assert_eq!(one == other, equal, "{name} {one:?} {other:?}");
        }
        let foo = vary("foo");
        assert_eq!(
            foo.secondary(&fields(&[("foo", "1"), ("foo", "2")])),
            foo.secondary(&fields(&[("foo", "1, 2")])),
        );
        assert_ne!(foo.secondary(&fields(&[])), foo.secondary(&fields(&[("foo", "")])));
    }

    #[test]
    fn a_favourite_language_finds_the_variant_in_it() {
        let vary = vary("accept-language");
        let asked = vary.secondary(&fields(&[("accept-language", "en, de")]));
        let stored =
            vary.secondary_in_language(&asked, &fields(&[("content-language", "DE")])).unwrap();
        let rows = [
            ("fr;q=0.5, de;q=1.0", true),
            ("de", true),
            ("fr, de;q=0.5", false),
            ("fr, de", false),
            ("*", false),
        ];
        for (value, found) in rows {
            let favourite = vary.secondary_of_favourite(&fields(&[("accept-language", value)]));
            assert_eq!(favourite.as_ref() == Some(&stored), found, "{value}");
        }
        let languages: [Fields<'_>; 4] = [
            &[],
            &[("content-language", "")],
            &[("content-language", "de, en")],
            &[("content-language", "de"), ("content-language", "en")],
        ];
        for several in languages {
            assert_eq!(vary.secondary_in_language(&asked, &fields(several)), None, "{several:?}");
        }
    }

    #[test]
    fn a_favourite_language_finds_nothing_where_another_field_differs() {
        let vary = vary("Foo, Accept-Language, X");
        let german = fields(&[("content-language", "de")]);
        let asked = fields(&[("accept-language", "en, de"), ("foo", "1")]);
        let stored = vary.secondary_in_language(&vary.secondary(&asked), &german).unwrap();
        let rows: [(Fields<'_>, bool); 5] = [
            (&[("accept-language", "de"), ("foo", "1")], true),
            (&[("accept-language", "de"), ("foo", "2")], false),
            (&[("accept-language", "de")], false),
            (&[("accept-language", "de"), ("foo", "1"), ("x", "")], false),
            (&[("accept-language", "en"), ("foo", "1")], false),
        ];
        for (request, found) in rows {
            let favourite = vary.secondary_of_favourite(&fields(request)).unwrap();
            assert_eq!(favourite == stored, found, "{request:?}");
        }
        let other = VaryFields { names: Box::new([header::ACCEPT_ENCODING]) };
        let asked = other.secondary(&fields(&[("accept-encoding", "gzip")]));
        assert_eq!(other.secondary_in_language(&asked, &german), None);
    }

    proptest! {
        #[test]
        fn any_value_is_normalised_without_panic(
            value in "[ -~]{0,40}", name in "(accept-language|accept-encoding|foo|cookie)",
        ) {
            let vary = VaryFields { names: Box::new([HeaderName::try_from(name.clone()).unwrap()]) };
            let headers = fields(&[(name.as_str(), value.as_str())]);
            prop_assert_eq!(vary.secondary(&headers), vary.secondary(&headers));
        }

        /// The second name says all that the first one says, but for the language.
        #[test]
        fn both_names_of_a_variant_agree_on_all_other_fields(
            one in "[ -~]{0,12}", other in "[ -~]{0,12}", preference in "[ -~]{0,12}",
        ) {
            let vary = vary("Foo, Accept-Language, X");
            let name = |foo: &str, preference: &str| {
                let asked = fields(&[("foo", foo), ("accept-language", preference), ("x", "y")]);
                let german = fields(&[("content-language", "de")]);
                vary.secondary_in_language(&vary.secondary(&asked), &german).unwrap()
            };
            let favourite = |foo: &str| {
                let asked = fields(&[("foo", foo), ("accept-language", "de"), ("x", "y")]);
                vary.secondary_of_favourite(&asked).unwrap()
            };
            prop_assert_eq!(name(&one, &preference), favourite(&one));
            prop_assert_eq!(name(&one, &preference) == favourite(&other),
                favourite(&one) == favourite(&other));
        }
    }
}
