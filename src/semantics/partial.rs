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
//!   field, as it came, and is never combined.
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

use http::header::{self, HeaderMap, HeaderValue};

use crate::semantics::conditional::is_strong;
use crate::semantics::freshness::single_date;

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
