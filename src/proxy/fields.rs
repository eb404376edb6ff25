//! Fields that we put on answers.

use http::header::{DATE, HeaderMap, HeaderName, HeaderValue};

use crate::clock::Now;
use crate::semantics::CacheStatus;

/// Identifier of a request, sent on and returned.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Adds our member at the end of `Cache-Status`, behind those of caches nearer to the origin.
pub(super) fn add_cache_status(headers: &mut HeaderMap, status: &CacheStatus, key: Option<&str>) {
    // From a slice, so that it takes no more memory than itself, and that at once.
    if let Ok(value) = HeaderValue::from_str(&status.value(key)) {
        headers.append(CACHE_STATUS, value);
    }
}

/// A recipient with a clock records when a message without `Date` came (RFC 9110 section 6.6.1).
pub(super) fn add_date(headers: &mut HeaderMap, now: Now) {
    if !headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now.wall))
    {
        headers.insert(DATE, date);
    }
}
