//! The only place that reads time. Everything else takes a [`Now`] as an argument.
//!
//! Two clocks, taken together: the wall clock for what other machines read (`Date`, `Age`, logs),
//! and the boot clock for waiting, deadlines and leases. The boot clock counts suspension and is
//! never set, so a paused machine finds its deadlines over, not postponed.

use std::time::{Duration, SystemTime};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock; may jump, is compared between machines only as the RFCs do.
    pub wall: SystemTime,
    /// Time since boot, suspension included. Never goes backwards.
    pub boot: Duration,
}

impl Now {
    /// A made-up reading for tests and simulations: `seconds` after both clocks' zero.
    #[must_use]
    pub fn at(seconds: u64) -> Self {
        Self {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            boot: Duration::from_secs(seconds),
        }
    }

    /// Time from `earlier` to this reading by the boot clock; zero if `earlier` is later.
    #[must_use]
    pub fn since(&self, earlier: Self) -> Duration {
        self.boot.saturating_sub(earlier.boot)
    }

    /// This reading moved `by` into the future on both clocks.
    #[must_use]
    pub fn plus(&self, by: Duration) -> Self {
        Self { wall: self.wall + by, boot: self.boot + by }
    }
}

/// Reads both clocks, the boot clock first.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Now {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let boot = Duration::new(
        u64::try_from(boot.tv_sec).unwrap_or(0),
        u32::try_from(boot.tv_nsec).unwrap_or(0),
    );
    Now { wall: SystemTime::now(), boot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_clock_never_goes_backwards() {
        let first = now();
        let second = now();
        assert!(second.boot >= first.boot);
        assert_eq!(first.since(second), Duration::ZERO);
    }
}
