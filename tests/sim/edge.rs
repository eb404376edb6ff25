//! A small edge: a store, fills, a sweep and the purge table, in steps that others can come between.
//!
//! It follows the rules of the real one: `born` is read before the origin is asked, the lease before
//! the epoch and both before the store; a joined fill is judged like a hit; without a lease only what
//! left after the request had come may answer it.

use std::collections::BTreeMap;

use atoll::clock::Now;
use atoll::replication::{Lease, Meaning, Mutation, Record, Reset, meaning};

use super::origin::{Object, Purge, Selector, Strength, Version, widest};
use super::plan::{MILLI, SECOND};
use super::rows::{Row, Rows};

/// A bug planted in the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EdgeBug {
    None,
    /// What arrives counts as checked up to the epoch of its arrival.
    InsertUnchecked,
    /// The lease is read after the look-up.
    LeaseAfterLookup,
    /// The lease is held against the clock as it was read at the last tick.
    CoarseClock,
    /// The boot clock stops while the machine is suspended. (The world does that.)
    ClockStopsInSuspend,
    /// A request joins a fill that left before it came, lease or not.
    JoinWithoutLease,
    /// The floor is raised after the rows are dropped.
    FloorAfterRows,
    /// Folding removes the narrow row before the wide one is written.
    NarrowFirst,
    /// A 304 makes the old response good again, whatever killed it meanwhile.
    RevivingNotModified,
    /// `born` is read when the answer comes.
    BornAtArrival,
    /// The lease is published before what it depends on is applied. (The world does that.)
    LeaseBeforeEpoch,
}

/// How long a response is fresh.
const FRESH: u64 = 20 * SECOND;
const SWEEP_STEP: u64 = 300 * MILLI;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) object: Object,
    /// By the observer's clock.
    pub(crate) sent: u64,
}

/// A request with what was read for it when its head was complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) request: Request,
    pub(crate) lease: bool,
    pub(crate) epoch: u64,
    /// What the node's purges demanded by then.
    pub(crate) demanded: Version,
    refused: bool,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    version: Version,
    born: u64,
    checked: u64,
    must_check: bool,
    soft: bool,
    since: u64,
}

#[derive(Debug)]
struct Fill {
    number: u64,
    born: u64,
    conditional: Option<Version>,
    waiters: Vec<Waiter>,
    next: Vec<Waiter>,
}

/// What the edge wants done.
#[derive(Debug)]
pub(crate) enum Want {
    Answer { waiter: Waiter, version: Version },
    Fetch { object: Object, number: u64 },
    Step { step: Step, after: u64 },
    Overreach { object: Object },
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Look { waiter: Waiter },
    ReadLease { waiter: Waiter, version: Version },
    SweepFloor { epoch: u64 },
    SweepDrop { epoch: u64 },
    Fold { narrow: Selector, row: Row },
}

#[derive(Debug)]
pub(crate) struct Edge {
    bug: EdgeBug,
    mutation: Mutation,
    old_version: bool,
    epoch: u64,
    floor: u64,
    rows: Rows,
    store: BTreeMap<Object, Stored>,
    fills: BTreeMap<Object, Fill>,
    fetched: u64,
    pub(crate) lease: Option<Lease>,
    pub(crate) coarse: Option<Now>,
    /// Epochs of the hard purges whose scope holds the object's site: nothing else may kill.
    killers: BTreeMap<Selector, u64>,
    pub(crate) hits: u64,
}

impl Edge {
    pub(crate) fn new(bug: EdgeBug, mutation: Mutation, old_version: bool) -> Self {
        Self {
            bug,
            mutation,
            old_version,
            epoch: 1,
            floor: 0,
            rows: Rows::default(),
            store: BTreeMap::new(),
            fills: BTreeMap::new(),
            fetched: 0,
            lease: None,
            coarse: None,
            killers: BTreeMap::new(),
            hits: 0,
        }
    }

    pub(crate) fn apply(&mut self, records: &[std::sync::Arc<Record>], want: &mut Vec<Want>) {
        let epoch = self.epoch + 1;
        for record in records {
            let read = |payload: &[u8]| Purge::decode(payload, self.old_version);
            let (selector, strength) = match meaning(record, read, self.mutation) {
                Meaning::Exact(purge) => (purge.selector, purge.strength),
                Meaning::Wide(scope) => (widest(&scope), Strength::Hard),
                Meaning::Skipped => continue,
            };
            self.killers.insert(widest(&record.scope), epoch);
            let row = match strength {
                Strength::Hard => Row { hard: epoch, ..Row::default() },
                Strength::Check => Row { check: epoch, ..Row::default() },
                Strength::Soft => Row { soft: epoch, ..Row::default() },
            };
            if let Some(narrow) = self.rows.write(selector, row) {
                self.fold(narrow, want);
            }
        }
        self.epoch = epoch;
    }

