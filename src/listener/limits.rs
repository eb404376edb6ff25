//! Judges whether a peer keeps pace: bytes and times in, a verdict out.
//!
//! A timer that every byte resets is useless against slow peers. So two things are judged: the
//! gap, and the rate over a window. Only time spent waiting for the peer counts; time in which we
//! ourselves had nothing for it is not held against it.

use std::time::Duration;

use crate::clock::Now;
use crate::config::Limits;

/// The peer moves too few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// Pace of one direction of one body.
///
/// Call [`Pace::wait`] when a wait for the peer begins and whenever the time that it returned is
/// over; call [`Pace::moved`] with what the peer sent or took.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    gap: Duration,
    rate: u64,
    window: Duration,
    /// Waiting that is not judged by rate, at the beginning.
    grace: Duration,
    /// Boot clock at which the peer fell silent, while we wait for it.
    silent_since: Option<Duration>,
    /// Boot clock from which the present wait counts towards the window.
    counted_from: Duration,
    /// Waiting in the present window, ended waits only.
    waited: Duration,
    /// Bytes in the present window.
    bytes: u64,
    /// Boot clock at which the peer first let us wait.
    begun: Option<Duration>,
    /// Bytes since then.
    since_begun: u64,
}

/// A peer is not judged by what it did in less.
const JUDGED_AFTER: Duration = Duration::from_secs(1);

impl Pace {
    /// For a request body: `body_gap`, `minimum_rate` after `rate_grace`.
    #[must_use]
    pub fn of_request(limits: &Limits) -> Self {
        Self::new(limits.body_gap, limits, limits.rate_grace)
    }

    /// For an answer: `send_gap`, `minimum_rate` from the first byte on.
    #[must_use]
    pub fn of_answer(limits: &Limits) -> Self {
        Self::new(limits.send_gap, limits, Duration::ZERO)
    }

    /// For long silences that are allowed (event streams): only the gap `tunnel_idle`.
    #[must_use]
    pub fn of_tunnel(limits: &Limits) -> Self {
        Self { rate: 0, ..Self::new(limits.tunnel_idle, limits, Duration::ZERO) }
    }

    /// Shortens the gap that is allowed to `gap`.
    pub fn cap_gap(&mut self, gap: Duration) {
        self.gap = self.gap.min(gap);
    }

    fn new(gap: Duration, limits: &Limits, grace: Duration) -> Self {
        Self {
            gap,
            rate: limits.minimum_rate,
            window: limits.rate_window,
            grace,
            silent_since: None,
            counted_from: Duration::ZERO,
            waited: Duration::ZERO,
            bytes: 0,
            begun: None,
            since_begun: 0,
        }
    }

    /// How long the peer needs for `left` bytes more, at the pace at which it has moved what it moved
    /// since it first let us wait. No time at all where it may be silent for long.
    #[must_use]
    pub fn needs(&self, left: u64, now: Now) -> Duration {
        let Some(begun) = self.begun.filter(|_| self.rate > 0) else { return Duration::ZERO };
        let took = now.boot.saturating_sub(begun);
        if took < JUDGED_AFTER {
            return Duration::ZERO;
        }
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(millis.saturating_mul(left) / self.since_begun.max(1))
    }

    /// Begins or continues a wait for the peer. Returns after how long to ask again if nothing
    /// has moved by then.
    ///
    /// # Errors
    ///
    /// When the gap is over, or a window is and too little moved in it.
    pub fn wait(&mut self, now: Now) -> Result<Duration, TooSlow> {
        self.begun.get_or_insert(now.boot);
        let since = *self.silent_since.get_or_insert_with(|| {
            self.counted_from = now.boot;
            now.boot
        });
        let silent = now.boot.saturating_sub(since);
        let gap_left =
            self.gap.checked_sub(silent).filter(|left| !left.is_zero()).ok_or(TooSlow)?;
        if self.rate == 0 {
            return Ok(gap_left);
        }
        let waited = self.waited + now.boot.saturating_sub(self.counted_from);
        let window_left = (self.window + self.grace).saturating_sub(waited);
        if !window_left.is_zero() {
            return Ok(gap_left.min(window_left));
        }
        if self.bytes < self.rate.saturating_mul(self.window.as_secs()) {
            return Err(TooSlow);
        }
        self.grace = Duration::ZERO;
        self.bytes = 0;
        self.waited = Duration::ZERO;
        self.counted_from = now.boot;
        Ok(gap_left.min(self.window))
    }

