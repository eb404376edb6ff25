//! Counts of requests that came while purges may have been missed, or that named a purge.

use prometheus::{IntCounter, IntCounterVec};

use super::collect::Shelf;

/// What a site does, in the words of its policy.
const ASKED: &str = "revalidate";
const SERVED: &str = "serve";

/// What came of the purges that a request named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// They are in force.
    InForce,
    /// They are, after a short wait.
    Waited,
    /// One of them is not: the origin is asked.
    Missing,
    /// They cannot be read, or there are too many: the origin is asked.
    Unreadable,
    /// The origin was not asked, since this client had it asked too often.
    Refused,
}

impl Position {
    const ALL: [Self; 5] =
        [Self::InForce, Self::Waited, Self::Missing, Self::Unreadable, Self::Refused];

    /// Whether memory may answer.
    #[must_use]
    pub fn is_in_force(self) -> bool {
        matches!(self, Self::InForce | Self::Waited)
    }

    fn label(self) -> &'static str {
        match self {
            Self::InForce => "in-force",
            Self::Waited => "waited",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Refused => "refused",
        }
    }
}

/// Counts by site, and by what came of named purges.
#[derive(Debug)]
pub struct LeaseMetrics {
    without: IntCounterVec,
    positions: Vec<(Position, IntCounter)>,
}

impl LeaseMetrics {
    pub(super) fn new<'a>(shelf: &Shelf<'_>, sites: impl Iterator<Item = &'a str>) -> Self {
        let without = shelf.counters(
            "atoll_without_lease_total",
            "Requests that came without a lease, by what the site does then.",
            &["site", "without_lease"],
        );
        // Rows are there from the start, so that rates can be taken from zero.
        for site in sites {
            for done in [ASKED, SERVED] {
                without.with_label_values(&[site, done]);
            }
        }
        let positions = shelf.counters(
            "atoll_purge_positions_total",
            "Requests that named purges, by whether those are in force here.",
            &["result"],
        );
        let position = |found: Position| (found, positions.with_label_values(&[found.label()]));
        Self { without, positions: Position::ALL.into_iter().map(position).collect() }
    }

    /// Counts a request of a site that came without a lease.
    pub fn without(&self, site: &str, from_memory: bool) {
        let done = if from_memory { SERVED } else { ASKED };
        self.without.with_label_values(&[site, done]).inc();
    }

    /// Counts what came of the purges that a request named.
    pub fn position(&self, found: Position) {
        if let Some((_, counter)) = self.positions.iter().find(|(row, _)| *row == found) {
            counter.inc();
        }
    }
}
