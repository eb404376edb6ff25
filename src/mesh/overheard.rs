//! What messages of peers tell about the peers, beside what the protocol makes of them.

use crate::replication::{Event, Identity, Message, Name, Source};

/// What a message says beside what the core makes of it.
pub(super) struct Overheard {
    pub(super) from: Name,
    pub(super) what: Told,
}

/// What it is about.
pub(super) enum Told {
    /// A purge of this node, which the peer has applied with all before it.
    Applied(Identity),
    /// So many records at once.
    Records(u64),
    /// How far the peer has come.
    Beat(Source, u64),
    /// Something that only the core looks at.
    Other,
}

impl Overheard {
    /// What a message tells; nothing where the event is none.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let Event::Message { from, message } = event else { return None };
        let what = match message {
            Message::Applied(identity) => Told::Applied(identity.clone()),
            Message::Records(records) => Told::Records(records.len() as u64),
            Message::Beat(beat) => Told::Beat(beat.source.clone(), beat.mark.sequence),
            Message::Record { .. }
            | Message::Vector(_)
            | Message::Beyond(_)
            | Message::Adopt { .. }
            | Message::Answer { .. }
            | Message::Compare
            | Message::Want(_)
            | Message::Acknowledge { .. }
            | Message::Ask { .. }
            | Message::Relayed { .. }
            | Message::Recover(_)
            | Message::Begin(_)
            | Message::Joined { .. }
            | Message::Conflict(_)
            | Message::Witnesses(_)
            | Message::Hold { .. }
            | Message::Holds { .. } => Told::Other,
        };
        Some(Self { from: from.clone(), what })
    }
}
