//! What the properties of the room above are about.

use std::time::Duration;

use http::HeaderMap;

use super::frames::FrameWatch;
use super::head::limit_fields;
use crate::config::Limits;

/// What the accounts say of bytes that come in pieces of `size`: the rule first broken, and how many
/// glitches and resets there were.
pub(in crate::listener) fn frames_are_judged(
    limits: &Limits,
    bytes: &[u8],
    size: usize,
    now: impl Fn() -> Duration + Copy,
) -> (Option<&'static str>, u32, u32) {
    let mut watch = FrameWatch::new(limits);
    let judged = bytes.chunks(size).try_for_each(|piece| watch.received(piece, now));
    (judged.err().map(|breach| breach.rule), watch.kinds().iter().sum(), watch.resets())
}

/// The fields within the limits, crumbs joined; `None` where they are refused.
pub(in crate::listener) fn limited(mut headers: HeaderMap, limits: &Limits) -> Option<HeaderMap> {
    limit_fields(&mut headers, limits).ok().map(|()| headers)
}
