//! The lease as requests read it: a term in time, in two cells that no lock guards.
//!
//! A request asks with a reading of the clocks taken after its head was complete: whether the boot
//! clock stands before `until`, and whether the wall clock did not run ahead of the boot clock by
//! more than it may since the lease's question was asked (`limit`). A node without a mesh always
//! holds; it learns that from the first cell and never looks at the second.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::order::{self, ALWAYS, Cell as _, Reading, Term};
use crate::clock::Now;
use crate::replication::{AHEAD_MOST, Lease};

/// A lease as it is published: a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerm {
    /// Until when, on the boot clock.
    pub until: Duration,
    /// When its oldest question was asked, on the boot clock.
    pub asked_boot: Duration,
    /// How far the wall clock was ahead of the boot clock then, in microseconds.
    pub ahead_micros: i64,
}

impl From<Lease> for LeaseTerm {
    fn from(lease: Lease) -> Self {
        Self {
            until: lease.until,
            asked_boot: lease.asked.boot,
            ahead_micros: narrow(lease.asked.ahead_micros()),
        }
    }
}

/// The lease of a process.
#[derive(Debug)]
pub(super) struct LeaseCell {
    until: AtomicU64,
    limit: AtomicU64,
    /// The furthest `until` that was ever told; held while a term is told.
    furthest: Mutex<u64>,
}

impl LeaseCell {
    /// One that always holds.
    pub(super) fn always() -> Self {
        Self { until: AtomicU64::new(ALWAYS), limit: AtomicU64::new(0), furthest: Mutex::new(0) }
    }

    /// Tells a term, or that there is none.
    pub(super) fn publish(&self, term: Option<LeaseTerm>) {
        let mut furthest = self.furthest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(term) = term else { return self.until.tell(0) };
        let most = i64::try_from(AHEAD_MOST.as_micros()).unwrap_or(0);
        let term = Term {
            until: nanos(term.until).min(ALWAYS - 1),
            limit: ordered(term.ahead_micros.saturating_add(most)),
        };
        order::grant(&self.until, &self.limit, *furthest, term);
        *furthest = term.until.max(*furthest);
    }

    /// Whether it holds at a reading of the clocks.
    pub(super) fn holds(&self, now: Now) -> bool {
        order::holds(&self.until, &self.limit, || Reading {
            boot: nanos(now.boot),
            ahead: ordered(ahead_micros(now)),
        })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The wall clock less the boot clock.
fn ahead_micros(now: Now) -> i64 {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let wall = match now.wall.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    };
    wall.saturating_sub(micros(now.boot))
}

fn narrow(micros: i128) -> i64 {
    i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX })
}

/// The same order among numbers without a sign.
fn ordered(micros: i64) -> u64 {
    micros.cast_unsigned() ^ (1 << 63)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replication::{Mutation, Stamp};

    fn clocks(boot_millis: u64, wall_millis: i64) -> Now {
        let wall = Duration::from_millis(wall_millis.unsigned_abs());
        Now {
            boot: Duration::from_millis(boot_millis),
            wall: match wall_millis < 0 {
                true => SystemTime::UNIX_EPOCH - wall,
                false => SystemTime::UNIX_EPOCH + wall,
            },
        }
    }

    #[test]
    fn it_always_holds_until_somebody_speaks_of_leases() {
        let cell = LeaseCell::always();
        assert!(cell.holds(Now::at(0)) && cell.holds(clocks(u64::MAX / 2, -5)));
        cell.publish(None);
        assert!(!cell.holds(Now::at(0)));
    }

    #[test]
    fn a_term_ends_with_its_time_and_when_it_is_taken_back() {
        let cell = LeaseCell::always();
        let asked = Now::at(100);
        let length = Duration::from_millis(1_800);
        let lease = Lease::new(Stamp::of(asked), length, Mutation::None);
        cell.publish(Some(lease.into()));
        let after = |millis| asked.plus(Duration::from_millis(millis));
        assert!(cell.holds(asked) && cell.holds(after(1_799)));
        assert!(!cell.holds(after(1_800)));
        cell.publish(None);
        assert!(!cell.holds(asked));
        cell.publish(Some(Lease::new(Stamp::of(after(1_000)), length, Mutation::None).into()));
        assert!(cell.holds(after(2_700)));
    }

    #[test]
    fn a_term_that_ends_before_an_earlier_one_is_judged_by_the_stricter_clock() {
        let cell = LeaseCell::always();
        let length = Duration::from_secs(10);
        let at = |boot, wall| Lease::new(Stamp::of(clocks(boot, wall)), length, Mutation::None);
        cell.publish(Some(at(5_000, 5_000).into()));
        cell.publish(Some(at(4_000, 4_500).into()));
        assert!(cell.holds(clocks(6_000, 6_100)));
        assert!(!cell.holds(clocks(6_000, 6_101)), "an earlier reader may have the later `until`");
    }

    proptest! {
        /// What is read off the cells is what the protocol says of the lease.
        #[test]
        fn a_published_lease_holds_when_the_lease_does(
            asked in 0_u64..10_000, asked_wall in -10_000_i64..10_000, length in 0_u64..5_000,
            boot in 0_u64..20_000, wall in -20_000_i64..20_000,
        ) {
            let stamp = Stamp::of(clocks(asked, asked_wall));
            let lease = Lease::new(stamp, Duration::from_millis(length), Mutation::None);
            let cell = LeaseCell::always();
            cell.publish(Some(lease.into()));
            let now = clocks(boot, wall);
            prop_assert_eq!(cell.holds(now), lease.holds(now));
        }
    }
}
