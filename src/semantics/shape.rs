//! What a client gets of a complete response: all of it, ranges, 304, 416, or a head alone.
//!
//! The same rules serve hits, fresh fills and revalidated responses. `Via`, `Cache-Status` and
//! what else speaks of this one exchange is added by whoever answers.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::clock::Now;
use crate::semantics::cache_control::{ATOLL_CACHE_CONTROL, ResponseDirectives};
use crate::semantics::conditional::{is_not_modified, range_condition_holds};
use crate::semantics::freshness::Terms;
use crate::semantics::key::KeySecret;
use crate::semantics::normalise::Request;
use crate::semantics::policy::Policy;
use crate::semantics::range::{Ranges, content_range, multipart, ranges};
use crate::semantics::storable::strip_set_cookie;
use crate::semantics::tags::TAG_FIELDS;

/// An answer, but for the bytes of its body.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Status.
    pub status: StatusCode,
    /// Fields, without framing.
    pub headers: HeaderMap,
    /// Which part of the stored body to send.
    pub part: Part,
    /// Length to announce where no body is sent (HEAD), if it is known.
    pub head_length: Option<u64>,
}

/// Which part of the stored body to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// None.
    None,
    /// All.
    Whole,
    /// One range.
    Range {
        /// First byte.
        start: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Several, as `multipart/byteranges`.
    Multipart {
        /// Head of each part, its first byte, its length in bytes.
        pieces: Vec<(Bytes, u64, u64)>,
        /// What follows the last part.
        tail: Bytes,
        /// Length of the whole, heads and tail included.
        length: u64,
    },
}

/// Shapes a stored or complete response for one request. `length` is `None` while the body still
/// arrives: then ranges get the whole. With `terms`, `Age` is added, and `Date` where the origin
/// sent none.
#[must_use]
pub fn shape(
    request: &Request,
    status: StatusCode,
    stored: HeaderMap,
    length: Option<u64>,
    terms: Option<&Terms>,
    policy: &Policy,
    now: Now,
) -> Shape {
    let unchanged = is_not_modified(request, status, &stored, terms, now.wall);
    let asked = single_range(request)
        .filter(|_range| range_condition_holds(request, &stored, terms, now.wall));
    let headers = answered_fields(stored, terms, policy, now);
    if unchanged {
        return not_modified(headers);
    }
    if request.method == Method::HEAD {
        return Shape { status, headers, part: Part::None, head_length: length };
    }
    if let (StatusCode::OK, Some(length), Some(field)) = (status, length, asked) {
        return match ranges(field, length) {
            Ranges::Whole => Shape { status, headers, part: Part::Whole, head_length: None },
            Ranges::Unsatisfiable => unsatisfiable(headers, length),
            Ranges::Some(ranges) => partial(headers, &ranges, length),
        };
    }
    Shape { status, headers, part: Part::Whole, head_length: None }
}

/// Whether [`shape`] leaves the fields of a stored response as they are and only adds to them:
/// nothing has to be hidden and nothing that an answer needs is missing. Event streams are left out,
/// since they are sent at another pace, which is found by their type.
#[must_use]
pub fn is_plain(status: StatusCode, stored: &HeaderMap, terms: &Terms) -> bool {
    let kind = stored.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let events = kind.get(..EVENTS.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS));
    status == StatusCode::OK
        && stored.contains_key(header::DATE)
        && !stored.contains_key(header::CONTENT_LENGTH)
        && !terms.has_hidden_fields
        && !events
}

const EVENTS: &[u8] = b"text/event-stream";

/// Whether [`shape`] gives a request all of a response that is plain ([`is_plain`]), and adds nothing
/// but `Age` to it. The short way of most hits.
#[must_use]
pub fn asks_plainly(request: &Request) -> bool {
    let asked = &request.headers;
    request.method == Method::GET
        && !request.has_range()
        && !asked.contains_key(header::IF_NONE_MATCH)
        && !asked.contains_key(header::IF_MODIFIED_SINCE)
}

fn age(terms: &Terms, now: Now) -> HeaderValue {
    let seconds = terms.age(now).as_secs();
    // Written aside, it takes one piece of memory instead of two.
    let text = HeaderValue::from_str(itoa::Buffer::new().format(seconds));
    text.unwrap_or_else(|_| HeaderValue::from(seconds))
}

/// The `Range` field that counts; for other methods than GET there is none.
pub(super) fn single_range(request: &Request) -> Option<&[u8]> {
    if !request.has_range() {
        return None;
    }
    request.headers.get(header::RANGE).map(HeaderValue::as_bytes)
}

/// Stored fields that a client may see, with `Age` and `Date`.
pub(super) fn answered_fields(
    mut headers: HeaderMap,
    terms: Option<&Terms>,
    policy: &Policy,
    now: Now,
) -> HeaderMap {
    headers.remove(header::CONTENT_LENGTH);
    if terms.is_none_or(|terms| terms.has_hidden_fields) {
        headers.remove(ATOLL_CACHE_CONTROL);
        if !policy.keep_tags {
            for name in TAG_FIELDS {
                headers.remove(name);
            }
        }
    }
    if let Some(terms) = terms {
        headers.insert(header::AGE, age(terms, now));
        if !headers.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(terms.date))
        {
            headers.insert(header::DATE, date);
        }
    }
    headers
}

