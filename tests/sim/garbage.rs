//! Messages as bytes, whole and damaged.

use atoll::replication::{Message, decode, encode};

use super::dice::Dice;

/// The message after it went over the wire; an error where it came out as another.
pub(crate) fn over_the_wire(message: &Message) -> Result<Message, ()> {
    let read = decode(&encode(message)).or(Err(()))?;
    if read == *message { Ok(read) } else { Err(()) }
}

/// What is cut off or made up must not be taken for a message. (A flipped bit may well make another
/// one; keeping those away is the link's part.)
pub(crate) fn refuse(message: &Message, dice: &mut Dice) -> Result<(), ()> {
    let frame = encode(message);
    let cut = dice.index(frame.len());
    let made_up: Vec<u8> = (0..dice.below(200)).map(|_| dice.next() as u8).collect();
    let beyond = [0_u8, 255].map(|kind| [&[1, kind], made_up.as_slice()].concat());
    let _never_panics = decode(&made_up);
    let taken = decode(&frame[..cut]).is_ok() || beyond.iter().any(|frame| decode(frame).is_ok());
    if taken { Err(()) } else { Ok(()) }
}
