//! Looking without touching: what is stored under a key and what a look-up would find, for
//! explanations. Nothing is removed and nothing is counted as a hit; only the eviction's own
//! statistics notice that an entry was read.

use std::sync::Arc;

use http::HeaderMap;

use super::stored::{Head, Slot};
use super::{Lookup, PieceName, Purges, Store, Stored};
use crate::semantics::{CacheKey, VaryFields, Verdict};

/// What lies under one key.
#[derive(Clone, Debug)]
pub struct Peek {
    /// What [`Store::lookup`] would find.
    pub lookup: Lookup,
    /// Every response, the newest first, the dead included.
    pub kept: Vec<Kept>,
    /// Lists of field names by which variants are looked for, the newest first.
    pub vary: Vec<Arc<VaryFields>>,
}

/// One response under the key.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The response.
    pub stored: Arc<Stored>,
    /// What the purges say of it; `None`: dead.
    pub verdict: Option<Verdict>,
    /// The request selects it (RFC 9111 section 4.1).
    pub selected: bool,
}

/// Pieces of one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PieceSum {
    /// How many are stored.
    pub count: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl Store {
    /// Sum of the pieces of a response that are stored under these names.
    #[must_use]
    pub fn piece_sum(&self, head: &Head, names: impl Iterator<Item = PieceName>) -> PieceSum {
        if !head.may_have_pieces() {
            return PieceSum::default();
        }
        names.filter_map(|name| self.piece(head, name)).fold(PieceSum::default(), |sum, body| {
            PieceSum { count: sum.count + 1, bytes: sum.bytes + body.len() }
        })
    }

    /// What is stored of incomplete responses under the key of a request, whichever variant and
    /// whatever its fate. Excerpts are not among it: only their own `Range` finds them.
    #[must_use]
    pub fn peek_parts(
        &self,
        key: &CacheKey,
        request: &HeaderMap,
        purges: &Purges,
        epoch: u64,
    ) -> Vec<Kept> {
        if !self.holds_part(key) {
            return Vec::new();
        }
        self.peek(&self.part_key(key), request, purges, epoch).kept
    }

    /// What is stored under a key, judged by the purges up to `epoch`, and what a look-up for this
    /// request would find: by the same way as [`Store::lookup`], but what is dead stays.
    #[must_use]
    pub fn peek(&self, key: &CacheKey, request: &HeaderMap, purges: &Purges, epoch: u64) -> Peek {
        let (stored, vary) = match self.slot(key.hash) {
            None | Some(Slot::Piece(_)) => (Vec::new(), Vec::new()),
            Some(Slot::Response(stored)) => (vec![stored], Vec::new()),
            Some(Slot::Variants(variants)) => {
                let slots = variants.hashes().rev().filter_map(|hash| self.slot(hash));
                let stored = slots.filter_map(|slot| match slot {
                    Slot::Response(stored) => Some(stored),
                    Slot::Variants(_) | Slot::Piece(_) => None,
                });
                (stored.collect(), variants.sets().cloned().collect())
            }
        };
        let kept = stored
            .into_iter()
            .filter(|stored: &Arc<Stored>| stored.head().key.parts == key.parts)
            .map(|stored| Kept {
                verdict: purges.judge(&stored, epoch).ok(),
                selected: stored.head().is_selected_by(request),
                stored,
            })
            .collect();
        let lookup = self.look(key, request, purges, epoch, |_, _, _, _| {});
        Peek { lookup, kept, vary }
    }
}
