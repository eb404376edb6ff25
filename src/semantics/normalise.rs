//! One canonical form of a request, from which cache key and origin request both derive.
//!
//! Two parsers that read one request differently are an attack: the key would name one thing, the
//! origin answer another. So what is ambiguous is refused, what lets one URL mean another is
//! removed, and nothing is rewritten but what is equal by the letter of RFC 3986 (case of the
//! host and of percent-encoding, a trailing dot, the default port).
//!
//! ```text
//! Host: Shop.Example.:80   GET /a%2fb?q=%c3%a9   ->   shop.example  80  /a%2Fb  q=%C3%A9
//! ```
//!
//! Dot segments are refused rather than resolved: an honest client has resolved them already. A
//! dot segment that shows only once `%2F` or `%5C` is decoded may be data or an escape from a
//! directory, depending on the origin; such a request passes, and is never stored or answered from
//! the store.

use std::net::Ipv6Addr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use crate::message::{Refusal, RequestHead, Scheme};
use crate::semantics::cache_control::RequestDirectives;
use crate::semantics::range::too_many;

/// A request in canonical form.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Scheme of the connection it came over.
    pub scheme: Scheme,
    /// Version of the message.
    pub version: Version,
    /// Host in lower case, without port or trailing dot; IPv6 literals in brackets.
    pub host: String,
    /// Port, the scheme's default where none is named.
    pub port: u16,
    /// Path, begins with `/`; or `*` of `OPTIONS *`.
    pub path: String,
    /// Query without its `?`; `None` where there is no `?`.
    pub query: Option<String>,
    /// End-to-end fields without `Host`, framing, `Expect` and untrusted forwarding fields.
    /// Conditions and ranges are there.
    pub headers: HeaderMap,
    /// What it asks of us alone; those fields are taken out of `headers`.
    pub asks: Asks,
    /// What `Cache-Control` and `Pragma` ask.
    pub directives: RequestDirectives,
    /// The path means a dot segment to whoever decodes `%2F` or `%5C`: never stored.
    pub ambiguous: bool,
}

impl Request {
    /// Origin-form target: path and query.
    #[must_use]
    pub fn target(&self) -> String {
        match &self.query {
            None => self.path.clone(),
            Some(query) => {
                let mut target = String::with_capacity(self.path.len() + 1 + query.len());
                target.push_str(&self.path);
                target.push('?');
                target.push_str(query);
                target
            }
        }
    }

    /// Canonical value of `Host`: the port stands there unless it is the scheme's default.
    #[must_use]
    pub fn host_field(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether it asks for ranges (only GET can, RFC 9110 section 14.2).
    #[must_use]
    pub fn has_range(&self) -> bool {
        self.method == Method::GET && self.headers.contains_key(header::RANGE)
    }

    /// Whether the client wants an answer from the store or 504 (RFC 9111 section 5.2.1.7). To be
    /// asked wherever a request is about to be forwarded.
    #[must_use]
    pub fn forbids_forwarding(&self) -> bool {
        self.directives.only_if_cached && matches!(self.method, Method::GET | Method::HEAD)
    }
}

/// What a request asks of the edge and not of the origin, which never sees these fields.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    /// `Atoll-Cache-Key`, whatever its value: show the cache key in `Cache-Status`.
    pub key: bool,
    /// The one line of `Atoll-Explain`: say what was done with the request and why, to whoever
    /// holds this token. Several lines are none.
    pub explain: Option<Box<HeaderValue>>,
    /// The lines of `Atoll-Purge-Position`: purges that the answer must not be older than. Empty
    /// where there are none.
    pub positions: Box<[HeaderValue]>,
}

/// Path and query in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Path, begins with `/`.
    pub path: String,
    /// Query without its `?`.
    pub query: Option<String>,
    /// See [`Request::ambiguous`].
    pub ambiguous: bool,
}

