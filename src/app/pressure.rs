//! From bytes in use to the step of memory pressure.
//!
//! What is measured is what the process really has resident, so that whatever takes memory counts:
//! the store, fills, connections, queues, and what the allocator keeps of what was given back.
//!
//! ```text
//!   85 %  the store gives back          ends below 80 %
//!   90 %  misses and keep-alive go      ends below 85 %
//!   95 %  newcomers are refused         ends below 90 %
//! ```

use std::time::Duration;

use crate::config::Limits;
use crate::listener::Pressure;

/// What `resident` bytes of `budget` mean after the step `before`, and how many percent they are.
pub(super) fn step(
    resident: u64,
    budget: u64,
    before: Pressure,
    limits: &Limits,
) -> (Pressure, u32) {
    let percent = resident.saturating_mul(100) / budget.max(1);
    let percent = u32::try_from(percent).unwrap_or(u32::MAX);
    let steps = [
        (Pressure::Refuse, limits.memory_refuse_percent),
        (Pressure::Shed, limits.memory_shed_percent),
        (Pressure::Evict, limits.memory_evict_percent),
    ];
    // A step that is in force ends only well below where it began.
    let step = steps
        .into_iter()
        .find(|(step, at)| {
            let slack = if before >= *step { limits.memory_hysteresis_percent } else { 0 };
            percent >= at.saturating_sub(slack)
        })
        .map_or(Pressure::None, |(step, _)| step);
    (step, percent)
}

/// Bytes that the store should give back at `percent`.
pub(super) fn excess(percent: u32, budget: u64, limits: &Limits) -> u64 {
    let over =
        percent.saturating_sub(limits.memory_evict_percent) + limits.memory_hysteresis_percent;
    budget / 100 * u64::from(over)
}

/// They are never denied more than leaves them this.
const LEAST_PERCENT: u64 = 20;
/// Time in which the share grows by one percent.
const GROWS: Duration = Duration::from_secs(1);

/// What bodies may take now, in percent of the budget: where memory has run short, what they gave back is
/// not theirs again before there is room for it. Else the store would fill up again, and memory run short
/// again, as long as others need what they need.
#[derive(Debug)]
pub(super) struct Share {
    percent: u64,
    /// Where nothing runs short.
    most: u64,
    moved: Duration,
}

impl Share {
    pub(super) fn new(limits: &Limits) -> Self {
        let most = limits.memory_bodies_percent.into();
        Self { percent: most, most, moved: Duration::ZERO }
    }

    /// In percent of the budget.
    pub(super) fn percent(&self) -> u64 {
        self.percent
    }

    /// Bodies take so many percent and give back so many, at `boot`.
    pub(super) fn shrink(&mut self, taken: u64, given_back: u64, boot: Duration) {
        let left = taken.saturating_sub(given_back).max(LEAST_PERCENT);
        self.percent = self.percent.min(left);
        self.moved = boot;
    }

    /// There is room at `boot`.
    pub(super) fn grow(&mut self, boot: Duration) {
        if boot.saturating_sub(self.moved) >= GROWS {
            self.percent = (self.percent + 1).min(self.most);
            self.moved = boot;
        }
    }
}

/// Resident memory of this process in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_get_back_what_they_gave_by_and_by() {
        let second = Duration::from_secs;
        let mut share = Share::new(&Limits::default());
        share.shrink(70, 10, second(10));
        assert_eq!(share.percent(), 60);
        share.grow(second(10));
        assert_eq!(share.percent(), 60);
        share.grow(second(11));
        assert_eq!(share.percent(), 61);
        share.shrink(61, 100, second(12));
        assert_eq!(share.percent(), LEAST_PERCENT);
        for at in 13..1000 {
            share.grow(second(at));
        }
        assert_eq!(share.percent(), 72);
    }

    #[test]
    fn a_step_ends_only_well_below_where_it_began() {
        use Pressure::{Evict, None, Refuse, Shed};
        let limits = Limits::default();
        let way = [
            (84, None),
            (85, Evict),
            (80, Evict),
            (79, None),
            (84, None),
            (90, Shed),
            (86, Shed),
            (84, Evict),
            (95, Refuse),
            (90, Refuse),
            (89, Shed),
            (200, Refuse),
            (10, None),
        ];
        let mut before = None;
        for (number, (percent, expected)) in way.into_iter().enumerate() {
            let (step, told) = step(percent * 10, 1000, before, &limits);
            assert_eq!((step, u64::from(told)), (expected, percent), "{number}");
            before = step;
        }
    }

    #[test]
    fn more_is_given_back_than_what_is_too_much() {
        let limits = Limits::default();
        assert_eq!(excess(85, 1000, &limits), 50);
        assert_eq!(excess(95, 1000, &limits), 150);
    }

    #[test]
    fn this_process_has_some_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
