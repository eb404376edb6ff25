//! The other nodes of the roster, and how each stands: its queue, its link, where it listens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::frame::Kind;
use super::queue::{Bounds, Class, Queue, Taken};
use super::rule::{self, Dialled, Keep};
use crate::replication::Name;

/// A node of the roster as seen from this one.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its name.
    pub name: Name,
    /// Its PoP, as the roster has it.
    pub pop: Name,
    /// Where it listens, if that is known.
    pub address: Option<SocketAddr>,
    /// How the link to it stands.
    pub state: LinkState,
    /// Since when the link is up, by the boot clock.
    pub up_since: Option<Duration>,
    /// Time there and back, measured on the link.
    pub round_trip: Option<Duration>,
    /// Bytes that wait for it.
    pub queued_bytes: usize,
    /// Messages to it that were dropped.
    pub dropped: u64,
    /// What membership believes of it. No promise rests on that.
    pub member: MemberState,
}

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Messages pass.
    Up,
    /// It is being dialled.
    Connecting,
    /// It is waited until it is dialled again, or nobody knows where it listens.
    Down,
}

impl LinkState {
    /// Its name in answers and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Connecting => "connecting",
            Self::Down => "down",
        }
    }
}

/// What membership believes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer of late.
    Suspect,
    /// It does not answer, or has left.
    Down,
    /// Nothing has been heard of it.
    Unknown,
}

impl MemberState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Down, Self::Unknown];

    /// Its name in answers and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// Another node.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name.
    pub(super) name: Name,
    /// Its PoP.
    pub(super) pop: Name,
    /// Whether this node has the smaller name of the two.
    smaller: bool,
    state: Mutex<State>,
    /// Told when its link or its address changes.
    pub(super) changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    current: Option<Current>,
    /// The newest of its dials that was taken.
    seen: u64,
    /// Whether it has been linked before.
    linked_before: bool,
    dialling: bool,
    /// Whether it could not be reached when it was tried last.
    unreachable: bool,
    address: Option<(u64, SocketAddr)>,
    dropped: u64,
    round_trip: Option<Duration>,
    member: MemberState,
}

/// The link of a peer.
#[derive(Debug)]
struct Current {
    id: u64,
    dialled: Dialled,
    up_since: Duration,
    wake: Arc<Notify>,
}

/// A connection that wants to be the link.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Its number here.
    pub(super) id: u64,
    /// Who dialled it, and when.
    pub(super) dialled: Dialled,
    /// Which of this node's dials the other end had seen.
    pub(super) seen: u64,
    /// Told when there is something to write, or when it is not the link any more.
    pub(super) wake: Arc<Notify>,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// It is the link.
    New,
    /// It is the link, and there had been one before.
    Again,
    /// It has taken another one's place.
    Instead,
    /// Another one stays the link.
    No,
}

