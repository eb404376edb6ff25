//! Waiting until a purge has come as far as its sender asked for.
//!
//! A purge is in force on this node before anybody waits. What is waited for is its way to the
//! others, which a network may cut: so every wait has an end, only so many wait at once, and who did
//! not get what he asked for is answered with 503 and the state so far. For a program that is the
//! safe reading: `curl --fail` and a pipeline stop there, and sending the same again is never wrong. A
//! purge that is acknowledged but not everywhere is such a one, too, where everywhere was asked for:
//! the body tells the two apart.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::problem::Problem;
use super::standing::{Level, Standing};
use super::{Admin, unwritten};
use crate::audit::{self, Act};
use crate::clock;
use crate::config::{PurgeWaits, format_duration};
use crate::mesh::Until;
use crate::replication::Identity as PurgeId;

/// Pause before a purge is looked at again that came further, but not far enough.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Nodes that are named in a sentence.
const NAMED: usize = 5;

/// What a purge was answered with.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Receipt {
    /// Node, incarnation and sequence.
    pub(super) id: String,
    pub(super) epoch: u64,
    pub(super) took_ms: f64,
    /// How far it has come: what was asked for, or less.
    pub(super) state: Level,
    /// How it stands on the nodes; not told to who does not wait.
    #[serde(flatten)]
    pub(super) standing: Option<Standing>,
    /// Stored responses that matched; not known until the sweep has walked the store.
    pub(super) matched: Option<u64>,
    /// Bytes that were given back; not known until the sweep has walked the store.
    pub(super) freed: Option<u64>,
    /// What is fetched again, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refetch: Option<Refetch>,
    /// Present where the audit log lacks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audit: Option<bool>,
    #[serde(skip)]
    pub(super) name: PurgeId,
    /// It is about a site that is served without a lease, too.
    #[serde(skip)]
    pub(super) serves: bool,
    /// The furthest that was ever seen, by all who ask for the same purge: what the mesh has
    /// forgotten is answered from here.
    #[serde(skip)]
    pub(super) seen: Arc<Mutex<Option<Standing>>>,
}

/// The hottest of what was purged, on their way back.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refetch {
    /// Requests that are sent.
    pub(super) requests: usize,
    /// Id of the warm-up that sends them; none where it could not begin.
    pub(super) warm_up: Option<String>,
}

/// A purge that is in force here, and what is still to be done before it is answered.
#[derive(Debug)]
pub struct Done {
    pub(super) receipt: Receipt,
    /// What the audit log has to note; nothing of one that had been carried out before.
    pub(super) act: Option<Act>,
    pub(super) patience: Patience,
}

/// How far a purge has to come, and within which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) until: Level,
    pub(super) most: Duration,
}

impl Patience {
    /// That of a sender who says nothing, and of formats that have no word for it.
    pub(super) fn usual(waits: &PurgeWaits) -> Self {
        Self { until: Level::Acknowledged, most: waits.usual }
    }
}

impl Admin {
    /// Has the audit log note a purge, waits as its sender asked, and gives its receipt.
    pub(super) async fn settle(&self, done: Done) -> Result<Receipt, Problem> {
        let Done { receipt, act, patience } = done;
        let begun = clock::now();
        let written = match act {
            Some(act) => Some(self.control.audit().note(act).await),
            None => None,
        };
        let receipt = receipt.noted(written);
        if patience.until == Level::Local {
            return Ok(receipt);
        }
        let full = !self.await_standing(&receipt, patience).await;
        let standing = receipt.furthest(self.standing(&receipt).as_ref());
        let reached = standing.as_ref().map_or(Level::Local, Standing::reached);
        let receipt = Receipt { state: reached.min(patience.until), ..receipt };
        if reached >= patience.until {
            return Ok(Receipt { standing, ..receipt });
        }
        let waited = clock::now().since(begun);
        tracing::warn!(id = receipt.id, ?reached, wanted = ?patience.until, ?waited, "a purge is late");
        Err(late(receipt, standing, patience, full))
    }

