//! How a purge stands on the nodes of the mesh, and how the mesh stands: the values in which the
//! node tells it, and in which it is written out.
//!
//! A purge comes further by three steps. It is in force here (`local`); a majority of the witnesses
//! has it, so that no node can hold a lease for long that does not know it (`acknowledged`); every node
//! of the configured roster has applied it, or uses its memory no more without asking the origin
//! (`everywhere`). A node that is alone is at the last step at once.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::milliseconds;
use crate::replication::Identity as PurgeId;
use crate::store::Applied;

/// How far a purge has come, or has to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// In force on this node.
    Local,
    /// Held by a majority of the witnesses.
    Acknowledged,
    /// Applied by every node of the roster, or that node fenced off.
    Everywhere,
}

/// A purge that was taken. It is in force on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its name in the whole mesh.
    pub id: PurgeId,
    /// Its number and epoch on this node.
    pub applied: Applied,
}

/// Why a purge was not taken. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// More than the rate of the mesh allows.
    TooMany {
        /// When there is room again.
        again: Duration,
    },
    /// By the roster of the mesh, this node may not issue purges.
    NotHere,
    /// Its selectors together are longer than one record may be.
    TooLong,
}

/// How a purge stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Time after which a majority of the witnesses was known to hold it.
    pub acknowledged: Option<Duration>,
    /// Every node of the roster, this one included.
    pub nodes: Vec<NodeStanding>,
}

impl Standing {
    /// A node that is alone: there is nobody to wait for.
    #[must_use]
    pub fn alone(name: &str, pop: &str) -> Self {
        let state = NodeState::Applied(Duration::ZERO);
        let (name, pop) = (name.to_owned(), pop.to_owned());
        let node = NodeStanding { name, pop, state, matched: None, why: None };
        Self { acknowledged: Some(Duration::ZERO), nodes: vec![node] }
    }

    /// How far it has come.
    #[must_use]
    pub fn reached(&self) -> Until {
        let settled = |node: &NodeStanding| node.state != NodeState::Unknown;
        match self.acknowledged {
            None => Until::Local,
            Some(_) if self.nodes.iter().all(settled) => Until::Everywhere,
            Some(_) => Until::Acknowledged,
        }
    }
}

/// How a purge stands on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStanding {
    /// Its name.
    pub name: String,
    /// Its PoP.
    pub pop: String,
    /// Whether it has applied it.
    #[serde(flatten)]
    pub state: NodeState,
    /// Stored responses there that matched, a lower bound, where that is known.
    pub matched: Option<u64>,
    /// Why it has not applied it, as far as that is known: `link down`, `silent for 12 s`.
    pub why: Option<String>,
}

/// Whether a node has applied a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It said so, this long after the purge was issued.
    Applied(Duration),
    /// It has not said so, but nothing that the purge killed is answered from its memory: it can
    /// hold no lease, and its sites revalidate without one.
    Fenced,
    /// Nobody can say.
    Unknown,
}

impl NodeState {
    /// As it is written.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Fenced => "fenced",
            Self::Unknown => "unknown",
        }
    }
}

impl Serialize for NodeState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut told = serializer.serialize_struct("NodeState", 2)?;
        told.serialize_field("state", self.label())?;
        let applied = if let Self::Applied(after) = self { Some(milliseconds(*after)) } else { None };
        told.serialize_field("applied_ms", &applied)?;
        told.end()
    }
}

/// How the mesh looks from this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MeshView {
    /// No other node is configured.
    pub alone: bool,
    /// This node's lease.
    pub lease: LeaseView,
    /// The witnesses that it goes by.
    pub witnesses: WitnessView,
    /// Every node of the roster, by PoP and name.
    pub members: Vec<MemberView>,
    /// What this node has applied, a mark for each source.
    pub vector: Vec<MarkView>,
    /// Records kept for those who missed them.
    pub log: LogView,
    /// Purges of this node whose receipts are kept.
    pub receipts: u64,
    /// Records that wait for those before them.
    pub waiting: u64,
}

