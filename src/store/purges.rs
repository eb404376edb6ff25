//! The purge table in force: one writer, many readers, one epoch.
//!
//! The order of steps is what makes a purge safe; the steps stand in `order`. The writer writes all
//! rows of a record under epoch + 1 and only then publishes the epoch. A reader takes the epoch first
//! and then the rows, so it may see a row too early but never too late. The sweeper, before it drops
//! rows, moves `checked` of everything alive to the epoch that its walk began with and then raises
//! `floor`; a reader looks at `floor` last, and what has `checked` below it counts as dead, wherever
//! it was kept.
//!
//! A reader asks for the rows newer than `checked`, which begins as `born`: what the older ones said
//! is written on the head. So rows that fold into the whole site's kill only what was not looked at
//! since they were written.

mod apply;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::events::Events;
use super::history::{History, Past};
use super::lately::Lately;
use super::lease::{LeaseCell, LeaseTerm};
use super::order::{self, Cell as _, Judged};
use super::position::Positions;
use super::stored::{Head, Stored};
use crate::clock::Now;
use crate::purge::{
    Bearer, Found, RecentUrls, Row, RowKey, Secret, Selector, Selectors, Strength, Table,
};
use crate::replication::Source;
use crate::semantics::Verdict;
pub use apply::Batched;

/// Rows that are dropped under one lock: readers wait no longer than for these.
const DROPPED_AT_ONCE: usize = 1000;

/// Bounds on what purges take in memory.
#[derive(Clone, Copy, Debug)]
pub struct PurgeLimits {
    /// Rows of each site.
    pub rows_per_site: usize,
    /// Patterns of each site.
    pub globs_per_site: usize,
    /// Purges that are remembered.
    pub history: usize,
}

impl Default for PurgeLimits {
    fn default() -> Self {
        Self { rows_per_site: 100_000, globs_per_site: 64, history: 1000 }
    }
}

/// Why a response may not be used: the epoch of the purge that killed it, 0 where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) by: u64,
}

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
    lease: LeaseCell,
    positions: Positions,
    table: RwLock<Table>,
    lately: Lately,
    recent: RwLock<RecentUrls>,
    sequence: Mutex<u64>,
    history: Mutex<History>,
    /// Where purges that are remembered are told, too.
    events: Option<Arc<Events>>,
    /// Under whose name its own numbers are positions, where no mesh names the purges.
    own: Option<Source>,
}

impl Purges {
    /// An empty table that keeps at most `rows_per_site` rows of each site.
    #[must_use]
    pub fn new(secret: Secret, rows_per_site: usize) -> Self {
        Self::within(secret, PurgeLimits { rows_per_site, ..PurgeLimits::default() })
    }

    /// An empty table within `limits`.
    #[must_use]
    pub fn within(secret: Secret, limits: PurgeLimits) -> Self {
        Self {
            secret,
            epoch: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            lease: LeaseCell::always(),
            positions: Positions::default(),
            recent: RwLock::new(RecentUrls::new(limits.rows_per_site)),
            table: RwLock::new(Table::new(limits.rows_per_site, limits.globs_per_site)),
            lately: Lately::new(),
            sequence: Mutex::new(0),
            history: Mutex::new(History::new(limits.history)),
            events: None,
            own: None,
        }
    }

    /// Tells the purges that are remembered to those who follow `events`, too.
    #[must_use]
    pub fn telling(self, events: Arc<Events>) -> Self {
        Self { events: Some(events), ..self }
    }

