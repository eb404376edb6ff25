//! What nodes say to one another.

use std::sync::Arc;
use std::time::Duration;

use super::identity::{Identity, Name, Source};
use super::quorum::{SetMark, Standing, Testimony, WitnessSet};
use super::record::Record;
use super::retire::Step;
use super::vector::{Mark, Vector};

/// One message. Who sent it is known from the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A record, as soon as it was there.
    Record {
        /// The record.
        record: Arc<Record>,
        /// Whether the receiver is to pass it on within its PoP.
        pass_on: bool,
    },
    /// Records that were asked for.
    Records(Vec<Arc<Record>>),
    /// A sign of life.
    Beat(Beat),
    /// What the sender has.
    Vector(Holding),
    /// Asks for the receiver's vector.
    Compare,
    /// Asks for records.
    Want(Vec<Range>),
    /// What was asked for is gone from the log; this is what the sender has.
    Beyond(Holding),
    /// A witness holds everything of a source up to here.
    Acknowledge {
        /// Whose records.
        source: Source,
        /// Up to where.
        mark: Mark,
        /// As what it says so.
        testimony: Testimony,
    },
    /// Asks a witness, or a relay, for what it has.
    Ask {
        /// Number of the question, which the answer repeats.
        question: u64,
        /// Digest of what the asker has.
        digest: u128,
        /// Whether it is asked as a relay.
        relay: bool,
    },
    /// A witness's answer.
    Answer {
        /// The question's number.
        question: u64,
        /// As what it answers.
        testimony: Testimony,
        /// How long a lease may be, by the witness set.
        lease: Duration,
        /// What it has.
        have: Have,
    },
    /// A relay's answer.
    Relayed {
        /// The question's number.
        question: u64,
        /// Age of the oldest of the relay's own questions that its lease rests on.
        age: Duration,
        /// How long a lease may be, by the witness set.
        lease: Duration,
        /// Generation of the witnesses that it asked.
        generation: u64,
        /// What it has, which covers what the witnesses answered.
        have: Have,
    },
    /// A witness that has lost its memory, or never had one, asks to be noted and told.
    Recover(Recover),
    /// The answer to it.
    Adopt {
        /// The life of the receiver that the sender has noted.
        noted: Standing,
        /// As what it answers.
        testimony: Testimony,
        /// What it has.
        holding: Holding,
    },
    /// Enough witnesses have lost their memory at once: a new generation.
    Begin(Beginning),
    /// The sender belongs to the new generation.
    Joined {
        /// The generation.
        beginning: Beginning,
        /// Whether it knows already that a majority does. Then it wants no answer.
        settled: bool,
    },
    /// The sender has applied this record, whose issuer wants to know, and all before it.
    Applied(Identity),
    /// The receiver's record is another than the one known under that name.
    Conflict(Identity),
    /// A witness set that is newer than the receiver's.
    Witnesses(WitnessSet),
    /// Asks whether the receiver holds this witness set. It takes it over where it is newer than its own.
    Hold {
        /// Number of the question, which the answer repeats.
        question: u64,
        /// The newest set that the asker knows.
        set: WitnessSet,
    },
    /// The sender holds that set, knows no newer one, and will not go by an older one again.
    Holds {
        /// The question's number.
        question: u64,
        /// The set.
        set: SetMark,
        /// As what it answers under it, if it does so as a witness.
        testimony: Option<Testimony>,
    },
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The sender's own sequence, for those who missed its end.
    pub source: Source,
    /// Up to where it goes.
    pub mark: Mark,
    /// Half of the digest of what the sender has. Where two differing vectors have the same, one
    /// of the next beats asks for the vector all the same.
    pub digest: u64,
    /// The witness set that the sender holds.
    pub set: SetMark,
    /// Whether it wants to hear how far its records are in force at the receiver.
    pub asks: bool,
}

/// What a node has, with what is needed to take it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its vector.
    pub vector: Vector,
    /// The last step of retirement, if there was one.
    pub step: Option<Step>,
}

/// A piece of a source's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whose.
    pub source: Source,
    /// Those after this one.
    pub after: u64,
}

/// What an answerer has, as short as the question allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Have {
    /// The same as the asker, by the digest in the question.
    Same,
    /// This.
    Holding(Holding),
}

/// A witness without memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recover {
    /// The life that it wants to begin.
    pub standing: Standing,
    /// The set that it holds.
    pub set: SetMark,
}

/// A new generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// A random number.
    pub generation: u64,
    /// The set.
    pub set: SetMark,
    /// The witnesses that had no memory, each with the life it wanted to begin.
    pub members: Vec<(Name, Standing)>,
}
