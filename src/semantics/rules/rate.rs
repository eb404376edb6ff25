//! How fast requests may come: the generic cell rate algorithm, as arithmetic.
//!
//! A client's account is one time, that at which all that it has taken will be paid for. A request
//! puts it one interval further, from now at the earliest, and is refused where that would be more
//! than the burst ahead of now:
//!
//! ```text
//!   paid up to --------- now ---------------- now + burst x interval
//!                         |----|----|----|      three requests at once, paid for one by one
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::semantics::rules::networks::Networks;

/// Nanoseconds of one tick, in which accounts are kept: 52 bits of them are nine years.
pub const TICK_NANOS: u64 = 64;

/// A time on the boot clock, in ticks.
#[must_use]
pub fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / u128::from(TICK_NANOS)).unwrap_or(u64::MAX)
}

/// A rate and the burst beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Ticks between two requests at this rate; at least one.
    interval: u64,
    /// Ticks by which an account may be ahead.
    ahead: u64,
}

impl Rate {
    /// `requests` in each time `per`, and up to `burst` at once.
    #[must_use]
    pub fn new(requests: u64, per: Duration, burst: u64) -> Self {
        let interval = (ticks(per) / requests.max(1)).max(1);
        Self { interval, ahead: interval.saturating_mul(burst.max(1)) }
    }

    /// The account after one more request at `now`, in ticks.
    ///
    /// # Errors
    /// The ticks after which one more is possible.
    pub fn take(self, account: u64, now: u64) -> Result<u64, u64> {
        let next = account.max(now).saturating_add(self.interval);
        let most = now.saturating_add(self.ahead);
        if next <= most { Ok(next) } else { Err(next - most) }
    }

    /// Longest time that an account can be ahead.
    #[must_use]
    pub fn memory(self) -> Duration {
        Duration::from_nanos(self.ahead.saturating_mul(TICK_NANOS))
    }
}

/// A limit that is counted on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Where it stands in the configuration: whoever inherits it shares its accounts.
    pub scope: Arc<str>,
    /// How fast.
    pub rate: Rate,
    /// Clients that are neither counted nor refused.
    pub exempt: Option<Networks>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_given_at_once_and_then_the_rate() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        let at = |millis| ticks(Duration::from_millis(millis));
        let mut account = 0;
        let mut ask = |millis| match rate.take(account, at(millis)) {
            Ok(next) => {
                account = next;
                Ok(())
            }
            Err(wait) => Err(wait * TICK_NANOS / 1_000_000),
        };
        let found: Vec<_> = [1000, 1000, 1000, 1000, 1099, 1100, 1100, 9000].map(&mut ask).into();
        assert_eq!(found, [Ok(()), Ok(()), Ok(()), Err(100), Err(1), Ok(()), Err(100), Ok(())]);
        assert_eq!(rate.memory(), Duration::from_millis(300));
    }

    proptest! {
        /// In any stretch of time no more pass than the burst and what the rate gives; and who asks
        /// no faster than the rate is never refused.
        #[test]
        fn the_rate_holds_both_ways(
            requests in 1_u64..50,
            burst in 1_u64..20,
            gaps in proptest::collection::vec(0_u64..60_000, 1..200),
        ) {
            let rate = Rate::new(requests, Duration::from_millis(1), burst);
            let (mut account, mut now, mut passed) = (0, 0, Vec::new());
            for gap in &gaps {
                now += gap;
                if let Ok(next) = rate.take(account, now) {
                    account = next;
                    passed.push(now);
                }
            }
            for (first, start) in passed.iter().enumerate() {
                for (count, end) in passed[first..].iter().enumerate() {
                    prop_assert!(count as u64 <= burst + (end - start) / rate.interval);
                }
            }
            let (mut account, mut now) = (0, 0);
            for gap in gaps {
                now += rate.interval + gap;
                let next = rate.take(account, now);
                prop_assert!(next.is_ok());
                account = next.unwrap();
            }
        }
    }
}
