//! What a change says of stored responses (RFC 9111 section 4.4).
//!
//! A request with an unsafe method changes something at the origin. Where it succeeds, what is
//! stored under its URL is out of date, and so is what is stored under the URLs that the answer
//! names as the place of what was made (`Location`) or of what was changed (`Content-Location`):
//!
//! ```text
//! POST /articles  ->  201, Location: articles/7    /articles and /articles/7 are out of date
//! ```
//!
//! Only URLs of the target's own origin count, scheme, host and port alike: otherwise one site
//! could empty the cache of another.

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};

use crate::semantics::normalise::{Request, Target, canonical_authority, canonical_target};

/// Fields that name the URLs which an answer speaks of, besides the one that was asked.
const NAMING_FIELDS: [header::HeaderName; 2] = [header::LOCATION, header::CONTENT_LOCATION];

/// URLs that one answer may name; more lines than that are no answer of an honest origin.
const MOST: usize = 4;

/// Whether a method may change the resource (RFC 9110 section 9.2.1); one that nobody knows may.
#[must_use]
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY"
    )
}

/// Whether an answer with this status to an unsafe request tells that something has changed.
#[must_use]
pub fn tells_of_change(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// Targets on the request's own origin that an answer names, the request's own aside.
#[must_use]
pub fn named_targets(request: &Request, answer: &HeaderMap) -> Vec<Target> {
    let mut found: Vec<Target> = Vec::new();
    let values = NAMING_FIELDS.iter().flat_map(|name| answer.get_all(name));
    for target in values.take(MOST).filter_map(|value| resolve(request, value.to_str().ok()?)) {
        let own = target.path == request.path && target.query == request.query;
        if !own && !found.contains(&target) {
            found.push(target);
        }
    }
    found
}

/// Whether an answer says that it is the current representation of the very URL that was asked
/// (RFC 9110 section 8.7): then an answer to POST may answer a later GET (section 9.3.3).
#[must_use]
pub fn represents_target(request: &Request, answer: &HeaderMap) -> bool {
    let mut lines = answer.get_all(header::CONTENT_LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Ok(text) = line.to_str() else { return false };
    let named = if text.contains('#') { None } else { resolve(request, text) };
    named.is_some_and(|target| {
        !target.ambiguous && target.path == request.path && target.query == request.query
    })
}

/// Resolves a reference against the request's URL (RFC 3986 section 5.2) and brings it into
/// canonical form; `None` where it is no URL of the same origin under which anything could be
/// stored. A fragment is left aside.
fn resolve(request: &Request, reference: &str) -> Option<Target> {
    let reference = reference.trim_matches([' ', '\t']);
    let reference = reference.split('#').next().unwrap_or_default();
    let rest = match split_scheme(reference) {
        None => reference,
        Some((scheme, rest)) => {
            let same = scheme.eq_ignore_ascii_case(request.scheme.as_str());
            // `http:path` is an old way to write a relative reference; readers differ about it.
            if !same || !rest.starts_with("//") {
                return None;
            }
            rest
        }
    };
    let path_and_query = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at_checked(end)?;
            let (host, port) = canonical_authority(authority, request.scheme).ok()?;
            if host != request.host || port != request.port {
                return None;
            }
            return canonical(if rest.is_empty() { "/" } else { path_of(rest) }, query_of(rest));
        }
    };
    let (path, query) = (path_of(path_and_query), query_of(path_and_query));
    match path {
        "" => {
            let query =
                query.or(request.query.as_deref().filter(|_| !path_and_query.contains('?')));
            canonical(&request.path, query)
        }
        path if path.starts_with('/') => canonical(path, query),
        path => {
            let folder = request.path.rfind('/').and_then(|at| request.path.get(..=at))?;
            canonical(&format!("{folder}{path}"), query)
        }
    }
}

/// The scheme of a reference and what follows its colon.
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let sound =
        scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(letter);
    sound.then_some((scheme, rest))
}

fn path_of(path_and_query: &str) -> &str {
    path_and_query.split('?').next().unwrap_or_default()
}

fn query_of(path_and_query: &str) -> Option<&str> {
    path_and_query.split_once('?').map(|(_, query)| query)
}

fn canonical(path: &str, query: Option<&str>) -> Option<Target> {
    let mut target = without_dot_segments(path);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    canonical_target(target).ok()
}

