//! Incomplete responses: what a 206 says it is, what may be made of it, and what it may answer
//! (RFC 9110 sections 14.4 and 15.3.7, RFC 9111 sections 3.3 and 3.4).
//!
//! Two kinds of 206 are kept:
//!
//! - A **part**: it says which bytes it holds, holds just those, and has a strong validator. It
//!   answers every range within it, is combined with other parts under the same validator, and is
//!   completed by asking for what is missing.
//! - An **excerpt**: anything else in one piece. Nothing says that two of these come from the same
//!   bytes, nor that its `Content-Range` is true. It answers requests with the very same `Range`
//!   field, as it came, and is never combined. One whose body is as long as it says also answers
//!   ranges within it, until the next one comes.
//!
//! ```text
//!            0         10        20        30        40
//! kept       [---------)         [---------)                total 40
//! arrives         [---------)
//! combined   [---------------)   [---------)                one gap in 15..20, one in 30..40
//! ```
//!
//! What is unknown is not guessed: without a total there is no suffix, no open end and no 416, and
//! nothing is ever complete.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use crate::clock::Now;
use crate::semantics::conditional::{is_not_modified, is_strong, range_condition_holds};
use crate::semantics::freshness::{Terms, single_date};
use crate::semantics::normalise::Request;
use crate::semantics::policy::Policy;
use crate::semantics::range::{Ranges, ranges};
use crate::semantics::shape::{
    Shape, answered_fields, not_modified, partial, single_range, unsatisfiable,
};

/// Separate pieces that one part may consist of. Beyond that the smallest goes: whoever jumps
/// about in a video leaves a few long pieces and many short ones behind.
pub const MOST_PIECES: usize = 16;

/// `Content-Range` of one satisfied range (RFC 9110 section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte.
    pub first: u64,
    /// Last byte.
    pub last: u64,
    /// Length of the whole; `None` where the sender did not know it (`*`).
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads a field value. `None` for what breaks the grammar, for units other than bytes, for
    /// `bytes */N`, for ranges that end before they begin or beyond the whole, and for numbers
    /// beyond 64 bits.
    #[must_use]
    pub fn parse(field: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\t']);
        let (unit, rest) = text.split_once(' ')?;
        let (range, total) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = match total {
            "*" => None,
            digits => Some(number(digits)?),
        };
        let (first, last) = (number(first)?, number(last)?);
        let fits = first <= last && total.is_none_or(|total| last < total) && last < u64::MAX;
        (unit.eq_ignore_ascii_case("bytes") && fits).then_some(Self { first, last, total })
    }

    /// That of a response; `None` where it has none, several, or one that cannot be read.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::CONTENT_RANGE).iter();
        let line = lines.next()?;
        if lines.next().is_some() {
            return None;
        }
        Self::parse(line.as_bytes())
    }

    /// Bytes in the range: at least one.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// Digits only: no sign, no space.
fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// A validator that differs whenever a byte of the body differs (RFC 9110 section 8.8.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrongValidator {
    /// An entity tag that is not weak.
    Tag(HeaderValue),
    /// `Last-Modified`, as it was written, and what it means.
    Modified(HeaderValue, SystemTime),
}

impl StrongValidator {
    /// The strong validator of a response as its origin sent it: an entity tag that is not weak;
    /// without any entity tag, a `Last-Modified` at least one second before its `Date` (section
    /// 8.8.2.2). A `Date` that the origin did not write proves nothing, and beside a weak tag a date
    /// that does not change says less than the tag.
    #[must_use]
    pub fn of(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        let mut tags = headers.get_all(header::ETAG).iter();
        if let Some(tag) = tags.next() {
            let strong = tags.next().is_none() && is_strong(tag.as_bytes());
            return strong.then(|| Self::Tag(tag.clone()));
        }
        let modified = single_date(headers, &header::LAST_MODIFIED, now)?;
        let made = single_date(headers, &header::DATE, now)?;
        let strong = modified.checked_add(Duration::from_secs(1)).is_some_and(|next| next <= made);
        let written = headers.get(header::LAST_MODIFIED)?;
        strong.then(|| Self::Modified(written.clone(), modified))
    }

    /// Whether both name the same bytes (section 8.8.3.2, strong comparison).
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tag(one), Self::Tag(other)) => one == other,
            (Self::Modified(_, one), Self::Modified(_, other)) => one == other,
            (Self::Tag(_), Self::Modified(..)) | (Self::Modified(..), Self::Tag(_)) => false,
        }
    }

    /// As the value of `If-Range` (section 13.1.5).
    #[must_use]
    pub fn condition(&self) -> &HeaderValue {
        match self {
            Self::Tag(tag) => tag,
            Self::Modified(written, _) => written,
        }
    }
}

/// Bytes in a row of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u64,
    length: u64,
}

impl Span {
    fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }

    fn holds(self, start: u64, length: u64) -> bool {
        self.start <= start && start.saturating_add(length) <= self.end()
    }
}

/// Which bytes of a whole an incomplete response holds, and what may be made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In order, none touching another; at most [`MOST_PIECES`].
    spans: Vec<Span>,
    total: Option<u64>,
    /// Only what has one is a part.
    validator: Option<StrongValidator>,
}

