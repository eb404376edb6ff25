//! What stored responses really take, counted until the last reader has let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::CLASSES;

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

/// Entries and bytes per size class.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    classes: [(AtomicU64, AtomicU64); CLASSES],
    inserted: AtomicU64,
    removed: AtomicU64,
    killed: AtomicU64,
}

impl Gauge {
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

/// One response on the gauge, for as long as it lives.
#[derive(Debug)]
pub(super) struct Accounted {
    gauge: Arc<Gauge>,
    class: usize,
    bytes: u64,
}

impl Accounted {
    pub(super) fn new(gauge: &Arc<Gauge>, class: usize, bytes: u64) -> Self {
        if let Some((entries, total)) = gauge.classes.get(class) {
            entries.fetch_add(1, Ordering::Relaxed);
            total.fetch_add(bytes, Ordering::Relaxed);
        }
        Self { gauge: Arc::clone(gauge), class, bytes }
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        if let Some((entries, total)) = self.gauge.classes.get(self.class) {
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
