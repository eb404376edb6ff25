//! What stands between requests and an origin: its circuit, its places, its panic.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::collect::Shelf;

/// Counts of one origin's breaker and of its probes.
#[derive(Debug)]
pub struct BreakerMetrics {
    /// 1 while the circuit is open.
    pub open: IntGauge,
    /// Times it has opened.
    pub opened: IntCounter,
    /// 1 while so few endpoints look well that all are used.
    pub panic: IntGauge,
    /// Probes that have ended.
    pub probes: IntCounter,
    refused: [IntCounter; Refused::ALL.len()],
}

impl BreakerMetrics {
    /// Counts a request that the origin was not asked for.
    pub fn refused(&self, why: Refused) {
        let found = Refused::ALL.iter().position(|reason| *reason == why);
        if let Some(counter) = found.and_then(|at| self.refused.get(at)) {
            counter.inc();
        }
    }
}

/// Why an origin was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No endpoint answers.
    Circuit,
    /// All places are taken and the queue is full.
    QueueFull,
    /// No place became free in time.
    QueueWait,
}

impl Refused {
    const ALL: [Self; 3] = [Self::Circuit, Self::QueueFull, Self::QueueWait];

    fn label(self) -> &'static str {
        match self {
            Self::Circuit => "circuit",
            Self::QueueFull => "queue-full",
            Self::QueueWait => "queue-wait",
        }
    }
}

/// The metrics of all origins before they are told apart by name.
#[derive(Debug)]
pub(super) struct BreakerFamilies {
    open: IntGaugeVec,
    opened: IntCounterVec,
    panic: IntGaugeVec,
    places: IntGaugeVec,
    probes: IntCounterVec,
    refused: IntCounterVec,
}

impl BreakerFamilies {
    /// Shows the states of an origin no more.
    pub(super) fn forget(&self, name: &str) {
        for gauge in [&self.open, &self.panic, &self.places] {
            // One that was never shown cannot be hidden.
            let _ = gauge.remove_label_values(&[name]);
        }
    }

    pub(super) fn new(shelf: &Shelf<'_>) -> Self {
        let gauge = |name, help| shelf.gauges(name, help, &["origin"]);
        Self {
            open: gauge("atoll_origin_circuit_open", "1 while no endpoint answers."),
            opened: shelf.counters(
                "atoll_origin_circuit_opened_total",
                "Times that an origin was given up for a while.",
                &["origin"],
            ),
            panic: gauge(
                "atoll_origin_panic",
                "1 while so few endpoints look well that all are used.",
            ),
            places: gauge("atoll_origin_places", "Requests that may be under way to an origin."),
            probes: shelf.counters(
                "atoll_origin_probes_total",
                "Probes of endpoints that have ended.",
                &["origin"],
            ),
            refused: shelf.counters(
                "atoll_origin_refused_total",
                "Requests that an origin was not asked for, by reason.",
                &["origin", "reason"],
            ),
        }
    }

    pub(super) fn of(&self, name: &str, places: usize) -> BreakerMetrics {
        self.places.with_label_values(&[name]).set(i64::try_from(places).unwrap_or(i64::MAX));
        BreakerMetrics {
            open: self.open.with_label_values(&[name]),
            opened: self.opened.with_label_values(&[name]),
            panic: self.panic.with_label_values(&[name]),
            probes: self.probes.with_label_values(&[name]),
            refused: Refused::ALL
                .map(|reason| self.refused.with_label_values(&[name, reason.label()])),
        }
    }
}
