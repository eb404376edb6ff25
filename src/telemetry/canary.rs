//! What the canary counts: rounds, what they proved of each node, broken promises.

use std::time::{Duration, SystemTime};

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::collect::Shelf;
use crate::config::Config;

/// Upper bounds of the buckets of the time for which old versions were seen, in seconds. The first is for
/// nodes that never showed one; 2 is what the promise allows.
const OLD_BOUNDS: [f64; 10] = [0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0];

/// What a round may prove of a node, in words.
const STATES: [&str; 3] = ["kept", "broken", "unknown"];

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CanaryOutcome {
    /// Every node kept the promise.
    Kept,
    /// A node broke it.
    Broken,
    /// None is known to have broken it, and of some nothing is known.
    Unknown,
    /// The purge was not acknowledged, so nothing was promised.
    NotAcknowledged,
}

impl CanaryOutcome {
    const ALL: [Self; 4] = [Self::Kept, Self::Broken, Self::Unknown, Self::NotAcknowledged];

    /// Its name in answers and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
            Self::NotAcknowledged => "not-acknowledged",
        }
    }
}

/// Counts of the canary. Nodes are those of the configuration.
#[derive(Debug)]
pub struct CanaryMetrics {
    /// Broken promises: nodes that showed a purged version later than they may, once a round.
    pub broken: IntCounter,
    rounds: IntCounterVec,
    nodes: IntCounterVec,
    old: HistogramVec,
    last: IntGauge,
}

impl CanaryMetrics {
    pub(super) fn new(shelf: &Shelf<'_>, config: &Config) -> Self {
        let rounds = shelf.counters(
            "atoll_canary_rounds_total",
            "Rounds of the canary, by what they came to.",
            &["outcome"],
        );
        for outcome in CanaryOutcome::ALL {
            rounds.with_label_values(&[outcome.label()]);
        }
        let nodes = shelf.counters(
            "atoll_canary_nodes_total",
            "What rounds of the canary proved of each node.",
            &["node", "state"],
        );
        let canary = config.mesh.iter().filter_map(|mesh| mesh.canary.as_ref());
        for node in canary.flat_map(|canary| &canary.nodes) {
            for state in STATES {
                nodes.with_label_values(&[&node.name, state]);
            }
        }
        Self {
            broken: shelf.counter(
                "atoll_canary_broken_promises_total",
                "Nodes that showed a purged version later than they may, once a round.",
            ),
            rounds,
            nodes,
            old: shelf.histograms(
                "atoll_canary_old_seconds",
                "How long after its purge was acknowledged a version was last seen on a node.",
                &["node"],
                &OLD_BOUNDS,
            ),
            last: shelf.gauge(
                "atoll_canary_last_round_timestamp_seconds",
                "When the last round of the canary ended; 0 before the first.",
            ),
        }
    }

    /// A round is over.
    pub fn round(&self, outcome: CanaryOutcome, at: SystemTime) {
        self.rounds.with_label_values(&[outcome.label()]).inc();
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    }

    /// What a round proved of a node of the configuration.
    pub fn node(&self, node: &str, state: &'static str) {
        self.nodes.with_label_values(&[node, state]).inc();
    }

    /// For how long a node of the configuration had shown the old version in a round.
    pub fn old(&self, node: &str, old: Duration) {
        self.old.with_label_values(&[node]).observe(old.as_secs_f64());
    }
}
