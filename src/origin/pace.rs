//! Whether an origin sends, or takes, fast enough: no silence longer than `gap`, and no less than `rate`
//! bytes per second over each `window`.
//!
//! Only the time in which we wait for the origin counts. While our own reader is slow, nobody
//! asks the origin for anything, and it is not to blame.

use std::time::Duration;

/// The pace that is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaceRules {
    /// Longest silence.
    pub(super) gap: Duration,
    /// Bytes per second; 0 asks for none.
    pub(super) rate: u64,
    /// Time over which the rate is measured.
    pub(super) window: Duration,
}

/// The origin was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooSlow;

/// Watches one body.
#[derive(Debug)]
pub(super) struct Pace {
    rules: PaceRules,
    silent_since: Option<Duration>,
    counted_until: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(rules: PaceRules) -> Self {
        Self {
            rules,
            silent_since: None,
            counted_until: Duration::ZERO,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Something came, or was taken.
    pub(super) fn received(&mut self, bytes: usize, now: Duration) {
        if self.silent_since.take().is_some() {
            self.waited += now.saturating_sub(self.counted_until);
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// We wait, but for somebody else: that does not count.
    pub(super) fn idle(&mut self) {
        self.silent_since = None;
    }

    /// We wait. `Ok`: how long before asking again.
    pub(super) fn wait(&mut self, now: Duration) -> Result<Duration, TooSlow> {
        let since = *self.silent_since.get_or_insert_with(|| {
            self.counted_until = now;
            now
        });
        self.waited += now.saturating_sub(self.counted_until);
        self.counted_until = now;
        let gap_left = self.rules.gap.saturating_sub(now.saturating_sub(since));
        if gap_left.is_zero() {
            return Err(TooSlow);
        }
        if self.rules.rate == 0 {
            return Ok(gap_left);
        }
        if self.waited >= self.rules.window {
            let millis = u64::try_from(self.rules.window.as_millis()).unwrap_or(u64::MAX);
            if self.bytes < self.rules.rate.saturating_mul(millis) / 1000 {
                return Err(TooSlow);
            }
            self.waited = Duration::ZERO;
            self.bytes = 0;
        }
        Ok(gap_left.min(self.rules.window.saturating_sub(self.waited)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: PaceRules =
        PaceRules { gap: Duration::from_secs(30), rate: 500, window: Duration::from_secs(60) };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_too_slow_after_the_gap() {
        let mut pace = Pace::new(RULES);
        assert_eq!(pace.wait(at(100)), Ok(at(30)));
        assert_eq!(pace.wait(at(129)), Ok(at(1)));
        pace.received(1, at(129));
        assert_eq!(pace.wait(at(129)), Ok(at(30)));
        assert_eq!(pace.wait(at(159)), Err(TooSlow));
    }

    #[test]
    fn a_drip_is_too_slow_after_the_window() {
        let mut pace = Pace::new(RULES);
        let mut outcome = Ok(());
        for second in 0..=60 {
            match pace.wait(at(second)) {
                Ok(_) => pace.received(1, at(second + 1)),
                Err(slow) => {
                    assert_eq!(second, 60);
                    outcome = Err(slow);
                }
            }
        }
        assert_eq!(outcome, Err(TooSlow));
    }

    #[test]
    fn the_rate_is_enough() {
        let mut pace = Pace::new(RULES);
        for second in 0..600 {
            assert!(pace.wait(at(second)).is_ok(), "{second}");
            pace.received(501, at(second + 1));
        }
    }

    #[test]
    fn what_is_waited_for_from_others_does_not_count() {
        let mut pace = Pace::new(RULES);
        for second in 0..600 {
            assert_eq!(pace.wait(at(second * 100)), Ok(at(30)));
            pace.idle();
        }
    }

    #[test]
    fn our_own_slowness_does_not_count() {
        let mut pace = Pace::new(RULES);
        for second in 0..600 {
            assert!(pace.wait(at(second * 100)).is_ok());
            pace.received(10, at(second * 100));
        }
    }
}
