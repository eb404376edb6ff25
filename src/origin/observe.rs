//! What requests, probes and operators tell of an origin's endpoints, and what follows from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::health::{Observed, Order, ProbeRules, State, may_eject, usable};
use crate::store::What;

use super::SendError;
use super::endpoint::Endpoint;
use super::set::Origin;

impl Origin {
    /// Takes in how a request went; `latency` is the time to the final head.
    pub(super) fn observe(
        &self,
        endpoint: &Endpoint,
        observed: Observed,
        latency: Option<Duration>,
        now: Duration,
    ) {
        let mut view = endpoint.view.lock();
        if let Some(latency) = latency {
            view.latency.observe(latency, now);
        }
        if observed == Observed::Success {
            view.last_error = None;
        }
        let before = view.health.state(now);
        let earned = view.health.observe(observed, &self.rules, now);
        let after = view.health.state(now);
        drop(view);
        if earned {
            self.eject(endpoint, now);
        } else if before != after && after == State::Up {
            tracing::info!(origin = self.config.name, endpoint = %endpoint.address, "endpoint is back");
            self.measure_endpoints(now);
            self.tell(endpoint, None, now);
        }
        if observed == Observed::Failure {
            self.unanswered(endpoint, now);
        } else {
            self.answered(now);
        }
    }

    /// Ejects an endpoint that has earned it, if the set can spare it.
    fn eject(&self, endpoint: &Endpoint, now: Duration) {
        let editing = self.editing.lock();
        let endpoints = self.endpoints();
        let (mut all, mut ejected, mut usable) = (0, 0, 0);
        for other in endpoints.iter() {
            let mut view = other.view.lock();
            if view.order != Order::Auto {
                continue;
            }
            let out = matches!(view.health.state(now), State::Ejected { .. });
            all += 1;
            ejected += usize::from(out && other.id != endpoint.id);
            usable += usize::from(view.health.is_up(now));
        }
        let most = self.limits.eject_at_most_percent;
        if !may_eject(all, ejected, usable, most) {
            return;
        }
        let mut view = endpoint.view.lock();
        view.health.eject(&self.rules, now);
        view.latency.reset();
        let why = view.last_error.clone().unwrap_or_default();
        drop(view);
        drop(editing);
        self.measure(|metrics| metrics.ejections.inc());
        self.measure_endpoints(now);
        tracing::warn!(
            origin = self.config.name, endpoint = %endpoint.address, why, "endpoint ejected"
        );
        self.tell(endpoint, Some(why), now);
    }

    /// Opens the circuit where an endpoint has ceased to answer and no other is better.
    fn unanswered(&self, endpoint: &Endpoint, now: Duration) {
        let most = self.limits.circuit_failures;
        let silent = |endpoint: &Endpoint| endpoint.view.lock().health.is_silent(most);
        if most == 0 || !silent(endpoint) || self.breaker.is_open() {
            return;
        }
        let endpoints = self.endpoints();
        let known = self.judge(&endpoints, now);
        // What probes say counts only as long as they are believed.
        let panic = usable(known.iter().map(|known| known.member)).panic;
        let mut asked =
            endpoints.iter().zip(&known).filter(|(_, known)| !known.member.out).peekable();
        let dead = |endpoint: &Endpoint, up: bool| silent(endpoint) || (!panic && !up);
        if asked.peek().is_some()
            && asked.all(|(endpoint, known)| dead(endpoint, known.member.up))
            && self.breaker.silent(now)
        {
            let why = endpoint.view.lock().last_error.clone();
            tracing::warn!(origin = self.config.name, why, "no endpoint answers; circuit opened");
            self.measure(|metrics| {
                metrics.breaker.opened.inc();
                metrics.breaker.open.set(1);
            });
            self.tell_all("circuit-open", why);
        }
    }

    fn answered(&self, now: Duration) {
        let Some(state) = self.breaker.answered(now) else { return };
        self.measure(|metrics| metrics.breaker.open.set(0));
        tracing::info!(origin = self.config.name, state, "the origin answers again");
        self.tell_all(
            if state == "closed" { "circuit-closed" } else { "circuit-recovering" },
            None,
        );
    }

