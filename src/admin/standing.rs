//! How far a purge has come on its way to every node.
//!
//! It comes further by three steps. It is in force here (`local`); a majority of the witnesses has
//! it, so that no node can hold a lease for long that does not know it (`acknowledged`); every node of
//! the configured roster has applied it, or uses its memory no more without asking the origin
//! (`everywhere`). A node that is alone is at the last step at once.
//!
//! A node without a lease is fenced as far as its sites revalidate then. Where the policy of a site
//! has it serve on, nobody can vouch for a node that has not said that it applied a purge of that
//! site, and it counts as unknown.

use serde::Serialize;

use super::Identity;
use crate::mesh::{
    LeaseView, LinkState, MeshView, NodeReceipt, NodeView, ReceiptState, ReceiptView, SourceView,
    WitnessView,
};
use crate::replication::Identity as PurgeId;
use crate::store::Applied;

/// How far a purge has come, or has to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// In force on this node.
    Local,
    /// Held by a majority of the witnesses.
    Acknowledged,
    /// Applied by every node of the roster, or that node fenced off.
    Everywhere,
}

/// How a purge stands on the nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Standing {
    /// Milliseconds after which a majority of the witnesses had it.
    acknowledged_ms: Option<f64>,
    applied: usize,
    fenced: usize,
    unknown: usize,
    /// By PoP and name.
    pub(super) nodes: Vec<OnNode>,
}

/// How a purge stands on one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct OnNode {
    pub(super) name: String,
    pub(super) pop: String,
    pub(super) state: ReceiptState,
    applied_ms: Option<f64>,
    /// Stored responses there that matched, a lower bound; known of this node only.
    pub(super) matched: Option<u64>,
    /// Why it is not known to be applied.
    why: Option<&'static str>,
}

impl Standing {
    /// What a receipt says; `serves`: the purge is about a site that is served without a lease, too.
    pub(super) fn of(receipt: ReceiptView, serves: bool) -> Self {
        let node = |node: NodeReceipt| {
            let NodeReceipt { name, pop, state, applied_ms, why } = node;
            let (state, why) = match state {
                ReceiptState::Fenced if serves => {
                    (ReceiptState::Unknown, Some("its site is served without a lease"))
                }
                state => (state, why),
            };
            OnNode { name, pop, state, applied_ms, matched: None, why }
        };
        let mut nodes: Vec<OnNode> = receipt.nodes.into_iter().map(node).collect();
        nodes.sort_by(|a, b| (&a.pop, &a.name).cmp(&(&b.pop, &b.name)));
        let count = |state| nodes.iter().filter(|node| node.state == state).count();
        Self {
            acknowledged_ms: receipt.acknowledged_ms,
            applied: count(ReceiptState::Applied),
            fenced: count(ReceiptState::Fenced),
            unknown: count(ReceiptState::Unknown),
            nodes,
        }
    }

    /// How far it has come.
    pub(super) fn reached(&self) -> Level {
        match self.acknowledged_ms {
            None => Level::Local,
            Some(_) if self.unknown == 0 => Level::Everywhere,
            Some(_) => Level::Acknowledged,
        }
    }

    /// Names of the nodes that nobody can speak for.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        let unknown = self.nodes.iter().filter(|node| node.state == ReceiptState::Unknown);
        unknown.map(|node| node.name.as_str())
    }
}

/// Id of a purge as this API writes it: its name in the mesh, or as a node that is alone numbered it.
pub(super) fn purge_id(node: &Identity, identity: Option<&str>, applied: Applied) -> String {
    let Identity { name, incarnation, .. } = node;
    let alone = || format!("{name}.{incarnation}.{}", applied.sequence);
    identity.and_then(PurgeId::parse).map_or_else(alone, |identity| identity.dotted())
}

