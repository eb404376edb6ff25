//! Consistent hashing with bounded loads, over weighted rendezvous hashing.
//!
//! For a request each endpoint has a score, made of the request's affinity, what the endpoint is,
//! and its weight; the highest takes it. An endpoint that goes or comes moves only the requests
//! that it had or will have, and a weight that grows moves requests only to its endpoint: nothing
//! needs to be remembered for that, so all nodes agree without a word (Thaler and Ravishankar,
//! 1998; the weights by Schindelhauer and Schomaker, 2005). A ring of points would need hundreds of
//! them for each endpoint to be as even, and Maglev's table is for thousands of endpoints; looking
//! at each of a few hundred costs less than the request's first packet.
//!
//! What is hashed may be very uneven: one URL can be half of the traffic. So no endpoint takes a
//! request that would give it more than `bound` times its share of all that is under way (Mirrokni,
//! Thorup and Zadimoghaddam, 2016); the request goes to the next by score that has room, which is
//! again the same one for all requests of its kind. There always is one with room, since the shares
//! add up to all and the bound is above one.
//!
//! ```text
//! affinity /film:  scores  c 0.9   a 0.7   b 0.2
//!                  load    full    room          -> a, until c has room again
//! ```

use super::{Candidate, weighed};

/// Position of the candidate with the highest score that has room.
pub(super) fn pick(candidates: &[Candidate], affinity: u64, bound: f64) -> Option<usize> {
    let (all, weights) = weighed(candidates)
        .fold((1.0, 0.0), |(all, weights), (_, one, weight)| {
            (all + f64::from(one.in_flight), weights + weight)
        });
    let has_room = |one: &Candidate, weight: f64| {
        f64::from(one.in_flight) + 1.0 <= (bound.max(1.0) * all * weight / weights).ceil()
    };
    weighed(candidates)
        .filter(|(_, one, weight)| has_room(one, *weight))
        .map(|(index, one, weight)| (index, score(affinity, one.ring, weight)))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(index, _)| index)
}

/// The higher, the more it is wanted: `weight / -ln(u)` for a `u` that affinity and ring draw.
fn score(affinity: u64, ring: u64, weight: f64) -> f64 {
    -weight / unit(mixed(affinity ^ mixed(ring))).ln()
}

/// Spreads every bit over all (the last step of splitmix64).
fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Above 0 and below 1.
#[expect(clippy::cast_precision_loss, reason = "52 bits and a half are left, which an f64 holds")]
fn unit(bits: u64) -> f64 {
    ((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::super::laws::candidate;
    use super::*;

    const KEYS: u64 = 20_000;

    fn set(rings: &[u64]) -> Vec<Candidate> {
        rings.iter().map(|&ring| Candidate { ring, ..candidate() }).collect()
    }

    /// The ring of the endpoint that each key goes to.
    fn owners(candidates: &[Candidate]) -> Vec<u64> {
        let pick = |key| pick(candidates, mixed(key), 1.25).unwrap();
        (0..KEYS).map(|key| candidates[pick(key)].ring).collect()
    }

    /// Keys that have another owner, and of those the ones that neither left nor went to `ring`.
    fn moved(before: &[u64], after: &[u64], ring: u64) -> (usize, usize) {
        let moved: Vec<_> = before.iter().zip(after).filter(|(old, new)| old != new).collect();
        let stray = moved.iter().filter(|(old, new)| **old != ring && **new != ring).count();
        (moved.len(), stray)
    }

    #[test]
    fn one_that_comes_or_goes_moves_its_own_share_and_nothing_else() {
        for count in [2_u64, 5, 16, 64] {
            let rings: Vec<u64> = (0..count).map(|ring| mixed(ring << 32)).collect();
            let all = owners(&set(&rings));
            let fewer = owners(&set(&rings[1..]));
            let (moved, stray) = moved(&all, &fewer, rings[0]);
            assert_eq!(stray, 0, "{count}");
            let share = f64::from(u32::try_from(moved).unwrap()) / 20_000.0;
            let fair = 1.0 / f64::from(u32::try_from(count).unwrap());
            assert!((share / fair - 1.0).abs() < 0.15, "{count}: {share}");
        }
    }

    #[test]
    fn one_that_is_unusable_moves_as_if_it_were_gone() {
        let rings = [3, 5, 8, 13];
        let mut out = set(&rings);
        out[1].usable = false;
        assert_eq!(owners(&out), owners(&set(&[3, 8, 13])));
    }

    #[test]
    fn a_weight_that_grows_takes_and_gives_nothing() {
        let mut candidates = set(&[3, 5, 8, 13]);
        for ramp in [0.1, 0.3, 0.9] {
            candidates[2].ramp = ramp;
            let before = owners(&candidates);
            candidates[2].ramp = ramp + 0.1;
            let after = owners(&candidates);
            assert!(before.iter().zip(&after).all(|(old, new)| old == new || *new == 8));
        }
    }

    #[test]
    fn the_order_of_the_endpoints_means_nothing() {
        assert_eq!(owners(&set(&[3, 5, 8, 13])), owners(&set(&[13, 3, 8, 5])));
    }

    #[test]
    fn what_is_asked_for_most_spills_over_to_the_same_others() {
        let mut candidates = set(&[3, 5, 8, 13]);
        let mut order = Vec::new();
        for _ in 0..100 {
            let index = pick(&candidates, 42, 1.25).unwrap();
            candidates[index].in_flight += 1;
            if !order.contains(&index) {
                order.push(index);
            }
        }
        let loads: Vec<u32> = order.iter().map(|&index| candidates[index].in_flight).collect();
        assert!(loads.iter().all(|&load| load <= 32), "{loads:?}");
        assert!(loads.is_sorted_by(|one, other| one >= other), "{loads:?}");
    }
}
