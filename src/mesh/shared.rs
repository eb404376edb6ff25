//! What the tasks of the links share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};

use super::frame::Kind;
use super::hello::Hello;
use super::links::{Heard, LinkIdentity};
use super::peers::Peer;
use super::queue::{Bounds, Class};
use super::tls::Identity;
use crate::clock::{self, Now};
use crate::config::{LinkLimits, Mesh};
use crate::replication::Name;
use crate::telemetry::{LinkMetrics, Metrics, Traffic};

/// How far the links are with closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// They are open.
    Open,
    /// Others are told that this node leaves.
    Leaving,
    /// All that still waits is written, then the links end.
    Closed,
}

/// What links tell membership.
#[derive(Debug)]
pub(super) enum Word {
    /// A link is up.
    Up(Name),
    /// A datagram came from a peer.
    Datagram(Name, Bytes),
}

/// What the tasks of the links share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Who this node is.
    pub(super) me: LinkIdentity,
    /// Bounds and paces.
    pub(super) limits: LinkLimits,
    /// Where peers are to connect.
    pub(super) advertise: SocketAddr,
    /// Drawn for this process.
    pub(super) life: u64,
    /// The other nodes of the roster.
    pub(super) peers: BTreeMap<Name, Arc<Peer>>,
    /// Certificate and authorities.
    pub(super) identity: Arc<Identity>,
    /// Where messages go.
    pub(super) heard: mpsc::Sender<Heard>,
    /// Where datagrams of membership go.
    pub(super) words: mpsc::Sender<Word>,
    /// Whether to go on.
    pub(super) phase: watch::Sender<Phase>,
    metrics: Arc<Metrics>,
    /// Number of this node's word on where it listens.
    bump: AtomicU64,
    dials: AtomicU64,
    connections: AtomicU64,
    dice: Mutex<SmallRng>,
}

impl Shared {
    pub(super) fn new(
        config: &Mesh,
        me: LinkIdentity,
        advertise: SocketAddr,
        identity: Arc<Identity>,
        channels: (mpsc::Sender<Heard>, mpsc::Sender<Word>),
        metrics: Arc<Metrics>,
    ) -> Self {
        let bounds = Bounds { bytes: config.links.queue_bytes, frames: config.links.queue_frames };
        let others = config.nodes.iter().filter(|node| node.name != me.name.as_str());
        let peer = |name: Name, pop: &str| {
            let peer = Peer::new(name.clone(), pop.into(), &me.name, bounds);
            (name, Arc::new(peer))
        };
        let peers = others.map(|node| peer(node.name.as_str().into(), &node.pop)).collect();
        let mut dice = SmallRng::seed_from_u64(me.seed);
        let start = since_epoch(clock::now());
        let (heard, words) = channels;
        Self {
            limits: config.links.clone(),
            advertise,
            life: dice.random(),
            peers,
            identity,
            heard,
            words,
            phase: watch::Sender::new(Phase::Open),
            metrics,
            bump: AtomicU64::new(start),
            dials: AtomicU64::new(start),
            connections: AtomicU64::new(0),
            dice: Mutex::new(dice),
            me,
        }
    }

    /// Counts of the links.
    pub(super) fn metrics(&self) -> &LinkMetrics {
        &self.metrics.links
    }

    /// Another node of the roster.
    pub(super) fn peer(&self, name: &Name) -> Option<&Arc<Peer>> {
        self.peers.get(name)
    }

    /// Whether a name is in the roster.
    pub(super) fn is_known(&self, name: &Name) -> bool {
        *name == self.me.name || self.peers.contains_key(name)
    }

    /// Queues a body for a peer, and counts it or its loss.
    pub(super) fn say(&self, to: &Peer, class: Class, kind: Kind, what: Traffic, body: Bytes) {
        let bytes = super::queue::weight(class, body.len());
        if to.say(kind, class, body) {
            self.metrics().sent(what, bytes);
        } else {
            self.dropped(class, 1);
        }
    }

    /// Counts lost messages.
    pub(super) fn dropped(&self, class: Class, count: usize) {
        let [urgent, bulk] = &self.metrics().dropped;
        let counter = if class == Class::Bulk { bulk } else { urgent };
        counter.inc_by(count as u64);
    }

    /// A number for a connection.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a dial. They begin at the wall clock's microseconds, so that those of a former
    /// process are lower, if its clock was right; if not, two nodes dial once more than needed.
    pub(super) fn next_dial(&self) -> u64 {
        self.dials.fetch_add(1, Ordering::Relaxed)
    }

    /// Number of this node's word on where it listens.
    pub(super) fn bump(&self) -> u64 {
        self.bump.load(Ordering::Relaxed)
    }

    /// Raises that number.
    pub(super) fn raise_bump(&self, to: u64) {
        self.bump.fetch_max(to, Ordering::Relaxed);
    }

    /// What this node says first to a peer, on its own dial or in answer to another's.
    pub(super) fn hello(&self, to: &Peer, dial: u64) -> Hello {
        Hello {
            name: self.me.name.clone(),
            pop: self.me.pop.clone(),
            life: self.life,
            dial,
            seen: to.seen(),
            bump: self.bump(),
            address: self.advertise,
        }
    }

    /// Some time between half of `time` and all of it.
    pub(super) fn jittered(&self, time: Duration) -> Duration {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        time.mul_f64(dice.random_range(0.5..1.0))
    }

    /// Randomness for a task of its own.
    pub(super) fn draw(&self) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// Returns once `phase` is reached.
    pub(super) async fn reached(&self, phase: Phase) {
        // The sender is here, so the wait cannot fail.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Goes on to `phase`, if that is further.
    pub(super) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let further = *now < phase;
            *now = phase.max(*now);
            further
        });
    }
}

/// Microseconds of the wall clock.
fn since_epoch(now: Now) -> u64 {
    let time = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
