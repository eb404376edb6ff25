//! The handle that the rest of the mesh speaks through.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as Socket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::frame::Kind;
use super::peers::PeerView;
use super::shared::{Phase, Shared, Word};
use super::tls::{Identity, LOOK_EVERY};
use super::{doors, membership, sockets, tickets, traffic};
use crate::replication::{Message, Name, encode};
use crate::telemetry::Metrics;
use crate::tickets::Tickets;
use crate::{clock, config};

/// Datagrams of membership that may wait.
const WORDS: usize = 1024;
/// Time for the last words: more than a link takes for its end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Who this node is on its links.
#[derive(Clone, Debug)]
pub struct LinkIdentity {
    /// Its name, which its certificate bears.
    pub name: Name,
    /// Its PoP.
    pub pop: Name,
    /// Randomness for jitter and for the choices of membership.
    pub seed: u64,
    /// Keys of session tickets, which the nodes share.
    pub tickets: Arc<Tickets>,
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

/// All links of a node. They close when this is dropped.
#[derive(Debug)]
pub struct Links {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Handle,
    overseer: Mutex<Option<JoinHandle<()>>>,
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
        let identity = identity(config, &node.name)?;
        let fail = |error| MeshError::Listen { address: config.listen, error };
        let socket = sockets::listen(config.listen).map_err(fail)?;
        Self::with(config, node, (identity, socket), heard, metrics)
    }

    /// The same with a certificate that has been read and a socket that listens.
    pub(super) fn with(
        config: &config::Mesh,
        node: LinkIdentity,
        (identity, socket): (Arc<Identity>, Socket),
        heard: mpsc::Sender<Heard>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, MeshError> {
        let fail = |error| MeshError::Listen { address: config.listen, error };
        let listener = TcpListener::from_std(socket).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let mut advertise = config.advertise.unwrap_or(address);
        if advertise.port() == 0 {
            advertise.set_port(address.port());
        }
        let (words, spoken) = mpsc::channel(WORDS);
        let shared = Shared::new(config, node, advertise, identity, (heard, words), metrics);
        let shared = Arc::new(shared);
        let overseer = tokio::spawn(oversee(tasks(&shared, config, listener, spoken)));
        let (runtime, overseer) = (Handle::current(), Mutex::new(Some(overseer)));
        Ok(Arc::new(Self { shared, address, runtime, overseer }))
    }

    /// Queues a message for a peer; never waits. Beyond the bound of the peer's queue it is dropped and
    /// counted, and so is what is said to a node that can't be reached or is not in the roster.
    pub fn say(&self, to: &Name, message: &Message) {
        let (what, class) = traffic::of(message);
        match self.shared.peer(to) {
            Some(peer) => {
                self.shared.say(peer, class, Kind::Message, what, encode(message).into());
            }
            None => self.shared.dropped(class, 1),
        }
    }

    /// Reads certificate, key and authorities anew. New connections use them, and links to peers whose
    /// certificates they do not bear out end. Changed files are noticed without this within a second.
    ///
    /// # Errors
    /// When they cannot be used; the former ones stay in force.
    pub fn reload_identity(&self) -> Result<(), MeshError> {
        self.shared.identity.reload(clock::now()).map_err(MeshError::Identity)
    }

    /// Where this node listens for peers.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Has a node believed to be in this state, until membership says otherwise.
    #[cfg(test)]
    pub(super) fn believe(&self, name: &Name, member: super::MemberState) {
        if let Some(peer) = self.shared.peer(name) {
            peer.believed(member);
        }
    }

    /// Every other node of the roster with how its link stands.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        self.shared.peers.values().map(|peer| peer.view()).collect()
    }

    /// Tells the others that this node leaves, writes what still waits, and closes all links.
    pub fn close(&self) {
        self.shared.advance(Phase::Leaving);
    }

    /// The same, and waits until they are closed. Not to be called where others are to be polled.
    pub(super) fn end(&self) {
        self.close();
        let overseer = self.overseer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(overseer) = overseer else { return };
        if self.runtime.block_on(async { timeout(FAREWELL, overseer).await }).is_err() {
            tracing::warn!("a link of the mesh does not close in time");
        }
    }
}

/// Certificate and authorities as the configuration names them.
pub(super) fn identity(config: &config::Mesh, name: &Name) -> Result<Arc<Identity>, MeshError> {
    let read = Identity::open(config, name, clock::now());
    read.map(Arc::new).map_err(MeshError::Identity)
}

impl Drop for Links {
    fn drop(&mut self) {
        self.close();
    }
}

/// Everything that runs until the links are closed.
fn tasks(
    shared: &Arc<Shared>,
    config: &config::Mesh,
    listener: TcpListener,
    spoken: mpsc::Receiver<Word>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(doors::accept(Arc::clone(shared), listener));
    tasks.spawn(watch_files(Arc::clone(shared)));
    let words = Arc::new(tokio::sync::Mutex::new(spoken));
    tasks.spawn(membership::keep(Arc::clone(shared), config.membership.clone(), words));
    tasks.spawn(tickets::keep(Arc::clone(shared)));
    for peer in shared.peers.values() {
        tasks.spawn(doors::keep(Arc::clone(shared), Arc::clone(peer)));
    }
    for seed in &config.seeds {
        tasks.spawn(doors::ask_seed(Arc::clone(shared), seed.clone()));
    }
    tasks
}

/// Notices changes of certificate, key and authorities where no connection does.
async fn watch_files(shared: Arc<Shared>) {
    let look = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            shared.identity.current(clock::now());
        }
    };
    tokio::select! {
        () = look => {}
        () = shared.reached(Phase::Leaving) => {}
    }
}

/// Sees the end of each task.
async fn oversee(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task of the mesh ended by a panic");
        }
    }
}
