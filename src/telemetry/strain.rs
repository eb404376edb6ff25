//! Counts of strain: what strangers do that is odd, what runs short, what failed and was begun anew.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::collect::Shelf;

/// A kind of legal but odd behaviour of an HTTP/2 client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glitch {
    /// A stream reset before its answer had begun.
    Reset,
    /// A stream that we had to reset for what the client sent on it.
    ServerReset,
    /// A field section that was too large, or had too many fields or cookie crumbs.
    Fields,
    /// DATA without data.
    EmptyData,
    /// DATA of nothing but padding.
    Padding,
    /// DATA of a few bytes, more often than is allowed.
    TinyData,
    /// CONTINUATION without fields.
    EmptyContinuation,
    /// WINDOW_UPDATE although nothing was sent.
    WindowUpdate,
    /// PRIORITY, or a frame of a kind that nobody knows.
    Priority,
    /// GOAWAY and the like from a client that goes on.
    Goaway,
    /// A stream given up because the client neither sent nor took what it owed.
    Slow,
}

impl Glitch {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Reset,
        Self::ServerReset,
        Self::Fields,
        Self::EmptyData,
        Self::Padding,
        Self::TinyData,
        Self::EmptyContinuation,
        Self::WindowUpdate,
        Self::Priority,
        Self::Goaway,
        Self::Slow,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ServerReset => "server-reset",
            Self::Fields => "fields",
            Self::EmptyData => "empty-data",
            Self::Padding => "padding",
            Self::TinyData => "tiny-data",
            Self::EmptyContinuation => "empty-continuation",
            Self::WindowUpdate => "window-update",
            Self::Priority => "priority",
            Self::Goaway => "goaway",
            Self::Slow => "slow",
        }
    }
}

/// Counts of what is odd, short or broken in the process.
#[derive(Debug)]
pub struct StrainMetrics {
    /// Connections closed for too many glitches.
    pub glitch_closes: IntCounter,
    /// Idle client connections closed to make room.
    pub idle_closed: IntCounter,
    /// Connections, of clients or to origins, given up for want of descriptors.
    pub descriptors_short: IntCounter,
    /// Step of memory pressure in force.
    pub memory_pressure: IntGauge,
    /// Workers that have not moved for too long.
    pub workers_stuck: IntGauge,
    /// Times that a worker was found not to move.
    pub stalls: IntCounter,
    glitches: Vec<IntCounter>,
    background_panics: IntCounterVec,
}

impl StrainMetrics {
    pub(super) fn new(shelf: &Shelf<'_>) -> Self {
        let glitches = shelf.counters(
            "atoll_glitches_total",
            "Legal but odd behaviour of HTTP/2 clients, by kind.",
            &["kind"],
        );
        Self {
            glitch_closes: shelf.counter(
                "atoll_glitch_closes_total",
                "Client connections closed for too much odd behaviour.",
            ),
            idle_closed: shelf.counter(
                "atoll_connections_idle_closed_total",
                "Idle client connections closed to make room for others.",
            ),
            descriptors_short: shelf.counter(
                "atoll_descriptors_short_total",
                "Connections given up because descriptors had run short.",
            ),
            memory_pressure: shelf.gauge(
                "atoll_memory_pressure",
                "Step of memory pressure: 0 none, 1 evict, 2 shed, 3 refuse.",
            ),
            workers_stuck: shelf
                .gauge("atoll_workers_stuck", "Workers that have not moved for too long."),
            stalls: shelf
                .counter("atoll_worker_stalls_total", "Times that a worker was found not to move."),
            glitches: Glitch::ALL
                .iter()
                .map(|kind| glitches.with_label_values(&[kind.label()]))
                .collect(),
            background_panics: shelf.counters(
                "atoll_background_panics_total",
                "Panics of tasks beside the requests, which were begun anew.",
                &["task"],
            ),
        }
    }

    /// Counts glitches of a kind.
    pub fn glitched(&self, kind: Glitch, times: u64) {
        if let Some(counter) = self.glitches.get(kind as usize) {
            counter.inc_by(times);
        }
    }

    /// Counts a panic of a task beside the requests. `task` is a name of ours.
    pub fn panicked(&self, task: &'static str) {
        self.background_panics.with_label_values(&[task]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_number_and_name() {
        for (number, kind) in Glitch::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
        let names: std::collections::HashSet<_> = Glitch::ALL.map(Glitch::label).into();
        assert_eq!(names.len(), Glitch::ALL.len());
    }
}
