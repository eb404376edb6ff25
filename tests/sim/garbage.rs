//! Bytes that are no message.

use atoll::replication::Message;

use super::dice::Dice;

pub(crate) fn refuse(_message: &Message, _dice: &mut Dice) -> Result<(), ()> {
    Ok(())
}
