//! The way out: heads written anew from what was understood, with the one framing field that we
//! computed ourselves.

use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::request::RequestFraming;
use crate::message::{Added, Fields, ResponseHead};

/// Last chunk and empty trailer section: the end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What a response head announces about its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Nothing: 1xx, 204, 304, or HEAD where the length is not known.
    None,
    /// `Content-Length`.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// The end of the connection, for HTTP/1.0.
    Close,
}

/// Writes the head of a request to an origin. Fields of framing and connection in `headers` are
/// passed over, and `Expect`, which is settled on each hop; `Host` comes first (RFC 9110 section
/// 7.2). `TE` is written with the `Connection` option that it needs.
pub fn encode_request(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    framing: RequestFraming,
    out: &mut BytesMut,
) {
    encode_request_fields(method, target, headers, |_| true, out);
    match framing {
        RequestFraming::None => {}
        RequestFraming::Length(length) => encode_length(length, out),
        RequestFraming::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.put_slice(b"\r\n");
}

/// Writes the request line and the fields that `wanted` lets pass; the head is not ended.
pub(super) fn encode_request_fields(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    wanted: impl Fn(&HeaderName) -> bool,
    out: &mut BytesMut,
) {
    out.reserve(target.len() + 64 + headers.len() * 48);
    out.put_slice(method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    if let Some(host) = headers.get(header::HOST) {
        encode_field(&header::HOST, host, out);
    }
    for (name, value) in headers.iter().filter(|(name, _)| wanted(name)) {
        if *name == header::TE {
            out.put_slice(b"te: trailers\r\nconnection: te\r\n");
        } else if *name != header::HOST
            && *name != header::EXPECT
            && !is_of_connection(name.as_str().as_bytes())
        {
            encode_field(name, value, out);
        }
    }
}

/// Writes the head of the answer to a request of `version`; its fields are those at rest and what is
/// added to them, if there are any, then those in the map. Fields of framing and connection among them are passed over. We
/// always answer as HTTP/1.1 (RFC 9110 section 2.5).
pub fn encode_response(
    version: Version,
    status: StatusCode,
    (stored, headers): (Option<&(Fields, Added)>, &HeaderMap),
    framing: BodyFraming,
    keep_alive: bool,
    out: &mut BytesMut,
) {
    // A usual name at rest is a byte, and is written in some fifteen.
    let stored_bytes = stored
        .map_or(0, |(fields, added)| fields.bytes() + fields.len() * 18 + added.as_bytes().len());
    out.reserve(160 + stored_bytes + headers.len() * 48);
    encode_status(status, out);
    if let Some((stored, added)) = stored {
        encode_stored(stored, out);
        out.put_slice(added.as_bytes());
    }
    encode_fields(headers, out);
    match framing {
        BodyFraming::None | BodyFraming::Close => {}
        BodyFraming::Length(length) => encode_length(length, out),
        BodyFraming::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    match (keep_alive, version) {
        (false, _) => out.put_slice(b"connection: close\r\n"),
        (true, Version::HTTP_10) => out.put_slice(b"connection: keep-alive\r\n"),
        (true, _) => {}
    }
    out.put_slice(b"\r\n");
}

/// Writes an interim response.
pub fn encode_interim(head: &ResponseHead, out: &mut BytesMut) {
    out.reserve(64 + head.headers.len() * 48);
    encode_status(head.status, out);
    encode_fields(&head.headers, out);
    out.put_slice(b"\r\n");
}

/// Writes the line before a chunk of `length` bytes. The chunk is followed by CRLF.
pub fn encode_chunk_head(length: usize, out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = DIGITS.get(length >> (place * 4) & 15).copied().unwrap_or(b'0');
        out.put_u8(digit);
    }
    out.put_slice(b"\r\n");
}

pub(super) fn encode_status(status: StatusCode, out: &mut BytesMut) {
    if status == StatusCode::OK {
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

pub(super) fn encode_fields(headers: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in headers {
        if !is_of_connection(name.as_str().as_bytes()) {
            encode_field(name, value, out);
        }
    }
}

fn encode_stored(fields: &Fields, out: &mut BytesMut) {
    for (name, value) in fields.lines() {
        if !is_of_connection(name) {
            encode_line(name, value, out);
        }
    }
}

fn encode_field(name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
    encode_line(name.as_str().as_bytes(), value.as_bytes(), out);
}

fn encode_line(name: &[u8], value: &[u8], out: &mut BytesMut) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn encode_length(length: u64, out: &mut BytesMut) {
    out.put_slice(b"content-length: ");
    out.put_slice(itoa::Buffer::new().format(length).as_bytes());
    out.put_slice(b"\r\n");
}

/// Fields that only the connection's owner writes.
fn is_of_connection(name: &[u8]) -> bool {
    matches!(
        name,
        b"content-length"
            | b"transfer-encoding"
            | b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"upgrade"
            | b"trailer"
            | b"te"
            | b"http2-settings"
    )
}
