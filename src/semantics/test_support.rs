//! A vocabulary for the tests of this room.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};

use crate::clock::Now;
use crate::message::{RequestHead, ResponseHead, Scheme};
use crate::semantics::normalise::{Request, normalise};
use crate::semantics::policy::Policy;
use crate::semantics::storable::{NotStored, storable};
use crate::semantics::{FreshnessSource, Terms};

/// When test responses arrive.
pub(super) const ARRIVAL: u64 = 1_000_000_000;

/// Field lines by name and value.
pub(crate) type Fields<'a> = &'a [(&'a str, &'a str)];

pub(super) fn fields(rows: Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in rows {
        headers.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

/// Head of a request for a URL such as `http://h/a?b`; `Host` is written as it stands there.
pub(super) fn head(method: &str, url: &str, headers: Fields<'_>) -> RequestHead {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut all = fields(&[("host", host)]);
    all.extend(fields(headers));
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        scheme: if scheme == "https" { Scheme::Https } else { Scheme::Http },
        authority: None,
        target: target.to_owned(),
        version: Version::HTTP_11,
        headers: all,
    }
}

pub(super) fn request(method: &str, url: &str, headers: Fields<'_>) -> Request {
    let mut head = head(method, url, &[]);
    for (name, value) in &fields(headers) {
        head.headers.append(name.clone(), value.clone());
    }
    normalise(head).unwrap()
}

pub(crate) fn get(url: &str, headers: Fields<'_>) -> Request {
    request("GET", url, headers)
}

pub(super) fn response(status: u16, headers: Fields<'_>) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    head.headers = fields(headers);
    head
}

/// Judges a response to a plain GET that took no time and is not jittered.
pub(super) fn judged(
    status: u16,
    headers: Fields<'_>,
    policy: &Policy,
) -> Result<Terms, NotStored> {
    let at = Now::at(ARRIVAL);
    storable(&get("http://h/", &[]), &response(status, headers), policy, at, at, 0.0)
}

/// A moment as an HTTP date.
pub(super) fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(Now::at(seconds).wall)
}

/// Lifetime in seconds and its source, or why it is not stored.
pub(super) fn lifetime(
    status: u16,
    headers: Fields<'_>,
    policy: &Policy,
) -> Result<(u64, FreshnessSource), NotStored> {
    judged(status, headers, policy).map(|terms| (terms.lifetime.as_secs(), terms.source))
}
