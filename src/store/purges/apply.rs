//! Putting purges in force: the one writer.

use std::sync::PoisonError;

use super::super::events::parts;
use super::super::history::{Author, Past};
use super::super::order::{self, Cell as _};
use super::{Applied, Purges};
use crate::clock::Now;
use crate::purge::{Place, Row, RowKey, Selector, Strength};

/// Rows and URLs that are written under one lock: readers wait no longer than for these.
const WRITTEN_AT_ONCE: usize = 1000;

/// One purge of several that are put in force together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batched {
    /// Who asked for it; `None` where it is not to be remembered.
    pub by: Option<Author>,
    /// Its name in the mesh.
    pub identity: Option<Box<str>>,
    /// What it names.
    pub selectors: Vec<Selector>,
    /// Its strength.
    pub strength: Strength,
}

/// One purge, borrowed.
#[derive(Clone, Copy)]
struct One<'a> {
    by: Option<&'a Author>,
    identity: Option<&'a str>,
    selectors: &'a [Selector],
    strength: Strength,
}

impl Batched {
    fn borrowed(&self) -> One<'_> {
        One {
            by: self.by.as_ref(),
            identity: self.identity.as_deref(),
            selectors: &self.selectors,
            strength: self.strength,
        }
    }
}

impl Purges {
    /// Applies one purge: all its selectors at one new epoch. In force when this returns.
    pub fn apply(&self, selectors: &[Selector], strength: Strength, now: Now) -> Applied {
        self.record(&[One { by: None, identity: None, selectors, strength }], now)
    }

    /// As [`Purges::apply`], remembered for those who ask what was purged.
    pub fn apply_for(
        &self,
        by: Author,
        selectors: &[Selector],
        strength: Strength,
        now: Now,
    ) -> Applied {
        self.record(&[One { by: Some(&by), identity: None, selectors, strength }], now)
    }

    /// Applies several purges at one new epoch, in their order. In force when this returns; gives
    /// the number of the last. Those with an author are remembered. Nothing happens where there are
    /// none.
    pub fn apply_batch(&self, batch: &[Batched], now: Now) -> Applied {
        let batch: Vec<One<'_>> = batch.iter().map(Batched::borrowed).collect();
        self.record(&batch, now)
    }

    /// Writes a row over everything: purges may have been missed. Gives the epoch that it is in
    /// force from.
    pub fn distrust_all(&self, strength: Strength, now: Now) -> u64 {
        self.apply(&[Selector::All], strength, now).epoch
    }

    fn record(&self, batch: &[One<'_>], now: Now) -> Applied {
        let mut sequence = self.writer();
        let before = *sequence;
        if batch.is_empty() {
            return Applied { sequence: before, epoch: self.epoch.see() };
        }
        *sequence += batch.len() as u64;
        let numbered = || (before + 1..).zip(batch);
        let epoch = order::publish(&self.epoch, |epoch| {
            // Before they are in force, so that whatever they match is counted.
            for (sequence, one) in numbered() {
                self.remember(Applied { sequence, epoch }, one, batch.len() > 1, now);
            }
            self.write_all(batch, epoch, now);
        });
        let last = Applied { sequence: *sequence, epoch };
        if let Some(own) = &self.own {
            // In force by now.
            self.positions.note(own, last.sequence);
        }
        if let Some(events) = &self.events {
            // In the order of their epochs.
            for (sequence, one) in numbered() {
                let Some(by) = one.by else { continue };
                let applied = Applied { sequence, epoch };
                let parts = parts(one.selectors);
                events.purged(applied, by, one.identity, now.wall, one.strength, parts);
            }
        }
        last
    }

    fn remember(&self, applied: Applied, one: &One<'_>, shared: bool, now: Now) {
        let Some(by) = one.by else { return };
        let mut past = Past::new(applied, by.clone(), now.wall, one.strength, one.selectors);
        past.identity = one.identity.map(Into::into);
        past.shares_epoch = shared;
        self.history().note(past);
    }

    fn write_all(&self, batch: &[One<'_>], epoch: u64, now: Now) {
        let rows = |one: &One<'_>| Row::of(one.strength, epoch, now.boot);
        let mut places: Vec<(Place<'_>, Row)> = Vec::new();
        for one in batch {
            let row = rows(one);
            let of_one = one.selectors.iter().map(|selector| (selector.place(self.secret), row));
            places.extend(of_one);
        }
        for some in places.chunks(WRITTEN_AT_ONCE) {
            self.write(some);
        }
        let urls: Vec<&Selector> = batch.iter().flat_map(|one| one.selectors).collect();
        for some in urls.chunks(WRITTEN_AT_ONCE) {
            self.note_urls(some.iter().copied(), epoch);
        }
    }

    fn write(&self, places: &[(Place<'_>, Row)]) {
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            places.iter().for_each(|(place, row)| table.write(*place, *row));
        }
        places.iter().for_each(|(place, row)| self.lately.note(place, row.newest()));
    }

    /// Remembers which URLs a purge at `epoch` names. A pattern may match the query of a URL that
    /// is stored under another one.
    pub(super) fn note_urls<'a>(
        &self,
        selectors: impl Iterator<Item = &'a Selector> + Clone,
        epoch: u64,
    ) {
        let named =
            |selector: &Selector| matches!(selector, Selector::Url { .. } | Selector::Glob { .. });
        if !selectors.clone().any(named) {
            return;
        }
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        for selector in selectors {
            match selector {
                Selector::Url { site, host, target } => {
                    let site = RowKey::site(self.secret, site);
                    recent.note(RowKey::url(self.secret, site, host, target), epoch);
                }
                Selector::Glob { .. } => recent.note_any(epoch),
                Selector::Tag { .. }
                | Selector::Prefix { .. }
                | Selector::Host { .. }
                | Selector::Site { .. }
                | Selector::All => {}
            }
        }
    }
}
