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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::purge::Secret;
    use crate::replication::{Identity, Incarnation, Source};
    use crate::store::{Events, What};

    fn batched(tag: &str, identity: Option<&str>) -> Batched {
        let by = Author { token: "deploy".into(), address: IpAddr::from([192, 0, 2, 1]) };
        Batched {
            by: identity.map(|_| by),
            identity: identity.map(Into::into),
            selectors: vec![Selector::Tag { site: "s".into(), tag: tag.into() }],
            strength: Strength::Hard,
        }
    }

    #[test]
    fn a_batch_moves_the_epoch_once_and_each_of_it_is_remembered() {
        let events = Events::new(16);
        let purges = Purges::new(Secret(1, 2), 1000).telling(Arc::clone(&events));
        let batch = [batched("a", Some("n/1/1")), batched("b", None), batched("c", Some("n/1/2"))];
        let applied = purges.apply_batch(&batch, Now::at(1));
        assert_eq!(applied, Applied { sequence: 3, epoch: 1 });
        assert_eq!((purges.epoch(), purges.rows()), (1, 3));
        let past = purges.past_named("n/1/2").unwrap();
        assert_eq!((past.applied.sequence, past.applied.epoch, past.shares_epoch), (3, 1, true));
        assert!(purges.past_named("n/1/3").is_none());
        let told: Vec<_> = events
            .since(0, 9)
            .events
            .iter()
            .map(|event| match &event.what {
                What::Purge(told) => told.identity.clone().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, ["n/1/1".into(), "n/1/2".into()] as [Box<str>; 2]);
        let lone = purges.apply_batch(&batch[..1], Now::at(2));
        assert_eq!(lone, Applied { sequence: 4, epoch: 2 });
        assert!(!purges.past_one(4).unwrap().shares_epoch);
        assert_eq!(purges.apply_batch(&[], Now::at(3)), lone, "nothing happens");
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
