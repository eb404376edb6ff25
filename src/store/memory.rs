//! What stored responses really take, counted until the last reader has let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::CLASSES;
use super::pieces::Piece;
use super::roll::{Place, Roll};
use super::stored::Stored;

/// Bytes that the allocator hands out for a request of `bytes`: four size classes per doubling,
/// as jemalloc cuts them, so that a weight is what memory really loses.
#[must_use]
pub(super) fn allocated(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    if bytes == 0 {
        return 0;
    }
    if bytes <= 128 {
        return bytes.next_multiple_of(16);
    }
    let step = (bytes - 1).ilog2().saturating_sub(2);
    bytes.next_multiple_of(1 << step)
}

/// Entries and bytes per size class, and the rolls of what they are.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    classes: [(AtomicU64, AtomicU64); CLASSES],
    inserted: AtomicU64,
    removed: AtomicU64,
    killed: AtomicU64,
    responses: Roll<Stored>,
    pieces: Roll<Piece>,
}

impl Gauge {
    /// All stored responses, those that were evicted and are still in use among them.
    pub(super) fn responses(&self) -> impl Iterator<Item = Arc<Stored>> + '_ {
        self.responses.walk()
    }

    /// All pieces, in the same way.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Arc<Piece>> + '_ {
        self.pieces.walk()
    }

    pub(super) fn class(&self, index: usize) -> (u64, u64) {
        self.classes.get(index).map_or((0, 0), |(entries, bytes)| {
            (entries.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
        })
    }

    pub(super) fn inserted(&self) {
        self.inserted.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes entries that left because they were replaced, purged or reset.
    pub(super) fn removed(&self, count: u64) {
        self.removed.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes a lookup that met an entry which a purge had killed.
    pub(super) fn met_killed(&self) {
        self.killed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn killed(&self) -> u64 {
        self.killed.load(Ordering::Relaxed)
    }

    /// Entries that came, are not there and were not removed on purpose.
    pub(super) fn evictions(&self, present: u64) -> u64 {
        self.inserted
            .load(Ordering::Relaxed)
            .saturating_sub(present)
            .saturating_sub(self.removed.load(Ordering::Relaxed))
    }
}

/// One response or piece on the gauge, for as long as it lives.
#[derive(Debug)]
pub(super) struct Accounted {
    gauge: Arc<Gauge>,
    bytes: u64,
    /// On its roll.
    place: AtomicU32,
    class: u8,
    is_piece: bool,
    shelved: AtomicBool,
}

impl Accounted {
    pub(super) fn new(gauge: &Arc<Gauge>, class: usize, bytes: u64) -> Self {
        if let Some((entries, total)) = gauge.classes.get(class) {
            entries.fetch_add(1, Ordering::Relaxed);
            total.fetch_add(bytes, Ordering::Relaxed);
        }
        Self {
            gauge: Arc::clone(gauge),
            bytes,
            place: AtomicU32::new(Place::NONE.0),
            class: u8::try_from(class).unwrap_or(u8::MAX),
            is_piece: false,
            shelved: AtomicBool::new(false),
        }
    }

    /// The same of a piece.
    pub(super) fn piece(gauge: &Arc<Gauge>, class: usize, bytes: u64) -> Self {
        let mut accounted = Self::new(gauge, class, bytes);
        accounted.is_piece = true;
        accounted
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its size class.
    pub(super) fn class(&self) -> usize {
        usize::from(self.class)
    }

    /// Notes that `stored`, whose account this is, is about to be put into the store.
    pub(super) fn shelve(&self, stored: &Arc<Stored>) {
        self.enter(|gauge| gauge.responses.enter(stored));
    }

    /// The same of a piece.
    pub(super) fn shelve_piece(&self, piece: &Arc<Piece>) {
        self.enter(|gauge| gauge.pieces.enter(piece));
    }

    fn enter(&self, enter: impl FnOnce(&Gauge) -> Place) {
        self.shelved.store(true, Ordering::Release);
        if self.place.load(Ordering::Acquire) == Place::NONE.0 {
            self.place.store(enter(&self.gauge).0, Ordering::Release);
        }
    }

    /// Notes that it was taken out of the store, or not let in.
    pub(super) fn unshelve(&self) {
        self.shelved.store(false, Ordering::Release);
    }

    /// Whether it is in the store, unless it was evicted.
    pub(super) fn is_shelved(&self) -> bool {
        self.shelved.load(Ordering::Acquire)
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        let place = Place(*self.place.get_mut());
        match self.is_piece {
            false => self.gauge.responses.leave(place),
            true => self.gauge.pieces.leave(place),
        }
        if let Some((entries, total)) = self.gauge.classes.get(self.class()) {
            entries.fetch_sub(1, Ordering::Relaxed);
            total.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_as_the_allocator_does() {
        let rows = [
            (0, 0),
            (1, 16),
            (16, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (160, 160),
            (1024, 1024),
            (1025, 1280),
            (65_536, 65_536),
            (65_537, 81_920),
        ];
        for (asked, given) in rows {
            assert_eq!(allocated(asked), given, "{asked}");
        }
    }
}
