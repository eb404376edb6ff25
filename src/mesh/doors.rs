//! How connections come to be: those that come in, those to nodes whose address is known, and
//! those to seeds.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::greet::{self, NoLink};
use super::link;
use super::peers::Peer;
use super::queue::Class;
use super::shared::{Phase, Shared};
use crate::clock;
use crate::config::Seed;
use crate::guard::network;
use crate::health::backoff;
use crate::replication::Name;
use crate::telemetry::LinkRefused;

/// Pause after an accept that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Times that a peer may turn a dial away before what waits for it is dropped.
const PATIENCE: u32 = 3;

/// Addresses of a seed that are tried in one round.
const SEED_ADDRESSES: usize = 16;

/// Accepts until the links close.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let half_open = Arc::new(HalfOpen::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => { note(ended); continue }
            () = shared.reached(Phase::Leaving) => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the mesh cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = half_open.enter(network(address.ip()), &shared) else {
            shared.metrics().refused(LinkRefused::Busy);
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let connection = greet::welcome(&shared, stream).await;
            drop(place);
            match connection {
                Ok(connection) => link::run(&shared, connection).await,
                Err(why) => tracing::debug!(%address, why = why.label(), "a connection is refused"),
            }
        });
    }
    drop(listener);
    end(connections).await;
}

/// Connections that have not shown who they are, in all and by address; with IPv6 by /64, within
/// which one machine may choose.
#[derive(Debug, Default)]
struct HalfOpen(Mutex<HashMap<IpAddr, usize>>);

/// A place among them.
struct Place {
    all: Arc<HalfOpen>,
    address: IpAddr,
}

