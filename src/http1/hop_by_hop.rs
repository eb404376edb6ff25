//! Fields that mean only this connection (RFC 9110 section 7.6.1).

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::fields::options;

/// Removed whether `Connection` names them or not. `Trailer` is among them because trailers are
/// dropped; the `Proxy-*` fields because their dialogue is with us.
static ALWAYS: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TRAILER,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
];

/// Never removed because `Connection` names them: section 7.6.1 forbids to name a field that is
/// meant for all recipients, and without these a message would mean something else.
static KEPT: [HeaderName; 10] = [
    header::HOST,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::SET_COOKIE,
    header::VARY,
    header::AGE,
    header::DATE,
];

/// The field names in every `Connection` line, `close` and `keep-alive` among them.
pub fn nominated(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    options(headers).filter_map(|option| HeaderName::from_bytes(option).ok())
}

/// Removes what means only the connection the message came over: the fields that `Connection`
/// names, then the fixed list. Of `TE` only `trailers` stays. For both sides and for interim
/// responses.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            nominated(headers).filter(|name| !KEPT.contains(name) && *name != header::TE).collect();
        for name in &named {
            headers.remove(name);
        }
    }
    for name in &ALWAYS {
        headers.remove(name);
    }
    if headers.contains_key(header::TE) {
        let trailers = takes_trailers(headers);
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}