/// Judges a head and rewrites it into its canonical form.
///
/// # Errors
/// The rule that the request breaks. It must not be forwarded, in whole or in part.
pub fn normalise(head: RequestHead) -> Result<Request, Refusal> {
    let RequestHead { method, scheme, authority, target, version, mut headers } = head;
    let (host, port) = effective_host(authority.as_deref(), &headers, scheme, version)?;
    let Target { path, query, ambiguous } = if target == "*" {
        if method != Method::OPTIONS {
            return Err(Refusal::Target);
        }
        Target { path: target, query: None, ambiguous: false }
    } else {
        canonical_target(target)?
    };
    let directives = RequestDirectives::of(&headers);
    let asks = clean_fields(&mut headers)?;
    Ok(Request {
        method,
        scheme,
        version,
        host,
        port,
        path,
        query,
        headers,
        asks,
        directives,
        ambiguous,
    })
}

/// Host and port that the request means. `Host` and the target's authority must agree: RFC 9112
/// section 3.2.2 lets the target win, but whoever sends both and lets them differ hopes that
/// somebody reads the other one.
fn effective_host(
    authority: Option<&str>,
    headers: &HeaderMap,
    scheme: Scheme,
    version: Version,
) -> Result<(String, u16), Refusal> {
    let mut lines = headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Refusal::Host);
    }
    let field = match line {
        Some(line) => {
            let text = line.to_str().map_err(|_not_ascii| Refusal::Host)?;
            Some(canonical_authority(text, scheme)?)
        }
        None if version == Version::HTTP_11 => return Err(Refusal::Host),
        None => None,
    };
    let target = authority.map(|text| canonical_authority(text, scheme)).transpose()?;
    match (target, field) {
        (Some(target), Some(field)) if target != field => Err(Refusal::Host),
        (Some(found), _) | (None, Some(found)) => Ok(found),
        (None, None) => Err(Refusal::Host),
    }
}

/// `host[:port]` in canonical form: lower case, no trailing dot, the scheme's port where none is
/// named. No userinfo, no percent-encoding: names that DNS could not carry.
///
/// # Errors
/// [`Refusal::Host`] where it is not a host.
pub fn canonical_authority(text: &str, scheme: Scheme) -> Result<(String, u16), Refusal> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (literal, after) = rest.split_once(']').ok_or(Refusal::Host)?;
            let address: Ipv6Addr = literal.parse().map_err(|_no_address| Refusal::Host)?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or(Refusal::Host)?),
            };
            (format!("[{address}]"), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (canonical_name(host)?, port)
        }
    };
    match port {
        None | Some("") => Ok((host, scheme.default_port())),
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            match digits.parse() {
                Ok(port) if port != 0 => Ok((host, port)),
                _ => Err(Refusal::Host),
            }
        }
        Some(_) => Err(Refusal::Host),
    }
}

/// Shows the cache key in `Cache-Status`.
const CACHE_KEY: &str = "atoll-cache-key";
/// Explains to whoever holds a token.
const EXPLAIN: &str = "atoll-explain";

/// Names purges that must be in force for memory to answer.
const PURGE_POSITION: &str = "atoll-purge-position";

/// Longest host name in bytes; DNS allows 253.
const HOST_BYTES: usize = 255;

fn canonical_name(host: &str) -> Result<String, Refusal> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let sound = !host.is_empty()
        && host.len() <= HOST_BYTES
        && host.bytes().all(allowed)
        && !host.starts_with('.')
        && !host.ends_with('.')
        && !host.contains("..");
    if sound { Ok(host.to_ascii_lowercase()) } else { Err(Refusal::Host) }
}

/// Path and query of an origin-form target in canonical form: percent-encoding in upper case and
/// nothing else changed. `//` stays.
///
/// # Errors
/// [`Refusal::Target`] for a byte or escape that does not belong there, [`Refusal::DotSegments`]
/// for `.` and `..`, plain or encoded, with or without parameters.
pub fn canonical_target(mut target: String) -> Result<Target, Refusal> {
    if !target.starts_with('/') || target.bytes().any(forbidden_in_target) {
        return Err(Refusal::Target);
    }
    let query = target.find('?').map(|mark| {
        let query = target.get(mark + 1..).unwrap_or_default().to_owned();
        target.truncate(mark);
        query
    });
    let path = upper_escapes(target).map_err(|_broken| Refusal::Target)?;
    let ambiguous = judge_dot_segments(&path)?;
    // In a query a bare `%` is common and means nothing to the way of the request.
    let query = query.map(|query| match upper_escapes(query) {
        Ok(query) | Err(query) => query,
    });
    Ok(Target { path, query, ambiguous })
}

