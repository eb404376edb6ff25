//! Large bodies in segments: which bytes a request needs, which are asked of the origin, and
//! whether an answer goes on with the body that was begun.
//!
//! A segment is the most that one request asks of an origin, and lies on a fixed grid. It is kept
//! in up to sixteen blocks, so that a range whose edges lie inside segments costs a block at either
//! end rather than a segment:
//!
//! ```text
//! segments   |               0               |               1               |       2      |
//! blocks     |.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|.|
//! asked for                    [------------------)
//! fetched                     [--------------)[----)             one request per segment
//! ```
//!
//! A range shorter than a block brings its whole segment: whoever picks single bytes (the index of
//! an archive, the boxes of a film) comes back for their neighbours.
//!
//! Segments of one body come from many answers, so they must all name the same bytes: a strong
//! validator is asked for, sent along as a precondition, and compared. Nothing else is ever put
//! together.

use std::time::SystemTime;

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

use crate::message::ResponseHead;
use crate::semantics::normalise::Request;
use crate::semantics::partial::{ContentRange, StrongValidator};
use crate::semantics::policy::Policy;

/// Blocks of a segment.
const BLOCKS: u64 = 16;

/// Smallest block in bytes, and smallest segment.
pub const LEAST_SEGMENT: u64 = 64 * 1024;

/// Largest segment in bytes.
pub const LARGEST_SEGMENT: u64 = 64 * 1024 * 1024;

/// First bytes beyond this are not on any body, and would be near the end of the numbers.
const FARTHEST: u64 = 1 << 60;

/// Bytes in a row, both ends included, as `Range` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub first: u64,
    /// Last byte.
    pub last: u64,
}

impl Span {
    /// As the value of `Range`.
    #[must_use]
    pub fn range(&self) -> HeaderValue {
        let text = format!("bytes={}-{}", self.first, self.last);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bytes=0-"))
    }

    /// Bytes in it.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// How bodies are cut, whatever their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    block: u64,
    /// Blocks of a segment.
    blocks: u64,
}

impl Grid {
    /// The grid of a policy; `None` where it does not cut bodies, or where not even the smallest
    /// block could be stored: `largest` is the most bytes of one stored piece.
    #[must_use]
    pub fn of(policy: &Policy, largest: u64) -> Option<Self> {
        let size = policy.segment.filter(|_| largest >= LEAST_SEGMENT)?;
        let size = size.clamp(LEAST_SEGMENT, LARGEST_SEGMENT);
        let block = (size / BLOCKS).max(LEAST_SEGMENT).min(largest);
        Some(Self { block, blocks: size / block })
    }

    fn segment(&self) -> u64 {
        self.block * self.blocks
    }

    /// The bytes that every body begins with: what is asked for when nothing else is known.
    #[must_use]
    pub fn start(&self) -> Span {
        Span { first: 0, last: self.segment() - 1 }
    }

    /// What a request for a body of unknown length asks of the origin: its first segment, or the
    /// blocks of it that the request touches.
    #[must_use]
    pub fn opening(&self, request: &Request) -> Span {
        let range = request.has_range().then(|| request.headers.get(header::RANGE)).flatten();
        match range.and_then(|field| first_range(field.as_bytes())) {
            None => self.start(),
            // The end is nowhere yet: a block tells where.
            Some(Asked::Suffix) => Span { first: 0, last: self.block - 1 },
            Some(Asked::From(first, last)) if first < FARTHEST => {
                let (from, to) = self.wanted(first, last.unwrap_or(u64::MAX));
                let end = (from / self.blocks + 1) * self.blocks - 1;
                Span { first: from * self.block, last: (to.min(end) + 1) * self.block - 1 }
            }
            Some(Asked::From(..)) => self.start(),
        }
    }

    /// First and last block to fetch for the bytes from `first` to `last`.
    fn wanted(&self, first: u64, last: u64) -> (u64, u64) {
        let (from, to) = (first / self.block, last / self.block);
        if last - first >= self.block - 1 {
            return (from, to);
        }
        let segment = |block: u64| block / self.blocks;
        (segment(from) * self.blocks, (segment(to) + 1).saturating_mul(self.blocks) - 1)
    }
}

/// The first range of a `Range` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    From(u64, Option<u64>),
    Suffix,
}

/// Where a request begins. What cannot be read will get the whole, so it begins at the first byte.
fn first_range(field: &[u8]) -> Option<Asked> {
    let text = std::str::from_utf8(field).ok()?;
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let spec = set.split(',').map(str::trim).find(|spec| !spec.is_empty())?;
    let (first, last) = spec.split_once('-')?;
    match (first, last) {
        ("", _) => Some(Asked::Suffix),
        (first, "") => Some(Asked::From(first.parse().ok()?, None)),
        (first, last) => {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some(Asked::From(first, Some(last)))
        }
    }
}

/// A body of known length on its grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    grid: Grid,
    total: u64,
}

/// The part of one block that a request is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The block, counted from 0.
    pub block: u64,
    /// First byte within the block.
    pub offset: u64,
    /// Bytes; at least one.
    pub length: u64,
}

impl Segments {
    /// A body of `total` bytes; `None` for the empty one.
    #[must_use]
    pub fn new(grid: Grid, total: u64) -> Option<Self> {
        (total > 0).then_some(Self { grid, total })
    }

    /// Length of the body in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The last block.
    #[must_use]
    pub fn last_block(&self) -> u64 {
        (self.total - 1) / self.grid.block
    }