impl Peer {
    pub(super) fn new(name: Name, pop: Name, me: &Name, bounds: Bounds) -> Self {
        let state = State {
            queue: Queue::new(bounds),
            current: None,
            seen: 0,
            linked_before: false,
            dialling: false,
            unreachable: false,
            address: None,
            dropped: 0,
            round_trip: None,
            member: MemberState::Unknown,
        };
        let (smaller, state) = (*me < name, Mutex::new(state));
        Self { name, pop, smaller, state, changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a body. `false` where it was dropped: there is no room, or the peer can't be reached.
    pub(super) fn say(&self, kind: Kind, class: Class, body: Bytes) -> bool {
        let mut state = self.state();
        let hopeless = state.current.is_none() && state.unreachable;
        if hopeless || state.queue.push(kind, class, body).is_err() {
            state.dropped += 1;
            return false;
        }
        if let Some(current) = &state.current {
            current.wake.notify_one();
        }
        true
    }

    /// Takes what is to be written on a connection; `None` when it is not the link any more.
    pub(super) fn take(&self, id: u64, out: &mut BytesMut, most: usize) -> Option<Taken> {
        let mut state = self.state();
        let current = state.current.as_ref().is_some_and(|current| current.id == id);
        current.then(|| state.queue.take(out, most))
    }

    /// Makes a connection the link, unless one that stands has to stay.
    pub(super) fn attach(&self, coming: Candidate, up_since: Duration) -> Attached {
        let mut state = self.state();
        let standing = state.current.as_ref().map(|current| current.dialled);
        let keep = |standing| rule::keep(self.smaller, standing, coming.dialled, coming.seen);
        if standing.map(keep) == Some(Keep::Standing) {
            return Attached::No;
        }
        let Candidate { id, dialled, wake, .. } = coming;
        if !dialled.by_me {
            state.seen = dialled.dial;
        }
        let former = state.current.replace(Current { id, dialled, up_since, wake });
        state.queue.rewind();
        state.unreachable = false;
        state.round_trip = None;
        let before = std::mem::replace(&mut state.linked_before, true);
        drop(state);
        self.changed.notify_one();
        match former {
            Some(former) => {
                former.wake.notify_one();
                Attached::Instead
            }
            None if before => Attached::Again,
            None => Attached::New,
        }
    }

    /// A connection has ended. Tells since when it was the link, if it was.
    pub(super) fn detach(&self, id: u64) -> Option<Duration> {
        let mut state = self.state();
        let current = state.current.take_if(|current| current.id == id)?;
        state.round_trip = None;
        drop(state);
        current.wake.notify_one();
        self.changed.notify_one();
        Some(current.up_since)
    }

    /// Whether there is a link.
    pub(super) fn is_linked(&self) -> bool {
        self.state().current.is_some()
    }

    /// Which of its dials was taken last.
    pub(super) fn seen(&self) -> u64 {
        self.state().seen
    }

    /// Where it is to be dialled, if it is to be.
    pub(super) fn to_dial(&self) -> Option<SocketAddr> {
        let state = self.state();
        state.address.filter(|_| state.current.is_none()).map(|(_, address)| address)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.state().address.map(|(_, address)| address)
    }

    /// Notes where it listens, unless something newer is known.
    pub(super) fn learn(&self, bump: u64, address: SocketAddr) {
        let mut state = self.state();
        if state.address.is_some_and(|known| known.0 > bump || known.1 == address) {
            return;
        }
        state.address = Some((bump, address));
        drop(state);
        self.changed.notify_one();
    }

    /// Notes whether it is being dialled.
    pub(super) fn dialling(&self, dialling: bool) {
        self.state().dialling = dialling;
    }

    /// It could not be reached: what waits for it is dropped, and so is what is said from here on.
    pub(super) fn give_up(&self) -> usize {
        let mut state = self.state();
        if state.current.is_some() {
            return 0;
        }
        state.unreachable = true;
        let dropped = state.queue.clear();
        state.dropped += dropped as u64;
        dropped
    }

    /// Notes the time there and back.
    pub(super) fn measured(&self, id: u64, round_trip: Duration) {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|current| current.id == id) {
            state.round_trip = Some(round_trip);
        }
    }

    /// Notes what membership believes of it.
    pub(super) fn believed(&self, member: MemberState) {
        self.state().member = member;
    }

    /// How it stands.
    pub(super) fn view(&self) -> PeerView {
        let state = self.state();
        PeerView {
            name: self.name.clone(),
            pop: self.pop.clone(),
            address: state.address.map(|(_, address)| address),
            state: match (&state.current, state.dialling) {
                (Some(_), _) => LinkState::Up,
                (None, true) => LinkState::Connecting,
                (None, false) => LinkState::Down,
            },
            up_since: state.current.as_ref().map(|current| current.up_since),
            round_trip: state.round_trip,
            queued_bytes: state.queue.bytes(),
            dropped: state.dropped,
            member: state.member,
        }
    }
}
