//! How long answers have taken lately: the time that all but a few stay below.
//!
//! Counts in buckets whose bounds grow by a fifth, from a fifth of a millisecond to about a minute:
//! what is read from them is too high by less than a fifth. When a thousand are counted all counts
//! are halved, so that the last few hundred answers decide, at a fixed size and without a clock.

use std::time::Duration;

const BUCKETS: usize = 70;
const FIRST: f64 = 0.000_2;
const GROWTH: f64 = 1.2;
/// Counts at which all are halved.
const MOST: u32 = 1000;
/// Counts below which nothing is said.
const LEAST: u32 = 50;

/// Latencies of an origin's last answers.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: [u32; BUCKETS],
    all: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], all: 0 }
    }
}

impl Latencies {
    /// Takes in one.
    pub fn observe(&mut self, latency: Duration) {
        let seconds = latency.as_secs_f64();
        let bucket = bounds().position(|bound| seconds <= bound).unwrap_or(BUCKETS - 1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
            self.all += 1;
        }
        if self.all >= MOST {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.all = self.counts.iter().sum();
        }
    }

    /// The time that `share` of them stay within; `None` while too few are known.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        if self.all < LEAST {
            return None;
        }
        let wanted = share.clamp(0.0, 1.0) * f64::from(self.all);
        let mut within = 0.0;
        let reaches = |&(&count, _): &(&u32, f64)| {
            within += f64::from(count);
            within >= wanted
        };
        let bucket = self.counts.iter().zip(bounds()).find(reaches);
        bucket.map(|(_, bound)| Duration::from_secs_f64(bound))
    }
}

fn bounds() -> impl Iterator<Item = f64> {
    std::iter::successors(Some(FIRST), |bound| Some(bound * GROWTH)).take(BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn nothing_is_said_of_a_few() {
        let mut latencies = Latencies::default();
        (1..LEAST).for_each(|_| latencies.observe(millis(10)));
        assert_eq!(latencies.quantile(0.95), None);
        latencies.observe(millis(10));
        assert!(latencies.quantile(0.95).is_some());
    }

    #[test]
    fn what_is_read_is_never_too_low_and_hardly_too_high() {
        let mut latencies = Latencies::default();
        (1..=900).for_each(|time| latencies.observe(millis(time)));
        for (share, exact) in [(0.05, 45), (0.5, 450), (0.95, 855), (1.0, 900)] {
            let read = latencies.quantile(share).unwrap();
            assert!(
                read >= millis(exact) && read <= millis(exact * 121 / 100),
                "{share}: {read:?}"
            );
        }
    }

    #[test]
    fn the_old_is_forgotten() {
        let mut latencies = Latencies::default();
        (0..5000).for_each(|_| latencies.observe(Duration::from_secs(2)));
        (0..3000).for_each(|_| latencies.observe(millis(10)));
        assert!(latencies.quantile(0.95).unwrap() < millis(13));
    }

    #[test]
    fn the_extremes_have_a_place() {
        let mut latencies = Latencies::default();
        (0..500).for_each(|_| latencies.observe(Duration::ZERO));
        (0..400).for_each(|_| latencies.observe(Duration::MAX));
        assert_eq!(latencies.quantile(0.5), Some(Duration::from_micros(200)));
        let most = latencies.quantile(1.0).unwrap();
        assert!(most > Duration::from_secs(50) && most < Duration::from_secs(70), "{most:?}");
    }
}
