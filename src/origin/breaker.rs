//! The circuit breaker of an origin: refuses requests while no endpoint answers, and lets them come
//! back by and by. The rules are in [`crate::health::Circuit`]; here they meet the workers.
//!
//! While the origin recovers, a request needs a permit of a gate beside its place. Each answer adds
//! one, and when all places are open the gate is gone. When the circuit opens the gate is closed and
//! whoever waits is told at once, since nothing would come of waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::futures::Notified;

use crate::config::Limits;
use crate::health::{Admission, Change, Circuit, CircuitRules, CircuitState};

use super::lock::Lock;

/// The breaker of one origin, shared by all workers.
#[derive(Debug)]
pub(super) struct Breaker {
    rules: CircuitRules,
    /// The circuit is closed: nothing else need be looked at.
    calm: AtomicBool,
    inner: Lock<Inner>,
    opened: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Inner {
    circuit: Circuit,
    gate: Option<Arc<Semaphore>>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Pass {
    /// It needs a place and nothing else.
    Free,
    /// It needs a permit of this gate, too.
    Limited(Arc<Semaphore>),
    /// It is refused.
    Refused,
}

impl Breaker {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            rules: CircuitRules {
                retry: limits.circuit_retry,
                places: u32::try_from(limits.origin_connections).unwrap_or(u32::MAX),
                ramp: limits.slow_start,
            },
            calm: AtomicBool::new(true),
            inner: Lock::default(),
            opened: tokio::sync::Notify::new(),
        }
    }

    /// Where it is, for people.
    pub(super) fn state(&self) -> &'static str {
        match self.inner.lock().circuit.state() {
            CircuitState::Closed => "closed",
            CircuitState::Open { .. } => "open",
            CircuitState::Recovering { .. } => "recovering",
        }
    }

    /// Whether nothing is wrong with the origin.
    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Whether requests are refused.
    pub(super) fn is_open(&self) -> bool {
        !self.calm.load(Ordering::Relaxed)
            && matches!(self.inner.lock().circuit.state(), CircuitState::Open { .. })
    }

    /// Resolves when the circuit opens after this call.
    pub(super) fn opened(&self) -> Notified<'_> {
        self.opened.notified()
    }

    /// Judges a request that wants to go.
    pub(super) fn admit(&self, now: Duration) -> Pass {
        if self.calm.load(Ordering::Relaxed) {
            return Pass::Free;
        }
        let mut inner = self.inner.lock();
        let admission = inner.circuit.admit(&self.rules, now);
        self.settle(&mut inner);
        match (admission, &inner.gate) {
            (Admission::Refused, _) => Pass::Refused,
            (Admission::Limited, Some(gate)) => Pass::Limited(Arc::clone(gate)),
            (Admission::Limited | Admission::Free | Admission::Trial, _) => Pass::Free,
        }
    }

    /// An endpoint has answered. Gives the new state where it is another one.
    pub(super) fn answered(&self, now: Duration) -> Option<&'static str> {
        if self.calm.load(Ordering::Relaxed) {
            return None;
        }
        let mut inner = self.inner.lock();
        match inner.circuit.answered(&self.rules, now)? {
            Change::Recovering(allowed) => {
                inner.gate = Some(Self::gate(allowed));
                Some("recovering")
            }
            Change::Wider => {
                if let Some(gate) = &inner.gate {
                    gate.add_permits(1);
                }
                None
            }
            Change::Closed => {
                self.settle(&mut inner);
                Some("closed")
            }
            Change::Opened => None,
        }
    }

    /// No endpoint answers any more. True: it was not open before.
    pub(super) fn silent(&self, now: Duration) -> bool {
        let mut inner = self.inner.lock();
        if inner.circuit.silent(&self.rules, now).is_none() {
            return false;
        }
        self.calm.store(false, Ordering::Relaxed);
        if let Some(gate) = inner.gate.take() {
            gate.close();
        }
        drop(inner);
        self.opened.notify_waiters();
        true
    }

    /// A probe says that an endpoint is back.
    pub(super) fn hasten(&self, now: Duration) {
        self.inner.lock().circuit.hasten(now);
    }

    /// Goes on where the breaker of the same origin in another configuration is.
    pub(super) fn adopt(&self, old: &Self) {
        let circuit = old.inner.lock().circuit;
        let mut inner = self.inner.lock();
        inner.circuit = circuit;
        inner.gate = match circuit.state() {
            CircuitState::Recovering { allowed, .. } => Some(Self::gate(allowed)),
            CircuitState::Closed | CircuitState::Open { .. } => None,
        };
        self.settle(&mut inner);
    }

    /// Without a circuit that limits anything there is no gate. Those who wait at it have their turn
    /// as its permits come back.
    fn settle(&self, inner: &mut Inner) {
        let closed = inner.circuit.state() == CircuitState::Closed;
        if closed && let Some(gate) = inner.gate.take() {
            gate.add_permits(Semaphore::MAX_PERMITS / 2);
        }
        self.calm.store(closed, Ordering::Relaxed);
    }

    fn gate(allowed: u32) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(usize::try_from(allowed).unwrap_or(Semaphore::MAX_PERMITS / 4)))
    }
}
