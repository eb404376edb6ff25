//! The variants of one cache key under `Vary` (RFC 9111 section 4.1): which fields select among
//! them, and which hashes they are stored under.

use std::sync::Arc;

use http::HeaderMap;

use super::purges::Dead;
use super::stored::Slot;
use super::{Lookup, Purges, Store, Stored};
use crate::semantics::{CacheKey, VaryFields, Verdict};

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

    /// Whether a variant is stored under this hash. What is there and not named here is left of an
    /// earlier record that was evicted; nobody could tell since then what changed about it.
    pub(super) fn names(&self, hash: u128) -> bool {
        self.stored.iter().any(|named| named.hash == hash)
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

impl Store {
    /// The newest of the variants that the request selects (RFC 9111 section 4.1); failing that, one
    /// in the language that it prefers to all others.
    pub(super) fn select(
        &self,
        variants: &Variants,
        key: &CacheKey,
        request: &HeaderMap,
        purges: &Purges,
        epoch: u64,
        dead: fn(&Self, &Arc<Stored>, &Purges, Dead),
    ) -> Option<Lookup> {
        let exact = variants.sets().filter_map(|fields| {
            let secondary = fields.secondary(request);
            let hash = key.variant(self.secret, &secondary);
            if !variants.names(hash) {
                return None;
            }
            let (stored, verdict) = self.alive(hash, key, purges, epoch, dead)?;
            stored.head().is_variant(fields, &secondary).then_some((stored, verdict))
        });
        let in_language = || {
            newest(variants.sets().filter_map(|fields| {
                let favourite = fields.secondary_of_favourite(request)?;
                let hash = variants.in_language(key.variant(self.secret, &favourite))?;
                let (stored, verdict) = self.alive(hash, key, purges, epoch, dead)?;
                let named = stored.head().vary.as_ref() == Some(fields)
                    && stored.head().secondary_in_language() == Some(favourite);
                named.then_some((stored, verdict))
            }))
        };
        let (stored, verdict) = newest(exact).or_else(in_language)?;
        Some(Lookup::Found(stored, verdict))
    }

    /// The response of a key under one hash of its variants, unless a purge has killed it.
    fn alive(
        &self,
        hash: u128,
        key: &CacheKey,
        purges: &Purges,
        epoch: u64,
        dead: fn(&Self, &Arc<Stored>, &Purges, Dead),
    ) -> Option<(Arc<Stored>, Verdict)> {
        let Some(Slot::Response(stored)) = self.slot(hash) else { return None };
        match self.judge(stored, key, purges, epoch, dead) {
            Lookup::Found(stored, verdict) => Some((stored, verdict)),
            Lookup::Miss | Lookup::VaryMiss => None,
        }
    }
}

/// The one that arrived last; of several that arrived at once, the first named.
fn newest(found: impl Iterator<Item = (Arc<Stored>, Verdict)>) -> Option<(Arc<Stored>, Verdict)> {
    let arrived = |found: &(Arc<Stored>, Verdict)| found.0.head().terms.received.boot;
    found.reduce(|best, other| if arrived(&other) > arrived(&best) { other } else { best })
}