    /// Tells those who follow the node how an endpoint stands now.
    fn tell(&self, endpoint: &Endpoint, why: Option<String>, now: Duration) {
        let what = What::Health {
            origin: self.config.name.clone(),
            address: endpoint.address,
            state: endpoint.status(&self.rules, now).state,
            why: why.filter(|why| !why.is_empty()),
        };
        self.events.publish(what, clock::now().wall);
    }

    /// Tells those who follow the node how the origin as a whole stands now.
    fn tell_all(&self, state: &'static str, why: Option<String>) {
        let what = What::Origin { origin: self.config.name.clone(), state, why };
        self.events.publish(what, clock::now().wall);
    }

    /// Takes in how a probe went.
    pub(super) fn observe_probe(
        &self,
        endpoint: &Endpoint,
        outcome: Result<(), SendError>,
        rules: ProbeRules,
        now: Duration,
    ) {
        let well = outcome.is_ok();
        let mut view = endpoint.view.lock();
        let changed = view.health.observe_probe(well, rules, now);
        if let Err(error) = &outcome {
            view.last_error = Some(format!("probe: {error}"));
        } else if changed.is_some() {
            view.last_error = None;
            view.latency.reset();
        }
        drop(view);
        self.measure(|metrics| {
            metrics.breaker.probes.inc();
            metrics.probes_failed.inc_by(u64::from(!well));
        });
        let Some(well) = changed else { return };
        if well {
            self.breaker.hasten(now);
        }
        self.measure_endpoints(now);
        let why = outcome.err().map(|error| format!("probe: {error}")).unwrap_or_default();
        self.tell(endpoint, Some(why.clone()), now);
        let (origin, endpoint) = (&self.config.name, endpoint.address);
        if well {
            tracing::info!(origin, %endpoint, "probes find the endpoint well again");
        } else {
            tracing::warn!(origin, %endpoint, why, "probes find the endpoint down");
        }
    }

    /// Takes in an operator's word about an address, in use or remembered; false where it is
    /// neither.
    pub(super) fn order(&self, address: SocketAddr, order: Order, now: Duration) -> bool {
        // No address comes or goes meanwhile.
        let editing = self.editing.lock();
        let endpoints = self.endpoints();
        let here: Vec<&Arc<Endpoint>> =
            endpoints.iter().filter(|endpoint| endpoint.address == address).collect();
        let mut changed = Vec::new();
        for endpoint in &here {
            let mut view = endpoint.view.lock();
            if view.order == order {
                continue;
            }
            view.order = order;
            if order == Order::Auto {
                view.health.returns(now);
                view.latency.reset();
            }
            changed.push(Arc::clone(endpoint));
        }
        let known = self.memory.lock().order(address, order) || !here.is_empty();
        drop(editing);
        if !changed.is_empty() {
            self.measure_endpoints(now);
            self.breaker.hasten(now);
        }
        for endpoint in changed {
            self.tell(&endpoint, Some("operator's order".to_owned()), now);
        }
        known
    }

    /// Sets the gauges and tells of panic; called on changes, and now and then for those that time
    /// makes.
    pub(super) fn measure_endpoints(&self, now: Duration) {
        let endpoints = self.endpoints();
        let known = self.judge(&endpoints, now);
        let up = known.iter().filter(|known| known.member.up && !known.member.out).count();
        let panic = usable(known.iter().map(|known| known.member)).panic;
        let age = self.oldest_answer().map_or(0, |good| now.saturating_sub(good).as_secs());
        self.measure(|metrics| {
            metrics.dns_age.set(i64::try_from(age).unwrap_or(i64::MAX));
            metrics.endpoints.set(i64::try_from(endpoints.len()).unwrap_or(i64::MAX));
            metrics.endpoints_up.set(i64::try_from(up).unwrap_or(i64::MAX));
            metrics.breaker.panic.set(i64::from(panic));
            metrics.breaker.open.set(i64::from(self.breaker.is_open()));
        });
        let (origin, all) = (&self.config.name, known.len());
        match (self.panic.swap(panic, Ordering::Relaxed), panic) {
            (false, true) => {
                tracing::warn!(origin, up, all, "nearly all endpoints look down; all are used");
                self.tell_all("panic", Some(format!("{up} of {all} endpoints look well")));
            }
            (true, false) => {
                tracing::info!(origin, up, all, "endpoints are believed again");
                self.tell_all("believed", None);
            }
            _ => {}
        }
    }
}