fn forbidden_in_target(byte: u8) -> bool {
    !(0x21..=0x7e).contains(&byte) || matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\')
}

/// Upper-cases the hexadecimal digits of percent-encoding. `Err` gives the text back, rewritten as
/// far as that went, when a `%` is not followed by two of them.
fn upper_escapes(text: String) -> Result<String, String> {
    if !text.contains('%') {
        return Ok(text);
    }
    let mut sound = true;
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split('%');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.push('%');
        match piece.split_at_checked(2) {
            Some((digits, rest)) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                out.push_str(&digits.to_ascii_uppercase());
                out.push_str(rest);
            }
            _ => {
                sound = false;
                out.push_str(piece);
            }
        }
    }
    if sound { Ok(out) } else { Err(out) }
}

/// Refuses dot segments; says whether one would show to a reader who decodes `%2F` or `%5C`.
/// Expects percent-encoding in upper case.
fn judge_dot_segments(path: &str) -> Result<bool, Refusal> {
    if !path.contains('.') && !path.contains("%2E") {
        return Ok(false);
    }
    let mut ambiguous = false;
    for segment in path.split('/') {
        if is_dot_segment(segment) {
            return Err(Refusal::DotSegments);
        }
        ambiguous |= segment.contains('%')
            && segment.split("%2F").flat_map(|part| part.split("%5C")).any(is_dot_segment);
    }
    Ok(ambiguous)
}

/// `.` or `..`, each dot plain or encoded, parameters after `;` aside.
fn is_dot_segment(segment: &str) -> bool {
    let mut rest = segment.split(';').next().unwrap_or_default();
    rest = rest.split("%3B").next().unwrap_or_default();
    let mut dots = 0;
    while let Some(after) = rest.strip_prefix('.').or_else(|| rest.strip_prefix("%2E")) {
        dots += 1;
        rest = after;
    }
    rest.is_empty() && (dots == 1 || dots == 2)
}

/// Removes what is hop-by-hop, what we write ourselves and what strangers must not say; refuses
/// repeated singletons. Gives what was asked of us alone.
fn clean_fields(headers: &mut HeaderMap) -> Result<Asks, Refusal> {
    judge_expectation(headers)?;
    remove_nominated(headers)?;
    let mut seen = 0_u32;
    let mut cookies = 0_usize;
    let mut unwanted: smallvec::SmallVec<[HeaderName; 8]> = smallvec::SmallVec::new();
    for name in headers.keys() {
        if is_unwanted(name.as_str()) || is_disguised(name.as_str()) {
            unwanted.push(name.clone());
        }
    }
    let mut asks = Asks::default();
    for name in unwanted {
        asks.note(&name, headers);
        headers.remove(name);
    }
    for name in headers.iter().map(|(name, _)| name) {
        if let Some(bit) = singleton(name.as_str()) {
            if seen & bit != 0 {
                return Err(Refusal::RepeatedField);
            }
            seen |= bit;
        }
        cookies += usize::from(*name == header::COOKIE);
    }
    if cookies > 1 {
        join_cookies(headers);
    }
    if seen & (1 << RANGE_POSITION) != 0 {
        bound_ranges(headers);
    }
    Ok(asks)
}

/// Takes a wish for too many ranges for a wish for the whole, here and at every origin.
fn bound_ranges(headers: &mut HeaderMap) {
    if headers.get(header::RANGE).is_some_and(|field| too_many(field.as_bytes())) {
        headers.remove(header::RANGE);
        headers.remove(header::IF_RANGE);
    }
}

