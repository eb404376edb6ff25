//! Request heads: request line (RFC 9112 section 3), fields, framing.

use bytes::{Bytes, BytesMut};
use http::header::{EXPECT, HOST, UPGRADE};
use http::{HeaderMap, Method, Version};

use super::fields::{
    Announced, AnnouncedError, FieldError, FieldScan, HeadLimits, announced, keeps_alive,
};
use super::lines::{LineError, line, seen};
use crate::message::{Refusal, RequestHead, Scheme};

/// Longest method that is read as one. The longest registered one has 17 letters.
const METHOD_BYTES: usize = 32;

/// Bytes of ` HTTP/1.1`.
const VERSION_BYTES: usize = 9;

/// How the end of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// No body.
    None,
    /// `Content-Length`; may be 0.
    Length(u64),
    /// Chunked coding.
    Chunked,
}

/// A complete request head and what follows from it for the connection.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    /// Method, target and fields.
    pub head: RequestHead,
    /// How the body ends.
    pub framing: RequestFraming,
    /// Whether the client wants to go on with the connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Whether the client would like another protocol. Never one with a body.
    pub upgrade: bool,
}

/// Parses one request head that may arrive in pieces. Remembers how far it has looked, so that a
/// head that comes byte by byte costs no more than one that comes whole. Made anew, or reset by
/// itself, for each message.
#[derive(Debug, Default)]
pub struct RequestParser {
    line: Option<RequestLine>,
    seen: usize,
    fields: FieldScan,
}

#[derive(Debug)]
struct RequestLine {
    method: Method,
    version: Version,
    authority: Option<String>,
    target: String,
}

/// Parses a request head from the start of `buffer`; see [`RequestParser::parse`].
///
/// # Errors
/// The rule that the request breaks.
pub fn parse_request(
    buffer: &mut BytesMut,
    scheme: Scheme,
    limits: &HeadLimits,
) -> Result<Option<ParsedRequest>, Refusal> {
    RequestParser::default().parse(buffer, scheme, limits)
}

impl RequestParser {
    /// Parses a head that came over a connection of `scheme` from the start of `buffer`. Takes it
    /// out of the buffer once it is complete; `None` while more bytes are needed, which must then
    /// be appended to the same buffer. A refusal leaves the buffer as it is.
    ///
    /// One empty line before the request line is passed over (RFC 9112 section 2.2).
    ///
    /// # Errors
    /// The rule that the request breaks, as soon as the bytes show it.
    pub fn parse(
        &mut self,
        buffer: &mut BytesMut,
        scheme: Scheme,
        limits: &HeadLimits,
    ) -> Result<Option<ParsedRequest>, Refusal> {
        if self.line.is_none() && !self.first_line(buffer, scheme, limits)? {
            return Ok(None);
        }
        let Some(end) = self.fields.run(buffer, limits).map_err(field_refusal)? else {
            return Ok(None);
        };
        let Some(line) = self.line.take() else {
            return Ok(None);
        };
        self.seen = 0;
        let head = buffer.split_to(end.min(buffer.len())).freeze();
        complete(line, &self.fields, &head, scheme).map(Some)
    }

    /// Reads the request line; whether it is complete.
    fn first_line(
        &mut self,
        buffer: &[u8],
        scheme: Scheme,
        limits: &HeadLimits,
    ) -> Result<bool, Refusal> {
        let skipped = match buffer {
            [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        };
        let bytes = buffer.get(skipped..).unwrap_or_default();
        let method = method_bytes(bytes)?;
        let most = (method + 1).saturating_add(limits.target_bytes).saturating_add(VERSION_BYTES);
        match line(bytes, most, self.seen) {
            Ok(Some(length)) => {
                let text = bytes.get(..length).unwrap_or_default();
                self.line = Some(request_line(text, scheme, limits)?);
                self.fields.begin(skipped + length + 2, length + 2);
                Ok(true)
            }
            Ok(None) => {
                self.seen = seen(bytes);
                Ok(false)
            }
            Err(LineError::Bare) => Err(Refusal::RequestLine),
            Err(LineError::TooLong) => Err(Refusal::TargetTooLong),
        }
    }
}

/// Length of the method at the start of `bytes`, as far as it is there. What cannot become a
/// method (a TLS handshake, another protocol's banner) is refused without waiting for a line.
fn method_bytes(bytes: &[u8]) -> Result<usize, Refusal> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b' ' if at > 0 => return Ok(at),
            b'\r' | b'\n' if at > 0 => return Ok(at),
            b' ' | b'\r' | b'\n' => return Err(Refusal::RequestLine),
            _ if at >= METHOD_BYTES || !is_token_byte(*byte) => return Err(Refusal::MethodSyntax),
            _ => {}
        }
    }
    Ok(bytes.len())
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Splits at exactly two blanks: where more or other white space stands, parsers disagree.
fn request_line(text: &[u8], scheme: Scheme, limits: &HeadLimits) -> Result<RequestLine, Refusal> {
    let mut parts = text.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::RequestLine);
    };
    let method = parse_method(method)?;
    let version = parse_version(version)?;
    if matches!(method.as_str(), "CONNECT" | "TRACE" | "TRACK") {
        return Err(Refusal::MethodNotAllowed);
    }
    if target.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    let (authority, target) = parse_target(target, &method, scheme)?;
    Ok(RequestLine { method, version, authority, target })
}

