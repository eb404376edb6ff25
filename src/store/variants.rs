//! The variants of one cache key under `Vary` (RFC 9111 section 4.1): which fields select among
//! them, and which hashes they are stored under.

use std::sync::Arc;

use crate::semantics::VaryFields;

/// Different lists of field names that are tried for one key: origins do change their `Vary`.
const SETS: usize = 4;

/// The record that lies under the primary key.
#[derive(Clone, Debug, Default)]
pub(super) struct Variants {
    /// Newest first.
    sets: Vec<Arc<VaryFields>>,
    /// Oldest first.
    hashes: Vec<u128>,
}

impl Variants {
    /// Lists of field names, newest first.
    pub(super) fn sets(&self) -> impl Iterator<Item = &Arc<VaryFields>> {
        self.sets.iter()
    }

    /// Hashes of the variants, oldest first.
    pub(super) fn hashes(&self) -> &[u128] {
        &self.hashes
    }

    /// Field names of the newest response.
    pub(super) fn newest(&self) -> Option<&Arc<VaryFields>> {
        self.sets.first()
    }

    /// Notes a list of field names as the newest.
    pub(super) fn learn(&mut self, fields: &Arc<VaryFields>) {
        self.sets.retain(|other| other != fields);
        self.sets.insert(0, Arc::clone(fields));
        self.sets.truncate(SETS);
    }

    /// Notes a variant as the newest. Gives the hashes that are beyond `most` and must go.
    pub(super) fn add(&mut self, fields: &Arc<VaryFields>, hash: u128, most: usize) -> Vec<u128> {
        self.learn(fields);
        self.hashes.retain(|other| *other != hash);
        self.hashes.push(hash);
        let beyond = self.hashes.len().saturating_sub(most);
        self.hashes.drain(..beyond).collect()
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> u64 {
        (self.sets.len() * 64 + self.hashes.len() * size_of::<u128>() + size_of::<Self>()) as u64
    }
}
