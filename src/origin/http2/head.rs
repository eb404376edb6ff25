//! Heads as HTTP/2 has them: a request written from its canonical form, an answer judged by what
//! RFC 9113 section 8 demands and h2 leaves to us.

use http::header::{self, HeaderName, HeaderValue};
use http::uri::Uri;
use http::{HeaderMap, Method, StatusCode, Version};

use crate::config::Limits;
use crate::http1::remove_hop_by_hop;
use crate::message::ResponseHead;
use crate::origin::{Framing, Head, SendError};

/// The head of a request, of whose body `length` bytes are known to come. `:authority` is what
/// `Host` says (RFC 9113 section 8.3.1). Where trailers go on, the origin is told so.
pub(super) fn request(
    head: &Head,
    secure: bool,
    length: Option<u64>,
) -> Result<http::Request<()>, SendError> {
    let wrong = SendError::HttpProtocolError("request cannot be said in HTTP/2");
    let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let uri = Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(host)
        .path_and_query(head.target.as_str())
        .build();
    let Ok(uri) = uri else { return Err(wrong) };
    let mut headers = head.headers.clone();
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    headers.remove(header::CONTENT_LENGTH);
    remove_hop_by_hop(&mut headers);
    headers.remove(header::TE);
    if head.streams {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let has_body = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    if let Some(length) = length.filter(|length| *length > 0 || has_body) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut request = http::Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

/// A head as it may be handed on. `ends`: nothing follows it.
pub(super) fn response(
    parts: http::response::Parts,
    method: &Method,
    ends: bool,
    limits: &Limits,
) -> Result<(ResponseHead, Framing), &'static str> {
    let http::response::Parts { status, mut headers, .. } = parts;
    fields(&headers, limits)?;
    let length = length(&headers)?;
    let framing = framing(status, method, length, ends)?;
    remove_hop_by_hop(&mut headers);
    headers.remove(header::TE);
    Ok((ResponseHead { status, version: Version::HTTP_2, headers }, framing))
}

fn fields(headers: &HeaderMap, limits: &Limits) -> Result<(), &'static str> {
    /// Meant for one connection, which HTTP/2 says by frames (RFC 9113 section 8.2.2).
    static OF_CONNECTION: [HeaderName; 5] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    if headers.len() > limits.origin_fields {
        return Err("head over its limits");
    }
    if OF_CONNECTION.iter().any(|name| headers.contains_key(name)) {
        return Err("field that HTTP/2 does not have");
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    for value in headers.values() {
        // RFC 9113 section 8.2.1.
        if blank(value.as_bytes().first()) || blank(value.as_bytes().last()) {
            return Err("malformed field line");
        }
    }
    Ok(())
}

/// One line of digits at most, as in HTTP/1.
fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) if line.as_bytes().iter().all(u8::is_ascii_digit) => {
            let length = line.to_str().ok().and_then(|digits| digits.parse().ok());
            length.map(Some).ok_or("malformed or repeated Content-Length")
        }
        _ => Err("malformed or repeated Content-Length"),
    }
}

fn framing(
    status: StatusCode,
    method: &Method,
    length: Option<u64>,
    ends: bool,
) -> Result<Framing, &'static str> {
    if status.is_informational() {
        return Err("switches protocols, which HTTP/2 cannot");
    }
    if status == StatusCode::NO_CONTENT && length.is_some_and(|length| length > 0) {
        return Err("body announced where none may be");
    }
    let bodiless = *method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match (bodiless, length) {
        (true, _) => Framing::None,
        (false, Some(length)) if !ends || length == 0 => Framing::Length(length),
        (false, Some(_)) => return Err("body shorter than its Content-Length"),
        (false, None) if ends => Framing::Length(0),
        (false, None) => Framing::Chunked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, fields: &[(&'static str, &'static str)], streams: bool) -> Head {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Head { method: Method::POST, target: target.to_owned(), headers, streams, hop: None }
    }

    #[test]
    fn a_request_names_its_host_once_and_says_nothing_of_connections() {
        let fields = [
            ("host", "h.example:81"),
            ("expect", "100-continue"),
            ("content-length", "9"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("x", "y"),
        ];
        let written = request(&head("/a?b=%20", &fields, false), true, Some(5)).unwrap();
        assert_eq!(written.uri(), "https://h.example:81/a?b=%20");
        let names: Vec<_> = written.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x", "content-length"]);
        assert_eq!(written.headers()["content-length"], "5");
        let call = request(&head("/a", &fields[..1], true), false, None).unwrap();
        assert_eq!(call.uri(), "http://h.example:81/a");
        assert_eq!(call.headers()["te"], "trailers");
        assert_eq!(
            request(&head("/", &fields[..1], false), false, Some(0)).unwrap().headers()["content-length"],
            "0"
        );
        for (target, host) in [("/a", "a b"), ("no path", "h")] {
            let fields = [("host", host)];
            assert!(request(&head(target, &fields, false), false, None).is_err(), "{target}");
        }
    }

    #[test]
    fn an_answer_is_held_to_the_rules_of_http1() {
        let limits = Limits::default();
        let judge = |status: u16, fields: &[(&'static str, &'static str)], ends, method: Method| {
            let mut answer = http::Response::new(());
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in fields {
                answer.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            response(answer.into_parts().0, &method, ends, &limits).map(|(_, framing)| framing)
        };
        let rows = [
            (200, vec![], false, Ok(Framing::Chunked)),
            (200, vec![], true, Ok(Framing::Length(0))),
            (200, vec![("content-length", "5")], false, Ok(Framing::Length(5))),
            (200, vec![("content-length", "5")], true, Err("body shorter than its Content-Length")),
            (204, vec![], true, Ok(Framing::None)),
            (204, vec![("content-length", "5")], true, Err("body announced where none may be")),
            (304, vec![("content-length", "5")], true, Ok(Framing::None)),
            (101, vec![], false, Err("switches protocols, which HTTP/2 cannot")),
            (
                200,
                vec![("content-length", "5"), ("content-length", "5")],
                false,
                Err("malformed or repeated Content-Length"),
            ),
            (
                200,
                vec![("content-length", "+5")],
                false,
                Err("malformed or repeated Content-Length"),
            ),
            (200, vec![("connection", "close")], false, Err("field that HTTP/2 does not have")),
            (200, vec![("a", "b "), ("c", "d")], false, Err("malformed field line")),
            (200, vec![("a", "b"); 101], false, Err("head over its limits")),
        ];
        for (status, fields, ends, expected) in rows {
            assert_eq!(judge(status, &fields, ends, Method::GET), expected, "{status} {fields:?}");
        }
        let length = [("content-length", "5")];
        assert_eq!(judge(200, &length, true, Method::HEAD), Ok(Framing::None));
    }
}
