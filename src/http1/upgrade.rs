//! Another protocol on the same connection (RFC 9110 section 7.8): what a head asks for or
//! confirms, and how both are written.
//!
//! Only the plain case is understood: one `Upgrade` line with one protocol, named as an option in
//! `Connection`. A list would leave open which protocol the next bytes are written in.

use bytes::{BufMut, BytesMut};
use http::header::{TE, UPGRADE};
use http::{HeaderMap, Method, StatusCode};

use super::encode::{encode_fields, encode_request_fields, encode_status};
use super::fields::options;
use super::request::is_token_byte;

/// The one protocol that a head names, as it is written there; `None` where it names none, or
/// several, or does not mean this connection.
pub fn upgrade_protocol(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(UPGRADE).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    let meant = options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    line.to_str().ok().filter(|text| meant && is_protocol(text))
}

/// Whether a text is the name of one protocol, with or without a version.
#[must_use]
pub fn is_protocol(text: &str) -> bool {
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token_byte);
    let (name, version) = text.split_once('/').unwrap_or((text, "1"));
    text.len() <= 64 && is_token(name) && is_token(version)
}

/// Writes the head of a request that asks an origin for `protocol`. As
/// [`super::encode_request`] without a body otherwise; `TE` is left out.
pub fn encode_upgrade_request(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    protocol: &str,
    out: &mut BytesMut,
) {
    encode_request_fields(method, target, headers, |name| *name != TE, out);
    encode_upgrade(protocol, out);
}

/// Writes the 101 that confirms `protocol` to a client.
pub fn encode_switching(headers: &HeaderMap, protocol: &str, out: &mut BytesMut) {
    out.reserve(128 + headers.len() * 48);
    encode_status(StatusCode::SWITCHING_PROTOCOLS, out);
    encode_fields(headers, out);
    encode_upgrade(protocol, out);
}

fn encode_upgrade(protocol: &str, out: &mut BytesMut) {
    out.reserve(protocol.len() + 40);
    out.put_slice(b"connection: upgrade\r\nupgrade: ");
    out.put_slice(protocol.as_bytes());
    out.put_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::http1::{HeadLimits, parse_request, parse_response};
    use crate::message::Scheme;

    const LIMITS: HeadLimits = HeadLimits {
        head_bytes: 4096,
        field_bytes: 4096,
        cookie_bytes: 4096,
        fields: 100,
        target_bytes: 4096,
    };

    fn fields(rows: &[(&'static str, &str)]) -> HeaderMap {
        let row = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        rows.iter().map(row).collect::<Vec<_>>().into_iter().fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    #[test]
    fn only_one_protocol_that_the_connection_means_is_asked_for() {
        type Row = (&'static [(&'static str, &'static str)], Option<&'static str>);
        let rows: [Row; 13] = [
            (&[("connection", "Upgrade"), ("upgrade", "websocket")], Some("websocket")),
            (&[("connection", "keep-alive, UPGRADE"), ("upgrade", "WebSocket")], Some("WebSocket")),
            (&[("connection", "upgrade"), ("upgrade", "IRC/6.9")], Some("IRC/6.9")),
            (&[("upgrade", "websocket")], None),
            (&[("connection", "close"), ("upgrade", "websocket")], None),
            (&[("connection", "upgrade")], None),
            (&[("connection", "upgrade"), ("upgrade", "")], None),
            (&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], None),
            (&[("connection", "upgrade"), ("upgrade", "websocket,")], None),
            (&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")], None),
            (&[("connection", "upgrade"), ("upgrade", "web socket")], None),
            (&[("connection", "upgrade"), ("upgrade", "a/b/c")], None),
            (&[("connection", "upgrade"), ("upgrade", "websocket/")], None),
        ];
        for (row, expected) in rows {
            assert_eq!(upgrade_protocol(&fields(row)), expected, "{row:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_as_the_one_protocol() {
        let given = fields(&[
            ("host", "h"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("connection", "upgrade, x"),
            ("http2-settings", "x"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("sec-websocket-version", "13"),
        ]);
        let mut out = BytesMut::new();
        encode_upgrade_request(&Method::GET, "/a", &given, "websocket", &mut out);
        let request = parse_request(&mut out, Scheme::Http, &LIMITS).unwrap().unwrap();
        assert!(out.is_empty());
        let expected = fields(&[
            ("host", "h"),
            ("sec-websocket-version", "13"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(request.head.headers, expected);
        assert!(request.upgrade);
        encode_switching(&given, "websocket", &mut out);
        let response = parse_response(&mut out, &Method::GET, &LIMITS).unwrap().unwrap();
        assert!(out.is_empty());
        assert_eq!(response.head.status, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(upgrade_protocol(&response.head.headers), Some("websocket"));
        assert!(!response.head.headers.contains_key("transfer-encoding"));
    }
}
