//! A round that is over, for people.

use std::sync::Arc;
use std::time::Duration;

use super::round::{Seen, State};
use crate::clock::Now;
use crate::mesh::{CanaryNodeView, CanaryView};
use crate::replication::Identity;
use crate::telemetry::CanaryOutcome;

/// What the last round came to, and how many there were.
pub(super) struct Ended {
    pub(super) at: Now,
    pub(super) rounds: u64,
    pub(super) broken: u64,
    pub(super) outcome: CanaryOutcome,
    pub(super) purge: Result<Identity, &'static str>,
    pub(super) nodes: Vec<(Arc<str>, Seen)>,
}

impl Ended {
    pub(super) fn view(&self, now: Now) -> CanaryView {
        let purge = self.purge.as_ref();
        CanaryView {
            rounds: self.rounds,
            broken: self.broken,
            outcome: self.outcome.label(),
            ended_ms_ago: millis(now.since(self.at)),
            purge: purge.ok().map(Identity::dotted),
            why: purge.err().copied(),
            nodes: self.nodes.iter().filter(|_| purge.is_ok()).map(node).collect(),
        }
    }
}

fn node((name, seen): &(Arc<str>, Seen)) -> CanaryNodeView {
    let state = seen.state();
    let why = match state {
        State::Kept | State::Broken => None,
        State::Unknown(why) => Some(why),
    };
    let (name, old_ms) = (name.to_string(), seen.old_until().map(millis));
    CanaryNodeView { name, state: state.label(), old_ms, why }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
