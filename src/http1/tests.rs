//! Rows for every rule, each under several cuts, and the properties of [`super::check`].

mod bodies;
mod encoding;
mod limits;
mod properties;
mod requests;
mod responses;

use super::{ChunkLimits, HeadLimits};

const LIMITS: HeadLimits = HeadLimits {
    head_bytes: 32 * 1024,
    field_bytes: 8 * 1024,
    cookie_bytes: 16 * 1024,
    fields: 100,
    target_bytes: 8 * 1024,
};

const CHUNK_LIMITS: ChunkLimits =
    ChunkLimits { extension_bytes: 4096, trailer_bytes: 8192, trailer_fields: 32 };

/// Sizes of the pieces in which a message is fed.
fn cuts(bytes: &[u8]) -> Vec<usize> {
    if bytes.len() > 4096 { vec![bytes.len(), 1000, 1] } else { vec![bytes.len().max(1), 1, 2, 5] }
}