/// What is missing of a whole, where that is one row of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First byte that is missing.
    pub first: u64,
    /// Last byte that is missing.
    pub last: u64,
    /// Length of the whole.
    pub total: u64,
}

impl Gap {
    /// The `Range` field that asks for it. A missing end is asked for openly, so that an origin that
    /// knows better where the end is may say so.
    #[must_use]
    pub fn range(&self) -> String {
        let Self { first, last, total } = self;
        match last.saturating_add(1) == *total {
            true => format!("bytes={first}-"),
            false => format!("bytes={first}-{last}"),
        }
    }

    /// Whether a 206 says that it is this gap, and all of it.
    #[must_use]
    pub fn is_filled_by(&self, range: &ContentRange) -> bool {
        let expected = ContentRange { first: self.first, last: self.last, total: Some(self.total) };
        *range == expected
    }
}

/// One of the two bodies that are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From206 {
    /// What is stored.
    Stored,
    /// What has just come.
    New,
}

/// A slice of one of two bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Whose.
    pub from: From206,
    /// First byte, counted within that body.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// How a stored part and a new one go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combined {
    /// What they are together.
    pub extent: Extent,
    /// Slices that in this order are its body.
    pub cuts: Vec<Cut>,
}

impl Extent {
    /// Of a 206 with a strong validator whose body is what `range` says.
    #[must_use]
    pub fn part(range: &ContentRange, validator: StrongValidator) -> Self {
        Self { validator: Some(validator), ..Self::excerpt(Some(range)) }
    }

    /// Of a 206 without one, or whose body contradicts its `Content-Range` (`None`).
    #[must_use]
    pub fn excerpt(range: Option<&ContentRange>) -> Self {
        let span = range.map(|range| Span { start: range.first, length: range.size() });
        let total = range.and_then(|range| range.total);
        Self { spans: span.into_iter().collect(), total, validator: None }
    }

    /// The `Range` field that names what an excerpt holds; `None` where that is not one row of bytes.
    #[must_use]
    pub fn range(&self) -> Option<String> {
        match self.spans.as_slice() {
            [only] => Some(format!("bytes={}-{}", only.start, only.end() - 1)),
            _ => None,
        }
    }

    /// The strong validator; only a part has one.
    #[must_use]
    pub fn validator(&self) -> Option<&StrongValidator> {
        self.validator.as_ref()
    }

    /// Length of the whole, where it is known.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The bytes that are there, as a person reads them: `0-99, 200-299`.
    #[must_use]
    pub fn ranges(&self) -> String {
        let range = |span: &Span| format!("{}-{}", span.start, span.end().saturating_sub(1));
        self.spans.iter().map(range).collect::<Vec<_>>().join(", ")
    }

    /// Bytes that are there.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.spans.iter().fold(0, |sum: u64, span| sum.saturating_add(span.length))
    }

    /// Memory that it takes beyond its own size.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.spans.capacity() * size_of::<Span>()
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.total == Some(self.bytes())
    }

    /// Where a row of bytes of the whole begins among the bytes that are there; `None` where one of
    /// them is missing.
    #[must_use]
    pub fn offset(&self, start: u64, length: u64) -> Option<u64> {
        let mut before = 0;
        for span in &self.spans {
            if span.holds(start, length) {
                return Some(before + (start - span.start));
            }
            before += span.length;
        }
        None
    }

    /// What is missing, where that is one row of bytes and the length of the whole is known.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        let total = self.total?;
        let (first, end) = match self.spans.as_slice() {
            [only] if only.start == 0 => (only.length, total),
            [only] if only.end() == total => (0, only.start),
            [head, tail] if head.start == 0 && tail.end() == total => (head.length, tail.start),
            _ => return None,
        };
        (first < end).then(|| Gap { first, last: end - 1, total })
    }

    /// Joins a new part of `range` under `validator` to this one, at most `most_bytes` in all; where
    /// both have a byte, the stored one stays. `None` where they do not belong together: other
    /// validators, or lengths that contradict each other.
    #[must_use]
    pub fn combined(
        &self,
        range: &ContentRange,
        validator: &StrongValidator,
        most_bytes: u64,
    ) -> Option<Combined> {
        if !self.validator.as_ref().is_some_and(|own| own.matches(validator)) {
            return None;
        }
        let total = match (self.total, range.total) {
            (Some(one), Some(other)) if one != other => return None,
            (one, other) => one.or(other),
        };
        let new = Span { start: range.first, length: range.size() };
        let end = self.spans.last().map_or(0, |last| last.end()).max(new.end());
        if total.is_some_and(|total| end > total) {
            return None;
        }
        let (spans, cuts) = row(&self.spans, new, most_bytes).into_iter().unzip();
        let cuts: Vec<Vec<Cut>> = cuts;
        let extent = Self { spans, total, validator: Some(validator.clone()) };
        Some(Combined { extent, cuts: cuts.into_iter().flatten().collect() })
    }
}