/// Fields that describe a body and so have no place beside a 304 (RFC 9110 section 15.4.5), which
/// keeps `Cache-Control`, `Content-Location`, `Date`, `ETag`, `Expires`, `Vary`, and
/// `Last-Modified` as a guide for the client's cache.
const REPRESENTATION_FIELDS: [&str; 8] = [
    "content-type",
    "content-encoding",
    "content-language",
    "content-range",
    "content-md5",
    "content-digest",
    "repr-digest",
    "accept-ranges",
];

pub(super) fn not_modified(mut headers: HeaderMap) -> Shape {
    for name in REPRESENTATION_FIELDS {
        headers.remove(name);
    }
    let status = StatusCode::NOT_MODIFIED;
    Shape { status, headers, part: Part::None, head_length: None }
}

pub(super) fn unsatisfiable(stored: HeaderMap, length: u64) -> Shape {
    let mut headers = stored;
    for name in REPRESENTATION_FIELDS {
        headers.remove(name);
    }
    // The validators name a body that this answer does not carry.
    headers.remove(header::ETAG);
    headers.remove(header::LAST_MODIFIED);
    insert(&mut headers, header::CONTENT_RANGE, &format!("bytes */{length}"));
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    Shape { status, headers, part: Part::None, head_length: None }
}

pub(super) fn partial(mut headers: HeaderMap, ranges: &[(u64, u64)], length: u64) -> Shape {
    let status = StatusCode::PARTIAL_CONTENT;
    let part = match ranges {
        [(start, size)] => {
            insert(&mut headers, header::CONTENT_RANGE, &content_range(*start, *size, length));
            Part::Range { start: *start, length: *size }
        }
        ranges => {
            let boundary = boundary(&headers, ranges, length);
            let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
            let (pieces, tail, whole) = multipart(ranges, length, content_type, &boundary);
            headers.remove(header::CONTENT_RANGE);
            let content_type = format!("multipart/byteranges; boundary={boundary}");
            insert(&mut headers, header::CONTENT_TYPE, &content_type);
            Part::Multipart { pieces, tail, length: whole }
        }
    };
    Shape { status, headers, part, head_length: None }
}

/// A boundary that differs with the response and the ranges. Whoever writes the body could guess
/// it, but fools nobody with it who counts the bytes that `Content-Range` announces.
fn boundary(headers: &HeaderMap, ranges: &[(u64, u64)], length: u64) -> String {
    let field = |name: HeaderName| headers.get(name).map_or(&[][..], HeaderValue::as_bytes);
    let mut numbers = Vec::with_capacity(ranges.len() * 16);
    for (start, size) in ranges {
        numbers.extend_from_slice(&start.to_le_bytes());
        numbers.extend_from_slice(&size.to_le_bytes());
    }
    let hash = KeySecret([0, 0]).hash(&[
        field(header::ETAG),
        field(header::DATE),
        field(header::LAST_MODIFIED),
        &length.to_le_bytes(),
        &numbers,
    ]);
    format!("atoll-{hash:032x}")
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// Fields of a response that are worth storing, copied into memory of their own, so that a stored
/// response does not pin the read buffer that it came in.
///
/// Left out: what belongs to the connection or to proxies (RFC 9111 section 3.1), framing, `Age`
/// (the terms hold it), what tells of this one exchange on the way (`Via`, other caches' hit
/// marks, request ids), fields that `no-cache` or `private` name, cookies that policy strips. The client whose request
/// brought the response still gets those from the head as it came.
#[must_use]
pub fn stored_fields(headers: &HeaderMap, policy: &Policy) -> HeaderMap {
    let withheld = ResponseDirectives::of(headers).withheld;
    let mut nominated: Vec<HeaderName> = Vec::new();
    for line in headers.get_all(header::CONNECTION) {
        let tokens = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        nominated.extend(tokens.filter_map(|token| HeaderName::from_bytes(token).ok()));
    }
    let mut out = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers {
        if is_stored(name.as_str()) && !withheld.contains(name) && !nominated.contains(name) {
            out.append(name.clone(), exact_copy(value));
        }
    }
    strip_set_cookie(&mut out, policy);
    out
}

fn exact_copy(value: &HeaderValue) -> HeaderValue {
    // Bytes that were a field value are one; the fallback shares instead of copying.
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_never| value.clone())
}

fn is_stored(name: &str) -> bool {
    !matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "content-length"
            | "age"
            | "via"
            | "cache-status"
            | "x-cache"
            | "x-cache-hits"
            | "x-cache-lookup"
            | "x-cache-status"
            | "x-served-by"
            | "x-request-id"
            | "cdn-loop"
    )
}

#[cfg(test)]
mod tests;