    /// Bytes moved: the wait is over.
    pub fn moved(&mut self, bytes: usize, now: Now) {
        if self.silent_since.take().is_some() {
            self.waited += now.boot.saturating_sub(self.counted_from);
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.since_begun = self.since_begun.saturating_add(bytes as u64);
    }

    /// Whether a wait for the peer has begun and not ended.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.silent_since.is_some()
    }

    /// The wait was for something else than the peer: it does not count.
    pub fn idle(&mut self) {
        self.silent_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves `bytes` every `every` seconds; returns the second at which the peer is given up.
    fn given_up_at(mut pace: Pace, bytes: usize, every: u64, until: u64) -> Option<u64> {
        for second in 0..until {
            if pace.wait(Now::at(second)).is_err() {
                return Some(second);
            }
            if second % every == every - 1 {
                pace.moved(bytes, Now::at(second));
                if pace.wait(Now::at(second)).is_err() {
                    return Some(second);
                }
            }
        }
        None
    }

    #[test]
    fn slow_peers_are_given_up_and_steady_ones_are_not() {
        let limits = Limits::default();
        let rows = [
            ("a body of one byte in five seconds", Pace::of_request(&limits), 1, 5, Some(30)),
            ("a body that stops", Pace::of_request(&limits), 100_000, 1000, Some(30)),
            ("a body at 600 bytes a second", Pace::of_request(&limits), 600, 1, None),
            ("a body in bursts", Pace::of_request(&limits), 20_000, 19, None),
            ("an answer taken byte by byte", Pace::of_answer(&limits), 1, 1, Some(20)),
            ("an answer taken at 500 bytes a second", Pace::of_answer(&limits), 500, 1, None),
            ("a tunnel that speaks rarely", Pace::of_tunnel(&limits), 1, 200, None),
            ("a tunnel that is silent", Pace::of_tunnel(&limits), 1, 10_000, Some(300)),
        ];
        for (case, pace, bytes, every, expected) in rows {
            assert_eq!(given_up_at(pace, bytes, every, 2000), expected, "{case}");
        }
    }

    #[test]
    fn only_time_spent_waiting_counts() {
        let mut pace = Pace::of_answer(&Limits::default());
        for hour in 0..50 {
            let now = Now::at(hour * 3600);
            pace.wait(now).unwrap();
            pace.moved(10, now.plus(Duration::from_millis(100)));
        }
    }

    #[test]
    fn what_is_left_takes_as_long_as_the_pace_so_far_says() {
        let mut pace = Pace::of_answer(&Limits::default());
        pace.moved(1_000_000, Now::at(9));
        assert_eq!(pace.needs(1000, Now::at(9)), Duration::ZERO, "nobody waited for it yet");
        let mut pace = Pace::of_answer(&Limits::default());
        pace.wait(Now::at(10)).unwrap();
        assert_eq!(pace.needs(1000, Now::at(10)), Duration::ZERO, "too soon to tell");
        pace.moved(500, Now::at(12));
        assert_eq!(pace.needs(1000, Now::at(12)), Duration::from_secs(4));
        let mut silent = Pace::of_tunnel(&Limits::default());
        silent.wait(Now::at(10)).unwrap();
        assert_eq!(silent.needs(1 << 40, Now::at(100)), Duration::ZERO);
    }

    #[test]
    fn the_next_question_is_due_when_the_first_limit_could_be_passed() {
        let mut pace = Pace::of_answer(&Limits::default());
        assert_eq!(pace.wait(Now::at(0)), Ok(Duration::from_secs(20)));
        pace.moved(20_000, Now::at(15));
        assert_eq!(pace.wait(Now::at(15)), Ok(Duration::from_secs(5)));
        assert_eq!(pace.wait(Now::at(20)), Ok(Duration::from_secs(20)));
        assert_eq!(pace.wait(Now::at(40)), Err(TooSlow));
    }
}
