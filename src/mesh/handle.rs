//! What the rest of the process sees of the mesh: plain values, for the admin API to show.

use std::time::Duration;

use serde::Serialize;

use crate::replication::Identity;
use crate::store::Applied;

/// A purge that this node has issued. It is in force here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its name in the mesh. One that travels in several records bears the last one's: who has
    /// that has all of them.
    pub identity: Identity,
    /// What applying it here gave.
    pub applied: Applied,
}

/// Why a purge was not issued. Nothing of it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// More than the mesh's rate allows one node, or the node begins anew after a fault; worth
    /// trying again after this.
    TooMany {
        /// When there is room again.
        again: Duration,
    },
    /// Another process is taking this node's place; worth trying again after this.
    Elsewhere {
        /// When it will have.
        again: Duration,
    },
    /// The roster says that this node issues none.
    Barred,
    /// A selector of it is longer than a record may be.
    TooLong,
}

/// How far a purge is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A majority of the witnesses holds it.
    Acknowledged,
    /// Every node of the roster has applied it or is fenced.
    Everywhere,
}

/// What came of waiting.
#[derive(Clone, Debug, PartialEq)]
pub struct Waited {
    /// Whether it came as far as was wanted.
    pub reached: bool,
    /// How the purge stands now; `None` where it is not remembered (any more).
    pub receipt: Option<ReceiptView>,
}

/// How a purge that this node issued stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReceiptView {
    /// Its name in the mesh, `node/incarnation/sequence`.
    pub identity: String,
    /// Age of the purge.
    pub age_ms: f64,
    /// How long after it was issued a majority of the witnesses was known to hold it.
    pub acknowledged_ms: Option<f64>,
    /// Whether every node of the roster has applied it or is fenced.
    pub everywhere: bool,
    /// Every node of the roster, by PoP and name.
    pub nodes: Vec<NodeReceipt>,
}

/// How a purge stands on one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReceipt {
    /// Name of the node.
    pub name: String,
    /// Its PoP.
    pub pop: String,
    /// How the purge stands there.
    pub state: ReceiptState,
    /// How long after it was issued the node was heard to have applied it.
    pub applied_ms: Option<f64>,
    /// Why it is not known to be applied, in a few words.
    pub why: Option<&'static str>,
}

/// How a purge stands on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptState {
    /// The node said so.
    Applied,
    /// The node has not said so, but cannot hold a lease that does not know the purge: where its
    /// sites revalidate without a lease, nothing is answered from memory unasked.
    Fenced,
    /// Neither is known.
    Unknown,
}

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// This is the node itself.
    Own,
    /// It carries messages.
    Up,
    /// It is being dialled.
    Connecting,
    /// It is down.
    Down,
}

/// The mesh as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeshView {
    /// This node's name.
    pub me: String,
    /// Its PoP.
    pub pop: String,
    /// The life under which it numbers its purges, in hexadecimal.
    pub incarnation: String,
    /// Whether it issues purges.
    pub issues: bool,
    /// Whether it has ever held a lease in this life.
    pub caught_up: bool,
    /// Its lease.
    pub lease: LeaseView,
    /// The witnesses.
    pub witnesses: WitnessView,
    /// Every node of the roster, by PoP and name, itself included.
    pub nodes: Vec<NodeView>,
    /// What it has applied, source by source.
    pub vector: Vec<SourceView>,
    /// Digest of the vector: equal ones mean that two nodes have applied the same. Hexadecimal.
    pub digest: String,
    /// Steps of retirement that the vector is after.
    pub retired: u64,
    /// Records that are known to be missing here.
    pub missing: u64,
    /// Records that wait here for those before them.
    pub waiting: usize,
    /// Records kept for those who missed them.
    pub log_records: usize,
    /// Memory that they take.
    pub log_bytes: usize,
    /// Receipts that are remembered.
    pub receipts: usize,
    /// Epoch in force here.
    pub epoch: u64,
    /// The log on disk, where there is one.
    pub disk: Option<DiskView>,
    /// The last round of this node's canary, where it has one.
    pub canary: Option<CanaryView>,
}

/// A round of the canary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CanaryView {
    /// Rounds in this life of the process.
    pub rounds: u64,
    /// Broken promises in all of them.
    pub broken: u64,
    /// What the last round came to: `kept`, `broken`, `unknown`, `not-acknowledged`.
    pub outcome: &'static str,
    /// How long ago it ended.
    pub ended_ms_ago: f64,
    /// Its purge.
    pub purge: Option<String>,
    /// Why there is none.
    pub why: Option<&'static str>,
    /// The nodes that were read.
    pub nodes: Vec<CanaryNodeView>,
}

/// What a round of the canary found on one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CanaryNodeView {
    /// Its name.
    pub name: String,
    /// `kept`, `broken` or `unknown`.
    pub state: &'static str,
    /// How long after the acknowledgement it was asked last and showed the former version.
    pub old_ms: Option<f64>,
    /// Why nothing is known.
    pub why: Option<&'static str>,
}

/// A node's lease.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaseView {
    /// Whether it holds.
    pub held: bool,
    /// How long it still runs; 0 where it does not hold.
    pub left_ms: f64,
    /// Age of the oldest question that it rests on; none without a lease.
    pub age_ms: Option<f64>,
    /// Times that it was lost.
    pub lost: u64,
}

/// The witnesses, as this node knows them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WitnessView {
    /// Number of the set.
    pub set: u64,
    /// Its members.
    pub members: Vec<String>,
    /// Those that are taking over, while the set changes.
    pub joining: Option<Vec<String>>,
    /// The generation that this node goes by, in hexadecimal; none before it knows one.
    pub generation: Option<String>,
    /// Whether this node counts as a witness now.
    pub serving: bool,
}

/// A node of the roster, as seen from here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its PoP.
    pub pop: String,
    /// Whether it is in the newest set of witnesses.
    pub witness: bool,
    /// How the link to it stands.
    pub link: LinkState,
    /// Address of the link, where it is known.
    pub address: Option<String>,
    /// How long the link has been up.
    pub up_ms: Option<f64>,
    /// Round trip of the link, where it was measured.
    pub rtt_ms: Option<f64>,
    /// What membership says of it: `alive`, `suspect`, `down`, `unknown`.
    pub member: String,
    /// Messages that wait to be sent.
    pub queued: usize,
    /// Messages that found no room.
    pub dropped: u64,
    /// When it was last heard.
    pub heard_ms_ago: Option<f64>,
    /// The last of its own purges that it said it had issued, in the life that it is in.
    pub issued: Option<u64>,
    /// How many of those are missing here.
    pub lag: Option<u64>,
}

/// Up to where a source's records were applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceView {
    /// The node that issued them.
    pub node: String,
    /// The life that it issued them in, in hexadecimal.
    pub incarnation: String,
    /// Sequence of the last.
    pub sequence: u64,
}

/// The log on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskView {
    /// Whether what is written is safe. Once it was not, this witness acknowledges nothing more.
    pub healthy: bool,
    /// Length of the file.
    pub bytes: u64,
    /// Entries that wait to be written.
    pub queued: usize,
}
