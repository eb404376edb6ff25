//! Validation in both directions: conditions that clients send and we answer, conditions that we
//! send and the origin answers (RFC 9110 section 13, RFC 9111 section 4.3).

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::semantics::cache_control::{ATOLL_CACHE_CONTROL, CDN_CACHE_CONTROL, ResponseDirectives};
use crate::semantics::freshness::{Terms, single_date};
use crate::semantics::tags::TAG_FIELDS;
use crate::semantics::{date, normalise::Request};

/// Fields that ask the origin whether a stored response still holds (RFC 9111 section 4.3.1);
/// empty where it has no validator.
#[must_use]
pub fn conditions(stored: &HeaderMap, terms: &Terms) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(2);
    if let Some(etag) = &terms.etag {
        out.insert(header::IF_NONE_MATCH, etag.clone());
    }
    if terms.last_modified.is_some()
        && let Some(modified) = stored.get(header::LAST_MODIFIED)
    {
        out.insert(header::IF_MODIFIED_SINCE, modified.clone());
    }
    out
}

/// The conditions by which a client asks whether what it has still holds (RFC 9110 sections 13.1.2
/// and 13.1.3); empty where it does not ask.
#[must_use]
pub fn asked_conditions(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
        for value in headers.get_all(&name) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// Removes the client's conditions and ranges from a request that must bring the whole.
pub fn unconditional(headers: &mut HeaderMap) {
    for name in [
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
    ] {
        headers.remove(name);
    }
}

/// Whether a 304 speaks of the stored response (RFC 9111 section 4.3.4). A 304 without validators
/// confirms the one that was asked about; one with other validators confirms nothing: ask again
/// without conditions.
///
/// Where both have an entity tag, that decides: two representations of one second share a
/// `Last-Modified`, and a file that is touched changes it. A strong tag that the stored response
/// does not have names another one, unless the date is there and equal.
#[must_use]
pub fn confirms(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    let pair = |name: &HeaderName| (stored.get(name), not_modified.get(name));
    let same_date = match pair(&header::LAST_MODIFIED) {
        (Some(stored), Some(new)) => Some(stored == new),
        _ => None,
    };
    match pair(&header::ETAG) {
        (Some(stored), Some(new)) => weakly_equal(stored.as_bytes(), new.as_bytes()),
        (None, Some(new)) if is_strong(new.as_bytes()) => same_date == Some(true),
        _ => same_date != Some(false),
    }
}

/// Stored fields after a 304 (RFC 9111 section 3.2), to be judged and stored like a new response.
/// Its fields replace the stored ones, except for what belongs to the stored bytes and what a 304
/// can get wrong without anybody noticing. `Set-Cookie` is replaced only where one was stored.
///
/// A 200 that sets a cookie is not stored, since it speaks to one client. A 304 that does confirms a
/// body that is everybody's, but of its fields only those are taken that say how to cache: whatever
/// else it brings may speak to that one client, too. Where every use had to be confirmed, not even
/// those: the body itself may be that client's.
///
/// `Vary` only grows: fields that were stored because the request had this and that stay bound to
/// it, since a 304 cannot take them away.
#[must_use]
pub fn freshened(stored: &HeaderMap, not_modified: &HeaderMap) -> HeaderMap {
    let mut fresh = stored.clone();
    // Age is counted from when the 304 was made, not from when the body was.
    fresh.remove(header::DATE);
    fresh.remove(header::AGE);
    let sets = |headers: &HeaderMap| {
        headers.contains_key(header::SET_COOKIE) || headers.contains_key("set-cookie2")
    };
    let personal = sets(not_modified) && !sets(stored);
    let private_body = personal && ResponseDirectives::of(stored).no_cache;
    let taken = |name: &&HeaderName| {
        is_merged(name, stored) && (!personal || !private_body && is_caching(name))
    };
    for name in not_modified.keys().filter(taken) {
        fresh.remove(name);
        for value in not_modified.get_all(name) {
            fresh.append(name.clone(), value.clone());
        }
    }
    for kept in stored.get_all(header::VARY) {
        if !fresh.get_all(header::VARY).iter().any(|new| names_all(new, kept)) {
            fresh.append(header::VARY, kept.clone());
        }
    }
    fresh
}

/// Whether every name of one list of fields is in another.
fn names_all(list: &HeaderValue, names: &HeaderValue) -> bool {
    let split = |list: &'_ HeaderValue| -> Vec<Vec<u8>> {
        let names = list.as_bytes().split(|byte| *byte == b',');
        names.map(|name| name.trim_ascii().to_ascii_lowercase()).collect()
    };
    let list = split(list);
    split(names).iter().all(|name| list.contains(name))
}

