//! The mesh as the configuration means it: who belongs to it, how its links behave, who witnesses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::CertificateFiles;

/// This node's part in a mesh. A node without one is alone.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Where peers connect; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Address that others are told; `None`: the one listened on.
    pub advertise: Option<SocketAddr>,
    /// This node's certificate, which bears its name, and its key.
    pub identity: CertificateFiles,
    /// Files of the authorities that peers' certificates must come from: one, two in a rotation.
    pub authorities: Vec<PathBuf>,
    /// Nodes that are asked for the others.
    pub seeds: Vec<Seed>,
    /// Every node of the mesh, this one included.
    pub nodes: Vec<MeshNode>,
    /// Names of the witnesses: one, three or five.
    pub witnesses: Vec<String>,
    /// Number of the witness set.
    pub witness_set: u64,
    /// Folder of a witness's log; `None`: it keeps none.
    pub directory: Option<PathBuf>,
    /// How long a lease is.
    pub lease: Duration,
    /// Nodes of each other PoP that a purge is sent to at once.
    pub relays: usize,
    /// Purges kept for nodes that missed them.
    pub log_records: usize,
    /// Bytes of them.
    pub log_bytes: usize,
    /// Purges per second that are taken from one issuer as they come.
    pub purge_rate: u32,
    /// Purges that may come at once.
    pub purge_burst: u32,
    /// Bounds and paces of the links.
    pub links: LinkLimits,
    /// Paces of the search for other nodes.
    pub membership: Membership,
}

impl Mesh {
    /// A node of the roster.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&MeshNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Every node with its PoP.
    #[must_use]
    pub fn roster(&self) -> BTreeMap<&str, &str> {
        self.nodes.iter().map(|node| (node.name.as_str(), node.pop.as_str())).collect()
    }
}

/// A node of the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshNode {
    /// Its name, which its certificate bears.
    pub name: String,
    /// Its PoP.
    pub pop: String,
    /// Whether purges may be asked for at it.
    pub issues: bool,
}

/// A node that is known before any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seed {
    /// DNS name or literal address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Bounds and paces of the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Bytes that may wait for one peer; more are dropped.
    pub queue_bytes: usize,
    /// Frames that may wait for one peer.
    pub queue_frames: usize,
    /// Longest frame that is taken.
    pub frame_bytes: usize,
    /// Time for connecting, the TLS handshake and the greeting.
    pub handshake: Duration,
    /// Time without a byte from a peer after which its link is closed.
    pub idle: Duration,
    /// First pause before a peer is dialled again, and its growth's end.
    pub redial_least: Duration,
    /// Longest pause before a peer is dialled again.
    pub redial_most: Duration,
    /// Connections from outside that have not shown who they are.
    pub half_open: usize,
    /// Of them from one address.
    pub half_open_per_address: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            queue_bytes: 16 << 20,
            queue_frames: 16_384,
            frame_bytes: 4 << 20,
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(6),
            redial_least: Duration::from_millis(200),
            redial_most: Duration::from_secs(10),
            half_open: 256,
            half_open_per_address: 32,
        }
    }
}

/// Paces of membership, which finds addresses; no promise rests on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// How often another node is probed.
    pub probe: Duration,
    /// Time within which it is to answer.
    pub probe_answer: Duration,
    /// How long a node is suspected before it counts as down.
    pub suspect: Duration,
}

impl Default for Membership {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(2),
            probe_answer: Duration::from_millis(700),
            suspect: Duration::from_secs(6),
        }
    }
}
