//! How often a stored response was used of late.
//!
//! One word, touched on every hit: a number of the minute, the uses in it and those in the minute
//! before. So the rate over the last minute is known to about a minute's resolution without anything
//! that runs by itself, and a hit costs one load and one addition on memory that the hit has in its
//! hands anyway. A use that comes in the very moment when two threads begin a new minute may be lost;
//! nothing is decided by these numbers but what is refreshed first.
//!
//! ```text
//! | minute, 16 bits | uses in the one before, 24 bits | uses in this one, 24 bits |
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a minute is here, in seconds: a power of two.
const MINUTE: u64 = 64;
const BITS: u32 = 24;
const MASK: u64 = (1 << BITS) - 1;
/// Uses in a minute from which on none are counted: a quarter of a million a second. Below the most
/// that fits, for those who look at the same time.
const MOST: u64 = MASK - (1 << 16);

/// Uses of one stored response.
#[derive(Debug, Default)]
pub(super) struct Uses(AtomicU64);

impl Uses {
    /// Counts one; `now` is the moment on the boot clock.
    #[inline]
    pub(super) fn note(&self, now: Duration) {
        let word = self.0.load(Ordering::Relaxed);
        if word >> (2 * BITS) == minute(now) {
            if word & MASK < MOST {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        let (before, _) = of(word, now);
        let new = (minute(now) << (2 * BITS)) | (before << BITS) | 1;
        // Whoever was quicker has begun the minute, with a use of its own.
        let _ = self.0.compare_exchange(word, new, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Uses per second over the last minute.
    pub(super) fn per_second(&self, now: Duration) -> f64 {
        let (before, current) = of(self.0.load(Ordering::Relaxed), now);
        let left = MINUTE as f64 - (now.as_secs_f64() % MINUTE as f64);
        // Of the minute before, the part that is not yet a minute ago.
        (before as f64 * left / MINUTE as f64 + current as f64) / MINUTE as f64
    }

    /// Goes on where another left off, which it takes the place of.
    pub(super) fn take_over(&self, other: &Self) {
        let word = other.0.load(Ordering::Relaxed);
        let _ = self.0.compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn minute(now: Duration) -> u64 {
    (now.as_secs() / MINUTE) & 0xffff
}

/// Uses in the minute before `now`'s and in its own.
fn of(word: u64, now: Duration) -> (u64, u64) {
    let (before, current) = ((word >> BITS) & MASK, word & MASK);
    match minute(now).wrapping_sub(word >> (2 * BITS)) & 0xffff {
        0 => (before, current),
        1 => (current, 0),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_steady_rate_is_told_and_fades_when_uses_end() {
        let uses = Uses::default();
        assert_eq!(uses.per_second(at(0.0)), 0.0);
        for tenth in 0..3000 {
            uses.note(at(1000.0 + f64::from(tenth) / 10.0));
        }
        let rate = uses.per_second(at(1300.0));
        assert!((rate - 10.0).abs() < 0.5, "{rate}");
        assert!(uses.per_second(at(1340.0)) < rate);
        assert_eq!(uses.per_second(at(1300.0 + 128.0)), 0.0);
        // The number of the minute comes round after 48 days.
        uses.note(at(65_536.0 * 64.0 + 10.0));
        assert!(uses.per_second(at(65_536.0 * 64.0 + 11.0)) > 0.0);
    }

    #[test]
    fn what_takes_the_place_of_another_goes_on_with_its_uses() {
        let (old, new) = (Uses::default(), Uses::default());
        (0..640).for_each(|_| old.note(at(100.0)));
        new.take_over(&old);
        assert_eq!(new.per_second(at(101.0)), 10.0);
        old.note(at(102.0));
        new.take_over(&old);
        assert_eq!(new.per_second(at(101.0)), 10.0, "its own count stays");
    }

    #[test]
    fn a_minute_never_runs_over_into_the_one_before() {
        let uses =
            Uses(AtomicU64::new((minute(at(70.0)) << (2 * BITS)) | (5 << BITS) | (MOST - 1)));
        (0..10).for_each(|_| uses.note(at(70.0)));
        assert_eq!(of(uses.0.load(Ordering::Relaxed), at(70.0)), (5, MOST));
    }

    proptest! {
        #[test]
        fn the_rate_lies_between_the_last_minute_and_the_two_last(
            steps in proptest::collection::vec(0_u64..40, 1..200),
        ) {
            let uses = Uses::default();
            let (mut now, mut moments) = (1000, Vec::new());
            for step in steps {
                now += step;
                uses.note(Duration::from_secs(now));
                moments.push(now);
            }
            let since = |seconds: u64| {
                moments.iter().filter(|moment| **moment + seconds > now).count() as f64
            };
            let told = uses.per_second(Duration::from_secs(now)) * MINUTE as f64;
            prop_assert!(told <= since(2 * MINUTE) + 0.001, "{told} of {}", since(2 * MINUTE));
            let own = moments.iter().filter(|moment| **moment / MINUTE == now / MINUTE).count();
            prop_assert!(told + 0.001 >= own as f64);
        }
    }
}