/// Whether a field tells caches what to do and users nothing.
fn is_caching(name: &HeaderName) -> bool {
    const TARGETED: [HeaderName; 2] = [ATOLL_CACHE_CONTROL, CDN_CACHE_CONTROL];
    const CLASSIC: [HeaderName; 7] = [
        header::CACHE_CONTROL,
        header::EXPIRES,
        header::DATE,
        header::AGE,
        header::ETAG,
        header::LAST_MODIFIED,
        header::VARY,
    ];
    CLASSIC.contains(name) || TARGETED.contains(name) || TAG_FIELDS.contains(&name.as_str())
}

fn is_merged(name: &HeaderName, stored: &HeaderMap) -> bool {
    match *name {
        header::CONTENT_LENGTH
        | header::CONTENT_ENCODING
        | header::CONTENT_RANGE
        | header::TRANSFER_ENCODING
        | header::CONNECTION => false,
        header::ETAG | header::SET_COOKIE => {
            *name == header::SET_COOKIE && stored.contains_key(name)
                || *name == header::ETAG && !stored.contains_key(name)
        }
        _ => name.as_str() != "set-cookie2" || stored.contains_key(name),
    }
}

/// What a HEAD that went to the origin says about the stored GET (RFC 9111 section 4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// Same validators and length: its fields freshen what is stored.
    Freshens,
    /// The resource has changed: what is stored is stale.
    Invalidates,
    /// Says nothing about it.
    Silent,
}

/// Judges the answer to a HEAD against a stored GET of `length` bytes. Where neither has a
/// validator there is none that differs: a HEAD is how such a response can be freshened at all.
#[must_use]
pub fn judge_head(
    stored: &HeaderMap,
    length: u64,
    status: StatusCode,
    headers: &HeaderMap,
) -> HeadVerdict {
    if status != StatusCode::OK {
        return HeadVerdict::Silent;
    }
    let same = |name: &HeaderName| stored.get(name) == headers.get(name);
    let same_length = headers.get(header::CONTENT_LENGTH).is_none_or(|value| {
        value.to_str().ok().and_then(|text| text.parse::<u64>().ok()) == Some(length)
    });
    if !(same(&header::ETAG) && same(&header::LAST_MODIFIED) && same_length) {
        return HeadVerdict::Invalidates;
    }
    HeadVerdict::Freshens
}

/// Whether a conditional GET or HEAD is answered with 304 from a stored response (RFC 9111
/// section 4.3.2). `If-None-Match` beats `If-Modified-Since`.
pub(super) fn is_not_modified(
    request: &Request,
    status: StatusCode,
    stored: &HeaderMap,
    terms: Option<&Terms>,
    now: SystemTime,
) -> bool {
    if !status.is_success() || !matches!(request.method, Method::GET | Method::HEAD) {
        return false;
    }
    if request.headers.contains_key(header::IF_NONE_MATCH) {
        let lines = request.headers.get_all(header::IF_NONE_MATCH);
        return none_match_holds(lines.iter(), stored.get(header::ETAG));
    }
    let Some(since) = single_date(&request.headers, &header::IF_MODIFIED_SINCE, now) else {
        return false;
    };
    // Without Last-Modified, Date stands in for it, and failing that the time of arrival.
    let modified = match stored.contains_key(header::LAST_MODIFIED) {
        true => single_date(stored, &header::LAST_MODIFIED, now),
        false => terms.map(|terms| terms.date).or_else(|| single_date(stored, &header::DATE, now)),
    };
    modified.is_some_and(|modified| modified <= since)
}

/// Whether one of the entity tags listed is the stored one, by weak comparison (RFC 9110
/// section 8.8.3.2); `*` is every one.
fn none_match_holds<'a>(
    mut lines: impl Iterator<Item = &'a HeaderValue>,
    etag: Option<&HeaderValue>,
) -> bool {
    let Some(etag) = etag.map(HeaderValue::as_bytes) else {
        // `*` asks for any representation, with an entity tag or without.
        return lines.any(|line| line.as_bytes().trim_ascii() == b"*");
    };
    lines.any(|line| {
        let line = line.as_bytes().trim_ascii();
        // Equality of the whole also covers tags that break the grammar, if client and origin agree.
        line == b"*" || line == etag || entity_tags(line).any(|tag| weakly_equal(tag, etag))
    })
}

/// Equality of entity tags, weakness aside.
pub(super) fn weakly_equal(one: &[u8], other: &[u8]) -> bool {
    opaque(one) == opaque(other)
}

