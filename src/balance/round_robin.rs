//! Smooth weighted round robin, without a lock.
//!
//! Each endpoint has a turn: the moment, on a clock that only requests advance, at which it may
//! begin its next one. A request takes `1 / weight` of that clock, and goes to the endpoint whose
//! request would be half done first; so a heavy one does not take all its requests in a row.
//!
//! ```text
//! weights 2 and 1, | begins, x half done
//! heavy  |--x--|--x--|--x--|--x--|
//! light  |-----x-----|-----x-----|      heavy, light, heavy, heavy, light, heavy
//! ```
//!
//! The set has a turn as well, that of the newest request. An endpoint that was out of use begins
//! at most one request behind it: it does not catch up on what it has missed.
//!
//! Two workers that look at once may send two requests to one endpoint. Both are charged to it, so
//! the next ones go elsewhere, and shares are exact in the long run.

use super::{Candidate, LEAST, weighed};

/// What one request of an endpoint that weighs 1 takes of the clock: enough for the heaviest weight
/// to be exact, and little enough for the clock to run for centuries.
const UNIT: f64 = 16_777_216.0;

/// What the turns are after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// That of the endpoint which took it.
    pub endpoint: u64,
    /// That of the set, unless it is later already.
    pub set: u64,
}

impl Turn {
    /// The turns after a request that an endpoint of this weight and ramp took, when its own was
    /// `turn` and the set's `set`.
    #[must_use]
    pub fn after(weight: u32, ramp: f64, turn: u64, set: u64) -> Self {
        let weight = f64::from(weight.max(1)) * ramp.clamp(LEAST, 1.0);
        let begin = begin(turn, set, weight);
        Self { endpoint: begin.saturating_add(cost(weight)), set: set.max(begin) }
    }
}

/// Position of the candidate whose turn it is.
pub(super) fn pick(candidates: &[Candidate], set: u64) -> Option<usize> {
    let half_done = |candidate: &Candidate, weight| {
        begin(candidate.turn, set, weight).saturating_add(cost(weight) / 2)
    };
    weighed(candidates)
        .min_by_key(|(_, candidate, weight)| half_done(candidate, *weight))
        .map(|(index, _, _)| index)
}

fn begin(turn: u64, set: u64, weight: f64) -> u64 {
    turn.max(set.saturating_sub(cost(weight)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a weight is at least a thousandth, so it is above zero and far below the bounds of u64"
)]
fn cost(weight: f64) -> u64 {
    (UNIT / weight.max(LEAST)).round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::laws::candidate;
    use super::*;

    /// Runs `steps` requests and tells who took them; `out` may take one out of use at a step.
    fn run(weights: &[u32], steps: usize, out: impl Fn(usize) -> Option<usize>) -> Vec<usize> {
        let mut set = 0;
        let mut candidates: Vec<Candidate> =
            weights.iter().map(|&weight| Candidate { weight, ..candidate() }).collect();
        let mut taken = Vec::new();
        for step in 0..steps {
            for (index, candidate) in candidates.iter_mut().enumerate() {
                candidate.usable = out(step) != Some(index);
            }
            let index = pick(&candidates, set).unwrap();
            let turn = Turn::after(weights[index], 1.0, candidates[index].turn, set);
            candidates[index].turn = turn.endpoint;
            set = turn.set;
            taken.push(index);
        }
        taken
    }

    #[test]
    fn one_after_the_other() {
        assert_eq!(run(&[1, 1, 1], 7, |_| None), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(run(&[2, 1], 6, |_| None), [0, 1, 0, 0, 1, 0]);
        assert_eq!(run(&[5, 1, 1], 7, |_| None), [0, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn weights_are_exact_in_every_round() {
        let weights = [7, 3, 1, 9];
        for round in run(&weights, 20 * 50, |_| None).chunks(20) {
            for (index, &weight) in weights.iter().enumerate() {
                let count = round.iter().filter(|&&taken| taken == index).count();
                assert!(count.abs_diff(weight as usize) <= 1, "{round:?}");
            }
        }
    }

    #[test]
    fn one_that_returns_does_not_catch_up() {
        let taken = run(&[1, 1, 1], 300, |step| (step < 200).then_some(1));
        assert!(taken[..200].iter().all(|&index| index != 1));
        let after = taken[200..230].iter().filter(|&&index| index == 1).count();
        assert!((10..=11).contains(&after), "{after} of 30");
    }

    #[test]
    fn two_that_look_at_once_are_both_charged() {
        let one = candidate();
        let first = Turn::after(one.weight, 1.0, one.turn, 0);
        let second = Turn::after(one.weight, 1.0, first.endpoint, first.set);
        assert_eq!(second.endpoint, 2 * first.endpoint);
    }

    #[test]
    fn the_clock_does_not_overflow() {
        let late = Candidate { turn: u64::MAX, ..candidate() };
        assert_eq!(pick(&[late, late], u64::MAX), Some(0));
        assert_eq!(Turn::after(1, 1.0, u64::MAX, u64::MAX).endpoint, u64::MAX);
    }
}
