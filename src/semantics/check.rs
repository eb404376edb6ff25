//! Properties that hold for every input. The property tests and the fuzz targets call these
//! functions; each panics when its property does not hold.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use super::cache_control::ResponseDirectives;
use super::normalise::is_unwanted;
use super::range::{Ranges, ranges};
use super::{
    CacheKey, KeySecret, NoVarySearch, Policy, Request, RequestDirectives, TAG_FIELDS, TagLimits,
    VaryFields, first_tags, normalise, tags,
};
use crate::message::{RequestHead, Scheme};

/// Largest number of seconds that any directive comes to.
const MOST_SECONDS: u64 = 1 << 31;

/// Few enough that arbitrary input reaches them.
const TAGS: TagLimits = TagLimits { tags: 8, tag_bytes: 24, tags_bytes: 64 };
const VARY_NAMES: usize = 4;

/// A request is refused, or has one canonical form: written again in it, it is the same request
/// under the same key, and nothing that a stranger must not say is left. The first line is the
/// target, the second the host, the others are fields.
pub fn canonical_request(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut text = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (target, authority) = (text(), text());
    let headers = fields(lines.next().unwrap_or_default());
    for scheme in [Scheme::Http, Scheme::Https] {
        let head = RequestHead {
            method: Method::GET,
            scheme,
            authority: Some(authority.clone()),
            target: target.clone(),
            version: Version::HTTP_2,
            headers: headers.clone(),
        };
        let Ok(first) = normalise(head) else { continue };
        let strange = |name: &HeaderName| is_unwanted(name.as_str());
        assert!(!first.headers.keys().any(strange), "kept: {:?}", first.headers);
        let again = normalise(RequestHead {
            method: Method::GET,
            scheme,
            authority: Some(first.host_field()),
            target: first.target(),
            version: Version::HTTP_2,
            headers: first.headers.clone(),
        });
        let Ok(again) = again else { unreachable!("refused in its own form: {first:?}") };
        assert_eq!(key(&first).parts, key(&again).parts);
        assert_eq!(first.headers, again.headers);
        assert_eq!(first.ambiguous, again.ambiguous);
    }
}

fn key(request: &Request) -> CacheKey {
    CacheKey::of(KeySecret([1, 2]), "site", request, &Policy::default())
}

/// `Cache-Control` and its kind: any bytes give directives, no number is beyond 2^31 seconds, and
/// who says `no-store` and `no-cache` too is heard whatever else is written.
pub fn cache_control(bytes: &[u8]) {
    let mut headers = fields(bytes);
    if let Some(value) = value(bytes) {
        headers.append(header::CACHE_CONTROL, value);
    }
    let asked = RequestDirectives::of(&headers);
    let said = ResponseDirectives::of(&headers);
    let spans = [
        asked.max_age,
        asked.max_stale,
        asked.min_fresh,
        said.max_age,
        said.s_maxage,
        said.stale_while_revalidate,
        said.stale_if_error,
    ];
    assert!(spans.into_iter().flatten().all(|span| span.as_secs() <= MOST_SECONDS), "{spans:?}");
    let forbids = HeaderValue::from_static("no-store, no-cache");
    headers.append(header::CACHE_CONTROL, forbids);
    let asked = RequestDirectives::of(&headers);
    assert!(asked.no_cache, "{headers:?}");
    // A targeted field, where there is one, speaks instead of it.
    let targeted = ["atoll-cache-control", "cdn-cache-control"];
    if !targeted.into_iter().any(|name| headers.contains_key(name)) {
        assert!(ResponseDirectives::of(&headers).no_store, "{headers:?}");
    }
}

/// Ranges that are answered lie within the body, do not overlap, and are few.
pub fn range(bytes: &[u8]) {
    for length in [0, 1, 10, 1000, u64::MAX] {
        let Ranges::Some(mut found) = ranges(bytes, length) else { continue };
        assert!((1..=16).contains(&found.len()), "{} ranges", found.len());
        found.sort_unstable();
        let mut end = 0;
        for (start, size) in found {
            assert!(start >= end && size > 0, "{start} is before {end}");
            let Some(last) = start.checked_add(size) else { unreachable!("beyond all numbers") };
            assert!(last <= length, "{last} of {length}");
            end = last;
        }
    }
}

