//! What every policy keeps, checked over many draws. A new policy gets a line in `POLICIES`.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{Balance, Call, Candidate, Draws, Turn};

/// What one endpoint may have of its share under consistent hashing here. A tighter bound costs the
/// weights some of their exactness: what spills over goes to whoever has room.
const BOUND: f64 = 2.0;

const POLICIES: [Balance; 4] =
    [Balance::Latency, Balance::RoundRobin, Balance::LeastRequests, Balance::Hash { bound: BOUND }];

/// A usable candidate that weighs 1, idle, fast and in its first turn.
pub(super) fn candidate() -> Candidate {
    Candidate {
        usable: true,
        latency: Some(0.01),
        in_flight: 0,
        weight: 1,
        ramp: 1.0,
        turn: 0,
        ring: 1,
    }
}

/// A fixed sequence of draws; splitmix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn roll(&mut self) -> f64 {
        f64::from(u32::try_from(self.bits() >> 32).unwrap()) / 4_294_967_296.0
    }

    pub(super) fn draws(&mut self) -> Draws {
        Draws { first: self.roll(), second: self.roll(), ramp: self.roll() }
    }
}

/// A set of endpoints with the turn that they share.
struct Set {
    candidates: Vec<Candidate>,
    turn: u64,
    dice: Dice,
}

impl Set {
    fn new(candidates: Vec<Candidate>, seed: u64) -> Self {
        Self { candidates, turn: 0, dice: Dice(seed) }
    }

    /// Sends one request; its affinity is another each time.
    fn send(&mut self, policy: Balance) -> Option<usize> {
        let (draws, affinity) = (self.dice.draws(), self.dice.bits());
        let index = policy.pick(&self.candidates, &Call { draws, turn: self.turn, affinity })?;
        let chosen = &mut self.candidates[index];
        let turn = Turn::after(chosen.weight, chosen.ramp, chosen.turn, self.turn);
        chosen.turn = turn.endpoint;
        chosen.in_flight += 1;
        self.turn = turn.set;
        Some(index)
    }

    /// The share of `total` requests that each takes, with `busy` of them in flight at any time.
    fn shares(mut self, policy: Balance, total: u32, busy: usize) -> Vec<f64> {
        let mut under_way = VecDeque::new();
        let mut taken = vec![0_u32; self.candidates.len()];
        for _ in 0..total {
            let index = self.send(policy).unwrap();
            taken[index] += 1;
            under_way.push_back(index);
            if under_way.len() > busy {
                self.candidates[under_way.pop_front().unwrap()].in_flight -= 1;
            }
        }
        taken.iter().map(|&count| f64::from(count) / f64::from(total)).collect()
    }
}

fn weighing(weights: &[u32]) -> Vec<Candidate> {
    let ring = |index: usize| Dice(index as u64).bits();
    let one = |(index, &weight)| Candidate { weight, ring: ring(index), ..candidate() };
    weights.iter().enumerate().map(one).collect()
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        any::<bool>(),
        proptest::option::of(0.0_f64..10.0),
        0_u32..1000,
        prop_oneof![Just(0_u32), 0_u32..100, Just(65_535)],
        0.0..=1.0,
        prop_oneof![0_u64..1 << 30, any::<u64>()],
        any::<u64>(),
    )
        .prop_map(|(usable, latency, in_flight, weight, ramp, turn, ring)| Candidate {
            usable,
            latency,
            in_flight,
            weight,
            ramp,
            turn,
            ring,
        });
    proptest::collection::vec(one, 0..12)
}

fn call() -> impl Strategy<Value = Call> {
    (any::<u64>(), prop_oneof![0_u64..1 << 30, any::<u64>()], any::<u64>())
        .prop_map(|(seed, turn, affinity)| Call { draws: Dice(seed).draws(), turn, affinity })
}

