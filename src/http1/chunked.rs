//! Bodies: chunked coding (RFC 9112 section 7.1) and plain lengths.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::fields::is_field;
use super::lines::{LineError, line};
use crate::message::{BodyError, Refusal};

/// Most hexadecimal digits of a chunk size, leading zeros included.
const SIZE_DIGITS: usize = 16;

/// Pieces smaller than this are gathered with their neighbours, so that a body cut into tiny
/// chunks costs whoever sends it on little more than one that is not.
const SMALL: usize = 1024;

/// Size at which gathering stops.
const GATHERED: usize = 16 * 1024;

/// Bounds on what may stand in a chunked body beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Chunk extensions of the whole body in bytes.
    pub extension_bytes: usize,
    /// Trailer section in bytes.
    pub trailer_bytes: usize,
    /// Trailer field lines.
    pub trailer_fields: usize,
}

/// Next part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Data, never empty.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The body is complete; what is left in the buffer belongs to the next message.
    End,
}

/// Which rule of the chunked coding is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// Chunk sizes, extensions or line ends.
    Syntax(&'static str),
    /// Trailer section.
    Trailers(&'static str),
}

impl ChunkError {
    /// The rule in words.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Syntax(rule) | Self::Trailers(rule) => rule,
        }
    }

    /// What a request with such a body is refused for.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Syntax(_) => Refusal::ChunkSyntax,
            Self::Trailers(_) => Refusal::Trailers,
        }
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.rule())
    }
}

impl std::error::Error for ChunkError {}

impl From<ChunkError> for BodyError {
    fn from(error: ChunkError) -> Self {
        Self::Malformed(error.rule())
    }
}

/// Reads a chunked body. Extensions and trailers are checked, counted and dropped.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
    Failed(ChunkError),
}

/// What [`ChunkedDecoder::step`] came upon.
enum Step {
    /// So many bytes at the start of the buffer are data; they are still there.
    Data(usize),
    More,
    End,
}

impl ChunkedDecoder {
    /// One for the body that begins next.
    #[must_use]
    pub fn new(limits: ChunkLimits) -> Self {
        Self {
            state: State::Size,
            extension_bytes: limits.extension_bytes,
            trailer_bytes: limits.trailer_bytes,
            trailer_fields: limits.trailer_fields,
        }
    }

