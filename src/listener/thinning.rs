//! Closes idle connections before their time when there are too many of them, the longest idle
//! first.
//!
//! Nobody keeps a list: a list would cost every request two visits to it. Instead a moment is
//! published, and whoever has been idle since before it goes. While there are too many the moment
//! draws nearer to the present, half of the way at each step, so that those who have waited for
//! longest go first and no more go than must.
//!
//! ```text
//!   idle since    60 s     30 s    15 s    now
//!      step 1       x  x | x     x    x  x      those left of the bar go
//!      step 2              x  |  x    x  x
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::lingering::Lingering;
use crate::config::Limits;

/// Who has been idle for less is never closed for others.
const SHORTEST: Duration = Duration::from_millis(100);
/// Room in percent below the threshold at which the thinning ends.
const SLACK_PERCENT: usize = 5;

/// The moment since which a connection must have been busy.
#[derive(Debug, Default)]
pub struct Thinning {
    /// Boot clock in microseconds; 0 while nobody has to go.
    moment: AtomicU64,
    /// Somebody at the door had no descriptor for a newcomer.
    wanted: AtomicBool,
    moved: Notify,
    /// How long those may need who are being answered.
    pub lingering: Lingering,
}

impl Thinning {
    /// Notes that room is wanted whatever the number of connections.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether a connection that has been idle since this boot clock has to go.
    pub(super) fn ends(&self, idle_since: Duration) -> bool {
        micros(idle_since) < self.moment()
    }

    /// What is published now.
    pub(super) fn moment(&self) -> u64 {
        self.moment.load(Ordering::Acquire)
    }

    /// Resolves when something else than `known` is published.
    pub(super) async fn moved(&self, known: u64) {
        loop {
            // Made before the look, so that it hears of whatever comes after it.
            let moved = self.moved.notified();
            if self.moment() != known {
                return;
            }
            moved.await;
        }
    }

    fn publish(&self, moment: Duration) {
        self.moment.store(micros(moment), Ordering::Release);
        self.moved.notify_waiters();
    }
}

fn micros(boot: Duration) -> u64 {
    u64::try_from(boot.as_micros()).unwrap_or(u64::MAX)
}

/// Decides from time to time who has to go.
#[derive(Debug)]
pub struct Thinner {
    longest: Duration,
    percent: usize,
    /// How long connections may be idle; `None` while there is room.
    allowed: Option<Duration>,
}

impl Thinner {
    /// One for these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            longest: limits.keep_alive.max(limits.http2_idle),
            percent: usize::try_from(limits.connections_thin_percent).unwrap_or(100),
            allowed: None,
        }
    }

    /// Looks at `open` of `most` connections at `boot`. `short`: memory has run short.
    pub fn look(
        &mut self,
        thinning: &Thinning,
        (open, most): (usize, usize),
        short: bool,
        boot: Duration,
    ) {
        let wanted = thinning.wanted.swap(false, Ordering::Relaxed);
        let slack = if self.allowed.is_some() { SLACK_PERCENT } else { 0 };
        let threshold = self.percent.saturating_sub(slack);
        let crowded = open.saturating_mul(100) >= most.saturating_mul(threshold);
        if !(wanted || short || crowded && open > 0) {
            self.allowed = None;
            return;
        }
        let allowed = self.allowed.map_or(self.longest, |before| before / 2).max(SHORTEST);
        self.allowed = Some(allowed);
        thinning.publish(boot.saturating_sub(allowed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn thinner() -> Thinner {
        Thinner::new(&Limits::default())
    }

    #[test]
    fn the_longest_idle_go_first_and_nobody_while_there_is_room() {
        let (thinning, mut thinner) = (Thinning::default(), thinner());
        thinner.look(&thinning, (89, 100), false, SECOND * 1000);
        assert!(!thinning.ends(Duration::ZERO));
        thinner.look(&thinning, (90, 100), false, SECOND * 1000);
        assert!(thinning.ends(SECOND * 879) && !thinning.ends(SECOND * 881));
        thinner.look(&thinning, (90, 100), false, SECOND * 1000);
        assert!(thinning.ends(SECOND * 939) && !thinning.ends(SECOND * 941));
        for _ in 0..30 {
            thinner.look(&thinning, (90, 100), false, SECOND * 1000);
        }
        assert!(!thinning.ends(SECOND * 1000), "whoever has only just fallen idle stays");
    }

    #[test]
    fn it_ends_a_little_below_where_it_began_and_begins_gently_again() {
        let (thinning, mut thinner) = (Thinning::default(), thinner());
        for _ in 0..10 {
            thinner.look(&thinning, (90, 100), false, SECOND * 1000);
        }
        thinner.look(&thinning, (86, 100), false, SECOND * 1010);
        assert!(thinning.ends(SECOND * 1009), "still too many");
        thinner.look(&thinning, (84, 100), false, SECOND * 1020);
        assert!(!thinning.ends(SECOND * 1019), "enough have gone");
        thinner.look(&thinning, (90, 100), false, SECOND * 2000);
        assert!(!thinning.ends(SECOND * 1881), "back to the longest time that is allowed");
    }

    #[test]
    fn want_of_memory_or_descriptors_counts_whatever_the_number() {
        let (thinning, mut thinner) = (Thinning::default(), thinner());
        thinner.look(&thinning, (1, 100), true, SECOND * 1000);
        assert!(thinning.ends(SECOND * 800));
        let (thinning, mut thinner) = (Thinning::default(), self::thinner());
        thinning.want();
        thinner.look(&thinning, (1, 100), false, SECOND * 1000);
        assert!(thinning.ends(SECOND * 800));
        thinner.look(&thinning, (1, 100), false, SECOND * 5000);
        assert!(!thinning.ends(SECOND * 4000), "wanted once");
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_every_new_moment() {
        let thinning = std::sync::Arc::new(Thinning::default());
        let waiting = std::sync::Arc::clone(&thinning);
        let heard = tokio::spawn(async move { waiting.moved(0).await });
        tokio::task::yield_now().await;
        thinning.publish(SECOND);
        heard.await.unwrap();
        thinning.moved(0).await;
    }
}
