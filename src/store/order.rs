//! The order of steps that makes a purge safe, each order in one place.
//!
//! ```text
//! purge    write the rows under epoch + 1          then publish the epoch, then the lease
//! request  lease, then epoch, then the store       then the rows
//! judge    `checked`, then the rows, then marks    then the floor, then move `checked`
//! sweep    move `checked` of all that is alive     then raise the floor, then let rows go
//! ```
//!
//! Why each of them: a reader who sees an epoch must see its rows, so rows are written first. A
//! verdict that is good up to an epoch may have seen newer rows but no older table, so the epoch is
//! read first. Rows that go take their verdict with them: what they said is written onto the head
//! before its `checked` says that they were asked, and whoever finds no row looks whether rows were
//! let go that it should have met; it looks last, since they may go while it looks.
//!
//! The steps are generic over the cells they share, so that a model checker runs the very code that
//! the edge runs, through all interleavings and with the reorderings that processors are allowed.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows and that several threads share.
pub(super) trait Cell {
    /// What it is; and what was written before it was told is seen.
    fn see(&self) -> u64;
    /// Tells a new one, after all that was written before.
    fn tell(&self, number: u64);
    /// Tells it unless it is greater already. Gives what it was.
    fn raise(&self, number: u64) -> u64;
}

impl Cell for AtomicU64 {
    fn see(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn tell(&self, number: u64) {
        self.store(number, Ordering::Release);
    }

    fn raise(&self, number: u64) -> u64 {
        self.fetch_max(number, Ordering::AcqRel)
    }
}

/// Puts rows in force: `write` writes them under the epoch that it is given. The caller is the only
/// writer.
pub(super) fn publish(epoch: &impl Cell, write: impl FnOnce(u64)) -> u64 {
    let next = epoch.see() + 1;
    write(next);
    epoch.tell(next);
    next
}

/// `until` of a lease that always holds.
pub(super) const ALWAYS: u64 = u64::MAX;

/// A lease in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// It holds before this, by the boot clock.
    pub(super) until: u64,
    /// How far the wall clock may be ahead of the boot clock.
    pub(super) limit: u64,
}

/// The clocks as a request read them when it had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The boot clock.
    pub(super) boot: u64,
    /// How far the wall clock is ahead of it.
    pub(super) ahead: u64,
}

/// Whether the lease holds. Read before the epoch, which is told before the lease that depends on
/// it. A lease that always holds costs one load.
pub(super) fn holds(
    until: &impl Cell,
    limit: &impl Cell,
    reading: impl FnOnce() -> Reading,
) -> bool {
    let until = until.see();
    if until == ALWAYS {
        return true;
    }
    let now = reading();
    now.boot < until && now.ahead <= limit.see()
}

/// Tells a term, after the epoch that it depends on. The caller is the only writer; `furthest` is
/// the greatest `until` told before.
///
/// A reader may see one cell of this term and the other of a neighbour. That is harmless, because
/// whatever it pairs is no more than some term that was told whole: the cell that makes the pair
/// stricter is told first. Where `limit` falls, an old `until` with the new `limit` is within the
/// old term; where it rises, a new `until` with the old `limit` is within the new one, and an old
/// `until` with the new `limit` is, too, since `until` only grows. Where it does not (a lease by way
/// of a slower relay), `limit` does not rise either.
pub(super) fn grant(until: &impl Cell, limit: &impl Cell, furthest: u64, term: Term) {
    let before = limit.see();
    let most = if term.until < furthest { term.limit.min(before) } else { term.limit };
    if most <= before {
        limit.tell(most);
        until.tell(term.until);
    } else {
        until.tell(term.until);
        limit.tell(most);
    }
}

/// What judging came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged<D> {
    /// The rows say so.
    Dead(D),
    /// Rows that it was not asked about may be gone.
    Unmet,
    /// Alive up to the epoch; `checked` was this before.
    Alive {
        /// Where `checked` was.
        before: u64,
    },
}

/// Judges by the rows newer than `checked`: older ones were asked about then, and what they said is
/// marked. `look` asks the rows newer than an epoch; `mark` notes what must outlive them, unless
/// they kill.
pub(super) fn judge<D, F>(
    checked: &impl Cell,
    floor: &impl Cell,
    epoch: u64,
    look: impl FnOnce(u64) -> Result<F, D>,
    mark: impl FnOnce(F),
) -> Judged<D> {
    let found = match look(checked.see()) {
        Ok(found) => found,
        Err(dead) => return Judged::Dead(dead),
    };
    mark(found);
    // The floor before `checked`: the sweep moves `checked` before it raises the floor.
    let floor = floor.see();
    if checked.see() < floor {
        return Judged::Unmet;
    }
    Judged::Alive { before: checked.raise(epoch) }
}

/// Lets rows up to an epoch go, to which all that is alive was moved: `drop_rows` drops them.
pub(super) fn let_go(floor: &impl Cell, epoch: u64, drop_rows: impl FnOnce()) {
    floor.raise(epoch);
    drop_rows();
}

#[cfg(test)]
mod model;
