//! What the core is told at its start, and the two ends of it: events in, actions out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Entry, Saved};
use super::identity::{Identity, Name};
use super::lease::Lease;
use super::message::Message;
use super::quorum::WitnessSet;
use super::record::Record;
use super::roster::Roster;

/// What a node is told. All of it bounds or paces something.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub me: Name,
    /// Every node with its PoP, itself included.
    pub roster: Roster,
    /// The witnesses as configured; a newer set that is heard of takes its place.
    pub witnesses: WitnessSet,
    /// How long a lease is, for those who ask this node. A property of the witness set.
    pub lease: Duration,
    /// How often witnesses are asked.
    pub ask_every: Duration,
    /// Whether they are asked through relays of the own PoP even in a small mesh; in one of more than
    /// [`ASK_RELAYS_ABOVE`] nodes they always are.
    pub ask_relays: bool,
    /// How often a few peers hear from this node.
    pub beat_every: Duration,
    /// Relays in each other PoP.
    pub relays: usize,
    /// Whether a witness writes down what it acknowledges.
    pub disk: bool,
    /// Records kept for those who missed them.
    pub log_records: usize,
    /// Bytes of them.
    pub log_bytes: usize,
    /// Records kept of each source until those before them are here.
    pub waiting_records: usize,
    /// Records handed over at once.
    pub batch_records: usize,
    /// Bytes handed over at once, as a message has them; the last record may go over, and a frame holds
    /// [`FRAME_BYTES`](super::FRAME_BYTES).
    pub batch_bytes: usize,
    /// Time after which what was asked for is asked for again, elsewhere.
    pub ask_again: Duration,
    /// Purges per second that a node takes from one issuer as they come; further ones wait.
    pub rate: u32,
    /// Purges that may come at once.
    pub burst: u32,
    /// Sources that the vector may have before silent ones are retired.
    pub sources: usize,
    /// How long a source of a life that is over has been silent before it is retired.
    pub retire_after: Duration,
    /// Receipts that are kept.
    pub receipts: usize,
    /// Nodes that all of them together name; the oldest go where there are more.
    pub receipt_nodes: usize,
}

/// Nodes of a mesh above which witnesses are asked through relays. Each witness answers every node of a
/// smaller mesh twice a second, which is little work, and one word less to rely on.
pub const ASK_RELAYS_ABOVE: usize = 100;

impl Settings {
    /// Whether witnesses are asked through relays of the own PoP.
    #[must_use]
    pub fn asks_relays(&self) -> bool {
        self.ask_relays || self.roster.len() > ASK_RELAYS_ABOVE
    }

    /// Defaults for a node among others.
    #[must_use]
    pub fn new(me: Name, roster: impl Into<Roster>, witnesses: WitnessSet) -> Self {
        Self {
            me,
            roster: roster.into(),
            witnesses,
            lease: Duration::from_millis(1_800),
            ask_every: Duration::from_millis(500),
            ask_relays: false,
            beat_every: Duration::from_millis(500),
            relays: 2,
            disk: true,
            log_records: 1_000_000,
            log_bytes: 256 << 20,
            waiting_records: 256,
            batch_records: 32_768,
            batch_bytes: 3 << 20,
            ask_again: Duration::from_millis(300),
            rate: 2_000,
            burst: 10_000,
            sources: 1_024,
            retire_after: Duration::from_secs(600),
            receipts: 4_096,
            receipt_nodes: 1_000_000,
        }
    }
}

/// What happens to a node.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "they are made, handed on and taken apart at once")]
pub enum Event {
    /// Time has passed. Wanted at least ten times a second.
    Tick,
    /// A message came over the link of a peer.
    Message {
        /// The peer, by its certificate.
        from: Name,
        /// What it says.
        message: Message,
    },
    /// The log on disk holds everything up to this ticket.
    Persisted {
        /// The ticket.
        ticket: u64,
    },
    /// The roster has changed.
    Roster(Roster),
    /// The operator wants these witnesses.
    Witnesses(Vec<Name>),
}