/// Equality of two strong entity tags.
pub(super) fn strongly_equal(one: &[u8], other: &[u8]) -> bool {
    is_strong(one) && one == other
}

/// Whether an entity tag is one, and not weak.
pub(super) fn is_strong(tag: &[u8]) -> bool {
    tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"")
}

/// A tag without its mark of weakness.
pub(super) fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The entity tags of a list; what is not one is skipped. They may hold commas.
pub(super) fn entity_tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_ascii_start();
            let after_flag = opaque(rest);
            let flag = rest.len() - after_flag.len();
            let closing = after_flag
                .strip_prefix(b"\"")
                .and_then(|inner| inner.iter().position(|byte| *byte == b'"'));
            if let Some(at) = closing {
                let (tag, after) = rest.split_at_checked(flag + at + 2)?;
                rest = after;
                return Some(tag);
            }
            let comma = rest.iter().position(|byte| *byte == b',')?;
            rest = rest.get(comma + 1..)?;
        }
    })
}

/// Whether `If-Range` allows the ranges asked for (RFC 9110 section 13.1.5): absent, or a strong
/// validator that is the stored one's. A date is strong where the response was made at least a
/// second after the last change (section 8.8.2.2).
pub(super) fn range_condition_holds(
    request: &Request,
    stored: &HeaderMap,
    terms: Option<&Terms>,
    now: SystemTime,
) -> bool {
    let Some(condition) = request.headers.get(header::IF_RANGE) else {
        return true;
    };
    let condition = condition.as_bytes();
    if condition.contains(&b'"') {
        return stored
            .get(header::ETAG)
            .is_some_and(|etag| strongly_equal(condition, etag.as_bytes()));
    }
    let modified = single_date(stored, &header::LAST_MODIFIED, now);
    let made = terms.map(|terms| terms.date).or_else(|| single_date(stored, &header::DATE, now));
    match (date::parse(condition, now), modified, made) {
        (Some(condition), Some(modified), Some(made)) => {
            condition == modified && made >= modified + Duration::from_secs(1)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::{Fields, fields};

    #[test]
    fn none_match_compares_weakly_in_lists() {
        let rows = [
            ("\"a\"", "\"a\"", true),
            ("W/\"a\"", "\"a\"", true),
            ("\"a\"", "W/\"a\"", true),
            ("\"b\", \"c\" ,W/\"a\"", "\"a\"", true),
            ("\"a,b\"", "\"a,b\"", true),
            ("\"a,b\"", "\"b\"", false),
            ("*", "\"a\"", true),
            ("a", "\"a\"", false),
            ("a, \"x\"", "\"x\"", true),
            ("\"a", "\"a\"", false),
            ("\"A\"", "\"a\"", false),
            ("w/\"a\"", "w/\"a\"", true),
            ("", "\"a\"", false),
        ];
        for (list, etag, expected) in rows {
            let headers = fields(&[("if-none-match", list), ("etag", etag)]);
            let found = none_match_holds(
                headers.get_all(header::IF_NONE_MATCH).iter(),
                headers.get(header::ETAG),
            );
            assert_eq!(found, expected, "{list} {etag}");
        }
        for (list, expected) in [("*", true), ("\"a\"", false), ("\"*\"", false)] {
            let headers = fields(&[("if-none-match", list)]);
            let lines = headers.get_all(header::IF_NONE_MATCH);
            assert_eq!(none_match_holds(lines.iter(), None), expected, "{list} without a tag");
        }
    }

    #[test]
    fn not_modified_confirms_only_what_it_names() {
        let modified = ("last-modified", "x");
        let rows: [(Fields<'_>, Fields<'_>, bool); 13] = [
            (&[("etag", "\"a\"")], &[], true),
            (&[("etag", "\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], false),
            (&[modified], &[("etag", "\"b\"")], false),
            (&[modified], &[("etag", "\"b\""), modified], true),
            (&[modified], &[("etag", "W/\"b\"")], true),
            (&[modified], &[("last-modified", "y")], false),
            (&[modified], &[modified], true),
            (&[("etag", "\"a\""), modified], &[("last-modified", "y")], false),
            (&[("etag", "\"a\""), modified], &[("etag", "\"a\""), ("last-modified", "y")], true),
            (&[("etag", "\"a\""), modified], &[("etag", "\"b\""), modified], false),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], true),
        ];
        for (stored, new, expected) in rows {
            assert_eq!(confirms(&fields(stored), &fields(new)), expected, "{stored:?} {new:?}");
        }
    }

    #[test]
    fn only_safe_fields_are_freshened() {
        let stored = fields(&[
            ("a", "1"),
            ("a", "2"),
            ("b", "1"),
            ("etag", "\"x\""),
            ("content-encoding", "br"),
            ("cdn-cache-control", "max-age=60"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ]);
        let new = fields(&[
            ("a", "3"),
            ("c", "1"),
            ("etag", "W/\"x\""),
            ("content-length", "10"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/2"),
            ("cache-control", "private"),
        ]);
        let expected = fields(&[
            ("a", "3"),
            ("b", "1"),
            ("c", "1"),
            ("etag", "\"x\""),
            ("content-encoding", "br"),
            ("cdn-cache-control", "max-age=60"),
            ("cache-control", "private"),
        ]);
        assert_eq!(freshened(&stored, &new), expected);
    }

    #[test]
    fn a_304_that_sets_a_cookie_brings_others_nothing_of_its_own() {
        let stored = fields(&[("a", "1"), ("etag", "\"x\""), ("cache-control", "max-age=1")]);
        let new = fields(&[
            ("set-cookie", "s=1"),
            ("a", "2"),
            ("b", "hello, ann"),
            ("cache-control", "max-age=2"),
            ("surrogate-key", "t"),
        ]);
        let expected = fields(&[
            ("a", "1"),
            ("etag", "\"x\""),
            ("cache-control", "max-age=2"),
            ("surrogate-key", "t"),
        ]);
        assert_eq!(freshened(&stored, &new), expected);
        // Where policy keeps cookies, they are fields like others.
        let kept = fields(&[("set-cookie", "s=0"), ("a", "1")]);
        let expected = fields(&[
            ("set-cookie", "s=1"),
            ("a", "2"),
            ("b", "hello, ann"),
            ("cache-control", "max-age=2"),
            ("surrogate-key", "t"),
        ]);
        assert_eq!(freshened(&kept, &new), expected);
    }

    #[test]
    fn what_had_to_be_confirmed_stays_so_when_a_cookie_comes_with_the_304() {
        let stored = fields(&[("etag", "\"ann\""), ("cache-control", "no-cache")]);
        let new = fields(&[("set-cookie", "s=1"), ("cache-control", "max-age=60")]);
        assert_eq!(freshened(&stored, &new), stored);
    }

    #[test]
    fn a_304_does_not_take_fields_out_of_vary() {
        let rows = [
            ("X-User", "Accept-Encoding", vec!["Accept-Encoding", "X-User"]),
            ("x-user", "Accept-Encoding, X-User", vec!["Accept-Encoding, X-User"]),
            ("a, b", "B,A", vec!["B,A"]),
            ("a", "*", vec!["*", "a"]),
        ];
        for (old, new, expected) in rows {
            let fresh = freshened(&fields(&[("vary", old)]), &fields(&[("vary", new)]));
            let lines: Vec<_> = fresh.get_all("vary").iter().collect();
            assert_eq!(lines, expected, "{old}, {new}");
            assert_eq!(freshened(&fresh, &fields(&[("vary", new)])), fresh, "it does not pile up");
        }
    }

    #[test]
    fn head_freshens_or_invalidates() {
        let stored = fields(&[("etag", "\"a\"")]);
        let rows: [(u16, Fields<'_>, HeadVerdict); 6] = [
            (200, &[("etag", "\"a\""), ("content-length", "3")], HeadVerdict::Freshens),
            (200, &[("etag", "\"a\"")], HeadVerdict::Freshens),
            (200, &[("etag", "\"b\"")], HeadVerdict::Invalidates),
            (200, &[("etag", "\"a\""), ("content-length", "4")], HeadVerdict::Invalidates),
            (200, &[], HeadVerdict::Invalidates),
            (404, &[], HeadVerdict::Silent),
        ];
        for (status, headers, expected) in rows {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(judge_head(&stored, 3, status, &fields(headers)), expected, "{headers:?}");
        }
        let bare = fields(&[]);
        for (length, expected) in [("3", HeadVerdict::Freshens), ("4", HeadVerdict::Invalidates)] {
            let head = fields(&[("content-length", length)]);
            assert_eq!(judge_head(&bare, 3, StatusCode::OK, &head), expected);
        }
        assert_eq!(judge_head(&bare, 3, StatusCode::OK, &bare), HeadVerdict::Freshens);
    }

    proptest! {
        #[test]
        fn any_list_of_tags_is_read_without_panic(line: Vec<u8>) {
            for tag in entity_tags(&line) {
                prop_assert!(tag.ends_with(b"\""));
            }
        }
    }
}
