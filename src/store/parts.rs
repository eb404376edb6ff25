//! Incomplete responses: parts and excerpts of 206 answers (see `semantics::partial`).
//!
//! They lie under keys of their own, which no request has: whoever looks for a complete response
//! cannot come upon one, and a part never takes the place of a complete response.
//!
//! ```text
//! key                                  -> complete response
//! key + "part"                         -> Part: pieces under one validator, or a bare note
//! key + "part" + "excerpt" + lineage
//!     + Range field                    -> excerpt, a 206 as it came
//! ```
//!
//! Excerpts are found only through what lies under the part's key, by its lineage. So one look at
//! that key tells whether anything incomplete is stored for a URL, and with it they all are out of
//! reach. Each of them has its own selectors and is judged by the purges like any response.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;

use super::memory::allocated;
use super::stored::{Head, Stored, StoredBody, weight};
use super::{Lookup, Purges, Store};
use crate::message::Body;
use crate::semantics::{CacheKey, Combined, Extent, From206, Verdict};

/// A stored part, or the note that excerpts hang on.
#[derive(Clone, Debug)]
pub struct Part {
    stored: Arc<Stored>,
    extent: Arc<Extent>,
}

impl Part {
    /// Its head.
    #[must_use]
    pub fn head(&self) -> &Arc<Head> {
        self.stored.head()
    }

    /// Which bytes of the whole it has.
    #[must_use]
    pub fn extent(&self) -> &Extent {
        &self.extent
    }

    /// Bytes of the whole, to be sent, their memory accounted until then; `None` where it has not
    /// all of them.
    #[must_use]
    pub fn range(&self, start: u64, length: u64) -> Option<Body> {
        let offset = self.extent.offset(start, length)?;
        Some(self.stored.range(offset, length))
    }

    /// The body that it makes together with a new one.
    #[must_use]
    pub fn joined(&self, combined: &Combined, new: &StoredBody) -> StoredBody {
        let chunks = combined.cuts.iter().flat_map(|cut| match cut.from {
            From206::Stored => self.stored.body().cut(cut.offset, cut.length),
            From206::New => new.cut(cut.offset, cut.length),
        });
        StoredBody::of(&chunks.collect::<Vec<_>>())
    }
}

impl Store {
    /// Key under which the parts of what has this key are stored.
    #[must_use]
    pub fn part_key(&self, key: &CacheKey) -> CacheKey {
        key.beneath(self.secret, &[b"part"])
    }

    /// Key of the excerpt that answers this `Range` field, beneath that of a part of this lineage.
    #[must_use]
    pub fn excerpt_key(&self, part_key: &CacheKey, lineage: u64, range: &[u8]) -> CacheKey {
        part_key.beneath(self.secret, &[b"excerpt", &lineage.to_le_bytes(), range])
    }

    /// The part stored for a request, or the note that its excerpts hang on, judged as
    /// [`Store::lookup`] does.
    #[must_use]
    pub fn lookup_part(
        &self,
        key: &CacheKey,
        request: &HeaderMap,
        purges: &Purges,
        epoch: u64,
    ) -> Option<(Part, Verdict)> {
        if !self.has_parts.load(Ordering::Acquire) {
            return None;
        }
        match self.lookup(&self.part_key(key), request, purges, epoch) {
            Lookup::Found(stored, verdict) => {
                let extent = Arc::clone(stored.extent()?);
                Some((Part { stored, extent }, verdict))
            }
            Lookup::Miss | Lookup::VaryMiss => None,
        }
    }

    /// The excerpt that answers this `Range` field, found through what lies under the part's key.
    #[must_use]
    pub fn lookup_excerpt(
        &self,
        part: &Part,
        request: &HeaderMap,
        range: &[u8],
        purges: &Purges,
        epoch: u64,
    ) -> Option<(Arc<Stored>, Verdict)> {
        let key = self.excerpt_key(&part.head().key, part.head().lineage, range);
        match self.lookup(&key, request, purges, epoch) {
            Lookup::Found(stored, verdict) => Some((stored, verdict)),
            Lookup::Miss | Lookup::VaryMiss => None,
        }
    }

    /// Whether something incomplete is stored under a key, whichever variant and whatever its fate.
    pub(super) fn holds_part(&self, key: &CacheKey) -> bool {
        self.has_parts.load(Ordering::Acquire) && self.slot(self.part_key(key).hash).is_some()
    }

    /// Stores what is incomplete, under the key of its head, which is one of a part; as
    /// [`Store::insert`] does.
    pub fn insert_part(
        &self,
        head: Arc<Head>,
        body: StoredBody,
        extent: Extent,
        purges: &Purges,
    ) -> bool {
        self.has_parts.store(true, Ordering::Release);
        let beside = allocated(size_of::<Extent>() + 16) + allocated(extent.memory());
        let weight = weight(&head, &body) + beside;
        let accounted = self.account(body.len(), weight);
        let extent = Some(Arc::new(extent));
        self.insert(&Arc::new(Stored::new(head, body, extent, accounted)), purges)
    }

    /// Removes a part, if it is still the one under its key.
    pub fn remove_part(&self, part: &Part) {
        self.remove(&part.stored);
    }
}

#[cfg(test)]
mod tests;
