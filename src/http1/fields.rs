//! Field lines (RFC 9112 section 5) and what they say about the body's length (section 6).

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use smallvec::SmallVec;

use super::lines::{LineError, line, seen};

/// What every field is charged on top of its bytes, as RFC 7541 section 4.1 does: thousands of
/// nearly empty fields cost memory that their bytes do not show.
const FIELD_CHARGE: usize = 32;

/// Bounds on a message head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head in bytes, 32 more for each field.
    pub head_bytes: usize,
    /// One field line in bytes.
    pub field_bytes: usize,
    /// All `Cookie` lines together in bytes; a single one may be this long, too.
    pub cookie_bytes: usize,
    /// Field lines.
    pub fields: usize,
    /// Request target in bytes.
    pub target_bytes: usize,
}

/// What is wrong with field lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldError {
    Syntax,
    TooLarge,
}

/// Finds the end of the field lines, across as many calls as it takes.
#[derive(Debug, Default)]
pub(super) struct FieldScan {
    /// Where each line ends, its CRLF included; the first entry is where the first one begins.
    borders: SmallVec<[usize; 24]>,
    /// Bytes of the current line that hold no CR or LF.
    seen: usize,
    charged: usize,
    cookies: usize,
}

impl FieldScan {
    /// Begins after the first line, whose `first` bytes (CRLF included) are charged.
    pub(super) fn begin(&mut self, start: usize, first: usize) {
        self.borders.clear();
        self.borders.push(start);
        self.seen = 0;
        self.charged = first;
        self.cookies = 0;
    }

    /// Goes on over `bytes`, the whole buffer; the length of the head once it is complete.
    pub(super) fn run(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, FieldError> {
        loop {
            let start = self.borders.last().copied().unwrap_or(0);
            let rest = bytes.get(start..).unwrap_or_default();
            let cookie = is_cookie(rest);
            let own = if cookie {
                limits.cookie_bytes.saturating_sub(self.cookies)
            } else {
                limits.field_bytes
            };
            let left = limits.head_bytes.saturating_sub(self.charged + FIELD_CHARGE + 2);
            match line(rest, own.min(left), self.seen) {
                Ok(Some(0)) => return Ok(Some(start + 2)),
                Ok(Some(length)) => {
                    if self.borders.len() > limits.fields {
                        return Err(FieldError::TooLarge);
                    }
                    self.borders.push(start + length + 2);
                    self.seen = 0;
                    self.charged += length + 2 + FIELD_CHARGE;
                    self.cookies += if cookie { length } else { 0 };
                }
                Ok(None) => {
                    self.seen = seen(rest);
                    return Ok(None);
                }
                Err(LineError::Bare) => return Err(FieldError::Syntax),
                Err(LineError::TooLong) => return Err(FieldError::TooLarge),
            }
        }
    }

    /// The fields of the complete `head` as a map whose values are slices of it.
    pub(super) fn fields(&self, head: &Bytes) -> Result<HeaderMap, FieldError> {
        let count = self.borders.len().saturating_sub(1);
        let mut fields =
            HeaderMap::try_with_capacity(count).map_err(|_too_many| FieldError::TooLarge)?;
        for pair in self.borders.windows(2) {
            if let [start, end] = *pair {
                let (name, value) = field(head, start, end.saturating_sub(2))?;
                fields.try_append(name, value).map_err(|_too_many| FieldError::TooLarge)?;
            }
        }
        Ok(fields)
    }
}

fn is_cookie(line: &[u8]) -> bool {
    line.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"cookie:"))
}

/// The field line at `start..end` of `head`.
fn field(head: &Bytes, start: usize, end: usize) -> Result<(HeaderName, HeaderValue), FieldError> {
    let line = head.get(start..end).ok_or(FieldError::Syntax)?;
    let (name, value) = split_field(line).ok_or(FieldError::Syntax)?;
    let name = HeaderName::from_bytes(name).map_err(|_invalid| FieldError::Syntax)?;
    let value = HeaderValue::from_maybe_shared(head.slice_ref(value))
        .map_err(|_invalid| FieldError::Syntax)?;
    Ok((name, value))
}

/// Name and value of a field line; `None` where there is no colon. Only SP and HTAB are trimmed: a
/// no-break space belongs to the value. A folded line or a blank before the colon leaves a blank
/// in the name, which is then no token.
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, rest) = line.split_at(colon);
    let mut value = rest.get(1..)?;
    while let [b' ' | b'\t', inner @ ..] | [inner @ .., b' ' | b'\t'] = value {
        value = inner;
    }
    Some((name, value))
}

/// Whether `line` is a sound field line that may be dropped: a trailer.
pub(super) fn is_field(line: &[u8]) -> bool {
    split_field(line).is_some_and(|(name, value)| {
        HeaderName::from_bytes(name).is_ok() && HeaderValue::from_bytes(value).is_ok()
    })
}

/// What the fields say about the body, before method or status have their say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    Nothing,
    Length(u64),
    Chunked,
}

/// Why the announcement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnnouncedError {
    Length,
    Coding,
    Both,
}

/// Reads `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6): at most one line of one of
/// them. Where both stand the message is refused, though section 6.3 would let the coding win,
/// since that is what request smuggling is made of.
pub(super) fn announced(fields: &HeaderMap, version: Version) -> Result<Announced, AnnouncedError> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Announced::Nothing),
        (Some(_), Some(_)) => Err(AnnouncedError::Both),
        (Some(length), None) => {
            let length = decimal(length.as_bytes()).filter(|_| lengths.next().is_none());
            length.map(Announced::Length).ok_or(AnnouncedError::Length)
        }
        (None, Some(coding)) => {
            let sound = version == Version::HTTP_11
                && codings.next().is_none()
                && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if sound { Ok(Announced::Chunked) } else { Err(AnnouncedError::Coding) }
        }
    }
}

/// A plain decimal number without sign, list or leading zeros, small enough to be added to.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || (text.len() > 1 && text.first() == Some(&b'0')) {
        return None;
    }
    let mut number: u64 = 0;
    for byte in text {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    (i64::try_from(number).is_ok()).then_some(number)
}

/// Whether the connection may carry another message after this one (RFC 9112 section 9.3).
pub(super) fn keeps_alive(fields: &HeaderMap, version: Version) -> bool {
    let mut keep = version == Version::HTTP_11;
    for option in options(fields) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keep
}

/// The options of every `Connection` line.
pub(super) fn options(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    fields
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}
