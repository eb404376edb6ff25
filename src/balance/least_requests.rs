//! Least requests: the endpoint with the fewest requests under way for its weight; of equals a
//! random one, in proportion to the weights.
//!
//! Idle endpoints are equals whatever they weigh: otherwise the heaviest would take all that comes
//! one by one. An endpoint that fails at once looks idle, too; health takes that one out.

use super::{Candidate, weighed};

/// Loads within this of each other are equal: they come from divisions.
const SAME: f64 = 1e-9;

/// Position of the candidate with the least to do.
pub(super) fn pick(candidates: &[Candidate], draw: f64) -> Option<usize> {
    let loads = weighed(candidates)
        .map(|(index, candidate, weight)| (index, f64::from(candidate.in_flight) / weight, weight));
    let least = loads.clone().map(|(_, load, _)| load).min_by(f64::total_cmp)?;
    let equals = loads.filter(move |(_, load, _)| *load <= least + SAME);
    let mut left = draw * equals.clone().map(|(_, _, weight)| weight).sum::<f64>();
    let mut last = None;
    for (index, _, weight) in equals {
        left -= weight;
        last = Some(index);
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::super::laws::candidate;
    use super::*;

    fn busy(in_flight: u32, weight: u32) -> Candidate {
        Candidate { in_flight, weight, ..candidate() }
    }

    #[test]
    fn the_least_busy_for_its_weight() {
        for (case, candidates, draw, expected) in [
            ("fewest", &[busy(3, 1), busy(2, 1), busy(4, 1)][..], 0.0, 1),
            ("for its weight", &[busy(3, 1), busy(8, 4)], 0.0, 1),
            ("equals: the first draw", &[busy(1, 1), busy(1, 1)], 0.49, 0),
            ("equals: the second draw", &[busy(1, 1), busy(1, 1)], 0.51, 1),
            ("idle ones share by weight", &[busy(0, 1), busy(0, 3)], 0.24, 0),
            ("idle ones share by weight", &[busy(0, 1), busy(0, 3)], 0.26, 1),
        ] {
            assert_eq!(pick(candidates, draw), Some(expected), "{case}");
        }
    }
}