/// What a process finds when it starts.
#[derive(Debug)]
pub enum Start {
    /// No log, or one that is locked.
    Forgotten,
    /// The log of its former life, locked for this one.
    Saved(Box<Saved>),
}

/// What a node is to do, in this order.
#[derive(Debug)]
pub enum Action {
    /// Say this to a peer. May be lost.
    Send {
        /// The peer.
        to: Name,
        /// What to say.
        message: Message,
    },
    /// Apply these purges, in order, at one new epoch, and publish it before going on.
    Apply(Vec<Arc<Record>>),
    /// Write a row over everything at a new epoch, and publish it before going on: what was missed
    /// is not known.
    Reset(Reset),
    /// Append these entries to the log on disk, and tell when they are safe.
    Persist {
        /// To be repeated when they are.
        ticket: u64,
        /// What to append.
        entries: Vec<Entry>,
    },
    /// This lease is in force, or none.
    Lease(Option<Lease>),
    /// A majority of the witnesses holds this purge.
    Acknowledged(Identity),
    /// Something an operator should know.
    Notice(Notice),
}

/// Why everything is to be checked with the origin, and how strongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub why: ResetWhy,
    /// Whether the row says `check`. It always does; a planted bug says `soft`.
    pub check: bool,
}

/// Why everything is to be checked with the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResetWhy {
    /// A node that has just begun takes over what the others have.
    FirstAdoption,
    /// What was missed is in nobody's log any more.
    LogTruncated,
    /// The witnesses have begun a new generation.
    Generation,
    /// A retired source had issued something that was missed.
    Retired,
    /// Two histories under one name.
    Conflict,
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A different record under a known name was refused.
    Refused(Identity),
    /// This node numbers its records anew: its former numbers are taken.
    Reborn,
    /// Another process answers as this witness.
    Superseded,
    /// This node now counts as a witness.
    Serving {
        /// In this generation.
        generation: u64,
    },
    /// Sources were retired.
    Retired {
        /// How many.
        sources: usize,
    },
    /// A node holds other witnesses under the number that this node's have. Replies under the two do
    /// not count together, so one of the two nodes has no lease, or neither, until both are told the
    /// same.
    OtherWitnesses {
        /// The node.
        node: Name,
        /// The number.
        number: u64,
    },
    /// Most witnesses are without memory, this one among them, and too few nodes have said that they know
    /// no newer set of witnesses: nobody has a lease until more do. Told again now and then.
    Unconfirmed {
        /// Nodes that have said so.
        holders: usize,
        /// Nodes that were asked; more than half have to.
        asked: usize,
    },
    /// The operator wants other witnesses, and that was refused.
    ChangeRefused(TooFewForChange),
    /// The set of witnesses is changing, and the roster has become too small for the change to end: purges
    /// need most of the old and of the new ones until nodes are added. Told again now and then.
    ChangeStuck(TooFewForChange),
    /// Another set of witnesses is in force.
    Witnesses {
        /// Its number.
        number: u64,
    },
}

/// So many witnesses cannot be exchanged at once: if those that were forgot it, a majority of the nodes could be
/// left in which nobody knows that they are witnesses no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooFewForChange {
    /// The witnesses that are.
    pub from: Vec<Name>,
    /// Those that were to be.
    pub to: Vec<Name>,
    /// How many nodes there are.
    pub nodes: usize,
}

impl fmt::Display for TooFewForChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[Name]| names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
        write!(
            out,
            "a mesh of {} nodes is too small for the witnesses to become {} instead of {} at once: too few would \
             know of it for sure; exchange fewer at a time, or add nodes first",
            self.nodes,
            list(&self.to),
            list(&self.from)
        )
    }
}

impl std::error::Error for TooFewForChange {}
