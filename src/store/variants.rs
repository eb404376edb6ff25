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
    stored: Vec<Named>,
}

/// Under which hashes a variant is found.
#[derive(Clone, Copy, Debug)]
struct Named {
    /// The one that it is stored under.
    hash: u128,
    /// The one of its language, where it came in exactly one: whoever prefers that language to all
    /// others may have it, whatever else is in their list.
    language: Option<u128>,
}

impl Variants {
    /// Lists of field names, newest first.
    pub(super) fn sets(&self) -> impl Iterator<Item = &Arc<VaryFields>> {
        self.sets.iter()
    }

    /// Hashes of the variants, oldest first.
    pub(super) fn hashes(&self) -> impl DoubleEndedIterator<Item = u128> + '_ {
        self.stored.iter().map(|named| named.hash)
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
    pub(super) fn add(
        &mut self,
        fields: &Arc<VaryFields>,
        hash: u128,
        language: Option<u128>,
        most: usize,
    ) -> Vec<u128> {
        self.learn(fields);
        self.stored.retain(|other| other.hash != hash);
        self.stored.push(Named { hash, language });
        let beyond = self.stored.len().saturating_sub(most);
        self.stored.drain(..beyond).map(|named| named.hash).collect()
    }

    /// Hash under which the newest variant with this second name is stored.
    pub(super) fn in_language(&self, language: u128) -> Option<u128> {
        let newest = self.stored.iter().rev().find(|named| named.language == Some(language))?;
        Some(newest.hash)
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> u64 {
        (self.sets.len() * 64 + self.stored.len() * size_of::<Named>() + size_of::<Self>()) as u64
    }
}
