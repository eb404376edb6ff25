//! The protocol core of the mesh: a purge accepted by one node reaches all, and whoever asked is told
//! when it is in force.
//!
//! ```text
//!   submit --> record (node, incarnation, sequence) --> spread: own PoP, relays, witnesses
//!                                                         |             |
//!   Acknowledged <-- a majority of the witnesses <--------'             '--> Apply, everywhere
//!
//!   Lease <-- everything in the answers of a majority is applied <-- questions to the witnesses
//! ```
//!
//! The two majorities meet, so a lease that does not know a purge was asked for before the purge was
//! acknowledged. That is all there is to the promise: *a request sent later than T after the caller
//! read the acknowledgement is not answered from memory with what the purge killed*. The rest keeps
//! it true while messages get lost, clocks run apart and processes stop, sleep and forget;
//! `docs/replication.md` tells the whole protocol with what it assumes.
//!
//! Everything here is pure: events and `now` in, actions out; randomness is handed in. The room above
//! owns sockets, disks and timers, and does the actions in their order.

pub mod check;
mod disk;
mod identity;
mod lease;
mod log;
mod message;
mod mutation;
mod quorum;
mod record;
mod replica;
mod retire;
mod roster;
mod settings;
mod vector;
mod wire;

pub use disk::{Entry, Saved, State};
pub use identity::{Identity, Incarnation, Name, Source};
pub use lease::{AHEAD_MOST, Lease, Stamp};
pub use log::{Log, Piece};
pub use message::{Beat, Beginning, Have, Holding, Message, Range, Recover};
pub use mutation::Mutation;
pub use quorum::{SetMark, Standing, Standings, Testimony, WitnessSet};
pub use record::{Chain, Meaning, Record, Scope, meaning};
pub use replica::{NodeState, PROMISE, Receipt, Refusal, Replica, Sizes};
pub use retire::Step;
pub use roster::Roster;
pub use settings::{
    ASK_RELAYS_ABOVE, Action, Event, Notice, Reset, ResetWhy, Settings, Start, TooFewForChange,
};
pub use vector::{Mark, Retired, Vector};
pub use wire::{FRAME_BYTES, WireError, decode, decode_entry, encode, encode_entry};