impl HalfOpen {
    fn enter(self: &Arc<Self>, address: IpAddr, shared: &Shared) -> Option<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.values().sum::<usize>() >= shared.limits.half_open {
            return None;
        }
        let here = all.entry(address).or_default();
        if *here >= shared.limits.half_open_per_address {
            return None;
        }
        *here += 1;
        Some(Place { all: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = all.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// Keeps a link to one peer: dials while there is none and its address is known.
pub(super) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut connections = JoinSet::new();
    tokio::select! {
        () = keep_dialling(&shared, &peer, &mut connections) => {}
        () = shared.reached(Phase::Leaving) => {}
    }
    peer.dialling(false);
    end(connections).await;
}

async fn keep_dialling(shared: &Arc<Shared>, peer: &Arc<Peer>, connections: &mut JoinSet<()>) {
    let mut failures = 0;
    let mut dialled_at = None;
    loop {
        while let Some(ended) = connections.try_join_next() {
            note(ended);
        }
        let Some(address) = peer.to_dial() else {
            wait_for_address(shared, peer).await;
            continue;
        };
        // A link that broke soon after it came up is no success.
        let stood = dialled_at.is_none_or(|at| clock::now().boot - at > shared.limits.redial_most);
        failures = if stood { 0 } else { failures };
        pause(shared, peer, address, failures).await;
        if peer.to_dial() != Some(address) {
            continue;
        }
        peer.dialling(true);
        let result = greet::dial(shared, address, Some(&peer.name)).await;
        peer.dialling(false);
        dialled_at = Some(clock::now().boot);
        failures += 1;
        match result {
            Ok(connection) => {
                let shared = Arc::clone(shared);
                connections.spawn(async move { link::run(&shared, connection).await });
            }
            Err(NoLink::Linked(_)) => {}
            // It keeps another connection, perhaps, which is just coming up here.
            Err(NoLink::Refused(LinkRefused::Peer)) if failures < PATIENCE => {}
            Err(NoLink::Refused(_)) => shared.dropped(Class::Urgent, peer.give_up()),
        }
    }
}

/// Waits while there is a link, or nobody knows where the peer listens. What is said to it meanwhile
/// does not wait for long.
async fn wait_for_address(shared: &Shared, peer: &Peer) {
    let changed = timeout(shared.limits.redial_most, peer.changed.notified()).await;
    if changed.is_err() && peer.to_dial().is_none() {
        shared.dropped(Class::Urgent, peer.give_up());
    }
}

/// Waits before a dial, longer after failures; not so long once another address is known.
async fn pause(shared: &Shared, peer: &Peer, address: SocketAddr, failures: u32) {
    let least = shared.limits.redial_least;
    if failures == 0 {
        return tokio::time::sleep(shared.jittered(least / 4)).await;
    }
    let most = shared.limits.redial_most;
    let all = shared.jittered(backoff(least, most, failures));
    let first = all.min(least);
    tokio::time::sleep(first).await;
    let moved = async {
        while peer.to_dial() == Some(address) {
            peer.changed.notified().await;
        }
    };
    let _ = timeout(all.saturating_sub(first), moved).await;
}

/// Asks a seed while there is a peer without a link.
pub(super) async fn ask_seed(shared: Arc<Shared>, seed: Seed) {
    let mut connections = JoinSet::new();
    tokio::select! {
        () = keep_asking(&shared, &seed, &mut connections) => {}
        () = shared.reached(Phase::Leaving) => {}
    }
    end(connections).await;
}

async fn keep_asking(shared: &Arc<Shared>, seed: &Seed, connections: &mut JoinSet<()>) {
    let mut known = HashMap::new();
    let mut failures = 0;
    loop {
        while let Some(ended) = connections.try_join_next() {
            note(ended);
        }
        let (least, most) = (shared.limits.redial_least, shared.limits.redial_most);
        if shared.peers.values().all(|peer| peer.is_linked()) {
            tokio::time::sleep(shared.jittered(most)).await;
            continue;
        }
        let found = ask_once(shared, seed, &mut known, connections).await;
        failures = if found { 0 } else { failures + 1 };
        let wait = if found { most } else { backoff(least, most, failures) };
        tokio::time::sleep(shared.jittered(wait)).await;
    }
}

/// Resolves a seed and dials what it stands for. Tells whether any node is there.
async fn ask_once(
    shared: &Arc<Shared>,
    seed: &Seed,
    known: &mut HashMap<SocketAddr, Name>,
    connections: &mut JoinSet<()>,
) -> bool {
    let mut found = false;
    for address in resolve(shared, seed).await {
        let linked = |name: &Name| shared.peer(name).is_none_or(|peer| peer.is_linked());
        if address == shared.advertise || known.get(&address).is_some_and(linked) {
            found = true;
            continue;
        }
        match greet::dial(shared, address, None).await {
            Ok(connection) => {
                known.insert(address, connection.peer.name.clone());
                let shared = Arc::clone(shared);
                connections.spawn(async move { link::run(&shared, connection).await });
            }
            Err(NoLink::Linked(name)) => {
                known.insert(address, name);
            }
            Err(NoLink::Refused(LinkRefused::Own)) => {
                known.insert(address, shared.me.name.clone());
            }
            Err(NoLink::Refused(_)) => continue,
        }
        found = true;
    }
    if known.len() > 4 * SEED_ADDRESSES {
        known.clear();
    }
    found
}

/// The addresses of a seed, at present.
async fn resolve(shared: &Shared, seed: &Seed) -> Vec<SocketAddr> {
    let asked = lookup_host((seed.host.as_str(), seed.port));
    match timeout(shared.limits.handshake, asked).await {
        Ok(Ok(addresses)) => addresses.take(SEED_ADDRESSES).collect(),
        Ok(Err(error)) => {
            tracing::warn!(seed = %seed.host, %error, "a seed of the mesh is not resolved");
            Vec::new()
        }
        Err(_elapsed) => {
            tracing::warn!(seed = %seed.host, "a seed of the mesh is not resolved in time");
            Vec::new()
        }
    }
}

/// Waits for connections that close.
async fn end(mut connections: JoinSet<()>) {
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a link ended by a panic");
    }
}
