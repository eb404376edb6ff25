//! What every policy keeps, checked over many draws. A new policy gets a line in `POLICIES`.

use proptest::prelude::*;

use super::{Candidate, Draws, pick};

type Policy = fn(&[Candidate], Draws) -> Option<usize>;

const POLICIES: [(&str, Policy); 1] = [("p2c", pick)];

/// A fixed sequence of draws; splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let top = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap();
        f64::from(top) / 4_294_967_296.0
    }

    fn draws(&mut self) -> Draws {
        Draws { first: self.roll(), second: self.roll(), ramp: self.roll() }
    }
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one =
        (any::<bool>(), proptest::option::of(0.0_f64..10.0), 0_u32..1000, 0_u32..100, 0.0..=1.0)
            .prop_map(|(usable, latency, in_flight, weight, ramp)| Candidate {
                usable,
                latency,
                in_flight,
                weight,
                ramp,
            });
    proptest::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn never_an_unusable_one_while_a_usable_one_is_there(set in candidates(), seed: u64) {
        let mut dice = Dice(seed);
        for (name, policy) in POLICIES {
            match policy(&set, dice.draws()) {
                Some(index) => prop_assert!(set[index].usable, "{name}"),
                None => prop_assert!(!set.iter().any(|candidate| candidate.usable), "{name}"),
            }
        }
    }

    #[test]
    fn a_weightless_one_takes_nothing_while_another_is_usable(set in candidates(), seed: u64) {
        let mut dice = Dice(seed);
        let weighted = set.iter().any(|candidate| candidate.usable && candidate.weight > 0);
        for (name, policy) in POLICIES {
            if let Some(index) = policy(&set, dice.draws()) && weighted {
                prop_assert!(set[index].weight > 0, "{name}");
            }
        }
    }
}

/// Requests that each candidate takes of `total`, with `busy` of them in flight at any time.
fn shares(policy: Policy, weights: &[u32], ramps: &[f64], total: u32, busy: usize) -> Vec<f64> {
    let mut set: Vec<Candidate> = weights
        .iter()
        .zip(ramps)
        .map(|(&weight, &ramp)| Candidate {
            usable: true,
            latency: Some(0.01),
            in_flight: 0,
            weight,
            ramp,
        })
        .collect();
    let mut dice = Dice(7);
    let mut under_way = std::collections::VecDeque::new();
    let mut taken = vec![0_u32; weights.len()];
    for _ in 0..total {
        let index = policy(&set, dice.draws()).unwrap();
        taken[index] += 1;
        set[index].in_flight += 1;
        under_way.push_back(index);
        if under_way.len() > busy {
            let done = under_way.pop_front().unwrap();
            set[done].in_flight -= 1;
        }
    }
    taken.iter().map(|&count| f64::from(count) / f64::from(total)).collect()
}

#[test]
fn weights_are_honoured_within_two_percent() {
    for (name, policy) in POLICIES {
        for weights in [&[1, 1][..], &[1, 3], &[5, 1, 1], &[10, 20, 30, 40], &[2, 2, 2, 2, 2]] {
            let sum: u32 = weights.iter().sum();
            let ramps = vec![1.0; weights.len()];
            for busy in [0, 40, 200] {
                let got = shares(policy, weights, &ramps, 60_000, busy);
                for (share, &weight) in got.iter().zip(weights) {
                    let want = f64::from(weight) / f64::from(sum);
                    assert!(
                        (share - want).abs() < 0.02,
                        "{name}: weights {weights:?}, {busy} in flight: {got:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_returning_one_takes_its_part_of_its_share() {
    for (name, policy) in POLICIES {
        let got = shares(policy, &[1, 1], &[0.2, 1.0], 20_000, 0);
        assert!((got[0] - 0.1).abs() < 0.02, "{name}: {got:?}");
    }
}

#[test]
fn a_slow_one_among_fast_ones_is_hardly_used() {
    let mut set =
        vec![
            Candidate { usable: true, latency: Some(0.01), in_flight: 1, weight: 1, ramp: 1.0 };
            4
        ];
    set[2].latency = Some(0.1);
    let mut dice = Dice(3);
    for (name, policy) in POLICIES {
        let slow = (0..10_000).filter(|_| policy(&set, dice.draws()) == Some(2)).count();
        assert_eq!(slow, 0, "{name}");
    }
}
