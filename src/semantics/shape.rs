//! Shape.
use crate::clock::Now;
use crate::semantics::{Policy, Request, Terms};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// An answer, but for its body's bytes.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub headers: HeaderMap,
    /// Which part of the stored body to send.
    pub part: Part,
    /// Length to announce where no body is sent.
    pub head_length: Option<u64>,
}
/// Which part of the stored body to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// None.
    None,
    /// All.
    Whole,
    /// One range.
    Range {
        /// First byte.
        start: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Several, as `multipart/byteranges`.
    Multipart {
        /// Head of each part, its first byte, its length.
        pieces: Vec<(Bytes, u64, u64)>,
        /// What follows the last part.
        tail: Bytes,
        /// Length of the whole body.
        length: u64,
    },
}
/// Shapes a stored or complete response for one request. `length` is `None` while the body arrives.
#[must_use]
#[expect(clippy::too_many_arguments, reason = "each is one independent input")]
pub fn shape(
    _request: &Request,
    _status: StatusCode,
    _stored: &HeaderMap,
    _length: Option<u64>,
    _terms: Option<&Terms>,
    _policy: &Policy,
    _now: Now,
) -> Shape {
    todo!()
}
/// Fields of a response worth storing.
#[must_use]
pub fn stored_fields(_headers: &HeaderMap, _policy: &Policy) -> HeaderMap {
    todo!()
}
