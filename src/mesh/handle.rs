//! What the rest of the process sees of the mesh: plain values.

use std::net::SocketAddr;
use std::time::Duration;

use super::peers::{LinkState, MemberState};
use crate::replication::{Identity, Name};
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

/// Why a purge was not issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// More than the mesh's rate allows one node, or the node has to begin anew after a fault;
    /// worth trying again after this.
    TooMany {
        /// When there is room again.
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
    /// That, and every node of the roster has applied it or is fenced.
    Everywhere,
}

/// What came of waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Whether it came as far as was wanted.
    pub reached: bool,
    /// How the purge stands now; `None` where it is not remembered (any more).
    pub receipt: Option<ReceiptView>,
}

/// How a purge that this node issued stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptView {
    /// Its name in the mesh.
    pub identity: Identity,
    /// How long ago it was issued.
    pub age: Duration,
    /// How long after it was issued a majority of the witnesses was known to hold it.
    pub acknowledged: Option<Duration>,
    /// Every node of the roster, by PoP and name.
    pub nodes: Vec<NodeReceipt>,
}

impl ReceiptView {
    /// Whether it has come so far.
    #[must_use]
    pub fn has_reached(&self, until: Until) -> bool {
        let settled = |node: &NodeReceipt| node.state != ReceiptState::Unknown;
        let everywhere = || self.nodes.iter().all(settled);
        self.acknowledged.is_some() && (until == Until::Acknowledged || everywhere())
    }
}

/// How a purge stands on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReceipt {
    /// Name of the node.
    pub name: Name,
    /// Its PoP.
    pub pop: Name,
    /// How the purge stands there.
    pub state: ReceiptState,
    /// Why it is not known to be applied.
    pub why: Option<&'static str>,
}

/// How a purge stands on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiptState {
    /// The node said so, this long after the purge was issued.
    Applied(Duration),
    /// The node has not said so, but cannot hold a lease that does not know the purge: where its
    /// sites revalidate without a lease, nothing is answered from memory unasked.
    Fenced,
    /// Neither is known.
    Unknown,
}

/// The mesh as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshView {
    /// This node's name.
    pub me: Name,
    /// Its PoP.
    pub pop: Name,
    /// The life under which it numbers its purges.
    pub incarnation: u64,
    /// The last number that it gave.
    pub issued: u64,
    /// Whether it has held a lease in this life of the process.
    pub caught_up: bool,
    /// Its lease.
    pub lease: LeaseView,
    /// The witnesses.
    pub witnesses: WitnessView,
    /// Every node of the roster, by PoP and name, itself included.
    pub nodes: Vec<NodeView>,
    /// Up to where it has applied each source's records.
    pub vector: Vec<(Identity, u128)>,
    /// Digest of the vector: equal ones mean that two nodes have applied the same.
    pub digest: u128,
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
}

/// A node's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Whether it holds.
    pub held: bool,
    /// How long it still runs; none where it does not hold.
    pub left: Option<Duration>,
    /// Age of the oldest question that it rests on; none where it does not hold.
    pub age: Option<Duration>,
    /// For how long there has been none; none where it holds.
    pub without: Option<Duration>,
    /// Times that it was lost.
    pub lost: u64,
}

/// The witnesses, as this node knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessView {
    /// Number of the set.
    pub set: u64,
    /// Its members.
    pub members: Vec<Name>,
    /// Those that are taking over, while the set changes.
    pub joining: Option<Vec<Name>>,
    /// The generation that this node goes by; none before it knows one.
    pub generation: Option<u64>,
    /// Whether this node counts as a witness now.
    pub serving: bool,
}

/// A node of the roster, as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: Name,
    /// Its PoP.
    pub pop: Name,
    /// Whether it is this node.
    pub here: bool,
    /// Whether it issues purges.
    pub issues: bool,
    /// Whether it is in the newest set of witnesses.
    pub witness: bool,
    /// The link to it; none to the node itself.
    pub link: Option<LinkView>,
    /// When it was last heard.
    pub heard: Option<Duration>,
    /// The last of its own purges that it said it had issued, in the life that it is in.
    pub issued: Option<u64>,
    /// How many of those are missing here.
    pub missing: Option<u64>,
    /// How many records that this node has were missing there when it last said what it has.
    pub lag: Option<u64>,
}

/// A link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// How it stands.
    pub state: LinkState,
    /// Where the peer listens, where that is known.
    pub address: Option<SocketAddr>,
    /// How long it has been up.
    pub up: Option<Duration>,
    /// Round trip, where it was measured.
    pub round_trip: Option<Duration>,
    /// What membership says of the peer.
    pub member: MemberState,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Messages that found no room.
    pub dropped: u64,
}

/// The log on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskView {
    /// Whether what is written is safe. Once it was not, this witness acknowledges nothing more.
    pub healthy: bool,
    /// Length of the file.
    pub bytes: u64,
    /// Writes that wait.
    pub queued: usize,
}