    pub(crate) fn reset(&mut self, reset: Reset) {
        let epoch = self.epoch + 1;
        let row = if reset.check {
            Row { check: epoch, ..Row::default() }
        } else {
            Row { soft: epoch, ..Row::default() }
        };
        self.rows.write(Selector::All, row);
        self.epoch = epoch;
    }

    /// The head of a request is complete.
    pub(crate) fn arrive(
        &mut self,
        request: Request,
        demanded: Version,
        pause: u64,
        now: Now,
        want: &mut Vec<Want>,
    ) {
        let clock = match self.bug {
            EdgeBug::CoarseClock => self.coarse.unwrap_or(now),
            _ => now,
        };
        let lease = self.lease.is_some_and(|lease| lease.holds(clock));
        let waiter = Waiter { request, lease, epoch: self.epoch, demanded, refused: false };
        if pause == 0 && self.bug != EdgeBug::LeaseAfterLookup {
            self.look(waiter, want);
        } else if self.bug == EdgeBug::LeaseAfterLookup {
            match self.hit(request.object, self.epoch, want) {
                Some(version) => {
                    want.push(Want::Step {
                        step: Step::ReadLease { waiter, version },
                        after: pause,
                    });
                }
                None => self.look(waiter, want),
            }
        } else {
            want.push(Want::Step { step: Step::Look { waiter }, after: pause });
        }
    }

    pub(crate) fn step(&mut self, step: &Step, now: Now, want: &mut Vec<Want>) {
        match step.clone() {
            Step::Look { waiter } => self.look(waiter, want),
            Step::ReadLease { waiter, version } => {
                if self.lease.is_some_and(|lease| lease.holds(now)) {
                    want.push(Want::Answer { waiter, version });
                } else {
                    self.look(Waiter { lease: false, ..waiter }, want);
                }
            }
            Step::SweepFloor { epoch } if self.bug == EdgeBug::FloorAfterRows => {
                self.rows.drop_up_to(epoch);
                want.push(Want::Step { step: Step::SweepDrop { epoch }, after: SWEEP_STEP });
            }
            Step::SweepFloor { epoch } => {
                self.floor = epoch;
                want.push(Want::Step { step: Step::SweepDrop { epoch }, after: SWEEP_STEP });
            }
            Step::SweepDrop { epoch } if self.bug == EdgeBug::FloorAfterRows => self.floor = epoch,
            Step::SweepDrop { epoch } => self.rows.drop_up_to(epoch),
            Step::Fold { narrow, row } if self.bug == EdgeBug::NarrowFirst => {
                self.rows.widen(narrow, row);
            }
            Step::Fold { narrow, row } => self.rows.remove(narrow, row.newest()),
        }
    }

    /// The origin has answered a fill: with a version, or that the one asked about still is it.
    pub(crate) fn arrived(
        &mut self,
        object: Object,
        number: u64,
        version: Version,
        at: u64,
        want: &mut Vec<Want>,
    ) {
        let Some(fill) = self.fills.remove(&object) else { return };
        if fill.number != number {
            self.fills.insert(object, fill);
            return;
        }
        let not_modified = fill.conditional == Some(version);
        let mut new = Stored {
            version,
            born: fill.born,
            checked: fill.born,
            must_check: false,
            soft: false,
            since: at,
        };
        match self.bug {
            EdgeBug::InsertUnchecked => new.checked = self.epoch,
            EdgeBug::BornAtArrival => (new.born, new.checked) = (self.epoch, self.epoch),
            EdgeBug::RevivingNotModified if not_modified => {
                (new.born, new.checked) = (self.epoch, self.epoch);
            }
            _ => {}
        }
        let newer = self.store.get(&object).is_none_or(|old| old.born <= new.born);
        if newer {
            self.store.insert(object, new);
        }
        let mut again = fill.next;
        for waiter in fill.waiters {
            if self.may_use(object, fill.born, &waiter) {
                want.push(Want::Answer { waiter, version });
            } else {
                again.push(Waiter { refused: true, ..waiter });
            }
        }
        if !again.is_empty() {
            self.start(object, again, want);
        }
    }