    /// The block that a byte is in.
    #[must_use]
    pub fn block_of(&self, byte: u64) -> u64 {
        byte.min(self.total - 1) / self.grid.block
    }

    /// The segment that a block is in.
    #[must_use]
    pub fn segment_of(&self, block: u64) -> u64 {
        block / self.grid.blocks
    }

    /// First and last block of the segment that a block is in.
    #[must_use]
    pub fn neighbours(&self, block: u64) -> (u64, u64) {
        let first = self.segment_of(block) * self.grid.blocks;
        (first, (first + self.grid.blocks - 1).min(self.last_block()))
    }

    /// The bytes of the blocks from `first` to `last`.
    #[must_use]
    pub fn span(&self, first: u64, last: u64) -> Span {
        let end = last.min(self.last_block()).saturating_add(1).saturating_mul(self.grid.block);
        Span { first: first * self.grid.block, last: end.min(self.total) - 1 }
    }

    /// Length of one block in bytes.
    #[must_use]
    pub fn block_bytes(&self, block: u64) -> u64 {
        self.total.saturating_sub(block.saturating_mul(self.grid.block)).min(self.grid.block)
    }

    /// First and last block that are worth fetching for the `length` bytes from `start` on; at
    /// least one byte, none beyond the end.
    #[must_use]
    pub fn wanted(&self, start: u64, length: u64) -> (u64, u64) {
        let last = start.saturating_add(length.max(1) - 1).min(self.total - 1);
        let (from, to) = self.grid.wanted(start.min(last), last);
        (from, to.min(self.last_block()))
    }

    /// The slice with which the `length` bytes from `start` on begin; `None` where there are none.
    #[must_use]
    pub fn slice(&self, start: u64, length: u64) -> Option<Slice> {
        let left = self.total.checked_sub(start)?.min(length);
        let offset = start % self.grid.block;
        let length = left.min(self.grid.block - offset);
        (length > 0).then_some(Slice { block: start / self.grid.block, offset, length })
    }
}

/// What the first answer for a body makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Its length is known, and so are the bytes that this answer holds: those asked for.
    Segmented(Segments),
    /// It is a 206 that holds the whole.
    Whole,
    /// What was asked for lies beyond the end.
    Beyond,
    /// A 206 that can't be put together with others, or holds something else than was asked for.
    Unfit,
    /// No partial answer: to be judged as any.
    Ordinary,
}

/// Judges the answer to a request for `asked`, of a body that nothing is known of. `length` is that
/// of the answer's own body, as far as its framing tells.
#[must_use]
pub fn opening(
    grid: Grid,
    asked: Span,
    head: &ResponseHead,
    length: Option<u64>,
    now: SystemTime,
) -> Opening {
    match head.status {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::RANGE_NOT_SATISFIABLE => return Opening::Beyond,
        _ => return Opening::Ordinary,
    }
    let Some(range) = ContentRange::of(&head.headers) else { return Opening::Unfit };
    let Some(total) = range.total else { return Opening::Unfit };
    let fits = range.first == asked.first
        && range.last == asked.last.min(total - 1)
        && length.is_none_or(|length| length == range.size());
    match Segments::new(grid, total) {
        Some(_) if fits && range.size() == total => Opening::Whole,
        Some(segments) if fits && StrongValidator::of(&head.headers, now).is_some() => {
            Opening::Segmented(segments)
        }
        _ => Opening::Unfit,
    }
}

/// What a further answer means for a body that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// It is the bytes asked for, of the same body.
    Fits,
    /// The body is no longer what it was.
    Changed,
    /// This one request may not have them.
    Refused,
    /// The origin cannot say now.
    Failed,
}

/// Judges the answer to a request for `asked` under the precondition of `validator`.
///
/// 200 says that the precondition held or was not looked at, and is not asked to tell which; 404
/// and 410 say that there is no such body any more.
#[must_use]
pub fn continuation(
    segments: &Segments,
    asked: Span,
    validator: &StrongValidator,
    head: &ResponseHead,
    length: Option<u64>,
    now: SystemTime,
) -> Continuation {
    match head.status.as_u16() {
        206 => {}
        200 | 404 | 410 | 412 | 416 => return Continuation::Changed,
        304 | 408 | 429 | 500.. => return Continuation::Failed,
        _ => return Continuation::Refused,
    }
    let expected =
        ContentRange { first: asked.first, last: asked.last, total: Some(segments.total()) };
    let fits = ContentRange::of(&head.headers) == Some(expected)
        && length.is_none_or(|length| length == asked.size())
        && StrongValidator::of(&head.headers, now).is_some_and(|own| own.matches(validator));
    if fits { Continuation::Fits } else { Continuation::Changed }
}

/// The precondition under which a further part is asked for (RFC 9110 section 13.1).
#[must_use]
pub fn precondition(validator: &StrongValidator) -> (HeaderName, HeaderValue) {
    let name = match validator {
        StrongValidator::Tag(_) => header::IF_MATCH,
        StrongValidator::Modified(..) => header::IF_UNMODIFIED_SINCE,
    };
    (name, validator.condition().clone())
}

/// Fields that speak of the bytes in one message rather than of the body they are cut from.
const PART_FIELDS: [&str; 4] = ["content-range", "content-length", "content-md5", "content-digest"];

/// Makes the head of a 206 that of the 200 it was cut from.
pub fn make_whole(head: &mut ResponseHead) {
    head.status = StatusCode::OK;
    for name in PART_FIELDS {
        head.headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
