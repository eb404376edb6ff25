//! From what h2 hands over to a request head: what RFC 9113 section 8 demands and h2 leaves to us.

use h2::ext::Protocol;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT};
use http::{HeaderMap, HeaderValue, Method, Version};

use crate::config::Limits;
use crate::message::{Refusal, RequestHead, Scheme};

/// What is wrong with a request.
#[derive(Debug)]
pub(super) enum Fault {
    /// Malformed: a stream error, nothing is answered.
    Reset(Reason),
    /// Understood and refused with an answer.
    Refuse(Refusal, Box<RequestHead>),
}

/// What a request is, beside its body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) head: RequestHead,
    /// Whether the client waits for 100 (Continue) before its body.
    pub(super) expects: bool,
    /// The protocol of an extended CONNECT (RFC 8441 section 4). What it asks for is asked for by
    /// GET elsewhere, so that is its method from here on.
    pub(super) protocol: Option<String>,
}

/// The head of a request and its body.
pub(super) fn head_of(
    request: http::Request<RecvStream>,
    scheme: Scheme,
    limits: &Limits,
) -> Result<(Asked, RecvStream), Fault> {
    let (parts, body) = request.into_parts();
    let protocol = parts.extensions.get::<Protocol>().map(|name| name.as_str().to_owned());
    if parts.uri.scheme_str().is_some_and(|given| !given.eq_ignore_ascii_case(scheme.as_str())) {
        return Err(Fault::Reset(Reason::PROTOCOL_ERROR));
    }
    let target = match parts.uri.path_and_query() {
        Some(path) => path.as_str().to_owned(),
        None => String::new(),
    };
    let head = RequestHead {
        method: if protocol.is_some() { Method::GET } else { parts.method },
        scheme,
        authority: parts.uri.authority().map(|authority| authority.as_str().to_owned()),
        target,
        version: Version::HTTP_2,
        headers: parts.headers,
    };
    let (head, expects) = check(head, limits)?;
    let tunnel = protocol.is_some();
    if tunnel && (expects || head.headers.contains_key(CONTENT_LENGTH) || body.is_end_stream()) {
        return Err(Fault::Refuse(Refusal::Upgrade, Box::new(head)));
    }
    Ok((Asked { head, expects, protocol }, body))
}

fn check(mut head: RequestHead, limits: &Limits) -> Result<(RequestHead, bool), Fault> {
    if !content_length_is_sound(&head.headers) || head.headers.values().any(has_blank_ends) {
        return Err(Fault::Reset(Reason::PROTOCOL_ERROR));
    }
    let refusal = if head.method == Method::CONNECT {
        Some(Refusal::MethodNotAllowed)
    } else if is_disguised(&head.method) {
        Some(Refusal::MethodSyntax)
    } else if !target_is_sound(&head.target, &head.method) {
        return Err(Fault::Reset(Reason::PROTOCOL_ERROR));
    } else if head.target.len() > limits.target_bytes {
        Some(Refusal::TargetTooLong)
    } else {
        limit_fields(&mut head.headers, limits).err()
    };
    if let Some(refusal) = refusal {
        return Err(Fault::Refuse(refusal, Box::new(head)));
    }
    match expectation(&head.headers) {
        Ok(expects) => Ok((head, expects)),
        Err(refusal) => Err(Fault::Refuse(refusal, Box::new(head))),
    }
}

/// One line of digits at most, without leading zeros, as in HTTP/1. h2 lets those, equal repetitions
/// and an empty value pass.
fn content_length_is_sound(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(value), None) => {
            let digits = value.as_bytes();
            let padded = digits.len() > 1 && digits.first() == Some(&b'0');
            !digits.is_empty() && !padded && digits.iter().all(u8::is_ascii_digit)
        }
        (Some(_), Some(_)) => false,
    }
}

/// A value must not begin or end with white space (RFC 9113 section 8.2.1): one reader behind us
/// would trim it, another take it as it is.
fn has_blank_ends(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

/// A well-known method in other letters: somebody behind us might take it for the real one.
fn is_disguised(method: &Method) -> bool {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
        Method::CONNECT,
        Method::TRACE,
    ];
    let text = method.as_str();
    text.bytes().any(|byte| byte.is_ascii_lowercase())
        && KNOWN.iter().any(|known| known.as_str().eq_ignore_ascii_case(text))
}

/// Origin-form, or `*` for OPTIONS. The bytes are those of RFC 3986 and the few that browsers
/// leave unencoded and every parser reads alike; `#` never gets here.
fn target_is_sound(target: &str, method: &Method) -> bool {
    if target == "*" {
        return method == Method::OPTIONS;
    }
    target.starts_with('/')
        && target.bytes().all(|byte| {
            byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'#')
        })
}

