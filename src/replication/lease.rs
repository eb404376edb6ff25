//! How long a node may trust its memory.
//!
//! A node asks the witnesses what they have. Once it has applied everything in the answers of a
//! majority, no purge that was acknowledged before the oldest of those questions was sent is unknown
//! to it. From that moment the lease runs, not from the answer's arrival.
//!
//! ```text
//!      asks b            b answers: has 17       asks c      c answers    17 is applied
//!        |------------------------------------------|------------------------|
//!        '--- the lease runs from here ----------------------> until + lease
//! ```
//!
//! It runs on the boot clock, which counts suspension. A virtual machine that is stopped and
//! resumed may lose time on that clock, too; its wall clock is set right soon after, so a wall clock
//! that ran ahead of the boot clock ends the lease.

use std::time::{Duration, SystemTime};

use crate::clock::Now;

use super::mutation::Mutation;

/// How far the wall clock may run ahead of the boot clock within one lease. With a lease of 1.8 s
/// and a boot clock that loses 5 %, what is left of 2 s is a little more than this.
pub const AHEAD_MOST: Duration = Duration::from_millis(100);

/// A reading of both clocks, kept to see how they part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The boot clock.
    pub boot: Duration,
    /// The wall clock less the boot clock.
    ahead_micros: i128,
}

impl Stamp {
    /// The moment `now`.
    #[must_use]
    pub fn of(now: Now) -> Self {
        Self { boot: now.boot, ahead_micros: ahead_micros(now) }
    }

    /// How far the wall clock was ahead of the boot clock, in microseconds.
    #[must_use]
    pub fn ahead_micros(&self) -> i128 {
        self.ahead_micros
    }

    /// The same `by` earlier on the boot clock.
    #[must_use]
    pub fn earlier(self, by: Duration) -> Option<Self> {
        Some(Self { boot: self.boot.checked_sub(by)?, ..self })
    }

    /// Whether the clocks have gone together since.
    #[must_use]
    pub fn is_trusted(&self, now: Now, mutation: Mutation) -> bool {
        let most = i128::try_from(AHEAD_MOST.as_micros()).unwrap_or(0);
        mutation == Mutation::WallClockIgnored || ahead_micros(now) - self.ahead_micros <= most
    }
}

/// A lease. It holds or does not at a reading of the clocks taken after the request had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When the oldest question was sent.
    pub asked: Stamp,
    /// Until when, on the boot clock.
    pub until: Duration,
    mutation: Mutation,
}

impl Lease {
    /// A lease of `length` from a question.
    #[must_use]
    pub fn new(asked: Stamp, length: Duration, mutation: Mutation) -> Self {
        Self { asked, until: asked.boot + length, mutation }
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, now: Now) -> bool {
        now.boot < self.until && self.asked.is_trusted(now, self.mutation)
    }
}

fn ahead_micros(now: Now) -> i128 {
    let micros = |time: Duration| i128::try_from(time.as_micros()).unwrap_or(i128::MAX);
    let wall = match now.wall.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    };
    wall - micros(now.boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_from_the_question_and_ends_when_the_wall_clock_runs_ahead() {
        let asked = Now::at(100);
        let lease = Lease::new(Stamp::of(asked), Duration::from_secs(2), Mutation::None);
        let after = |millis| asked.plus(Duration::from_millis(millis));
        assert!(lease.holds(asked) && lease.holds(after(1_999)));
        assert!(!lease.holds(after(2_000)));
        let ahead = |millis| Now { wall: after(millis).wall, ..asked };
        assert!(lease.holds(ahead(100)) && !lease.holds(ahead(101)));
        let back = Now { wall: SystemTime::UNIX_EPOCH, ..asked };
        assert!(lease.holds(back), "a wall clock set back takes nothing away");
    }
}
