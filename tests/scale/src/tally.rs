//! What is said in the mesh, by kind.

use crate::replication::Message;

/// Kinds of messages, as they are told apart here.
pub(crate) const KINDS: usize = 9;

/// A record as it spreads.
pub(crate) const RECORD: usize = 0;
/// A record that was asked for.
pub(crate) const RECORDS: usize = 1;
pub(crate) const ACKNOWLEDGE: usize = 2;
pub(crate) const COMPARE: usize = 3;
pub(crate) const VECTOR: usize = 4;
pub(crate) const WANT: usize = 5;
pub(crate) const BEAT: usize = 6;
/// Questions about the lease, and answers.
pub(crate) const LEASE: usize = 7;
pub(crate) const APPLIED: usize = 8;

/// Messages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    /// Messages.
    pub messages: f64,
    /// Bytes of them, as `wire::encode` writes them.
    pub bytes: f64,
}

impl Said {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    pub(crate) fn times(self, factor: f64) -> Self {
        Self { messages: self.messages * factor, bytes: self.bytes * factor }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(pub(crate) [Said; KINDS]);

impl Tally {
    pub(crate) fn count(&mut self, message: &Message, bytes: usize) {
        let said = &mut self.0[kind(message)];
        *said = said.plus(Said { messages: 1.0, bytes: bytes as f64 });
    }

    /// What was said since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (said, before) in since.0.iter_mut().zip(before.0) {
            *said = said.plus(before.times(-1.0));
        }
        since
    }

    pub(crate) fn of(&self, kinds: &[usize]) -> Said {
        kinds.iter().fold(Said::default(), |sum, kind| sum.plus(self.0[*kind]))
    }
}

fn kind(message: &Message) -> usize {
    match message {
        Message::Record { .. } => RECORD,
        Message::Records(_) => RECORDS,
        Message::Acknowledge { .. } => ACKNOWLEDGE,
        Message::Compare => COMPARE,
        Message::Vector(_) | Message::Beyond(_) => VECTOR,
        Message::Want(_) => WANT,
        Message::Beat(_)
        | Message::Conflict(_)
        | Message::Witnesses(_)
        | Message::Hold { .. }
        | Message::Holds { .. }
        | Message::Recover(_)
        | Message::Adopt { .. }
        | Message::Begin(_)
        | Message::Joined { .. } => BEAT,
        Message::Ask { .. } | Message::Answer { .. } | Message::Relayed { .. } => LEASE,
        Message::Applied(_) => APPLIED,
    }
}