/// Methods are case-sensitive (RFC 9110 section 9.1). One that only differs in case from a
/// well-known one is refused here: somebody behind us might read it as that.
fn parse_method(text: &[u8]) -> Result<Method, Refusal> {
    const KNOWN: [&[u8]; 9] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"];
    let disguised = text.iter().any(u8::is_ascii_lowercase)
        && KNOWN.iter().any(|known| known.eq_ignore_ascii_case(text));
    if disguised {
        return Err(Refusal::MethodSyntax);
    }
    Method::from_bytes(text).map_err(|_invalid| Refusal::MethodSyntax)
}

fn parse_version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::Version)
        }
        _ => Err(Refusal::RequestLine),
    }
}

/// Authority and origin-form of a target (RFC 9112 section 3.2).
fn parse_target(
    text: &[u8],
    method: &Method,
    scheme: Scheme,
) -> Result<(Option<String>, String), Refusal> {
    if !text.iter().all(|byte| is_target_byte(*byte)) {
        return Err(Refusal::Target);
    }
    let text = str::from_utf8(text).map_err(|_invalid| Refusal::Target)?;
    if text.starts_with('/') {
        return Ok((None, text.to_owned()));
    }
    if text == "*" && *method == Method::OPTIONS {
        return Ok((None, text.to_owned()));
    }
    absolute_form(text, method, scheme).ok_or(Refusal::Target)
}

/// Visible ASCII without `"`, `<`, `>`, `\` and `#`. RFC 3986 knows neither `|`, `^`, `` ` ``, `{`,
/// `}` nor, outside an address, `[` and `]`, but browsers send them, and no parser cuts a request
/// at them.
fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'#')
}

/// `http://authority/path?query` of the connection's own scheme and without userinfo.
fn absolute_form(text: &str, method: &Method, scheme: Scheme) -> Option<(Option<String>, String)> {
    let (given, rest) = text.split_once("://")?;
    if !given.eq_ignore_ascii_case(scheme.as_str()) {
        return None;
    }
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let target = match target {
        "" if *method == Method::OPTIONS => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        query => format!("/{query}"),
    };
    Some((Some(authority.to_owned()), target))
}

fn complete(
    line: RequestLine,
    fields: &FieldScan,
    head: &Bytes,
    scheme: Scheme,
) -> Result<ParsedRequest, Refusal> {
    let headers = fields.fields(head).map_err(field_refusal)?;
    let RequestLine { method, version, authority, target } = line;
    let framing = framing(&headers, version)?;
    judge_host(&headers, version)?;
    let has_body = matches!(framing, RequestFraming::Chunked | RequestFraming::Length(1..));
    let expect_continue = expects_continue(&headers, version)? && has_body;
    // Where an upgrade and a body come together it is open which of the two the bytes after the
    // head belong to. HTTP/1.0 knows no upgrades (RFC 9110 section 7.8).
    let upgrade = version == Version::HTTP_11 && headers.contains_key(UPGRADE);
    if upgrade && has_body {
        return Err(Refusal::Upgrade);
    }
    let keep_alive = keeps_alive(&headers, version);
    let head = RequestHead { method, scheme, authority, target, version, headers };
    Ok(ParsedRequest { head, framing, keep_alive, expect_continue, upgrade })
}

fn field_refusal(error: FieldError) -> Refusal {
    match error {
        FieldError::Syntax => Refusal::FieldSyntax,
        FieldError::TooLarge => Refusal::FieldsTooLarge,
    }
}

fn framing(headers: &HeaderMap, version: Version) -> Result<RequestFraming, Refusal> {
    match announced(headers, version) {
        Ok(Announced::Nothing) => Ok(RequestFraming::None),
        Ok(Announced::Length(length)) => Ok(RequestFraming::Length(length)),
        Ok(Announced::Chunked) => Ok(RequestFraming::Chunked),
        Err(AnnouncedError::Length) => Err(Refusal::ContentLength),
        Err(AnnouncedError::Coding) => Err(Refusal::TransferEncoding),
        Err(AnnouncedError::Both) => Err(Refusal::FramingConflict),
    }
}

/// One `Host` in HTTP/1.1, at most one in HTTP/1.0 (RFC 9112 section 3.2).
fn judge_host(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(Refusal::Host),
        (None, None) if version == Version::HTTP_11 => Err(Refusal::Host),
        _ => Ok(()),
    }
}

/// RFC 9110 section 10.1.1; HTTP/1.0 knows no expectations.
fn expects_continue(headers: &HeaderMap, version: Version) -> Result<bool, Refusal> {
    let mut expects = false;
    if version == Version::HTTP_11 {
        for line in headers.get_all(EXPECT) {
            if !line.as_bytes().eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expectation);
            }
            expects = true;
        }
    }
    Ok(expects)
}
