//! Thirteen ways to damage a message.

use crate::dice::Dice;

/// Bytes that matter to somebody.
const BYTES: [&[u8]; 16] = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b";",
    b",",
    b"\"",
    b"\x0b",
    b"\xa0",
    b"0",
    b"chunked",
    b"\r\n\r\n",
    b"HTTP/1.1",
];

/// One of thirteen ways to change a message.
pub(crate) fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    if bytes.is_empty() {
        return;
    }
    let at = dice.below(bytes.len());
    let to = at + dice.below((bytes.len() - at).min(40)) + 1;
    let some = BYTES[dice.below(BYTES.len())];
    match dice.below(13) {
        0 => drop(bytes.remove(at)),
        1 => drop(bytes.drain(at..to)),
        2 => bytes.insert(at, dice.roll() as u8),
        3 => bytes[at] = dice.roll() as u8,
        4 => bytes[at] ^= 1 << dice.below(8),
        5 => drop(bytes.splice(at..at, some.iter().copied())),
        6 => drop(bytes.splice(at..to, some.iter().copied())),
        7 => bytes.extend_from_within(at..to),
        8 => {
            let part = bytes[at..to].to_vec();
            drop(bytes.splice(at..at, part));
        }
        9 => bytes[at..to].reverse(),
        10 => bytes[at].make_ascii_uppercase(),
        11 => bytes.truncate(to),
        _ => {
            let found = bytes.windows(2).position(|two| two == b"\r\n");
            if let Some(found) = found {
                bytes.remove(found);
            }
        }
    }
}
