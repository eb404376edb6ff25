//! Waiting times that grow with each failure and never come in step.

use std::time::Duration;

/// `first` doubled for each of `failures` after the first one, at most `most`.
#[must_use]
pub fn backoff(first: Duration, most: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(most)
}

/// `time`, more or less a tenth; `draw` is at least 0 and below 1.
#[must_use]
pub fn jittered(time: Duration, draw: f64) -> Duration {
    time.mul_f64(0.9 + 0.2 * draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_most() {
        let (first, most) = (Duration::from_secs(10), Duration::from_secs(300));
        for (failures, seconds) in
            [(0, 10), (1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (40, 300), (u32::MAX, 300)]
        {
            assert_eq!(backoff(first, most, failures), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let time = Duration::from_secs(10);
        for (draw, millis) in [(0.0, 9000), (0.5, 10_000), (0.999_999_999, 11_000)] {
            let got = jittered(time, draw);
            assert!(got.abs_diff(Duration::from_millis(millis)) < Duration::from_millis(1));
        }
    }
}
