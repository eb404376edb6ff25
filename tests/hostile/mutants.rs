//! Random mutations of the cases: whatever becomes of a message, no harm may come of it.

use crate::data::{self, Case};
use crate::dice::Dice;
use crate::http1::{Bench, Over};
use crate::wire::{PATIENCE, tolerance};

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
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
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

/// Sends a mutant over a connection of its own: it is answered or closed at once, the second
/// client gets its own answer, and what came to the origin is read there by all in the same way.
pub(crate) fn one(bench: &mut Bench, cases: &[Case], dice: &mut Dice) -> Result<(), String> {
    let case = &cases[dice.below(cases.len())];
    let messages = case.messages();
    let number = bench.next_number();
    let mut bytes = data::bytes(&messages[dice.below(messages.len())], number);
    bytes.truncate(6000);
    for _ in 0..=dice.below(3) {
        mutate(&mut bytes, dice);
    }
    let mark = bench.origin.mark();
    let over = if dice.below(4) == 0 { Over::Tls } else { Over::Plain };
    let told = || format!("{} as {over:?} {}", case.id, bytes.escape_ascii());
    let mut wire = bench.connect(over).map_err(|error| format!("{error}: {}", told()))?;
    let _ = wire.send(&bytes);
    wire.finish();
    let (_, end) = wire.end(PATIENCE);
    if end == crate::wire::End::Open {
        return Err(format!("no end: {}", told()));
    }
    let (control, time) = bench.control(&format!("/c{number:06}"), number);
    let own = format!("{number} GET /c{number:06}");
    if !control.as_ref().is_ok_and(|answer| answer.body == own.as_bytes()) {
        return Err(format!("the control request got {control:?}: {}", told()));
    }
    if time > tolerance() {
        return Err(format!("the control request took {time:?}: {}", told()));
    }
    match bench.origin.since(&mark).faults.first() {
        Some(fault) => Err(format!("the origin cannot read what it got: {fault}: {}", told())),
        None => Ok(()),
    }
}
