//! Cuts off those who take large answers slowly, where what they keep in memory has become too much.
//!
//! A body that was pushed out of the store, or never came into it, stays in memory until the last who
//! reads it has let go, and at the least rate that is allowed that may take hours: a few dozen slow
//! readers of large bodies would hold what the process may have. Nobody keeps a list of them. As for idle
//! connections, a bound is published, and whoever would need longer than that for the rest of his answer,
//! at the pace at which he has taken it so far, goes. While too much is kept the bound sinks by half each
//! second, so that those who would stay for hours go first, and who is done in a moment never.
//!
//! ```text
//!   needs         h      10 min     5 min       10 s
//!     step 1   x  x  x  |   x     x     x  x  x  |  xxxxx    those left of the bar are cut off
//!     step 2                    | x     x  x  x  |  xxxxx
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What may be needed at the first step.
const LONGEST: Duration = Duration::from_secs(600);
/// Who needs no more than that is never cut off for others.
const SHORTEST: Duration = Duration::from_secs(10);
/// Time between two steps: in less nothing of the last one has shown.
const STEP: Duration = Duration::from_secs(1);
/// Below this share of what may be kept it ends, in percent.
const ENOUGH_PERCENT: u64 = 75;

/// How often one who is waited for is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// What is taken to be left of an answer whose length nobody knows.
pub(super) const UNKNOWN_REST: u64 = 1 << 20;

/// The time that may be needed for the rest of an answer.
#[derive(Debug, Default)]
pub struct Lingering {
    /// In milliseconds; 0 while any time will do.
    longest: AtomicU64,
}

impl Lingering {
    /// Whether one who needs so long has to go.
    pub(super) fn ends(&self, needs: Duration) -> bool {
        let longest = self.longest.load(Ordering::Relaxed);
        longest != 0 && needs > Duration::from_millis(longest)
    }

    fn publish(&self, longest: Option<Duration>) {
        let millis = longest.map_or(0, |longest| longest.as_millis());
        self.longest.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Decides from time to time how long may be needed.
#[derive(Debug, Default)]
pub struct Lingerer {
    /// What is allowed, and since when; `None` while there is room.
    allowed: Option<(Duration, Duration)>,
}

impl Lingerer {
    /// Looks at `kept` bytes of the `most` that slow readers alone may keep, at `boot`.
    pub fn look(&mut self, lingering: &Lingering, kept: u64, most: u64, boot: Duration) {
        let bound = match self.allowed {
            None => most,
            Some(_) => most / 100 * ENOUGH_PERCENT,
        };
        self.allowed = match self.allowed {
            _ if kept <= bound => None,
            None => Some((LONGEST, boot)),
            Some((longest, since)) if boot.saturating_sub(since) >= STEP => {
                Some(((longest / 2).max(SHORTEST), boot))
            }
            going_on => going_on,
        };
        lingering.publish(self.allowed.map(|(longest, _)| longest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_slowest_go_first_and_nobody_while_there_is_room() {
        let (lingering, mut lingerer) = (Lingering::default(), Lingerer::default());
        lingerer.look(&lingering, 100, 100, SECOND * 10);
        assert!(!lingering.ends(SECOND * 100_000));
        lingerer.look(&lingering, 101, 100, SECOND * 10);
        assert!(lingering.ends(SECOND * 601) && !lingering.ends(SECOND * 599));
        // Those who go need a moment for it.
        lingerer.look(&lingering, 101, 100, SECOND * 10 + SECOND / 2);
        assert!(!lingering.ends(SECOND * 599));
        lingerer.look(&lingering, 101, 100, SECOND * 11);
        assert!(lingering.ends(SECOND * 301) && !lingering.ends(SECOND * 299));
        for second in 12..100 {
            lingerer.look(&lingering, 101, 100, SECOND * second);
        }
        assert!(!lingering.ends(SECOND * 10), "who is done in a moment stays");
    }

    #[test]
    fn it_ends_below_where_it_began_and_begins_gently_again() {
        let (lingering, mut lingerer) = (Lingering::default(), Lingerer::default());
        for second in 0..20 {
            lingerer.look(&lingering, 2000, 1000, SECOND * second);
        }
        lingerer.look(&lingering, 900, 1000, SECOND * 20);
        assert!(lingering.ends(SECOND * 11), "still too much");
        lingerer.look(&lingering, 700, 1000, SECOND * 21);
        assert!(!lingering.ends(SECOND * 100_000));
        lingerer.look(&lingering, 2000, 1000, SECOND * 22);
        assert!(!lingering.ends(SECOND * 599));
    }
}