proptest! {
    #[test]
    fn never_an_unusable_one_while_a_usable_one_is_there(set in candidates(), call in call()) {
        for policy in POLICIES {
            match policy.pick(&set, &call) {
                Some(index) => prop_assert!(set[index].usable, "{policy:?}"),
                None => prop_assert!(!set.iter().any(|one| one.usable), "{policy:?}"),
            }
        }
    }

    #[test]
    fn a_weightless_one_takes_nothing_while_another_is_usable(set in candidates(), call in call()) {
        let weighted = set.iter().any(|one| one.usable && one.weight > 0);
        for policy in POLICIES {
            if let Some(index) = policy.pick(&set, &call) && weighted {
                prop_assert!(set[index].weight > 0, "{policy:?}");
            }
        }
    }

    #[test]
    fn the_same_is_chosen_for_the_same(set in candidates(), call in call()) {
        for policy in POLICIES {
            prop_assert_eq!(policy.pick(&set, &call), policy.pick(&set, &call));
        }
    }

    #[test]
    fn no_unusable_one_has_a_say(set in candidates(), call in call()) {
        let left: Vec<_> = set.iter().filter(|one| one.usable).copied().collect();
        for policy in POLICIES {
            let with = policy.pick(&set, &call).map(|index| set[index]);
            prop_assert_eq!(with, policy.pick(&left, &call).map(|index| left[index]));
        }
    }

    #[test]
    fn the_bound_on_a_load_is_kept(set in candidates(), call in call()) {
        let policy = Balance::Hash { bound: BOUND };
        if let Some(index) = policy.pick(&set, &call) {
            let weighed: Vec<_> = super::weighed(&set).collect();
            let all: f64 = weighed.iter().map(|(_, one, _)| f64::from(one.in_flight)).sum();
            let weights: f64 = weighed.iter().map(|(_, _, weight)| weight).sum();
            let (_, chosen, weight) = weighed.iter().find(|(at, _, _)| *at == index).unwrap();
            let load = f64::from(chosen.in_flight) + 1.0;
            prop_assert!(load <= (BOUND * (all + 1.0) * weight / weights).ceil());
        }
    }
}

#[test]
fn weights_are_honoured_within_two_percent() {
    for policy in POLICIES {
        for weights in [&[1, 1][..], &[1, 3], &[5, 1, 1], &[10, 20, 30, 40], &[2, 2, 2, 2, 2]] {
            let sum: u32 = weights.iter().sum();
            for busy in [0, 40, 200] {
                let got = Set::new(weighing(weights), 7).shares(policy, 60_000, busy);
                for (share, &weight) in got.iter().zip(weights) {
                    let want = f64::from(weight) / f64::from(sum);
                    assert!(
                        (share - want).abs() < 0.02,
                        "{policy:?}: weights {weights:?}, {busy} in flight: {got:?}"
                    );
                }
            }
        }
    }
}

/// One that ramps counts as a lighter one, or keeps only that part of what it wins: of two equals
/// it takes between a tenth and a fifth at a fifth of its share.
#[test]
fn a_returning_one_takes_its_part_of_its_share() {
    for policy in POLICIES {
        for busy in [0, 40] {
            let mut set = weighing(&[1, 1]);
            set[0].ramp = 0.2;
            let got = Set::new(set, 7).shares(policy, 20_000, busy);
            assert!(got[0] > 0.08 && got[0] < 0.22, "{policy:?}, {busy} in flight: {got:?}");
        }
    }
}

#[test]
fn a_returning_one_alone_takes_everything() {
    for policy in POLICIES {
        let set = vec![Candidate { ramp: 0.0, ..candidate() }];
        assert_eq!(Set::new(set, 7).shares(policy, 100, 10), [1.0], "{policy:?}");
    }
}

#[test]
fn a_slow_one_among_fast_ones_is_hardly_used_by_latency() {
    let mut set = weighing(&[1; 4]);
    set.iter_mut().for_each(|one| one.in_flight = 1);
    set[2].latency = Some(0.1);
    let mut dice = Dice(3);
    let call = |dice: &mut Dice| Call { draws: dice.draws(), turn: 0, affinity: 0 };
    let slow =
        (0..10_000).filter(|_| Balance::Latency.pick(&set, &call(&mut dice)) == Some(2)).count();
    assert_eq!(slow, 0);
}