/// The receipt of a purge of a node that is alone: there is nobody to wait for.
#[must_use]
pub fn receipt_alone(id: &PurgeId, pop: &str) -> ReceiptView {
    let node = NodeReceipt {
        name: id.source.node.as_str().to_owned(),
        pop: pop.to_owned(),
        state: ReceiptState::Applied,
        applied_ms: Some(0.0),
        why: None,
    };
    ReceiptView {
        identity: id.to_string(),
        age_ms: 0.0,
        acknowledged_ms: Some(0.0),
        everywhere: true,
        nodes: vec![node],
    }
}

/// The mesh of a node that is alone, which is its own witness; `last` is its newest purge.
#[must_use]
pub fn mesh_alone(last: &PurgeId, pop: &str, epoch: u64) -> MeshView {
    let (me, pop) = (last.source.node.as_str().to_owned(), pop.to_owned());
    let incarnation = format!("{:016x}", last.source.incarnation.0);
    let node = NodeView {
        name: me.clone(),
        pop: pop.clone(),
        witness: true,
        link: LinkState::Own,
        address: None,
        up_ms: None,
        rtt_ms: None,
        member: "alive".to_owned(),
        queued: 0,
        dropped: 0,
        heard_ms_ago: None,
        issued: Some(last.sequence),
        lag: Some(0),
    };
    let source =
        SourceView { node: me.clone(), incarnation: incarnation.clone(), sequence: last.sequence };
    MeshView {
        lease: LeaseView { held: true, left_ms: 0.0, age_ms: None, lost: 0 },
        witnesses: WitnessView {
            set: 0,
            members: vec![me.clone()],
            joining: None,
            generation: None,
            serving: true,
        },
        nodes: vec![node],
        vector: vec![source],
        me,
        pop,
        incarnation,
        issues: true,
        caught_up: true,
        digest: String::new(),
        retired: 0,
        missing: 0,
        waiting: 0,
        log_records: 0,
        log_bytes: 0,
        receipts: 0,
        epoch,
        disk: None,
        canary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(acknowledged_ms: Option<f64>, states: [ReceiptState; 2]) -> ReceiptView {
        let node = |state| NodeReceipt {
            name: "n".into(),
            pop: "p".into(),
            state,
            applied_ms: None,
            why: None,
        };
        let nodes = states.map(node).to_vec();
        ReceiptView {
            identity: String::new(),
            age_ms: 0.0,
            acknowledged_ms,
            everywhere: false,
            nodes,
        }
    }

    #[test]
    fn everywhere_means_that_no_node_is_unknown() {
        use ReceiptState::{Applied, Fenced, Unknown};
        for (acknowledged, states, serves, expected) in [
            (None, [Applied, Applied], false, Level::Local),
            (Some(2.0), [Applied, Unknown], false, Level::Acknowledged),
            (Some(2.0), [Applied, Fenced], false, Level::Everywhere),
            (Some(2.0), [Applied, Applied], true, Level::Everywhere),
            (Some(2.0), [Applied, Fenced], true, Level::Acknowledged),
            (None, [Fenced, Applied], false, Level::Local),
        ] {
            let standing = Standing::of(receipt(acknowledged, states), serves);
            assert_eq!(standing.reached(), expected, "{standing:?}");
        }
    }

    #[test]
    fn a_node_that_is_alone_is_everywhere_at_once() {
        let id = PurgeId::parse("n/00000000000000ab/7").unwrap();
        let standing = Standing::of(receipt_alone(&id, "p"), true);
        assert_eq!(standing.reached(), Level::Everywhere);
        let told = serde_json::to_value(&standing).unwrap();
        assert_eq!((&told["applied"], &told["nodes"][0]["applied_ms"]), (&1.into(), &0.0.into()));
        let mesh = serde_json::to_value(mesh_alone(&id, "p", 7)).unwrap();
        assert_eq!(
            (&mesh["nodes"][0]["name"], &mesh["lease"]["held"]),
            (&"n".into(), &true.into())
        );
    }
}