/// The names in `Vary` are few, sorted and each once; a request has one name among the variants,
/// and the request that this name stands for has the same.
pub fn vary(bytes: &[u8]) {
    let mut headers = fields(bytes);
    if let Some(value) = bytes.split(|byte| *byte == b'\n').next().and_then(value) {
        headers.append(header::VARY, value);
    }
    let Ok(Some(vary)) = VaryFields::of(&headers, VARY_NAMES, &Policy::default()) else { return };
    let names: Vec<&str> = vary.names().iter().map(HeaderName::as_str).collect();
    assert!(names.len() <= VARY_NAMES && names.is_sorted_by(|one, other| one < other), "{names:?}");
    let secondary = vary.secondary(&headers);
    assert_eq!(secondary, vary.secondary(&headers.clone()));
    if let Some(asking) = vary.asking_for(&secondary) {
        assert_eq!(vary.secondary(&asking), secondary, "{asking:?} for {headers:?}");
    }
}

/// Tags are all kept within their limits, or the response is refused; and what limits leave of
/// those that are refused is within them, too.
pub fn response_tags(bytes: &[u8]) {
    let mut headers = fields(bytes);
    if let (Some(first), Some(value)) = (bytes.first(), value(bytes)) {
        let name = TAG_FIELDS.get(usize::from(*first) % TAG_FIELDS.len());
        headers.append(HeaderName::from_static(name.copied().unwrap_or("xkey")), value);
    }
    let some = first_tags(&headers, TAGS);
    if let Ok(all) = tags(&headers, TAGS) {
        assert_eq!(&*all, &*some);
    }
    assert!(some.len() <= TAGS.tags);
    assert!(some.iter().map(|tag| tag.len()).sum::<usize>() <= TAGS.tags_bytes);
    for tag in some {
        assert!((1..=TAGS.tag_bytes).contains(&tag.len()), "{tag:?}");
        assert!(!tag.bytes().any(|byte| byte.is_ascii_uppercase()), "{tag:?}");
    }
}

/// `No-Vary-Search`: reducing a query twice is reducing it once.
pub fn no_vary_search(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    if let Some(value) = lines.next().and_then(value) {
        headers.append("no-vary-search", value);
    }
    let Some(rule) = NoVarySearch::of(&headers) else { return };
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    assert_eq!(rule.reduced(Some(&query)), rule.reduced(Some(&query)));
    assert!(rule.encode().len() <= bytes.len().saturating_mul(4) + 64, "{} bytes", rule.bytes());
}

/// Lines `name: value` as fields, as far as they can be some.
fn fields(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(32) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, rest) = line.split_at(at);
        let rest = rest.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name), value(rest)) {
            headers.append(name, value);
        }
    }
    headers
}

fn value(bytes: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Pieces that make bytes look like what is read here.
    const PIECES: [&str; 60] = [
        "\n",
        "\n",
        ":",
        ":",
        ",",
        ";",
        "=",
        "\"",
        "/",
        "?",
        "%2e",
        "%2F",
        "%",
        "..",
        ".",
        "a",
        "b",
        "0",
        "1",
        "99999999999999999999",
        "-",
        "bytes=",
        "0-",
        "-5",
        "10-20",
        " ",
        "\t",
        "host",
        "h:80",
        "[::1]",
        "cache-control",
        "cdn-cache-control",
        "atoll-cache-control",
        "max-age",
        "s-maxage=1",
        "no-cache=\"",
        "private",
        "stale-if-error",
        "vary",
        "accept-language",
        "de;q=0.5",
        "accept-encoding",
        "gzip",
        "br;q=0",
        "cookie",
        "*",
        "xkey",
        "cache-groups",
        "surrogate-key",
        "params=(",
        ")",
        "except=(",
        "key-order",
        "x-forwarded-for",
        "x_host",
        "connection",
        "range",
        "\u{e4}",
        "\u{0}",
        "\\",
    ];

    fn all(bytes: &[u8]) {
        super::canonical_request(bytes);
        super::cache_control(bytes);
        super::range(bytes);
        super::vary(bytes);
        super::response_tags(bytes);
        super::no_vary_search(bytes);
    }

    proptest! {
        #[test]
        fn any_bytes_keep_to_the_properties(bytes: Vec<u8>) {
            all(&bytes);
        }

        #[test]
        fn likely_texts_do(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
            all(pieces.concat().as_bytes());
        }
    }
}
