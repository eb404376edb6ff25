//! What the mesh is measured by: the lease, how fast purges spread, what had to be repaired.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::collect::Shelf;
use crate::config::Config;

/// Upper bounds of the buckets of times between nodes, in seconds.
const SPREAD_BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 30.0];

/// Counts of a node's part in the mesh. PoPs are those of the configured roster.
#[derive(Debug)]
pub struct MeshMetrics {
    /// 1 while the lease is held.
    pub lease_held: IntGauge,
    /// Times that it was lost.
    pub lease_lost: IntCounter,
    /// Purges issued here.
    pub issued: IntCounter,
    /// Of them, those that a majority of the witnesses was known to hold.
    pub acknowledged: IntCounter,
    /// Purges that were not taken since they came too fast.
    pub too_many: IntCounter,
    /// Records of others whose names were known with another content.
    pub refused: IntCounter,
    /// Records that were applied as wide as their frame says.
    pub wide: IntCounter,
    /// Records that named a site which this node does not know.
    pub unknown_site: IntCounter,
    /// Nodes heard of that hold other witnesses under the number that this node's have.
    pub other_witnesses: IntCounter,
    /// Records that came because they were asked for.
    pub repaired: IntCounter,
    /// Records sent because somebody asked for them.
    pub repairs: IntCounter,
    /// Times that the protocol was begun anew after a fault in it.
    pub restarts: IntCounter,
    /// Records known to be missing here.
    pub missing: IntGauge,
    /// Records that wait for those before them.
    pub waiting: IntGauge,
    /// Sources in the vector.
    pub sources: IntGauge,
    /// Records in the log.
    pub log_records: IntGauge,
    /// Bytes of them.
    pub log_bytes: IntGauge,
    /// Bytes of the log on disk.
    pub disk_bytes: IntGauge,
    /// 1 while what is written there is safe.
    pub disk_healthy: IntGauge,
    applied: IntCounterVec,
    resets: IntCounterVec,
    spread: HistogramVec,
    acknowledgement: Histogram,
    sync: Histogram,
}

impl MeshMetrics {
    pub(super) fn new(shelf: &Shelf<'_>, config: &Config) -> Self {
        let metrics = Self::shelved(shelf);
        if config.mesh.is_none() {
            // A node that is alone always holds it.
            metrics.lease_held.set(1);
        }
        metrics
    }

    fn shelved(shelf: &Shelf<'_>) -> Self {
        let (counter, gauge) =
            (|name, help| shelf.counter(name, help), |name, help| shelf.gauge(name, help));
        let single = |name, help| {
            let none: [&str; 0] = [];
            shelf.histograms(name, help, &none, &SPREAD_BOUNDS).with_label_values(&none)
        };
        Self {
            lease_held: gauge("atoll_mesh_lease_held", "Whether the lease is held."),
            lease_lost: counter("atoll_mesh_lease_lost_total", "Times that the lease was lost."),
            issued: counter("atoll_mesh_purges_issued_total", "Purges issued by this node."),
            acknowledged: counter(
                "atoll_mesh_purges_acknowledged_total",
                "Purges of this node that a majority of the witnesses was known to hold.",
            ),
            too_many: counter(
                "atoll_mesh_purges_refused_total",
                "Purges that this node did not issue since they came too fast.",
            ),
            refused: counter(
                "atoll_mesh_records_refused_total",
                "Records whose names were known with another content.",
            ),
            wide: counter(
                "atoll_mesh_records_wide_total",
                "Records that were not understood, and purged as much as they may at most.",
            ),
            unknown_site: counter(
                "atoll_mesh_records_unknown_site_total",
                "Records about sites that this node does not know: all that it has is checked.",
            ),
            other_witnesses: counter(
                "atoll_mesh_other_witnesses_total",
                "Nodes seen with other witnesses under the same number of the set.",
            ),
            repaired: counter(
                "atoll_mesh_records_repaired_total",
                "Records that came because this node had missed them.",
            ),
            repairs: counter(
                "atoll_mesh_records_resent_total",
                "Records sent because another node had missed them.",
            ),
            restarts: counter(
                "atoll_mesh_restarts_total",
                "Times that the protocol began anew after a fault in it.",
            ),
            missing: gauge("atoll_mesh_records_missing", "Records known to be missing."),
            waiting: gauge("atoll_mesh_records_waiting", "Records that wait for earlier ones."),
            sources: gauge("atoll_mesh_sources", "Sources in the version vector."),
            log_records: gauge("atoll_mesh_log_records", "Records in the log."),
            log_bytes: gauge("atoll_mesh_log_bytes", "Memory that the log takes."),
            disk_bytes: gauge("atoll_mesh_disk_bytes", "Length of the witness log on disk."),
            disk_healthy: gauge(
                "atoll_mesh_disk_healthy",
                "Whether what is written to the witness log is safe.",
            ),
            applied: shelf.counters(
                "atoll_mesh_records_applied_total",
                "Records applied, by the PoP of their issuer.",
                &["pop"],
            ),
            resets: shelf.counters(
                "atoll_mesh_resets_total",
                "Times that everything stored was to be checked with the origin.",
                &["reason"],
            ),
            spread: shelf.histograms(
                "atoll_mesh_spread_seconds",
                "Time from a purge of this node until a node said that it had applied it, by PoP.",
                &["pop"],
                &SPREAD_BOUNDS,
            ),
            acknowledgement: single(
                "atoll_mesh_acknowledgement_seconds",
                "Time until a purge of this node was known to be held by a majority of witnesses.",
            ),
            sync: single(
                "atoll_mesh_disk_sync_seconds",
                "Time that a write to the witness log took until it was safe.",
            ),
        }
    }

    /// Counts records applied of an issuer in `pop`, a name of the roster.
    pub fn applied(&self, pop: &str, records: u64) {
        self.applied.with_label_values(&[pop]).inc_by(records);
    }

    /// Counts a reset, by a word of ours.
    pub fn reset(&self, reason: &'static str) {
        self.resets.with_label_values(&[reason]).inc();
    }

    /// A node in `pop`, a name of the roster, was heard to have applied a purge of this one.
    pub fn spread(&self, pop: &str, after: Duration) {
        self.spread.with_label_values(&[pop]).observe(after.as_secs_f64());
    }

    /// A purge of this node was acknowledged.
    pub fn acknowledged_after(&self, after: Duration) {
        self.acknowledged.inc();
        self.acknowledgement.observe(after.as_secs_f64());
    }

    /// A write to the log on disk is safe.
    pub fn synced(&self, after: Duration) {
        self.sync.observe(after.as_secs_f64());
    }
}