    /// Whether the whole body has been read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next part from the start of `buffer`.
    ///
    /// # Errors
    /// The rule that is broken; the same again if asked again.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Chunk, ChunkError> {
        match self.step(buffer)? {
            Step::More => Ok(Chunk::More),
            Step::End => Ok(Chunk::End),
            Step::Data(size) if size >= SMALL || size == buffer.len() => {
                Ok(Chunk::Data(buffer.split_to(size).freeze()))
            }
            Step::Data(size) => Ok(Chunk::Data(self.gather(size, buffer))),
        }
    }

    /// Joins the `size` data bytes at the start of `buffer` with those that follow. Whatever ends
    /// the row is met again by the next call.
    fn gather(&mut self, size: usize, buffer: &mut BytesMut) -> Bytes {
        let mut gathered = BytesMut::with_capacity(buffer.len().min(GATHERED));
        let mut size = size;
        loop {
            gathered.extend_from_slice(&buffer.split_to(size.min(buffer.len())));
            match self.step(buffer) {
                Ok(Step::Data(next)) if gathered.len() + next <= GATHERED => size = next,
                Ok(Step::Data(next)) => {
                    self.give_back(next);
                    break;
                }
                Ok(Step::More | Step::End) | Err(_) => break,
            }
        }
        gathered.freeze()
    }

    /// Undoes a step that found `size` bytes of data.
    fn give_back(&mut self, size: usize) {
        self.state = match self.state {
            State::Data(left) => State::Data(left + size as u64),
            _ => State::Data(size as u64),
        };
    }

    fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, ChunkError> {
        let result = self.walk(buffer);
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    fn walk(&mut self, buffer: &mut BytesMut) -> Result<Step, ChunkError> {
        loop {
            match self.state {
                State::Size => match self.size_line(buffer)? {
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                    None => return Ok(Step::More),
                },
                State::Data(left) => {
                    let size = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    if size == 0 {
                        return Ok(Step::More);
                    }
                    let left = left - size as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(size));
                }
                State::DataEnd => match buffer.as_ref() {
                    [] | [b'\r'] => return Ok(Step::More),
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.state = State::Size;
                    }
                    _ => return Err(ChunkError::Syntax("chunk data not followed by CRLF")),
                },
                State::Trailers => match self.trailer_line(buffer)? {
                    Some(0) => self.state = State::Done,
                    Some(_) => {}
                    None => return Ok(Step::More),
                },
                State::Done => return Ok(Step::End),
                State::Failed(error) => return Err(error),
            }
        }
    }

    /// Takes a chunk's size with its extensions; `None` while the line is incomplete.
    fn size_line(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, ChunkError> {
        let length = match line(buffer, SIZE_DIGITS.saturating_add(self.extension_bytes), 0) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(None),
            Err(LineError::Bare) => return Err(ChunkError::Syntax("bare CR or LF in chunk size")),
            Err(LineError::TooLong) => {
                return Err(ChunkError::Syntax("chunk extensions over their limit"));
            }
        };
        let text = buffer.get(..length).unwrap_or_default();
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extensions) = text.split_at(digits);
        let size = hexadecimal(digits).ok_or(ChunkError::Syntax("malformed chunk size"))?;
        self.extension_bytes = self
            .extension_bytes
            .checked_sub(extensions.len())
            .ok_or(ChunkError::Syntax("chunk extensions over their limit"))?;
        if !are_extensions(extensions) {
            return Err(ChunkError::Syntax("malformed chunk extension"));
        }
        buffer.advance(length + 2);
        Ok(Some(size))
    }

    /// Takes a trailer line and gives its length; 0 is the end of the section.
    fn trailer_line(&mut self, buffer: &mut BytesMut) -> Result<Option<usize>, ChunkError> {
        let length = match line(buffer, self.trailer_bytes, 0) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(None),
            Err(LineError::Bare) => return Err(ChunkError::Trailers("bare CR or LF in trailers")),
            Err(LineError::TooLong) => {
                return Err(ChunkError::Trailers("trailers over their limit"));
            }
        };
        if length > 0 {
            if !is_field(buffer.get(..length).unwrap_or_default()) {
                return Err(ChunkError::Trailers("malformed trailer"));
            }
            self.trailer_bytes = self.trailer_bytes.saturating_sub(length + 2);
            self.trailer_fields = self
                .trailer_fields
                .checked_sub(1)
                .ok_or(ChunkError::Trailers("too many trailers"))?;
        }
        buffer.advance(length + 2);
        Ok(Some(length))
    }
}

/// 1 to 16 hexadecimal digits; sizes that could overflow a sum are refused.
fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > SIZE_DIGITS {
        return None;
    }
    let size = digits.iter().try_fold(0_u64, |size, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(size << 4 | u64::from(digit))
    })?;
    i64::try_from(size).is_ok().then_some(size)
}

/// `*( ; name [ = value ] )` with blanks around (RFC 9112 section 7.1.1). A quoted value may hold
/// no backslash: whether `\"` ends it is what parsers disagree on.
fn are_extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let Some((b';', rest)) = skip_blanks(text).split_first() else {
            return false;
        };
        let Some(rest) = skip_token(skip_blanks(rest)) else {
            return false;
        };
        text = rest;
        if let Some((b'=', value)) = skip_blanks(rest).split_first() {
            let value = skip_blanks(value);
            let Some(rest) = skip_quoted(value).or_else(|| skip_token(value)) else {
                return false;
            };
            text = rest;
        }
    }
    true
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    text.split_at(blanks).1
}

fn skip_token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|byte| super::request::is_token_byte(**byte)).count();
    (length > 0).then(|| text.split_at(length).1)
}

fn skip_quoted(text: &[u8]) -> Option<&[u8]> {
    let inner = text.strip_prefix(b"\"")?;
    let length = inner
        .iter()
        .take_while(|byte| matches!(byte, b'\t' | b' ' | b'!' | b'#'..=b'[' | b']'..=b'~' | 0x80..))
        .count();
    inner.split_at(length).1.strip_prefix(b"\"")
}

/// Reads a body of known length.
#[derive(Clone, Copy, Debug)]
pub struct LengthDecoder {
    left: u64,
}

impl LengthDecoder {
    /// One for a body of `length` bytes that begins next.
    #[must_use]
    pub fn new(length: u64) -> Self {
        Self { left: length }
    }

    /// Bytes that have not been read yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether the whole body has been read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Takes the next part from the start of `buffer`.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Chunk {
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if self.left == 0 {
            return Chunk::End;
        }
        if size == 0 {
            return Chunk::More;
        }
        self.left -= size as u64;
        Chunk::Data(buffer.split_to(size).freeze())
    }
}
