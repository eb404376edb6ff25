//! Which endpoint of an origin takes a request: what `health` and `balance` decide, fed from the
//! endpoints as they stand.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;

use crate::balance::{Balance, Call, Candidate, Draws, Nearness, Turn};
use crate::health::{Member, Tier, usable};

use super::dice::Dice;
use super::endpoint::Endpoint;
use super::set::{Known, Origin};

impl Origin {
    /// Chooses an endpoint, another than those `tried` if there is one that takes traffic.
    /// `affinity` is what the request has in common with those for the same endpoint; without it,
    /// it has nothing in common with any.
    pub(super) fn choose(
        &self,
        tried: &[u64],
        affinity: Option<u64>,
        dice: &Dice,
        now: Duration,
    ) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints();
        if let [only] = endpoints.as_slice() {
            return only.is_offered().then(|| Arc::clone(only));
        }
        let known = self.judge(&endpoints, now);
        let tier = usable(known.iter().map(|known| known.member));
        let candidates = |strict: bool| -> SmallVec<[Candidate; 8]> {
            let may = |endpoint: &Endpoint, known: &Known| {
                tier.uses(known.member)
                    && (!strict || known.takes || tier.panic)
                    && !(strict && tried.contains(&endpoint.id))
            };
            let all = || endpoints.iter().zip(&known);
            let near = self.nearness(
                all().map(|(endpoint, known)| (&**endpoint, known.member, may(endpoint, known))),
                tier,
            );
            all()
                .map(|(endpoint, known)| Candidate {
                    usable: may(endpoint, known) && (!near || self.is_near_with_room(endpoint)),
                    latency: known.latency,
                    in_flight: endpoint.in_flight(),
                    weight: endpoint.weight(),
                    ramp: known.ramp,
                    turn: endpoint.turn.load(Ordering::Relaxed),
                    ring: endpoint.ring,
                })
                .collect()
        };
        let call = Call {
            draws: Draws { first: dice.draw(), second: dice.draw(), ramp: dice.draw() },
            turn: self.turn.load(Ordering::Relaxed),
            affinity: affinity.unwrap_or_else(|| dice.bits()),
        };
        let pick = |candidates: &[Candidate]| {
            let choice = self.config.balance.pick(candidates, &call)?;
            Some((endpoints.get(choice)?, candidates.get(choice)?.ramp))
        };
        let (endpoint, ramp) = pick(&candidates(true)).or_else(|| pick(&candidates(false)))?;
        if self.config.balance == Balance::RoundRobin {
            self.take_turn(endpoint, ramp);
        }
        Some(Arc::clone(endpoint))
    }

    /// Whether only near endpoints are asked; each of the set comes with whether it is usable.
    fn nearness<'a>(
        &self,
        set: impl Iterator<Item = (&'a Endpoint, Member, bool)>,
        tier: Tier,
    ) -> bool {
        let mut nearness = Nearness::default();
        for (endpoint, member, usable) in set {
            if endpoint.near && tier.holds(member) {
                let room = usable && self.is_near_with_room(endpoint);
                nearness.count(endpoint.weight(), member.up, room);
            }
        }
        nearness.is_enough()
    }

    fn is_near_with_room(&self, endpoint: &Endpoint) -> bool {
        endpoint.near && endpoint.in_flight() < self.config.near_in_flight
    }

    /// Charges a request to an endpoint, whatever others have been charged to it meanwhile.
    fn take_turn(&self, endpoint: &Endpoint, ramp: f64) {
        let set = self.turn.load(Ordering::Relaxed);
        let after = |turn| Turn::after(endpoint.weight(), ramp, turn, set);
        let taken = endpoint
            .turn
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |turn| Some(after(turn).endpoint));
        let (Ok(turn) | Err(turn)) = taken;
        self.turn.fetch_max(after(turn).set, Ordering::Relaxed);
    }
}
