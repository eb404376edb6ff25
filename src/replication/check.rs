//! Properties that hold for every input. The property tests and the fuzz target call this; it panics
//! when one does not hold.

use super::wire::{decode, encode};

/// Bytes are refused or a message, which is the same when it is written and read again; and it is
/// written in no more bytes than it came in, some fixed words aside.
pub fn frame(bytes: &[u8]) {
    let Ok(message) = decode(bytes) else { return };
    let written = encode(&message);
    assert_eq!(decode(&written).as_ref(), Ok(&message));
}