/// RFC 3986 section 5.2.4, for a path that begins with `/`.
fn without_dot_segments(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.pop();
                }
                // A dot segment at the end stands for a folder.
                if last {
                    out.push("");
                }
            }
            segment => out.push(segment),
        }
    }
    let mut path = String::with_capacity(path.len());
    for segment in out {
        path.push('/');
        path.push_str(segment);
    }
    if path.is_empty() { String::from("/") } else { path }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::{Fields, fields, request};

    fn resolved(base: &str, reference: &str) -> Option<String> {
        let request = request("POST", base, &[]);
        let target = resolve(&request, reference)?;
        Some(match target.query {
            None => target.path,
            Some(query) => format!("{}?{query}", target.path),
        })
    }

    #[test]
    fn references_are_resolved_as_rfc_3986_section_5_4_shows() {
        let rows = [
            ("g", Some("/b/c/g")),
            ("./g", Some("/b/c/g")),
            ("g/", Some("/b/c/g/")),
            ("/g", Some("/g")),
            ("//a", Some("/")),
            ("//g", None),
            ("?y", Some("/b/c/d;p?y")),
            ("g?y", Some("/b/c/g?y")),
            ("#s", Some("/b/c/d;p?q")),
            ("g#s", Some("/b/c/g")),
            ("g?y#s", Some("/b/c/g?y")),
            (";x", Some("/b/c/;x")),
            ("g;x?y#s", Some("/b/c/g;x?y")),
            ("", Some("/b/c/d;p?q")),
            ("?", Some("/b/c/d;p?")),
            (".", Some("/b/c/")),
            ("./", Some("/b/c/")),
            ("..", Some("/b/")),
            ("../", Some("/b/")),
            ("../g", Some("/b/g")),
            ("../..", Some("/")),
            ("../../g", Some("/g")),
            ("../../../g", Some("/g")),
            ("../../../../g", Some("/g")),
            ("/./g", Some("/g")),
            ("/../g", Some("/g")),
            ("g.", Some("/b/c/g.")),
            (".g", Some("/b/c/.g")),
            ("..g", Some("/b/c/..g")),
            ("./../g", Some("/b/g")),
            ("./g/.", Some("/b/c/g/")),
            ("g/./h", Some("/b/c/g/h")),
            ("g/../h", Some("/b/c/h")),
            ("g?y/./x", Some("/b/c/g?y/./x")),
            ("g?y/../x", Some("/b/c/g?y/../x")),
            ("g:h", None),
            ("http:g", None),
        ];
        for (reference, expected) in rows {
            assert_eq!(
                resolved("http://a/b/c/d;p?q", reference).as_deref(),
                expected,
                "{reference}"
            );
        }
    }

    #[test]
    fn only_urls_of_the_same_origin_in_canonical_form_count() {
        let rows = [
            ("http://H.:80/x%2f", Some("/x%2F")),
            ("HTTP://h/x?%c3", Some("/x?%C3")),
            ("//h/x", Some("/x")),
            ("http://h?x", Some("/?x")),
            ("  /x ", Some("/x")),
            ("//x", None),
            ("https://h/x", None),
            ("http://h:81/x", None),
            ("http://h.evil/x", None),
            ("http://evil@h/x", None),
            ("http://h@evil/x", None),
            ("http://h\\@evil/x", None),
            ("//h:x/", None),
            ("/a b", None),
            ("/a\\..\\b", None),
            ("/a/%2e%2e/b", None),
            ("javascript:x", None),
        ];
        for (reference, expected) in rows {
            assert_eq!(resolved("http://h/a", reference).as_deref(), expected, "{reference}");
        }
        assert_eq!(resolved("https://h:444/a", "https://h:444/x").as_deref(), Some("/x"));
        assert_eq!(resolved("https://h:444/a", "https://h/x"), None);
    }

    #[test]
    fn both_fields_name_urls_and_each_is_named_once() {
        let rows: [(Fields<'_>, &[&str]); 6] = [
            (&[], &[]),
            (&[("location", "/x"), ("content-location", "y")], &["/x", "/f/y"]),
            (&[("location", "/x"), ("content-location", "http://h/x")], &["/x"]),
            (&[("location", "/f/a?q"), ("content-location", "")], &[]),
            (&[("location", "http://other/x"), ("content-location", "/y")], &["/y"]),
            (
                &[
                    ("location", "/1"),
                    ("location", "/2"),
                    ("location", "/3"),
                    ("location", "/4"),
                    ("location", "/5"),
                ],
                &["/1", "/2", "/3", "/4"],
            ),
        ];
        let request = request("POST", "http://h/f/a?q", &[]);
        for (headers, expected) in rows {
            let found = named_targets(&request, &fields(headers));
            let found: Vec<&str> = found.iter().map(|target| &*target.path).collect();
            assert_eq!(found, expected, "{headers:?}");
        }
    }

    #[test]
    fn an_answer_represents_its_target_where_it_says_just_that() {
        let rows: [(Fields<'_>, bool); 10] = [
            (&[("content-location", "/f/a?q")], true),
            (&[("content-location", "http://h:80/f/a?q")], true),
            (&[("content-location", "a?q")], true),
            (&[("content-location", "")], true),
            (&[], false),
            (&[("content-location", "/f/a")], false),
            (&[("content-location", "/f/a?q#x")], false),
            (&[("content-location", "https://h/f/a?q")], false),
            (&[("location", "/f/a?q")], false),
            (&[("content-location", "/f/a?q"), ("content-location", "/f/a?q")], false),
        ];
        let request = request("POST", "http://h/f/a?q", &[]);
        for (headers, expected) in rows {
            assert_eq!(represents_target(&request, &fields(headers)), expected, "{headers:?}");
        }
    }

    #[test]
    fn methods_that_nobody_knows_may_change_something() {
        for (name, expected) in [("GET", false), ("HEAD", false), ("QUERY", false), ("POST", true)]
        {
            assert_eq!(
                is_unsafe(&Method::from_bytes(name.as_bytes()).unwrap()),
                expected,
                "{name}"
            );
        }
        assert!(is_unsafe(&Method::from_bytes(b"FROBNICATE").unwrap()));
    }

    proptest! {
        /// Whatever is named could be asked for in just these words.
        #[test]
        fn what_is_named_is_canonical(
            reference in "([a-z]{1,4}:)?(//h)?[./a-z%25?#: ]{0,24}", base in "/[a-z/]{0,8}",
        ) {
            let request = request("POST", &format!("http://h{}", base.replace("//", "/")), &[]);
            if let Some(target) = resolve(&request, &reference) {
                let mut text = target.path.clone();
                if let Some(query) = &target.query {
                    text = format!("{text}?{query}");
                }
                prop_assert_eq!(canonical_target(text), Ok(target));
            }
        }
    }
}
