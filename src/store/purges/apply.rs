//! Putting purges in force: the one writer.

use std::sync::PoisonError;

use super::super::events::parts;
use super::super::history::{Author, Past};
use super::super::order::{self, Cell as _};
use super::{Applied, Purges};
use crate::clock::Now;
use crate::purge::{Place, Row, RowKey, Selector, Strength};
use crate::replication::Identity;

/// Rows and URLs that are written under one lock: readers wait no longer than for these.
const WRITTEN_AT_ONCE: usize = 1000;

/// One purge of several that are put in force together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batched {
    /// Who asked for it; `None` where it is not to be remembered.
    pub by: Option<Author>,
    /// Its name in the mesh.
    pub identity: Option<Identity>,
    /// What it names.
    pub selectors: Vec<Selector>,
    /// Its strength.
    pub strength: Strength,
}

/// One purge, borrowed.
#[derive(Clone, Copy)]
struct One<'a> {
    by: Option<&'a Author>,
    identity: Option<&'a Identity>,
    selectors: &'a [Selector],
    strength: Strength,
}

impl Batched {
    fn borrowed(&self) -> One<'_> {
        One {
            by: self.by.as_ref(),
            identity: self.identity.as_ref(),
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
    #[expect(
        clippy::needless_pass_by_value,
        reason = "whoever asks for a purge gives its author away"
    )]
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
        // Of a long batch the last are kept: the others would be forgotten within this call.
        let forgotten = all_but(self.history().most(), batch);
        let epoch = order::publish(&self.epoch, |epoch| {
            // Before they are in force, so that whatever they match is counted.
            for (sequence, one) in numbered().skip(forgotten) {
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
            let untold = all_but(events.most(), batch);
            events.pass_over(batch.iter().take(untold).filter(|one| one.by.is_some()).count());
            for (sequence, one) in numbered().skip(untold) {
                let Some(by) = one.by else { continue };
                let applied = Applied { sequence, epoch };
                let parts = parts(one.selectors);
                let identity = one.identity.map(ToString::to_string);
                let identity = identity.as_deref();
                events.purged(applied, by, identity, now.wall, one.strength, parts);
            }
        }
        last
    }

    fn remember(&self, applied: Applied, one: &One<'_>, shared: bool, now: Now) {
        let Some(by) = one.by else { return };
        let mut past = Past::new(applied, by.clone(), now.wall, one.strength, one.selectors);
        past.identity = one.identity.map(|identity| identity.to_string().into());
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

/// How many there are before the last `most` that are to be remembered.
fn all_but(most: usize, batch: &[One<'_>]) -> usize {
    let mut authored = batch.iter().enumerate().rev().filter(|(_, one)| one.by.is_some());
    match most.checked_sub(1) {
        None => batch.len(),
        Some(before) => authored.nth(before).map_or(0, |(place, _)| place),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::purge::Secret;
    use crate::replication::{Incarnation, Source};
    use crate::store::{Events, PurgeLimits, What};

    fn identity(sequence: u64) -> Identity {
        Identity { source: Source { incarnation: Incarnation(1), node: "n".into() }, sequence }
    }

    fn batched(tag: &str, number: Option<u64>) -> Batched {
        let by = Author { token: "deploy".into(), address: IpAddr::from([192, 0, 2, 1]) };
        Batched {
            by: number.map(|_| by),
            identity: number.map(identity),
            selectors: vec![Selector::Tag { site: "s".into(), tag: tag.into() }],
            strength: Strength::Hard,
        }
    }

    #[test]
    fn a_batch_moves_the_epoch_once_and_each_of_it_is_remembered() {
        let events = Events::new(16);
        let purges = Purges::new(Secret(1, 2), 1000).telling(Arc::clone(&events));
        let batch = [batched("a", Some(1)), batched("b", None), batched("c", Some(2))];
        let applied = purges.apply_batch(&batch, Now::at(1));
        assert_eq!(applied, Applied { sequence: 3, epoch: 1 });
        assert_eq!((purges.epoch(), purges.rows()), (1, 3));
        let past = purges.past_named(&identity(2).to_string()).unwrap();
        assert_eq!((past.applied.sequence, past.applied.epoch, past.shares_epoch), (3, 1, true));
        assert!(purges.past_named(&identity(3).to_string()).is_none());
        let told: Vec<_> = events
            .since(0, 9)
            .events
            .iter()
            .map(|event| match &event.what {
                What::Purge(told) => told.identity.clone().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        let named = [1, 2].map(|number| identity(number).to_string().into());
        assert_eq!(told, named as [Box<str>; 2]);
        let lone = purges.apply_batch(&batch[..1], Now::at(2));
        assert_eq!(lone, Applied { sequence: 4, epoch: 2 });
        assert!(!purges.past_one(4).unwrap().shares_epoch);
        assert_eq!(purges.apply_batch(&[], Now::at(3)), lone, "nothing happens");
    }

    #[test]
    fn of_a_long_batch_as_many_are_kept_as_of_single_ones() {
        let limits = PurgeLimits { history: 5, ..PurgeLimits::default() };
        let told = [Events::new(3), Events::new(3)];
        let tables = told
            .each_ref()
            .map(|events| Purges::within(Secret(1, 2), limits).telling(Arc::clone(events)));
        let number = |at: u64| Some(at).filter(|at| at % 4 != 0);
        let batch: Vec<Batched> = (1..=20).map(|at| batched(&at.to_string(), number(at))).collect();
        tables[0].apply_batch(&batch, Now::at(1));
        for one in batch.chunks(1) {
            tables[1].apply_batch(one, Now::at(1));
        }
        let past = tables.each_ref().map(|table| {
            let past = table.past(99, |_| true).into_iter();
            past.map(|past| (past.applied.sequence, past.identity)).collect::<Vec<_>>()
        });
        assert_eq!(past[0], past[1]);
        assert_eq!(past[0].len(), 5);
        let events = told.each_ref().map(|events| {
            let since = events.since(0, 99);
            assert!(since.lost);
            since.events.iter().map(|event| event.number).collect::<Vec<_>>()
        });
        assert_eq!(events[0], events[1]);
        assert_eq!((told[0].newest(), events[0].len()), (15, 3));
        assert_eq!(tables.each_ref().map(Purges::rows), [20, 20]);
    }

    #[test]
    fn a_node_without_a_mesh_names_its_purges_by_its_own_numbers() {
        let own = Source { incarnation: Incarnation(0xab), node: "n1".into() };
        let purges = Purges::new(Secret(1, 2), 1000).named(own.clone());
        let at = |sequence| Identity { source: own.clone(), sequence };
        assert!(!purges.positions().has(&at(1)));
        let applied = purges.apply(&[Selector::All], Strength::Hard, Now::at(1));
        assert!(purges.positions().has(&at(applied.sequence)));
        assert!(!purges.positions().has(&at(applied.sequence + 1)));
        assert_eq!(purges.distrust_all(Strength::Check, Now::at(2)), 2);
    }
}
