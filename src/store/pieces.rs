//! Pieces: segments and re-coded copies that belong to one stored response.
//!
//! A piece is an entry of its own, so that it comes, weighs and is evicted by itself. It has no
//! terms and no selectors: nobody finds it but through a head that was just judged, by the
//! **lineage** of that head, a number that no other representation ever bears.
//!
//! ```text
//! key -> Response(head, lineage 7)        hash(7, segment, 0) -> Piece
//!                                         hash(7, segment, 5) -> Piece
//!                                         hash(7, coding, 1)  -> Piece
//! ```
//!
//! So a purge that kills the head makes its pieces unreachable at once, without an index and
//! without touching them; a new response under the same key draws a new lineage and sees none of
//! the old pieces. A head that a 304 confirmed has the lineage of the one it confirmed: the bytes
//! are still the same. The sweep gives the memory of pieces back whose head is gone; until then
//! they age like any entry that nobody asks for.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::memory::{Accounted, allocated};
use super::stored::{ENTRY_BYTES, Head, Slot, StoredBody};
use super::{CLASSES, Purges, Store, class_of};

/// Which piece of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PieceName {
    /// Its body in another content coding; the number is the maker's.
    Coding(u8),
    /// A segment of its body, counted from 0.
    Segment(u64),
}

impl PieceName {
    fn parts(self) -> (u8, u64) {
        match self {
            Self::Coding(number) => (0, u64::from(number)),
            Self::Segment(number) => (1, number),
        }
    }

    /// Size class. Segments are used in rows and seldom twice by one client: what counts how often
    /// each is asked for would turn them away as soon as its class is full.
    fn class(self, body_bytes: u64) -> usize {
        match self {
            Self::Coding(_) => class_of(body_bytes),
            Self::Segment(_) => CLASSES - 1,
        }
    }
}

/// A piece at rest in the store.
#[derive(Debug)]
pub(super) struct Piece {
    lineage: u64,
    name: PieceName,
    /// Which of all pieces of this store it is, in the order they came.
    number: u64,
    body: StoredBody,
    accounted: Accounted,
}

impl Piece {
    pub(super) fn weight(&self) -> u64 {
        self.accounted.bytes()
    }

    /// Whether it is in the store, unless it was evicted.
    pub(super) fn is_shelved(&self) -> bool {
        self.accounted.is_shelved()
    }

    /// Notes that it was taken out of the store.
    pub(super) fn unshelve(&self) {
        self.accounted.unshelve();
    }

    /// Lineage of the response that it is a piece of.
    pub(super) fn lineage(&self) -> u64 {
        self.lineage
    }
}