impl MeshView {
    /// A node that is alone: its own and only witness.
    #[must_use]
    pub fn alone(name: &str, pop: &str, lease: bool) -> Self {
        let here = MemberView {
            name: name.to_owned(),
            pop: pop.to_owned(),
            here: true,
            witness: true,
            issues: true,
            member: "alive",
            ..MemberView::default()
        };
        Self {
            alone: true,
            lease: LeaseView { held: lease, ..LeaseView::default() },
            members: vec![here],
            ..Self::default()
        }
    }
}

/// A lease: the proof that a node missed no purge.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LeaseView {
    /// Whether it is held.
    pub held: bool,
    /// Time that is left of it; none where it is not held, or never ends, as that of a node alone.
    pub left_ms: Option<f64>,
    /// Time for which none has been held; none where one is held.
    pub lost_ms: Option<f64>,
}

/// A set of witnesses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WitnessView {
    /// Number of the set.
    pub set: u64,
    /// Their names.
    pub names: Vec<String>,
    /// The generation that they are in, in hexadecimal, once this node knows it.
    pub generation: Option<String>,
    /// Whether this node counts as one now.
    pub serving: bool,
}

/// A node of the roster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// Its PoP.
    pub pop: String,
    /// It is the node that tells this.
    pub here: bool,
    /// It is among the witnesses.
    pub witness: bool,
    /// It may issue purges.
    pub issues: bool,
    /// What the failure detector believes: `alive`, `suspect`, `down`, or `unknown`. No promise
    /// depends on it.
    pub member: &'static str,
    /// The link to it; none to the node itself.
    pub link: Option<LinkView>,
    /// Records of this node and others that it is known not to have; none where that is not known.
    pub lag: Option<u64>,
    /// Time since it was last heard of.
    pub silent_ms: Option<f64>,
}

/// A link to another node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkView {
    /// `up`, `connecting` or `down`.
    pub state: &'static str,
    /// Where the node is reached, where that is known.
    pub address: Option<SocketAddr>,
    /// Time for which it has been up.
    pub up_ms: Option<f64>,
    /// Round trip.
    pub rtt_ms: Option<f64>,
    /// Messages that wait for it.
    pub queued: u64,
    /// Messages that were dropped since it did not take them fast enough.
    pub dropped: u64,
}

/// How much of a source was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MarkView {
    /// The node that issued.
    pub node: String,
    /// Its incarnation in hexadecimal.
    pub incarnation: String,
    /// Up to this number.
    pub sequence: u64,
}

/// A log of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogView {
    /// Records in it.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: NodeState) -> NodeStanding {
        NodeStanding { name: "n".into(), pop: "p".into(), state, matched: None, why: None }
    }

    #[test]
    fn everywhere_means_that_no_node_is_unknown() {
        let applied = NodeState::Applied(Duration::from_millis(3));
        let after = Some(Duration::from_millis(2));
        for (acknowledged, states, expected) in [
            (None, [applied, applied], Until::Local),
            (after, [applied, NodeState::Unknown], Until::Acknowledged),
            (after, [applied, NodeState::Fenced], Until::Everywhere),
            (after, [applied, applied], Until::Everywhere),
            (None, [NodeState::Fenced, applied], Until::Local),
        ] {
            let standing = Standing { acknowledged, nodes: states.map(node).to_vec() };
            assert_eq!(standing.reached(), expected, "{standing:?}");
        }
        assert_eq!(Standing::alone("n", "p").reached(), Until::Everywhere);
    }

    #[test]
    fn a_node_is_told_with_its_state_and_time() {
        let told = |state| serde_json::to_value(node(state)).unwrap();
        let applied = told(NodeState::Applied(Duration::from_micros(12_345)));
        assert_eq!((&applied["state"], &applied["applied_ms"]), (&"applied".into(), &12.345.into()));
        let fenced = told(NodeState::Fenced);
        assert_eq!(fenced["state"], "fenced");
        assert!(fenced["applied_ms"].is_null() && fenced["why"].is_null());
    }
}
