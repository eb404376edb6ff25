//! Entries of a node's log as bytes: `kind 1 byte | body`, the body as in messages. Their length
//! and their checksum come from the file.

use super::WireError;
use super::read::Reader;
use super::write::Writer;
use crate::replication::disk::{Entry, State};

/// An entry as bytes.
#[must_use]
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut to = Writer::default();
    match entry {
        Entry::State(State { set, generation, standing, known }) => {
            to.byte(1);
            to.witnesses(set);
            to.u64(*generation);
            to.standing(*standing);
            to.standings(known);
        }
        Entry::Vector(vector) => {
            to.byte(2);
            to.vector(vector);
        }
        Entry::Record(record) => {
            to.byte(3);
            to.record(record);
        }
        Entry::Set(set) => {
            to.byte(4);
            to.witnesses(set);
        }
    }
    to.finish()
}

/// The entry that bytes are.
///
/// # Errors
/// When they are none, or one of a kind that is not known.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, WireError> {
    let mut from = Reader::new(bytes);
    let entry = match from.byte()? {
        1 => Entry::State(State {
            set: from.witnesses()?,
            generation: from.u64()?,
            standing: from.standing()?,
            known: from.standings()?,
        }),
        2 => Entry::Vector(from.vector()?),
        3 => Entry::Record(from.record()?),
        4 => Entry::Set(from.witnesses()?),
        other => return Err(WireError::UnknownKind(other)),
    };
    from.end()?;
    Ok(entry)
}
