//! Messages as bytes.
//!
//! ```text
//! version 1 byte | kind 1 byte | body
//! ```
//!
//! A frame's length comes from the link beneath. Numbers are big-endian; texts, lists and payloads
//! stand behind their length; nothing may follow. Reading is strict and bounded by the frame: no
//! length is believed before that many bytes are there. A kind of message that is not known is
//! reported as such, to be passed over; a record always has the outer frame that every version
//! reads, whatever its payload.

mod entry;
mod read;
mod write;

use super::message::{Beat, Beginning, Have, Holding, Message, Range, Recover};
pub use entry::{decode_entry, encode_entry};
use read::Reader;
use write::Writer;

/// The version that is written. A reader takes any: what it does not know are kinds, not versions.
const VERSION: u8 = 1;

/// Longest frame that is read or written.
pub const FRAME_BYTES: usize = 4 << 20;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Longer than a frame may be.
    TooLong,
    /// It ends too soon, or something follows, or a value is none of those allowed.
    Malformed,
    /// A kind that this version does not know; to be passed over.
    UnknownKind(u8),
}

/// A message as bytes.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let mut to = Writer::default();
    to.byte(VERSION);
    to.byte(kind(message));
    write_body(message, &mut to);
    to.finish()
}

/// The message that bytes are.
///
/// # Errors
/// When they are none, or one of a kind that is not known.
pub fn decode(frame: &[u8]) -> Result<Message, WireError> {
    if frame.len() > FRAME_BYTES {
        return Err(WireError::TooLong);
    }
    let mut from = Reader::new(frame);
    let (version, kind) = (from.byte()?, from.byte()?);
    if version == 0 {
        return Err(WireError::Malformed);
    }
    let message = read_body(kind, &mut from)?;
    from.end()?;
    Ok(message)
}

fn kind(message: &Message) -> u8 {
    match message {
        Message::Record { .. } => 1,
        Message::Records(_) => 2,
        Message::Beat(_) => 3,
        Message::Vector(_) => 4,
        Message::Compare => 5,
        Message::Want(_) => 6,
        Message::Beyond(_) => 7,
        Message::Acknowledge { .. } => 8,
        Message::Ask { .. } => 9,
        Message::Answer { .. } => 10,
        Message::Relayed { .. } => 11,
        Message::Recover(_) => 12,
        Message::Adopt { .. } => 13,
        Message::Begin(_) => 14,
        Message::Joined { .. } => 15,
        Message::Applied(_) => 16,
        Message::Conflict(_) => 17,
        Message::Witnesses(_) => 18,
        Message::Hold { .. } => 19,
        Message::Holds { .. } => 20,
    }
}

fn write_body(message: &Message, to: &mut Writer) {
    match message {
        Message::Record { record, pass_on } => {
            to.bool(*pass_on);
            to.record(record);
        }
        Message::Records(records) => to.list(records, |to, record| to.record(record)),
        Message::Beat(beat) => {
            to.source(&beat.source);
            to.mark(beat.mark);
            to.u64(beat.digest);
            to.set_mark(beat.set);
            to.bool(beat.asks);
        }
        Message::Vector(holding) | Message::Beyond(holding) => write_holding(holding, to),
        Message::Compare => {}
        Message::Want(ranges) => to.list(ranges, |to, range| {
            to.source(&range.source);
            to.u64(range.after);
        }),
        Message::Acknowledge { source, mark, testimony } => {
            to.source(source);
            to.mark(*mark);
            to.testimony(testimony);
        }
        Message::Ask { question, digest, relay } => {
            to.u64(*question);
            to.u128(*digest);
            to.bool(*relay);
        }
        Message::Answer { question, testimony, lease, have } => {
            to.u64(*question);
            to.testimony(testimony);
            to.duration(*lease);
            write_have(have, to);
        }
        Message::Relayed { question, age, lease, generation, have } => {
            to.u64(*question);
            to.duration(*age);
            to.duration(*lease);
            to.u64(*generation);
            write_have(have, to);
        }
        Message::Recover(recover) => {
            to.standing(recover.standing);
            to.set_mark(recover.set);
        }
        Message::Adopt { noted, testimony, holding } => {
            to.standing(*noted);
            to.testimony(testimony);
            write_holding(holding, to);
        }
        Message::Begin(beginning) => write_beginning(beginning, to),
        Message::Joined { beginning, settled } => {
            to.bool(*settled);
            write_beginning(beginning, to);
        }
        Message::Applied(identity) | Message::Conflict(identity) => to.identity(identity),
        Message::Witnesses(set) => to.witnesses(set),
        Message::Hold { question, set } => {
            to.u64(*question);
            to.witnesses(set);
        }
        Message::Holds { question, set, testimony } => {
            to.u64(*question);
            to.set_mark(*set);
            to.option(testimony.as_ref(), Writer::testimony);
        }
    }
}

