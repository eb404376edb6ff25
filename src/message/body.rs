//! Bodies: none, whole in memory, a row of immutable blocks, or still arriving.
//!
//! A body that ends in an error has not ended: whoever sends it on must cut the receiver off
//! visibly (HTTP/1: close before the announced end; HTTP/2: reset), never finish it cleanly.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Why a body broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The sender went away before the end it had announced.
    Incomplete,
    /// Nothing, or too little, came in the time allowed.
    TooSlow,
    /// More came than is allowed.
    TooLarge,
    /// Bytes that are not the framing they should be; says which rule was broken.
    Malformed(&'static str),
    /// The receiver or the process gave up on it.
    Cancelled,
}

impl fmt::Display for BodyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => out.write_str("body ended before its announced end"),
            Self::TooSlow => out.write_str("body came too slowly"),
            Self::TooLarge => out.write_str("body is larger than allowed"),
            Self::Malformed(rule) => write!(out, "body framing is broken: {rule}"),
            Self::Cancelled => out.write_str("body was given up"),
        }
    }
}

impl std::error::Error for BodyError {}

/// Part of an immutable row of blocks; handing it out copies nothing.
#[derive(Clone, Debug)]
pub struct Blocks {
    blocks: Arc<[Bytes]>,
    next: usize,
    skip: usize,
    left: u64,
    /// Whoever counts the memory of the blocks, for as long as they are read.
    _held: Option<Arc<dyn Any + Send + Sync>>,
}

impl Blocks {
    /// The bytes from `start` on, `length` of them, of a row of blocks. What lies beyond the row
    /// is cut off.
    #[must_use]
    pub fn new(blocks: Arc<[Bytes]>, start: u64, length: u64) -> Self {
        let total: u64 = blocks.iter().map(|block| block.len() as u64).sum();
        let left = length.min(total.saturating_sub(start));
        let mut skip = start;
        let mut next = 0;
        for block in blocks.iter() {
            let size = block.len() as u64;
            if skip < size {
                break;
            }
            skip -= size;
            next += 1;
        }
        Self { blocks, next, skip: usize::try_from(skip).unwrap_or(0), left, _held: None }
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        while self.left > 0 {
            let block = self.blocks.get(self.next)?;
            self.next += 1;
            let rest = block.slice(self.skip.min(block.len())..);
            self.skip = 0;
            let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
            if take > 0 {
                self.left -= take as u64;
                return Some(rest.slice(..take));
            }
        }
        None
    }
}

/// A message body. Poll it as an [`http_body::Body`].
pub enum Body {
    /// No bytes.
    Empty,
    /// All bytes in one piece.
    Full(Bytes),
    /// A range of stored blocks.
    Blocks(Blocks),
    /// Bytes that arrive over time. Give it an exact size hint when the length is known.
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// A body from any implementation; boxed.
    pub fn stream(
        body: impl http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    ) -> Self {
        Self::Stream(Box::pin(body))
    }

    /// A body that breaks off before the first of its `size` bytes.
    #[must_use]
    pub fn broken(size: u64) -> Self {
        Self::stream(Broken { size })
    }

    /// The same, keeping `owner` for as long as stored blocks are read. Bytes in one piece are small
    /// and leave at once.
    #[must_use]
    pub fn held_by<T: Any + Send + Sync>(mut self, owner: &Arc<T>) -> Self {
        if let Self::Blocks(blocks) = &mut self {
            blocks._held = Some(Arc::clone(owner) as Arc<dyn Any + Send + Sync>);
        }
        self
    }

    /// Length in bytes, where it is known before the end.
    #[must_use]
    pub fn exact_size(&self) -> Option<u64> {
        http_body::Body::size_hint(self).exact()
    }

    /// Whether it can be sent a second time: nothing of it is consumed by sending.
    #[must_use]
    pub fn replay(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Blocks(blocks) => Some(Self::Blocks(blocks.clone())),
            Self::Stream(_) => None,
        }
    }
}

/// A body of which nothing is there.
struct Broken {
    size: u64,
}

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Err(BodyError::Incomplete)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exact_size() {
            Some(size) => write!(out, "Body({size} bytes)"),
            None => out.write_str("Body(length unknown)"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Blocks(blocks) => {
                Poll::Ready(blocks.next_chunk().map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => stream.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Blocks(blocks) => blocks.left == 0,
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Blocks(blocks) => SizeHint::with_exact(blocks.left),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mut blocks: Blocks) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = blocks.next_chunk() {
            assert!(!chunk.is_empty());
            all.extend_from_slice(&chunk);
        }
        all
    }

    #[test]
    fn blocks_give_any_range_across_borders() {
        let row: Arc<[Bytes]> =
            Arc::from([Bytes::from("abc"), Bytes::from("d"), Bytes::from("efgh")]);
        for start in 0..10_u64 {
            for length in 0..10_u64 {
                let expected: Vec<u8> = b"abcdefgh"
                    .iter()
                    .copied()
                    .skip(usize::try_from(start).unwrap())
                    .take(usize::try_from(length).unwrap())
                    .collect();
                assert_eq!(drain(Blocks::new(Arc::clone(&row), start, length)), expected);
            }
        }
    }
}