impl Asks {
    /// Takes note of a field that is about to be removed.
    fn note(&mut self, name: &HeaderName, headers: &HeaderMap) {
        match name.as_str() {
            CACHE_KEY => self.key = true,
            EXPLAIN => {
                let mut lines = headers.get_all(name).iter();
                let line = lines.next().filter(|_| lines.next().is_none());
                self.explain = line.map(|line| {
                    let mut token = line.clone();
                    token.set_sensitive(true);
                    Box::new(token)
                });
            }
            PURGE_POSITION => self.positions = headers.get_all(name).iter().cloned().collect(),
            _ => {}
        }
    }
}

fn judge_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let met = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let mut values = headers.get_all(header::EXPECT).iter();
    if values.all(met) { Ok(()) } else { Err(Refusal::Expectation) }
}

/// Removes the fields that `Connection` nominates (RFC 9110 section 7.6.1). Nominating what says
/// where a message goes or where it ends is refused: who removes those fields reads another one.
fn remove_nominated(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut nominated: smallvec::SmallVec<[HeaderName; 4]> = smallvec::SmallVec::new();
    for line in headers.get_all(header::CONNECTION) {
        for token in line.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"host")
                || token.eq_ignore_ascii_case(b"content-length")
                || token.eq_ignore_ascii_case(b"transfer-encoding")
            {
                return Err(Refusal::NominatedField);
            }
            if let Ok(name) = HeaderName::from_bytes(token) {
                nominated.push(name);
            }
        }
    }
    for name in nominated {
        headers.remove(name);
    }
    Ok(())
}

/// Fields that never reach the origin as the client wrote them.
///
/// The first group belongs to the connection. The second is written anew by us. The third is
/// believed by applications: who asks, from where, and which URL or method is "really" meant.
/// The third must not be believed from strangers, and would make one cache key mean two things.
/// The fourth asks us alone, and one of it is a secret.
pub(super) fn is_unwanted(name: &str) -> bool {
    match name {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "http2-settings"
        | "proxy-authenticate"
        | "proxy-authorization" => true,
        "host" | "content-length" | "expect" | "early-data" => true,
        "forwarded"
        | "x-real-ip"
        | "true-client-ip"
        | "x-client-ip"
        | "x-cluster-client-ip"
        | "x-originating-ip"
        | "x-remote-ip"
        | "x-remote-addr"
        | "cf-connecting-ip"
        | "fastly-client-ip"
        | "x-host"
        | "x-http-host-override"
        | "x-http-method"
        | "x-http-method-override"
        | "x-method-override"
        | "x-http-path-override"
        | "x-override-url"
        | "x-scheme"
        | "x-url-scheme"
        | "front-end-https"
        | "atoll-device"
        | "proxy" => true,
        CACHE_KEY | EXPLAIN | PURGE_POSITION => true,
        _ => {
            name.starts_with("x-forwarded")
                || name.starts_with("x-original-")
                || name.starts_with("x-rewrite-")
        }
    }
}

/// Whether an underscore hides one of those fields, or one that we write: CGI, WSGI and their kind
/// read `X_Forwarded_For` and `X-Forwarded-For` as one variable.
fn is_disguised(name: &str) -> bool {
    name.contains('_') && {
        let plain = name.replace('_', "-");
        is_unwanted(&plain) || matches!(plain.as_str(), "via" | "cdn-loop" | "x-request-id")
    }
}

/// Position of the bit of `Range`.
const RANGE_POSITION: u32 = 6;

/// A bit for each field that steers routing, framing or caching and has one value only.
pub(super) fn singleton(name: &str) -> Option<u32> {
    let position = match name {
        "authorization" => 0,
        "content-type" => 1,
        "if-modified-since" => 2,
        "if-range" => 3,
        "if-unmodified-since" => 4,
        "origin" => 5,
        "range" => RANGE_POSITION,
        "max-forwards" => 7,
        "access-control-request-method" => 8,
        _ => return None,
    };
    Some(1 << position)
}

/// Several `Cookie` lines become one (RFC 9113 section 8.2.3), as every origin reads them.
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
