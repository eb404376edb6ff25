//! Cache keys.
use crate::semantics::{Policy, Request};

/// Secret of the keyed hash, random at start.
#[derive(Clone, Copy, Debug)]
pub struct KeySecret(pub [u64; 2]);

/// What identifies a stored response before `Vary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey {
    /// Keyed hash of the parts.
    pub hash: u128,
    /// Length-prefixed parts: site, scheme, host, port, path, query, extra.
    pub parts: Box<[u8]>,
}

impl CacheKey {
    /// The key of a request.
    #[must_use]
    pub fn of(_secret: KeySecret, _site: &str, _request: &Request, _policy: &Policy) -> Self {
        todo!()
    }
    /// Hash of one variant of this key.
    #[must_use]
    pub fn variant(&self, _secret: KeySecret, _secondary: &[u8]) -> u128 {
        todo!()
    }
}