    /// Notes its own numbers as the positions of `own`: for a node without a mesh, whose purges bear
    /// these numbers.
    #[must_use]
    pub fn named(self, own: Source) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Epoch in force. Read it before the store and before sending to an origin.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.see()
    }

    /// Publishes a lease, or that there is none. Before it, everything that it depends on must have
    /// been applied. A node that is alone is its own witness: as long as nobody has published
    /// anything, the lease always holds.
    pub fn publish_lease(&self, term: Option<LeaseTerm>) {
        self.lease.publish(term);
    }

    /// Whether this node knows, at `now`, that it missed no purge. For requests `now` is a reading
    /// taken after their heads were complete.
    #[must_use]
    pub fn lease_holds(&self, now: Now) -> bool {
        self.lease.holds(now)
    }

    /// What a request that came at `now` is judged by: whether the lease holds, and the epoch, read
    /// in the order that makes them true of one moment.
    #[must_use]
    pub fn moment(&self, now: Now) -> (bool, u64) {
        let lease = self.lease.holds(now);
        (lease, self.epoch.see())
    }

    /// Up to where the purges of each source are in force here.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Rows in the table.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether rows come so fast that they may fold soon: the sweep must not rest.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.table.read().unwrap_or_else(PoisonError::into_inner).is_crowded()
    }

    /// Epoch up to which rows may be gone: what was not checked since then counts as dead.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor.see()
    }

    /// The rows of these selectors, where there are any, as far as `among` answers to them; and of
    /// the patterns that match a URL among them.
    #[must_use]
    pub fn rows_of(
        &self,
        selectors: Vec<Selector>,
        among: Option<&Selectors>,
    ) -> Vec<(Selector, Row)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut globs = Vec::new();
        for selector in &selectors {
            if let Selector::Url { site, host, target } = selector {
                let matching = table.globs(RowKey::site(self.secret, site), host, target);
                globs.extend(
                    matching.map(|glob| Selector::Glob { site: site.clone(), glob: glob.clone() }),
                );
            }
        }
        let row = |selector: Selector| {
            let place = selector.place(self.secret);
            let counts = among.is_none_or(|among| among.answers_to(&place));
            let row = counts.then(|| table.row(&place)).flatten()?;
            Some((selector, row))
        };
        selectors.into_iter().chain(globs).filter_map(row).collect()
    }

    /// Rows that a response under `host` and `target` of `site` with `tags` answers to.
    #[must_use]
    pub fn selectors(&self, site: &str, host: &str, target: &str, tags: &[Box<str>]) -> Selectors {
        Selectors::new(self.secret, site, host, target, tags)
    }

    /// Has responses that are used for these URLs without being stored under them not be used for
    /// them any more. The URLs are not purged: nothing is stored under their names. So this needs no
    /// epoch of its own; what is asked for before the next one counts as too old, too.
    pub fn distrust(&self, urls: &[Selector]) {
        let _writer = self.writer();
        let epoch = self.epoch.see() + 1;
        self.note_urls(urls.iter(), epoch);
        let full = self.recent.read().unwrap_or_else(PoisonError::into_inner).is_full();
        if full {
            // Forgetting one by one would leave everything born since distrusted; so all at once,
            // and what is asked for from here on is born after it.
            self.recent.write().unwrap_or_else(PoisonError::into_inner).note_any(epoch);
            self.epoch.tell(epoch);
        }
    }

    /// Whether a URL is known not to have been purged since a response was `born` that is stored
    /// under another one of the same path. Prefixes, hosts, tags and all wider selectors are that
    /// response's own business.
    #[must_use]
    pub fn is_untouched(&self, site: &str, host: &str, target: &str, born: u64) -> bool {
        let site = RowKey::site(self.secret, site);
        let url = RowKey::url(self.secret, site, host, target);
        self.recent.read().unwrap_or_else(PoisonError::into_inner).untouched_since(url, born)
    }

    /// What the purges up to `epoch` (or a little later) say of a response; `None`: it is dead.
    #[must_use]
    pub fn verdict(&self, head: &Head, epoch: u64) -> Option<Verdict> {
        if head.checked() < epoch {
            self.recheck(head, epoch, false).ok()?;
        }
        Some(said(head))
    }

    /// The same of a stored response, and counts it for the purges that it met the first time.
    /// Whoever removes a dead one counts that with [`Purges::count_freed`].
    pub(super) fn judge(&self, stored: &Stored, epoch: u64) -> Result<Verdict, Dead> {
        let head = stored.head();
        if head.checked() < epoch {
            self.recheck(head, epoch, true)?;
        }
        Ok(said(head))
    }

    /// Counts stored responses that were removed because a purge had killed them.
    pub(super) fn count_freed(&self, dead: Dead, responses: u64, bytes: u64) {
        self.history().count(dead.by, responses, bytes);
    }

    /// Whether a purge newer than `born`, of whatever strength, hit what this head stands for, as far
    /// as the rows still tell.
    #[must_use]
    pub fn is_head_hit_since(&self, head: &Head, born: u64) -> bool {
        let found = self.find(&head.bearer(), born);
        let hit = found.hard || found.check || found.soft_at.is_some();
        hit || born < self.floor.see()
    }

    /// The purges that are remembered and `pass`, newest first, `most` of them.
    #[must_use]
    pub fn past(&self, most: usize, pass: impl Fn(&Past) -> bool) -> Vec<Past> {
        self.history().newest(most, pass)
    }

    /// The purge with this number, where it is remembered.
    #[must_use]
    pub fn past_one(&self, sequence: u64) -> Option<Past> {
        self.history().find(sequence)
    }

    /// The purge with this name in the mesh, where it is remembered.
    #[must_use]
    pub fn past_named(&self, identity: &str) -> Option<Past> {
        self.history().named(identity)
    }

    /// Whether a response that is still arriving may answer a request that came at `epoch`.
    #[must_use]
    pub fn joinable(&self, head: &Head, epoch: u64) -> bool {
        head.born >= epoch || matches!(self.verdict(head, epoch), Some(Verdict::Alive))
    }

    /// Looks the rows up. Unless it is dead, `checked` has moved to `epoch`.
    fn recheck(&self, head: &Head, epoch: u64, counts: bool) -> Result<(), Dead> {
        let mut met = Row::default();
        let mark = |found: Found| {
            if found.check || found.soft_at.is_some() {
                met = found.met;
                head.mark(found);
            }
        };
        let look = |since| self.look(head, since);
        match order::judge(&head.checked, &self.floor, epoch, look, mark) {
            Judged::Dead(dead) => Err(dead),
            // Rows up to the floor may be gone: only what the sweep moved there is known to be alive.
            // Whatever it did not meet, such as a fill without a head, counts as dead.
            Judged::Unmet => Err(Dead { by: 0 }),
            Judged::Alive { before } => {
                // Who moved `checked` over the row's epoch counts it: one, and once.
                for met in [met.check, met.soft] {
                    if counts && met > before && met <= epoch {
                        self.history().count(met, 1, 0);
                    }
                }
                Ok(())
            }
        }
    }

    /// What the rows newer than `since` say of a head, unless they kill it.
    fn look(&self, head: &Head, since: u64) -> Result<Found, Dead> {
        if self.lately.untouched_since(head.selectors.keys(), since) {
            return Ok(Found::default());
        }
        let found = self.find(&head.bearer(), since);
        if found.hard { Err(Dead { by: found.met.hard }) } else { Ok(found) }
    }

    fn find(&self, bearer: &Bearer<'_>, born: u64) -> Found {
        self.table.read().unwrap_or_else(PoisonError::into_inner).find(self.secret, bearer, born)
    }

    /// Lets rows up to `epoch` go. The caller has moved everything alive to that epoch; what was
    /// born before it and not met counts as dead from now on. Purges may come in between: their
    /// rows are newer.
    pub(super) fn raise_floor(&self, epoch: u64) {
        let drop_some = || {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.drop_up_to(epoch, DROPPED_AT_ONCE)
        };
        order::let_go(&self.floor, epoch, || while drop_some() {});
    }

    /// Notes that a walk begun at `epoch` has seen everything stored.
    pub(super) fn walked(&self, epoch: u64) {
        self.history().swept(epoch);
    }

    /// A table of these selectors alone, to try what they would hit.
    pub(super) fn trial(&self, selectors: &[Selector]) -> Trial {
        let mut table = Table::new(usize::MAX, usize::MAX);
        let row = Row::of(Strength::Hard, 1, std::time::Duration::ZERO);
        selectors.iter().for_each(|selector| table.write(selector.place(self.secret), row));
        Trial { secret: self.secret, table }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, u64> {
        self.sequence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Selectors that are tried and not applied.
#[derive(Debug)]
pub(super) struct Trial {
    secret: Secret,
    table: Table,
}

impl Trial {
    /// Whether one of them names this response.
    pub(super) fn hits(&self, head: &Head) -> bool {
        self.table.find(self.secret, &head.bearer(), 0).hard
    }
}

/// What has been noted on a head that is alive.
fn said(head: &Head) -> Verdict {
    match (head.must_check(), head.soft_at()) {
        (true, _) => Verdict::Check,
        (false, Some(boot)) => Verdict::Soft { since: moment(head, boot) },
        (false, None) => Verdict::Alive,
    }
}

/// The moment `boot` on both clocks, reckoned from when the response arrived.
fn moment(head: &Head, boot: std::time::Duration) -> Now {
    let received = head.terms.received;
    Now { wall: received.wall + boot.saturating_sub(received.boot), boot }
}