    /// Waits where that is needed; `false` where as many wait as may.
    async fn await_standing(&self, receipt: &Receipt, patience: Patience) -> bool {
        let until = match patience.until {
            Level::Local | Level::Acknowledged => Until::Acknowledged,
            Level::Everywhere => Until::Everywhere,
        };
        match self.standing(receipt) {
            Some(standing) if standing.reached() < patience.until => {}
            Some(_) | None => return true,
        }
        let Ok(_place) = self.waits.try_acquire() else { return false };
        let comes = async {
            // What the mesh takes for everywhere may be less than that to a site that is served
            // without a lease; then it is looked at again.
            loop {
                self.control.wait(&receipt.name, until, patience.most).await;
                let now = self.standing(receipt);
                if now.is_none_or(|now| now.reached() >= patience.until) {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let _ = tokio::time::timeout(patience.most, comes).await;
        true
    }

    fn standing(&self, receipt: &Receipt) -> Option<Standing> {
        let told = self.control.receipt(&receipt.name, clock::now());
        told.map(|told| Standing::of(told, receipt.serves))
    }

    /// Whether a purge can still come as far as somebody may wait for, or has. One of a life that
    /// this node is not in any more comes no further, nor does one that the mesh has forgotten.
    pub(super) fn counts(&self, receipt: &Receipt) -> bool {
        let standing = self.standing(receipt);
        let remembered = standing.is_some();
        let furthest = receipt.furthest(standing.as_ref());
        let reached = furthest.as_ref().map_or(Level::Local, Standing::reached);
        let source = &receipt.name.source;
        let current = self.control.mesh(clock::now());
        let life = current.me == source.node.as_str()
            && u64::from_str_radix(&current.incarnation, 16) == Ok(source.incarnation.0);
        match reached {
            Level::Everywhere => true,
            Level::Acknowledged => life,
            Level::Local => life && remembered,
        }
    }

    /// Whether one of these sites, of all where there are none, is served by nodes without a lease.
    pub(super) fn serves_without_lease(&self, sites: Option<&[Arc<str>]>) -> bool {
        let mut own = self.sites.iter().filter(|site| site.serves_without_lease);
        own.any(|site| sites.is_none_or(|sites| sites.contains(&site.name)))
    }
}

impl Receipt {
    /// The same, saying so where the audit log should have it and has not.
    fn noted(self, written: Option<audit::Written>) -> Self {
        Self { audit: written.and_then(unwritten), ..self }
    }

    /// How it stands, or how it stood when that was last known.
    fn furthest(&self, standing: Option<&Standing>) -> Option<Standing> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if standing.is_some() {
            *seen = standing.cloned();
        }
        seen.clone()
    }
}

/// What was asked for was not reached.
fn late(receipt: Receipt, standing: Option<Standing>, patience: Patience, full: bool) -> Problem {
    let time = format_duration(patience.most);
    let id = &receipt.id;
    let within = match (full, &standing) {
        (_, None) => "as far as is still known here".to_owned(),
        (true, _) => "at once, and as many purges are waited for as may".to_owned(),
        (false, _) => format!("within {time}"),
    };
    let (code, detail) = if receipt.state == Level::Local {
        let detail = format!(
            "the purge {id} is in force on this node, but was not acknowledged by a majority of the \
             witnesses {within}; elsewhere it may or may not take effect: repeat it"
        );
        ("not-acknowledged", detail)
    } else {
        let missing = missing(standing.as_ref());
        let detail = format!(
            "the purge {id} is acknowledged, but not everywhere {within}: nothing is known of \
             {missing}; it is on its way there, and `GET /v1/purges/{id}` tells how it stands"
        );
        ("not-everywhere", detail)
    };
    let more = match serde_json::to_value(Receipt { standing, ..receipt }) {
        Ok(Value::Object(more)) => more,
        Ok(_) | Err(_) => Map::new(),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).again_after(1).with(more)
}

/// The nodes that nobody can speak for, in words.
fn missing(standing: Option<&Standing>) -> String {
    let unknown = || standing.into_iter().flat_map(Standing::unknown);
    let mut names: Vec<&str> = unknown().take(NAMED).collect();
    let more = format!("{} more", unknown().count().saturating_sub(NAMED));
    if unknown().count() > NAMED {
        names.push(&more);
    }
    names.join(", ")
}

#[cfg(test)]
mod tests;