/// The spans of both, each with the slices that it is made of, within the bounds: of what must go,
/// the smallest goes first and the new one never.
fn row(stored: &[Span], new: Span, most_bytes: u64) -> Vec<(Span, Vec<Cut>)> {
    let mut out: Vec<(Span, Vec<Cut>)> = Vec::with_capacity(stored.len() + 1);
    let mut touching = Vec::new();
    let mut offset = 0;
    for span in stored {
        let cut = Cut { from: From206::Stored, offset, length: span.length };
        offset += span.length;
        if span.end() < new.start || new.end() < span.start {
            out.push((*span, vec![cut]));
        } else {
            touching.push((*span, cut));
        }
    }
    let joined = join(&touching, new);
    let bytes = |row: &[(Span, Vec<Cut>)]| row.iter().map(|(span, _)| span.length).sum::<u64>();
    while out.len() >= MOST_PIECES || bytes(&out) + joined.0.length > most_bytes {
        let smallest = out.iter().enumerate().min_by_key(|(_, (span, _))| span.length);
        let Some((index, _)) = smallest else { break };
        out.remove(index);
    }
    if joined.0.length > most_bytes {
        let cut = Cut { from: From206::New, offset: 0, length: new.length };
        return vec![(new, vec![cut])];
    }
    out.push(joined);
    out.sort_by_key(|(span, _)| span.start);
    out
}

/// One span of the new one and of those that touch it.
fn join(touching: &[(Span, Cut)], new: Span) -> (Span, Vec<Cut>) {
    let start = touching.first().map_or(new.start, |(first, _)| first.start.min(new.start));
    let mut cuts = Vec::with_capacity(touching.len() * 2 + 1);
    let mut at = start;
    let fresh = |from: u64, to: u64| Cut {
        from: From206::New,
        offset: from - new.start,
        length: to - from,
    };
    for (span, cut) in touching {
        if at < span.start {
            cuts.push(fresh(at, span.start));
        }
        cuts.push(*cut);
        at = span.end();
    }
    if at < new.end() {
        cuts.push(fresh(at, new.end()));
        at = new.end();
    }
    (Span { start, length: at - start }, cuts)
}

/// Shapes an answer from a stored part: the ranges asked for, 304, or 416. `None` where it takes
/// more than the part to answer: the whole, or a byte that is missing. Freshness is not judged
/// here.
#[must_use]
pub fn shape_part(
    request: &Request,
    stored: &HeaderMap,
    extent: &Extent,
    terms: &Terms,
    policy: &Policy,
    now: Now,
) -> Option<Shape> {
    extent.validator()?;
    shape_bytes(request, stored, extent, terms, policy, now)
}

/// Shapes an answer from within a stored excerpt: ranges of the bytes that it holds, or 304 (RFC 9111
/// section 3.3). `None` for all else: 416 would speak of the whole. `If-Range` demands a validator
/// that it has not. Freshness is not judged here.
#[must_use]
pub fn shape_excerpt(
    request: &Request,
    stored: &HeaderMap,
    range: &ContentRange,
    terms: &Terms,
    policy: &Policy,
    now: Now,
) -> Option<Shape> {
    if request.headers.contains_key(header::IF_RANGE) {
        return None;
    }
    let extent = Extent::excerpt(Some(range));
    let shape = shape_bytes(request, stored, &extent, terms, policy, now)?;
    (shape.status != StatusCode::RANGE_NOT_SATISFIABLE).then_some(shape)
}

fn shape_bytes(
    request: &Request,
    stored: &HeaderMap,
    extent: &Extent,
    terms: &Terms,
    policy: &Policy,
    now: Now,
) -> Option<Shape> {
    if request.method != http::Method::GET {
        return None;
    }
    let headers = || answered_fields(stored.clone(), Some(terms), policy, now);
    if is_not_modified(request, StatusCode::PARTIAL_CONTENT, stored, Some(terms), now.wall) {
        return Some(not_modified(headers()));
    }
    let field = single_range(request)?;
    if !range_condition_holds(request, stored, Some(terms), now.wall) {
        return None;
    }
    // Against a length that nothing reaches, open ends and suffixes name bytes that nobody has.
    match (ranges(field, extent.total.unwrap_or(u64::MAX)), extent.total) {
        (Ranges::Whole, _) | (Ranges::Unsatisfiable, None) => None,
        (Ranges::Unsatisfiable, Some(total)) => Some(unsatisfiable(headers(), total)),
        (Ranges::Some(wanted), total) => {
            if wanted.iter().any(|(start, length)| extent.offset(*start, *length).is_none()) {
                return None;
            }
            match (total, wanted.as_slice()) {
                (Some(total), wanted) => Some(partial(headers(), wanted, total)),
                (None, [(start, length)]) => {
                    let mut shape = partial(headers(), &wanted, u64::MAX);
                    let last = start + length - 1;
                    let field = HeaderValue::try_from(format!("bytes {start}-{last}/*")).ok()?;
                    shape.headers.insert(header::CONTENT_RANGE, field);
                    Some(shape)
                }
                // Each part of a multipart answer would have to leave the length open, too.
                (None, _) => None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
