//! What a witness writes down before it answers; and any node, of a set of witnesses that it took over.
//!
//! Entries are appended in order; a process that starts reads them back into [`Saved`]. Only one
//! process at a time may have the log open (the one who opens it locks it): one that finds it locked
//! begins without it.

use std::sync::Arc;

use super::log::Log;
use super::quorum::{Standing, Standings, WitnessSet};
use super::record::Record;
use super::vector::{Mark, Vector};

/// As what a witness answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The set that it holds.
    pub set: WitnessSet,
    /// The generation that it belongs to.
    pub generation: u64,
    /// The life that it is in.
    pub standing: Standing,
    /// What it knows of the others' lives.
    pub known: Standings,
}

/// One entry of the log on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// As what it answers from here on.
    State(State),
    /// What it has from here on, where that moved by anything but records.
    Vector(Vector),
    /// A record, the next one of its source.
    Record(Arc<Record>),
    /// The newest set of witnesses that the node knows, under which it does not answer. What it answered
    /// as under an older one is over.
    Set(WitnessSet),
}

/// What a log on disk amounts to.
#[derive(Clone, Debug)]
pub struct Saved {
    /// As what the witness answered last; without it the records are as good as none.
    pub state: Option<State>,
    /// The newest set of witnesses that was known, where the node did not answer under it.
    pub set: Option<WitnessSet>,
    /// What it had.
    pub vector: Vector,
    /// The records that are still there.
    pub log: Log,
}

impl Saved {
    /// Nothing yet, to hold so many records.
    #[must_use]
    pub fn new(most_records: usize, most_bytes: usize) -> Self {
        let log = Log::new(most_records, most_bytes);
        Self { state: None, set: None, vector: Vector::default(), log }
    }

    /// Whether a process that starts learns anything from it.
    #[must_use]
    pub fn tells_something(&self) -> bool {
        self.state.is_some() || self.set.is_some()
    }

    /// The set that it tells of.
    #[must_use]
    pub fn set(&self) -> Option<&WitnessSet> {
        self.set.as_ref().or(self.state.as_ref().map(|state| &state.set))
    }

    /// Reads the next entry.
    pub fn replay(&mut self, entry: Entry) {
        match entry {
            Entry::State(state) => (self.state, self.set) = (Some(state), None),
            Entry::Set(set) => (self.state, self.set) = (None, Some(set)),
            Entry::Vector(vector) => {
                let moved = |(source, mark): &(&_, &Mark)| self.vector.mark(source) != **mark;
                vector.marks().filter(moved).for_each(|(source, _)| self.log.forget(source));
                self.vector = vector;
            }
            Entry::Record(record) => {
                let mark = Mark { sequence: record.identity.sequence, chain: record.after() };
                self.vector.set(&record.identity.source, mark);
                self.log.push(record);
            }
        }
    }
}
