//! Random mutations of the cases: whatever becomes of a message, no harm may come of it.

use crate::data::{self, Case};
use crate::dice::Dice;
use crate::http1::{Bench, Over};
use crate::mutate::mutate;
use crate::wire::{PATIENCE, tolerance};

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
