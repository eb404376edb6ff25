//! The purge table in force: one writer, many readers, one epoch.
//!
//! The order of steps is what makes a purge safe. The writer writes all rows of a record under
//! epoch + 1 and only then publishes the epoch. A reader takes the epoch first and then the rows,
//! so it may see a row too early but never too late. The sweeper, before it drops rows, moves
//! `checked` of everything alive to the epoch that its walk began with and then raises `floor`; a
//! reader looks at `floor` last, and what has `checked` below it counts as dead, wherever it was
//! kept.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::stored::Head;
use crate::clock::Now;
use crate::purge::{Row, Secret, Selector, Selectors, Strength, Table};
use crate::semantics::Verdict;

/// What applying a purge gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number on this node, without holes.
    pub sequence: u64,
    /// Epoch that it is in force from.
    pub epoch: u64,
}

/// Owner of the purge table, the epoch and the lease.
#[derive(Debug)]
pub struct Purges {
    secret: Secret,
    epoch: AtomicU64,
    floor: AtomicU64,
    lease: AtomicBool,
    table: RwLock<Table>,
    sequence: Mutex<u64>,
}

impl Purges {
    /// An empty table that keeps at most `rows_per_site` rows of each site.
    #[must_use]
    pub fn new(secret: Secret, rows_per_site: usize) -> Self {
        Self {
            secret,
            epoch: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            lease: AtomicBool::new(true),
            table: RwLock::new(Table::new(rows_per_site)),
            sequence: Mutex::new(0),
        }
    }

    /// Epoch in force. Read it before the store and before sending to an origin.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether this node knows that it missed no purge. A node that is alone is its own witness.
    #[must_use]
    pub fn lease(&self) -> bool {
        self.lease.load(Ordering::Acquire)
    }

    /// Rows in the table.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Epoch up to which rows may be gone: what was not checked since then counts as dead.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// The rows of these selectors, where there are any, as far as `among` answers to them.
    #[must_use]
    pub fn rows_of(
        &self,
        selectors: Vec<Selector>,
        among: Option<&Selectors>,
    ) -> Vec<(Selector, Row)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let row = |selector: Selector| {
            let key = selector.row(self.secret);
            let counts = among.is_none_or(|among| among.rows().contains(&key));
            let row = counts.then(|| table.row(key)).flatten()?;
            Some((selector, row))
        };
        selectors.into_iter().filter_map(row).collect()
    }

    /// Rows that a response under `host` and `target` of `site` with `tags` answers to.
    #[must_use]
    pub fn selectors(&self, site: &str, host: &str, target: &str, tags: &[Box<str>]) -> Selectors {
        Selectors::new(self.secret, site, host, target, tags)
    }

    /// Applies one purge: all its selectors at one new epoch. In force when this returns.
    pub fn apply(&self, selectors: &[Selector], strength: Strength, now: Now) -> Applied {
        let mut sequence = self.writer();
        let epoch = self.epoch.load(Ordering::Acquire) + 1;
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            for selector in selectors {
                table.write(self.secret, selector, strength, epoch, now.boot);
            }
        }
        self.epoch.store(epoch, Ordering::Release);
        *sequence += 1;
        Applied { sequence: *sequence, epoch }
    }

    /// What the purges up to `epoch` (or a little later) say of a response; `None`: it is dead.
    #[must_use]
    pub fn verdict(&self, head: &Head, epoch: u64) -> Option<Verdict> {
        if head.checked() < epoch && !self.recheck(head, epoch) {
            return None;
        }
        Some(match (head.must_check(), head.soft_at()) {
            (true, _) => Verdict::Check,
            (false, Some(boot)) => Verdict::Soft { since: moment(head, boot) },
            (false, None) => Verdict::Alive,
        })
    }

    /// Whether a hard purge newer than `born` hit these selectors, as far as the rows still tell.
    #[must_use]
    pub fn killed_since(&self, selectors: &Selectors, born: u64) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let hit = table.find(selectors, born).hard;
        drop(table);
        hit || born < self.floor.load(Ordering::Acquire)
    }

    /// Whether a response that is still arriving may answer a request that came at `epoch`.
    #[must_use]
    pub fn joinable(&self, head: &Head, epoch: u64) -> bool {
        head.born >= epoch || matches!(self.verdict(head, epoch), Some(Verdict::Alive))
    }

    /// Looks the rows up; `false`: dead. Otherwise `checked` has moved to `epoch`.
    fn recheck(&self, head: &Head, epoch: u64) -> bool {
        let found = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            table.find(&head.selectors, head.born)
        };
        if found.hard {
            return false;
        }
        head.mark(found);
        // Rows up to `floor` may be gone: only what the sweep moved there is known to be alive.
        // Whatever it did not meet, such as a fill without a head, counts as dead.
        // The floor is read first: the sweep moves `checked` before it raises the floor.
        let floor = self.floor.load(Ordering::Acquire);
        if head.checked() < floor {
            return false;
        }
        head.confirm(epoch);
        true
    }

    /// Lets rows up to `epoch` go. The caller has moved everything alive to that epoch; what was
    /// born before it and not met counts as dead from now on.
    pub(super) fn raise_floor(&self, epoch: u64) {
        let _writer = self.writer();
        self.floor.fetch_max(epoch, Ordering::AcqRel);
        self.table.write().unwrap_or_else(PoisonError::into_inner).drop_up_to(epoch);
    }

    fn writer(&self) -> MutexGuard<'_, u64> {
        self.sequence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moment `boot` on both clocks, reckoned from when the response arrived.
fn moment(head: &Head, boot: std::time::Duration) -> Now {
    let received = head.terms.received;
    Now { wall: received.wall + boot.saturating_sub(received.boot), boot }
}
