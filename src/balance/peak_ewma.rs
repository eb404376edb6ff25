//! How slow an endpoint is, with a memory that forgets good news slowly and takes bad news at once.

use std::time::Duration;

/// Time after which an old sample weighs 1/e of a new one. Long enough that one slow answer does
/// not empty an endpoint, short enough that a recovered one is soon used again.
const DECAY: Duration = Duration::from_secs(10);

/// Moving average of latencies that jumps up to a peak and decays from there; without samples it
/// decays towards nothing, so that an endpoint that was slow is asked again after a while.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma {
    value: Option<f64>,
    updated: Duration,
}

impl PeakEwma {
    /// Takes in one latency.
    pub fn observe(&mut self, latency: Duration, now: Duration) {
        let sample = latency.as_secs_f64();
        self.value = Some(match self.value {
            Some(old) if sample < old => {
                let keep = self.kept(now);
                old * keep + sample * (1.0 - keep)
            }
            _ => sample,
        });
        self.updated = now;
    }

    /// The average in seconds as of `now`; `None` before the first sample.
    #[must_use]
    pub fn seconds(&self, now: Duration) -> Option<f64> {
        self.value.map(|value| value * self.kept(now))
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn kept(&self, now: Duration) -> f64 {
        let idle = now.saturating_sub(self.updated);
        (-idle.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let mut ewma = PeakEwma::default();
        assert_eq!(ewma.seconds(at(0)), None);
        ewma.observe(Duration::from_millis(10), at(0));
        ewma.observe(Duration::from_secs(1), at(0));
        assert_eq!(ewma.seconds(at(0)), Some(1.0));
        ewma.observe(Duration::from_millis(10), at(1));
        let after = ewma.seconds(at(1)).unwrap();
        assert!(after > 0.85 && after < 1.0, "{after}");
        for second in 2..60 {
            ewma.observe(Duration::from_millis(10), at(second));
        }
        let after = ewma.seconds(at(60)).unwrap();
        assert!(after < 0.02, "{after}");
    }

    #[test]
    fn without_samples_it_decays() {
        let mut ewma = PeakEwma::default();
        ewma.observe(Duration::from_secs(1), at(0));
        let later = ewma.seconds(at(10)).unwrap();
        assert!((later - 0.3679).abs() < 0.001, "{later}");
        assert!(ewma.seconds(at(100)).unwrap() < 0.001);
    }
}
