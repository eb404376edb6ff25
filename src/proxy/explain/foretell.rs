//! What comes of a request, in the order in which `serve` and `fill` decide it.

use std::sync::Arc;

use http::Method;

use super::Subject;
use crate::clock::Now;
use crate::listener::Pressure;
use crate::proxy::Edge;
use crate::proxy::fill::Road;
use crate::semantics::{CacheStatus, Decision, Facts, Forward, Outcome, Reason, Trust, passes};
use crate::store::{Kept, Peek, Stored};

/// What comes of a request.
pub(super) struct Foretold {
    decision: &'static str,
    reason: &'static str,
    /// What `Cache-Status` says as far as that is known before the origin is asked.
    status: CacheStatus,
    outcome: Outcome,
    text: String,
    /// How it goes to the origin.
    pub(super) asks: Asks,
    /// What is stored for it, fresh or not.
    pub(super) found: Option<Arc<Stored>>,
}

/// How the origin is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Not at all.
    No,
    /// Behind an answer from memory.
    Behind,
    /// Once for everyone who asks for the same.
    Shared,
    /// For this request alone, as it came.
    Alone,
}

impl Asks {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Behind => "behind-the-answer",
            Self::Shared => "for-all-who-wait",
            Self::Alone => "as-it-came",
        }
    }
}

impl Foretold {
    /// A request that is answered by an error of ours, or by a word of ours.
    pub(super) fn refused(why: &'static str) -> Self {
        Self {
            decision: "refused",
            reason: why,
            status: CacheStatus::default(),
            outcome: Outcome::Refused,
            text: format!("answered by the edge itself, without store or origin: {why}"),
            asks: Asks::No,
            found: None,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        let Self { decision, reason, status, outcome, text, .. } = self;
        let known = status.hit || status.forward.is_some();
        Facts::new()
            .with("decision", *decision)
            .with("reason", *reason)
            .with("text", text.clone())
            .with_some("forward", status.forward.map(Forward::as_str))
            .with_some("detail", status.detail)
            .with("outcome", outcome.label())
            .with_some("cache_status", known.then(|| status.value(None)))
    }

    fn of(decision: Decision, why: Reason, outcome: Outcome, asks: Asks, lead: &str) -> Self {
        let status = decision.forward().map_or(CacheStatus::default(), CacheStatus::forward);
        Self {
            decision: decision.label(),
            reason: why.label(),
            status,
            outcome,
            text: format!("{lead}: {}", why.sentence()),
            asks,
            found: None,
        }
    }

    fn hit(self, stored: &Stored, now: Now) -> Self {
        Self { status: CacheStatus::hit(stored.head().ttl(now)), ..self }
    }
}

impl Edge {
    pub(super) fn foretell(
        &self,
        subject: &Subject<'_>,
        peek: &Peek,
        fill_key: u128,
        trust: Trust,
        now: Now,
    ) -> Foretold {
        let request = subject.request;
        let no_lookup = passes(request, subject.policy).or(subject.body.then_some(Reason::Body));
        if let Some(why) = no_lookup {
            if !subject.body && request.forbids_forwarding() {
                return only_if_cached(why);
            }
            let decision = Decision::Pass(why.forward());
            return self.short(alone(decision, why));
        }
        let (found, decision, why) =
            self.decide(request, subject.policy, peek.lookup.clone(), trust, now);
        let foretold = match (decision, &found) {
            (Decision::Hit { .. }, Some(stored)) => {
                Foretold::of(decision, why, Outcome::Hit, Asks::No, "answered from memory")
                    .hit(stored, now)
            }
            (Decision::HitStale, Some(stored)) => {
                // A HEAD would bring no body: the next GET refreshes.
                let (asks, lead) = match request.method == Method::GET {
                    true => (Asks::Behind, "answered from memory, and refreshed behind the answer"),
                    false => (Asks::No, "answered from memory"),
                };
                Foretold::of(decision, why, Outcome::Stale, asks, lead).hit(stored, now)
            }
            (Decision::OnlyIfCached, _) => only_if_cached(why),
            (Decision::Pass(_), _) => self.short(alone(decision, why)),
            (
                Decision::Revalidate(_)
                | Decision::Fill(_)
                | Decision::Hit { .. }
                | Decision::HitStale,
                found,
            ) => self.on_the_road(subject, decision, why, found.is_some(), fill_key, now),
        };
        let killed = |kept: &Kept| kept.selected && kept.verdict.is_none();
        let mut foretold = Foretold { found, ..foretold };
        if foretold.found.is_none() && peek.kept.iter().any(killed) {
            foretold.text.push_str("; what was stored for it has been killed by a purge");
        }
        foretold
    }

    /// What becomes of a request that joins or starts a fill, where it can.
    fn on_the_road(
        &self,
        subject: &Subject<'_>,
        decision: Decision,
        why: Reason,
        stale: bool,
        fill_key: u128,
        now: Now,
    ) -> Foretold {
        match self.road(subject.request, subject.policy, fill_key, stale, now) {
            Road::Short | Road::Alone => return self.short(alone(decision, why)),
            Road::Uncacheable => {
                let remembered = self.store.uncacheable(fill_key, now.boot);
                let word = remembered.map_or("forgotten by now", |found| found.why.label());
                let lead = format!(
                    "goes to the origin alone, since the last answer was not shared ({word})"
                );
                return detailed(decision, why, "uncacheable", &lead);
            }
            Road::Fill => {}
        }
        if self.fills.is_open(fill_key) {
            let lead = "joins the fetch of the same response that is under way";
            return Foretold::of(decision, why, Outcome::Collapsed, Asks::Shared, lead);
        }
        if self.fills.is_full() {
            return detailed(decision, why, "fills-full", FULL);
        }
        let (outcome, lead) = match decision {
            Decision::Revalidate(_) => {
                (Outcome::Revalidated, "the origin is asked whether what is stored still holds")
            }
            _ => (Outcome::Miss, "fetched from the origin, and stored where the answer allows it"),
        };
        Foretold::of(decision, why, outcome, Asks::Shared, lead)
    }

    /// Says so where memory is too short for anything but answers from memory.
    fn short(&self, mut foretold: Foretold) -> Foretold {
        if self.pressure.step() >= Pressure::Shed {
            foretold.outcome = Outcome::Refused;
            foretold.text.push_str(
                "; memory is short, so that the answer is 503 unless something stale may stand in",
            );
        }
        foretold
    }
}

const FULL: &str = "goes to the origin alone, since too many fetches are under way";

fn only_if_cached(why: Reason) -> Foretold {
    let lead = "answered 504, since the request wants nothing forwarded (only-if-cached)";
    Foretold::of(Decision::OnlyIfCached, why, Outcome::Refused, Asks::No, lead)
}

fn alone(decision: Decision, why: Reason) -> Foretold {
    let lead = "goes to the origin as it came, and the answer is not stored";
    passed(decision, why, lead)
}

fn detailed(decision: Decision, why: Reason, detail: &'static str, lead: &str) -> Foretold {
    let foretold = passed(decision, why, lead);
    let status = CacheStatus { detail: Some(detail), ..foretold.status };
    Foretold { reason: detail, status, ..foretold }
}

/// Whatever was decided, it passes.
fn passed(decision: Decision, why: Reason, lead: &str) -> Foretold {
    let decision = decision.forward().map_or(decision, Decision::Pass);
    Foretold::of(decision, why, Outcome::Pass, Asks::Alone, lead)
}