/// A number that no other representation bears.
pub(super) fn draw_lineage() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Store {
    /// A piece of the response that `head` is the head of. The caller has judged the head.
    #[must_use]
    pub fn piece(&self, head: &Head, name: PieceName) -> Option<StoredBody> {
        match self.slot(self.piece_hash(head.lineage, name)) {
            Some(Slot::Piece(piece)) if piece.lineage == head.lineage && piece.name == name => {
                Some(piece.body.clone())
            }
            _ => None,
        }
    }

    /// Stores a piece, unless a purge has killed its head or another representation has taken the
    /// head's place. Says whether it is stored.
    pub fn put_piece(
        &self,
        head: &Arc<Head>,
        name: PieceName,
        body: StoredBody,
        purges: &Purges,
    ) -> bool {
        if body.len() > self.largest_body() || !self.takes_pieces(head, purges) {
            return false;
        }
        let class = name.class(body.len());
        let weight = allocated(size_of::<Piece>() + 16) + body.allocated() + ENTRY_BYTES;
        let piece = Arc::new(Piece {
            lineage: head.lineage,
            name,
            number: self.pieces.fetch_add(1, Ordering::AcqRel),
            body,
            accounted: Accounted::piece(&self.gauge, class, weight),
        });
        piece.accounted.shelve_piece(&piece);
        let hash = self.piece_hash(head.lineage, name);
        let Some(class) = self.classes.get(class) else { return false };
        let entry = class.entry(hash).and_upsert_with(|there| {
            there.inspect(|there| there.value().unshelve());
            Slot::Piece(piece)
        });
        if !entry.is_old_value_replaced() {
            self.gauge.inserted();
        }
        true
    }

    /// Key under which a fill of a piece is shared.
    #[must_use]
    pub fn piece_key(&self, head: &Head, name: PieceName) -> u128 {
        self.piece_hash(head.lineage, name)
    }

    /// Removes the response that `head`, or one of its lineage, is the head of: what it says of its
    /// bytes is no longer true. Its pieces are out of reach from here on.
    pub fn forget(&self, head: &Head) {
        if let Some(Slot::Response(stored)) = self.slot(self.place(head))
            && stored.head().lineage == head.lineage
        {
            self.remove(&stored);
        }
    }

    /// Notes that a response goes, and its pieces are to be swept.
    pub(super) fn leave_pieces(&self, head: &Head) {
        if head.may_have_pieces() {
            self.orphans.store(true, Ordering::Release);
        }
    }

    /// Notes that a head has taken the pieces of another over, which the walk may have met neither
    /// in its new place nor in its old one.
    pub(super) fn hand_on_pieces(&self, head: &Head) {
        if head.may_have_pieces()
            && let Some(lineages) = &mut *self.handed_on()
        {
            lineages.insert(head.lineage);
        }
    }

    /// Lineages that were handed on while a walk is under way.
    fn handed_on(&self) -> MutexGuard<'_, Option<HashSet<u64>>> {
        self.handed_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether pieces may have lost their head since this was last asked: time for a sweep.
    #[must_use]
    pub fn has_orphans(&self) -> bool {
        self.orphans.swap(false, Ordering::AcqRel)
    }

    /// Whether `head`, or one of its lineage, is what is stored and alive.
    fn takes_pieces(&self, head: &Arc<Head>, purges: &Purges) -> bool {
        let epoch = purges.epoch();
        let Some(Slot::Response(stored)) = self.slot(self.place(head)) else { return false };
        let there = stored.head();
        if there.lineage != head.lineage
            || purges.verdict(head, epoch).is_none()
            || purges.verdict(there, epoch).is_none()
        {
            return false;
        }
        there.note_pieces();
        true
    }

    fn piece_hash(&self, lineage: u64, name: PieceName) -> u128 {
        let (kind, number) = name.parts();
        // Three parts, the first as long as no cache key and no hash of one is.
        self.secret.hash(&[&[kind], &lineage.to_le_bytes(), &number.to_le_bytes()])
    }
}

/// What a walk of the sweep saw of pieces and of heads that may have some.
#[derive(Debug)]
pub(super) struct Orphans {
    /// Pieces from this number on came after the walk began: it may not have met their heads.
    before: u64,
    /// Lineages of living heads that may have pieces.
    heads: HashSet<u64>,
    /// Lineages of pieces.
    pieces: HashSet<u64>,
}

impl Orphans {
    /// To be made before the walk.
    pub(super) fn new(store: &Store) -> Self {
        *store.handed_on() = Some(HashSet::new());
        let before = store.pieces.load(Ordering::Acquire);
        Self { before, heads: HashSet::new(), pieces: HashSet::new() }
    }

    /// Notes a living head.
    pub(super) fn met_head(&mut self, head: &Head) {
        if head.may_have_pieces() {
            self.heads.insert(head.lineage);
        }
    }

    /// Notes a piece.
    pub(super) fn met_piece(&mut self, piece: &Piece) {
        if piece.number < self.before {
            self.pieces.insert(piece.lineage);
        }
    }

    /// Removes the pieces whose heads are gone; gives the bytes they took.
    pub(super) fn remove(mut self, store: &Store) -> u64 {
        let handed_on = store.handed_on().take().unwrap_or_default();
        self.pieces.retain(|lineage| !self.heads.contains(lineage) && !handed_on.contains(lineage));
        if self.pieces.is_empty() {
            return 0;
        }
        let mut freed = 0;
        for piece in store.gauge.pieces() {
            let gone = piece.number < self.before && self.pieces.contains(&piece.lineage);
            if gone && piece.is_shelved() {
                freed += piece.weight();
                let hash = store.piece_hash(piece.lineage, piece.name);
                if let Some(class) = store.classes.get(piece.accounted.class()) {
                    store.drop_from(class, hash);
                }
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests;