fn read_body(kind: u8, from: &mut Reader<'_>) -> Result<Message, WireError> {
    Ok(match kind {
        1 => {
            let pass_on = from.bool()?;
            Message::Record { record: from.record()?, pass_on }
        }
        2 => Message::Records(from.list(Reader::record)?),
        3 => Message::Beat(Beat {
            source: from.source()?,
            mark: from.mark()?,
            digest: from.u64()?,
            set: from.set_mark()?,
            asks: from.bool()?,
        }),
        4 => Message::Vector(read_holding(from)?),
        5 => Message::Compare,
        6 => Message::Want(
            from.list(|from| Ok(Range { source: from.source()?, after: from.u64()? }))?,
        ),
        7 => Message::Beyond(read_holding(from)?),
        8 => Message::Acknowledge {
            source: from.source()?,
            mark: from.mark()?,
            testimony: from.testimony()?,
        },
        9 => Message::Ask { question: from.u64()?, digest: from.u128()?, relay: from.bool()? },
        10 => Message::Answer {
            question: from.u64()?,
            testimony: from.testimony()?,
            lease: from.duration()?,
            have: read_have(from)?,
        },
        11 => Message::Relayed {
            question: from.u64()?,
            age: from.duration()?,
            lease: from.duration()?,
            generation: from.u64()?,
            have: read_have(from)?,
        },
        12 => Message::Recover(Recover { standing: from.standing()?, set: from.set_mark()? }),
        13 => Message::Adopt {
            noted: from.standing()?,
            testimony: from.testimony()?,
            holding: read_holding(from)?,
        },
        14 => Message::Begin(read_beginning(from)?),
        15 => {
            let settled = from.bool()?;
            Message::Joined { beginning: read_beginning(from)?, settled }
        }
        16 => Message::Applied(from.identity()?),
        17 => Message::Conflict(from.identity()?),
        18 => Message::Witnesses(from.witnesses()?),
        19 => Message::Hold { question: from.u64()?, set: from.witnesses()? },
        20 => Message::Holds {
            question: from.u64()?,
            set: from.set_mark()?,
            testimony: from.option(Reader::testimony)?,
        },
        other => return Err(WireError::UnknownKind(other)),
    })
}

fn write_holding(holding: &Holding, to: &mut Writer) {
    to.vector(&holding.vector);
    to.option(holding.step.as_ref(), Writer::step);
}

fn read_holding(from: &mut Reader<'_>) -> Result<Holding, WireError> {
    Ok(Holding { vector: from.vector()?, step: from.option(Reader::step)? })
}

fn write_have(have: &Have, to: &mut Writer) {
    match have {
        Have::Same => to.byte(0),
        Have::Holding(holding) => {
            to.byte(1);
            write_holding(holding, to);
        }
    }
}

fn read_have(from: &mut Reader<'_>) -> Result<Have, WireError> {
    Ok(if from.bool()? { Have::Holding(read_holding(from)?) } else { Have::Same })
}

fn write_beginning(beginning: &Beginning, to: &mut Writer) {
    to.u64(beginning.generation);
    to.set_mark(beginning.set);
    to.list(&beginning.members, |to, (name, standing)| {
        to.name(name);
        to.standing(*standing);
    });
}

fn read_beginning(from: &mut Reader<'_>) -> Result<Beginning, WireError> {
    Ok(Beginning {
        generation: from.u64()?,
        set: from.set_mark()?,
        members: from.list(|from| Ok((from.name()?, from.standing()?)))?,
    })
}

#[cfg(test)]
mod tests;
