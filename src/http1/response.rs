//! Response heads: status line (RFC 9112 section 4), fields, framing.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};

use super::fields::{
    Announced, AnnouncedError, FieldError, FieldScan, HeadLimits, announced, keeps_alive,
};
use super::lines::{LineError, line, seen};
use crate::message::ResponseHead;

/// How the end of a response's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No body: answer to HEAD, 1xx, 204, 304.
    None,
    /// `Content-Length`; may be 0.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// The connection's end, which proves nothing.
    Close,
}

/// A complete response head and what follows from it for the connection.
#[derive(Clone, Debug)]
pub struct ParsedResponse {
    /// Status and fields as received, hop-by-hop fields included.
    pub head: ResponseHead,
    /// How the body ends.
    pub framing: ResponseFraming,
    /// Whether the connection may carry another request after this one.
    pub keep_alive: bool,
}

/// Parses one response head that may arrive in pieces; like [`super::RequestParser`].
#[derive(Debug, Default)]
pub struct ResponseParser {
    line: Option<(Version, StatusCode)>,
    seen: usize,
    fields: FieldScan,
}

/// Parses the head of an answer to a request with `request_method` from the start of `buffer`; see
/// [`ResponseParser::parse`].
///
/// # Errors
/// The rule that the response breaks.
pub fn parse_response(
    buffer: &mut BytesMut,
    request_method: &Method,
    limits: &HeadLimits,
) -> Result<Option<ParsedResponse>, &'static str> {
    ResponseParser::default().parse(buffer, request_method, limits)
}

impl ResponseParser {
    /// Parses a head from the start of `buffer` and takes it out once it is complete; `None` while
    /// more bytes are needed, which must then be appended to the same buffer. Interim responses
    /// are heads like others; whether one is welcome is the caller's to say.
    ///
    /// # Errors
    /// The rule that the response breaks, as soon as the bytes show it.
    pub fn parse(
        &mut self,
        buffer: &mut BytesMut,
        request_method: &Method,
        limits: &HeadLimits,
    ) -> Result<Option<ParsedResponse>, &'static str> {
        if self.line.is_none() && !self.first_line(buffer, limits)? {
            return Ok(None);
        }
        let Some(end) = self.fields.run(buffer, limits).map_err(field_rule)? else {
            return Ok(None);
        };
        let Some((version, status)) = self.line.take() else {
            return Ok(None);
        };
        self.seen = 0;
        let head = buffer.split_to(end.min(buffer.len())).freeze();
        complete(version, status, &self.fields, &head, request_method).map(Some)
    }

    fn first_line(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<bool, &'static str> {
        if bytes.iter().zip(b"HTTP/").any(|(given, due)| given != due) {
            return Err("not an HTTP/1 response");
        }
        match line(bytes, limits.field_bytes.min(limits.head_bytes), self.seen) {
            Ok(Some(length)) => {
                self.line = Some(status_line(bytes.get(..length).unwrap_or_default())?);
                self.fields.begin(length + 2, length + 2);
                Ok(true)
            }
            Ok(None) => {
                self.seen = seen(bytes);
                Ok(false)
            }
            Err(LineError::Bare) => Err("bare CR or LF in status line"),
            Err(LineError::TooLong) => Err("status line over its limit"),
        }
    }
}

/// `HTTP/1.1 200 Reason`; the reason and the blank before it may be missing.
fn status_line(text: &[u8]) -> Result<(Version, StatusCode), &'static str> {
    let (version, rest) = match text {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', rest @ ..] => {
            (Version::HTTP_11, rest)
        }
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', rest @ ..] => {
            (Version::HTTP_10, rest)
        }
        _ => return Err("malformed status line or other version"),
    };
    let (digits, reason) = rest.split_at_checked(3).ok_or("malformed status code")?;
    if !matches!(reason, [] | [b' ', ..]) {
        return Err("malformed status code");
    }
    let status = StatusCode::from_bytes(digits).map_err(|_invalid| "malformed status code")?;
    if !reason.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) {
        return Err("control byte in reason phrase");
    }
    Ok((version, status))
}

fn complete(
    version: Version,
    status: StatusCode,
    fields: &FieldScan,
    head: &Bytes,
    request_method: &Method,
) -> Result<ParsedResponse, &'static str> {
    let headers = fields.fields(head).map_err(field_rule)?;
    let framing = framing(&headers, version, status, request_method)?;
    let keep_alive = framing != ResponseFraming::Close && keeps_alive(&headers, version);
    Ok(ParsedResponse { head: ResponseHead { status, version, headers }, framing, keep_alive })
}

fn field_rule(error: FieldError) -> &'static str {
    match error {
        FieldError::Syntax => "malformed field line",
        FieldError::TooLarge => "head over its limits",
    }
}

/// RFC 9112 section 6.3. A 1xx or 204 that announces a body after all (section 6.1 forbids it) is
/// refused: it is open whether the bytes that follow are that body or the next response.
fn framing(
    headers: &HeaderMap,
    version: Version,
    status: StatusCode,
    request_method: &Method,
) -> Result<ResponseFraming, &'static str> {
    let announced = announced(headers, version).map_err(|error| match error {
        AnnouncedError::Length => "malformed or repeated Content-Length",
        AnnouncedError::Coding => "Transfer-Encoding other than one chunked in HTTP/1.1",
        AnnouncedError::Both => "Content-Length beside Transfer-Encoding",
    })?;
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return match announced {
            Announced::Nothing | Announced::Length(0) => Ok(ResponseFraming::None),
            Announced::Length(_) | Announced::Chunked => Err("body announced where none may be"),
        };
    }
    if *request_method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok(ResponseFraming::None);
    }
    Ok(match announced {
        Announced::Nothing => ResponseFraming::Close,
        Announced::Length(length) => ResponseFraming::Length(length),
        Announced::Chunked => ResponseFraming::Chunked,
    })
}
