//! Counts of coded copies made of stored responses.

use prometheus::IntCounter;

use super::collect::Shelf;
use crate::semantics::Coding;

/// What came of asking for a coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodingOutcome {
    /// It is stored.
    Made,
    /// It would hardly be smaller: not tried again for these bytes.
    NotSmaller,
    /// Its response was purged, replaced or pushed out meanwhile, or the process ends.
    Gone,
    /// The coder failed.
    Failed,
    /// Too many wait already.
    QueueFull,
}

impl CodingOutcome {
    const ALL: [Self; 5] =
        [Self::Made, Self::NotSmaller, Self::Gone, Self::Failed, Self::QueueFull];

    fn label(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::NotSmaller => "not-smaller",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::QueueFull => "queue-full",
        }
    }
}

/// Counts by coding and outcome.
#[derive(Debug)]
pub struct CodingMetrics {
    rows: Vec<(Coding, CodingOutcome, IntCounter)>,
}

impl CodingMetrics {
    pub(super) fn new(shelf: &Shelf<'_>) -> Self {
        let counters = shelf.counters(
            "atoll_codings_total",
            "Coded copies of stored responses that were asked for, by what came of it.",
            &["coding", "outcome"],
        );
        let row = |coding: Coding, outcome: CodingOutcome| {
            let counter = counters.with_label_values(&[coding.name(), outcome.label()]);
            (coding, outcome, counter)
        };
        let rows = Coding::ALL
            .into_iter()
            .flat_map(|coding| CodingOutcome::ALL.map(|outcome| row(coding, outcome)));
        Self { rows: rows.collect() }
    }

    /// Counts what came of one.
    pub fn count(&self, coding: Coding, outcome: CodingOutcome) {
        let row = self.rows.iter().find(|row| (row.0, row.1) == (coding, outcome));
        if let Some((_, _, counter)) = row {
            counter.inc();
        }
    }
}
