//! Counters that several workers add to at once without sharing a cache line.
//!
//! Every thread has a number and adds to the stripe of that number; a scrape sums the stripes. Two
//! threads with the same stripe still count right, they only wait for each other's cache line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Stripes of a counter; threads beyond it share.
pub(super) const STRIPES: usize = 16;

/// Numbers that threads have taken so far.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// Number of this thread, from 0 in order of first use.
pub(super) fn stripe() -> usize {
    STRIPE.with(|number| *number)
}

/// One count on cache lines of its own (two, since processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A count that only grows, cheap to add to from every worker. Clones count together.
#[derive(Clone, Debug)]
pub struct Counter(Arc<[Stripe; STRIPES]>);

impl Counter {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Counts one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Counts `many`.
    pub fn inc_by(&self, many: u64) {
        if let Some(stripe) = self.0.get(stripe() % STRIPES) {
            stripe.0.fetch_add(many, Ordering::Relaxed);
        }
    }

    /// The count over all stripes.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_together() {
        let counter = Counter::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..100).for_each(|_| counter.inc()));
            }
        });
        counter.inc_by(5);
        assert_eq!(counter.get(), 200 * STRIPES as u64 + 5);
    }
}
