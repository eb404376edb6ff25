//! Power of two choices over peak-sensitive latency.
//!
//! Two different candidates are drawn, each as likely as its weight; the cheaper one takes the
//! request. Cost is latency × (1 + requests in flight per unit of weight): the time that a
//! newcomer may expect. Looking at two is nearly as good as looking at all, and a herd of workers
//! that all see the same "best" one never forms (Mitzenmacher, 2001; the latency part is Finagle's).
//!
//! Costs that differ by less than a fifth count as equal, and then the first draw stands: without
//! that, the endpoint that is a microsecond faster than its equals would take everything at low
//! load, and weights would mean nothing. The weight is not a divisor of the whole cost for the
//! same reason: of two idle endpoints the heavier would take all, not its share.
//!
//! An endpoint that returns (slow start) has a `ramp` below one. It keeps a request that it has
//! won with that probability, else the other one takes it: its share grows in a line, whatever its
//! latency seems to be. An endpoint without a latency is judged by its requests in flight alone.

use super::Candidate;

/// Random numbers for one choice, each at least 0 and below 1.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    /// Draws the first candidate.
    pub first: f64,
    /// Draws the second.
    pub second: f64,
    /// Decides whether a ramping winner keeps the request.
    pub ramp: f64,
}

/// Costs within this factor of each other count as equal.
const EQUAL: f64 = 1.25;

/// Latencies below so many seconds count as this one. Beside an endpoint that answers in a tenth
/// of a millisecond, a single pause of the scheduler would empty its equal for half a minute.
const FLOOR: f64 = 0.002;

/// Position of the candidate that takes the next request; `None` where none is usable.
pub(super) fn pick(candidates: &[Candidate], draws: Draws) -> Option<usize> {
    let (first, one) = draw(candidates, None, draws.first)?;
    let Some((second, two)) = draw(candidates, Some(first), draws.second) else {
        return Some(first);
    };
    let mean = mean_weight(candidates);
    let (winner, winning, loser, losing) =
        if cheaper(two, one, mean) { (second, two, first, one) } else { (first, one, second, two) };
    let lawful = losing.weight > 0 || winning.weight == 0;
    let yields = lawful && winning.ramp < losing.ramp && draws.ramp >= winning.ramp;
    Some(if yields { loser } else { winner })
}

/// Draws a usable candidate other than `except` in proportion to the weights; where all weigh
/// nothing, all are alike.
fn draw(candidates: &[Candidate], except: Option<usize>, draw: f64) -> Option<(usize, &Candidate)> {
    let usable = || {
        candidates
            .iter()
            .enumerate()
            .filter(move |(index, candidate)| candidate.usable && Some(*index) != except)
    };
    let total: f64 = usable().map(|(_, candidate)| f64::from(candidate.weight)).sum();
    if total <= 0.0 {
        // Weightless ones count only where no weighted one is usable at all, or as the second.
        let count = f64::from(u32::try_from(usable().count()).unwrap_or(u32::MAX));
        let mut left = draw * count;
        return usable().find(|_| {
            left -= 1.0;
            left < 0.0
        });
    }
    let mut left = draw * total;
    let mut last = None;
    for (index, candidate) in usable() {
        if candidate.weight == 0 {
            continue;
        }
        left -= f64::from(candidate.weight);
        last = Some((index, candidate));
        if left < 0.0 {
            break;
        }
    }
    last
}

fn mean_weight(candidates: &[Candidate]) -> f64 {
    let usable = candidates.iter().filter(|candidate| candidate.usable);
    let (sum, count) = usable.fold((0.0, 0.0), |(sum, count), candidate| {
        (sum + f64::from(candidate.weight), count + 1.0)
    });
    if sum > 0.0 { sum / count } else { 1.0 }
}

/// Whether `challenger` is cheaper than `holder` by more than noise.
fn cheaper(challenger: &Candidate, holder: &Candidate, mean: f64) -> bool {
    if challenger.weight == 0 && holder.weight > 0 {
        return false;
    }
    let (challenger_latency, holder_latency) = match (challenger.latency, holder.latency) {
        (Some(challenger), Some(holder)) => (challenger.max(FLOOR), holder.max(FLOOR)),
        _ => (1.0, 1.0),
    };
    challenger_latency * queue(challenger, mean) * EQUAL < holder_latency * queue(holder, mean)
}

fn queue(candidate: &Candidate, mean: f64) -> f64 {
    let share = (f64::from(candidate.weight) / mean).max(0.001);
    1.0 + f64::from(candidate.in_flight) / share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(latency_ms: f64, in_flight: u32) -> Candidate {
        let candidate = super::super::laws::candidate();
        Candidate { latency: Some(latency_ms / 1000.0), in_flight, ..candidate }
    }

    const DRAWS: Draws = Draws { first: 0.0, second: 0.0, ramp: 0.5 };

    #[test]
    fn the_cheaper_of_two_takes_it() {
        let cases = [
            ("slower one loses", candidate(100.0, 0), candidate(10.0, 0), 1),
            ("faster one keeps", candidate(10.0, 0), candidate(100.0, 0), 0),
            ("noise changes nothing", candidate(11.0, 0), candidate(10.0, 0), 0),
            ("below a few milliseconds all are fast", candidate(1.9, 0), candidate(0.1, 0), 0),
            ("busy one loses", candidate(10.0, 5), candidate(10.0, 0), 1),
            ("slow and idle against fast and busy", candidate(10.0, 30), candidate(100.0, 0), 1),
            (
                "without latency only load counts",
                Candidate { latency: None, ..candidate(0.0, 1) },
                candidate(1.0, 3),
                0,
            ),
        ];
        for (case, one, two, expected) in cases {
            assert_eq!(pick(&[one, two], DRAWS), Some(expected), "{case}");
        }
    }

    #[test]
    fn a_ramping_winner_yields_with_the_rest_of_its_probability() {
        let returning = Candidate { ramp: 0.25, latency: None, ..candidate(0.0, 0) };
        let old = candidate(10.0, 4);
        for (draw, expected) in [(0.1, 0), (0.24, 0), (0.25, 1), (0.9, 1)] {
            let draws = Draws { ramp: draw, ..DRAWS };
            assert_eq!(pick(&[returning, old], draws), Some(expected));
        }
        assert_eq!(pick(&[returning], DRAWS), Some(0), "alone it takes everything");
    }
}