/// Holds the limits on fields and joins `Cookie` crumbs into one field (RFC 9113 section 8.2.3).
pub(super) fn limit_fields(headers: &mut HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    let mut crumbs = 0_usize;
    let mut cookie_bytes = 0_usize;
    for (name, value) in headers.iter() {
        if name == COOKIE {
            crumbs += 1;
            cookie_bytes += value.len() + 2;
        } else if name.as_str().len() + value.len() > limits.field_bytes {
            return Err(Refusal::FieldsTooLarge);
        }
    }
    let too_many = headers.len() - crumbs > limits.fields
        || crumbs > limits.cookie_crumbs
        || cookie_bytes > limits.cookie_bytes;
    if too_many {
        return Err(Refusal::FieldsTooLarge);
    }
    if crumbs > 1 {
        let mut joined = Vec::with_capacity(cookie_bytes);
        for (position, crumb) in headers.get_all(COOKIE).iter().enumerate() {
            if position > 0 {
                joined.extend_from_slice(b"; ");
            }
            joined.extend_from_slice(crumb.as_bytes());
        }
        let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined))
            .map_err(|_invalid| Refusal::FieldSyntax)?;
        headers.insert(COOKIE, joined);
    }
    Ok(())
}

/// Whether 100 (Continue) is expected; nothing else may be (RFC 9110 section 10.1.1).
fn expectation(headers: &HeaderMap) -> Result<bool, Refusal> {
    match headers.get(EXPECT) {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(Refusal::Expectation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        RequestHead {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            scheme: Scheme::Https,
            authority: Some("h".to_owned()),
            target: target.to_owned(),
            version: Version::HTTP_2,
            headers,
        }
    }

    fn outcome(head: RequestHead) -> Result<bool, Option<Refusal>> {
        match check(head, &Limits::default()) {
            Ok((_, expects)) => Ok(expects),
            Err(Fault::Reset(_)) => Err(None),
            Err(Fault::Refuse(refusal, _)) => Err(Some(refusal)),
        }
    }

    #[test]
    fn each_rule_has_its_outcome() {
        let long = format!("/{}", "a".repeat(8192));
        let large = "a".repeat(8192);
        let rows = [
            ("plain", request("GET", "/a?b", &[]), Ok(false)),
            ("star", request("OPTIONS", "*", &[]), Ok(false)),
            ("star elsewhere", request("GET", "*", &[]), Err(None)),
            ("no slash", request("GET", "a", &[]), Err(None)),
            ("empty", request("GET", "", &[]), Err(None)),
            ("high bytes", request("GET", "/\u{e4}", &[]), Err(None)),
            ("quote", request("GET", "/\"", &[]), Err(None)),
            ("long", request("GET", &long, &[]), Err(Some(Refusal::TargetTooLong))),
            ("connect", request("CONNECT", "", &[]), Err(Some(Refusal::MethodNotAllowed))),
            ("lower case", request("get", "/", &[]), Err(Some(Refusal::MethodSyntax))),
            ("own method", request("Reindex", "/", &[]), Ok(false)),
            ("length", request("POST", "/", &[("content-length", "5")]), Ok(false)),
            ("signed length", request("POST", "/", &[("content-length", "+5")]), Err(None)),
            ("padded length", request("POST", "/", &[("content-length", "05")]), Err(None)),
            ("no length", request("POST", "/", &[("content-length", "0")]), Ok(false)),
            ("a blank before a value", request("GET", "/", &[("x", " y")]), Err(None)),
            ("a tab behind a value", request("GET", "/", &[("x", "y\t")]), Err(None)),
            ("blanks within a value", request("GET", "/", &[("x", "y \tz")]), Ok(false)),
            ("empty length", request("POST", "/", &[("content-length", "")]), Err(None)),
            (
                "two lengths",
                request("POST", "/", &[("content-length", "5"), ("content-length", "5")]),
                Err(None),
            ),
            ("expect", request("POST", "/", &[("expect", "100-Continue")]), Ok(true)),
            (
                "other expectation",
                request("POST", "/", &[("expect", "tea")]),
                Err(Some(Refusal::Expectation)),
            ),
            (
                "large field",
                request("GET", "/", &[("a", &large)]),
                Err(Some(Refusal::FieldsTooLarge)),
            ),
            (
                "101 fields",
                request("GET", "/", &[("a", "b"); 101]),
                Err(Some(Refusal::FieldsTooLarge)),
            ),
            ("150 crumbs", request("GET", "/", &[("cookie", "b=c"); 150]), Ok(false)),
            (
                "151 crumbs",
                request("GET", "/", &[("cookie", "b=c"); 151]),
                Err(Some(Refusal::FieldsTooLarge)),
            ),
        ];
        for (case, head, expected) in rows {
            assert_eq!(outcome(head), expected, "{case}");
        }
    }

    #[test]
    fn crumbs_become_one_field() {
        let head = request("GET", "/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]);
        let (head, _) = check(head, &Limits::default()).unwrap();
        let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }
}
