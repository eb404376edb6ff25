//! Tags.
use crate::semantics::NotStored;
use http::HeaderMap;

/// Fields that carry tags.
pub const TAG_FIELDS: [&str; 5] =
    ["surrogate-key", "cache-tag", "edge-cache-tag", "xkey", "cache-groups"];

/// Bounds on the tags of a response.
#[derive(Clone, Copy, Debug)]
pub struct TagLimits {
    /// Tags.
    pub tags: usize,
    /// Bytes of one tag.
    pub tag_bytes: usize,
    /// Bytes of all tags.
    pub tags_bytes: usize,
}
/// All tags of a response, lower-cased, sorted, each once.
pub fn tags(_headers: &HeaderMap, _limits: TagLimits) -> Result<Box<[Box<str>]>, NotStored> {
    todo!()
}