    /// Begins a sweep.
    pub(crate) fn sweep(&mut self, want: &mut Vec<Want>) {
        let epoch = self.epoch;
        let objects: Vec<Object> = self.store.keys().copied().collect();
        for object in objects {
            let _dead_or_checked = self.judge(object, epoch, want);
        }
        want.push(Want::Step { step: Step::SweepFloor { epoch }, after: SWEEP_STEP });
    }

    fn look(&mut self, waiter: Waiter, want: &mut Vec<Want>) {
        let object = waiter.request.object;
        if !waiter.lease {
            return self.fetch(waiter, want);
        }
        match self.hit(object, waiter.epoch, want) {
            Some(version) => want.push(Want::Answer { waiter, version }),
            None => self.fetch(waiter, want),
        }
    }

    /// The version that may be used from memory. A stale one is refreshed beside.
    fn hit(&mut self, object: Object, epoch: u64, want: &mut Vec<Want>) -> Option<Version> {
        let stored = self.judge(object, epoch, want)?;
        if stored.must_check {
            return None;
        }
        self.hits += 1;
        if stored.soft {
            self.refresh(object, want);
        }
        Some(stored.version)
    }

    /// The stored response as far as it is alive, checked up to `epoch`.
    fn judge(&mut self, object: Object, epoch: u64, want: &mut Vec<Want>) -> Option<Stored> {
        let mut stored = *self.store.get(&object)?;
        if stored.checked < epoch {
            let found = self.rows.find(object);
            if found.hard > stored.born {
                self.judge_reach(object, stored.born, want);
                self.store.remove(&object);
                return None;
            }
            stored.must_check |= found.check > stored.born;
            stored.soft |= found.soft > stored.born;
            if stored.checked < self.floor {
                self.store.remove(&object);
                return None;
            }
            stored.checked = epoch;
            self.store.insert(object, stored);
        }
        Some(stored)
    }

    pub(crate) fn expire(&mut self, at: u64) {
        self.store.values_mut().for_each(|stored| stored.soft |= stored.since + FRESH < at);
    }

    fn judge_reach(&self, object: Object, born: u64, want: &mut Vec<Want>) {
        let killed_by = [Selector::Site(object.site()), Selector::All];
        let newest = killed_by.iter().filter_map(|scope| self.killers.get(scope)).max();
        if newest.is_none_or(|newest| *newest <= born) {
            want.push(Want::Overreach { object });
        }
    }

    /// Whether a fill that left at `born` may answer: no purge came between it and the request.
    fn may_use(&self, object: Object, born: u64, waiter: &Waiter) -> bool {
        if !waiter.lease || waiter.refused || self.bug == EdgeBug::JoinWithoutLease {
            // It left after the request had come.
            return true;
        }
        let found = self.rows.find(object);
        born >= waiter.epoch || (found.hard.max(found.check) <= born && born >= self.floor)
    }

    fn fetch(&mut self, waiter: Waiter, want: &mut Vec<Want>) {
        let object = waiter.request.object;
        if let Some(fill) = self.fills.get_mut(&object) {
            let joins = waiter.lease && !waiter.refused;
            if joins || self.bug == EdgeBug::JoinWithoutLease {
                fill.waiters.push(waiter);
            } else {
                fill.next.push(waiter);
            }
            return;
        }
        self.start(object, vec![waiter], want);
    }

    fn refresh(&mut self, object: Object, want: &mut Vec<Want>) {
        if !self.fills.contains_key(&object) {
            self.start(object, Vec::new(), want);
        }
    }

    fn start(&mut self, object: Object, waiters: Vec<Waiter>, want: &mut Vec<Want>) {
        self.fetched += 1;
        let (number, born) = (self.fetched, self.epoch);
        let conditional = self.store.get(&object).map(|stored| stored.version);
        self.fills.insert(object, Fill { number, born, conditional, waiters, next: Vec::new() });
        want.push(Want::Fetch { object, number });
    }

    fn fold(&mut self, narrow: Selector, want: &mut Vec<Want>) {
        let row = self.rows.row(narrow);
        if self.bug == EdgeBug::NarrowFirst {
            self.rows.remove(narrow, row.newest());
        } else {
            self.rows.widen(narrow, row);
        }
        want.push(Want::Step { step: Step::Fold { narrow, row }, after: 100 * MILLI });
    }
}
