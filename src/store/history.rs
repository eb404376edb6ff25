//! What was purged lately, by whom, and what it came to.
//!
//! A ring of the purges that people and their programs asked for; what a site's own traffic
//! invalidates is not among them, since it would push them out. Each row is bounded: of a purge with
//! a thousand selectors the first few are kept, and their number.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::Applied;
use crate::purge::{Selector, Strength};

/// Selectors of one purge that are kept.
const SELECTORS: usize = 32;
/// Bytes of their texts together.
const TEXT_BYTES: usize = 4096;

/// Who asked for a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Name of the token.
    pub token: Box<str>,
    /// Address that it came from.
    pub address: IpAddr,
}

/// One purge of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its number and its epoch.
    pub applied: Applied,
    /// Its name in the mesh, where that gave it one.
    pub identity: Option<Box<str>>,
    /// Others were put in force at the same epoch, so nobody can tell what this one matched.
    pub shares_epoch: bool,
    /// Who asked for it.
    pub by: Author,
    /// When, on the wall clock.
    pub at: SystemTime,
    /// Its strength.
    pub strength: Strength,
    /// Its first selectors.
    pub selectors: Box<[Named]>,
    /// Number of all its selectors.
    pub count: usize,
    /// Sites that they are about; `None` where one is about all.
    pub sites: Option<Box<[Arc<str>]>>,
    /// Stored responses that were seen to match: a lower bound.
    pub matched: u64,
    /// Bytes of those that were removed for it.
    pub freed_bytes: u64,
    /// A sweep that began after it has walked the store.
    pub swept: bool,
}

/// A selector as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its kind.
    pub kind: &'static str,
    /// Its site.
    pub site: Option<Arc<str>>,
    /// What it names there, cut where it is too long.
    pub text: Box<str>,
}

impl Past {
    pub(super) fn new(
        applied: Applied,
        by: Author,
        at: SystemTime,
        strength: Strength,
        selectors: &[Selector],
    ) -> Self {
        let mut sites: Vec<&Arc<str>> = selectors.iter().filter_map(Selector::site).collect();
        let bound = sites.len() == selectors.len();
        sites.sort_unstable();
        sites.dedup();
        Self {
            applied,
            identity: None,
            shares_epoch: false,
            by,
            at,
            strength,
            selectors: named(selectors),
            count: selectors.len(),
            sites: bound.then(|| sites.into_iter().map(Arc::clone).collect()),
            matched: 0,
            freed_bytes: 0,
            swept: false,
        }
    }
}

impl Named {
    pub(super) fn whole(selector: &Selector) -> Self {
        Self {
            kind: selector.kind(),
            site: selector.site().map(Arc::clone),
            text: selector.text().into_boxed_str(),
        }
    }
}

fn named(selectors: &[Selector]) -> Box<[Named]> {
    let mut left = TEXT_BYTES;
    let cut = |selector: &Selector| {
        if left == 0 {
            return None;
        }
        let mut text = selector.text();
        text.truncate(text.floor_char_boundary(left));
        left -= text.len();
        Some(Named {
            kind: selector.kind(),
            site: selector.site().map(Arc::clone),
            text: text.into_boxed_str(),
        })
    };
    selectors.iter().take(SELECTORS).map_while(cut).collect()
}

/// The ring, oldest first.
#[derive(Debug)]
pub(super) struct History {
    most: usize,
    past: VecDeque<Past>,
}

impl History {
    pub(super) fn new(most: usize) -> Self {
        Self { most, past: VecDeque::new() }
    }

    /// How many it keeps.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Adds a purge. They come in the order of their epochs.
    pub(super) fn note(&mut self, past: Past) {
        while self.past.len() >= self.most.max(1) {
            self.past.pop_front();
        }
        if self.most > 0 {
            self.past.push_back(past);
        }
    }

    /// Counts what the purge of an epoch did.
    pub(super) fn count(&mut self, epoch: u64, matched: u64, freed_bytes: u64) {
        let found = self.past.binary_search_by_key(&epoch, |past| past.applied.epoch);
        let past = found.ok().and_then(|at| self.past.get_mut(at));
        if let Some(past) = past.filter(|past| !past.shares_epoch) {
            past.matched += matched;
            past.freed_bytes += freed_bytes;
        }
    }

    /// Notes that a sweep begun at `epoch` has walked the store.
    pub(super) fn swept(&mut self, epoch: u64) {
        let newer = |past: &&mut Past| past.applied.epoch > epoch;
        let walked = self.past.iter_mut().rev().skip_while(newer);
        walked.take_while(|past| !past.swept).for_each(|past| past.swept = true);
    }

    /// The newest first, those that `pass`, and no more than `most`.
    pub(super) fn newest(&self, most: usize, pass: impl Fn(&Past) -> bool) -> Vec<Past> {
        self.past.iter().rev().filter(|past| pass(past)).take(most).cloned().collect()
    }

    /// The one with this name in the mesh.
    pub(super) fn named(&self, identity: &str) -> Option<Past> {
        let named = |past: &&Past| past.identity.as_deref() == Some(identity);
        self.past.iter().rev().find(named).cloned()
    }

    /// The one with this number.
    pub(super) fn find(&self, sequence: u64) -> Option<Past> {
        let found = self.past.binary_search_by_key(&sequence, |past| past.applied.sequence);
        found.ok().and_then(|at| self.past.get(at)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(number: u64, selectors: &[Selector]) -> Past {
        let applied = Applied { sequence: number, epoch: 10 * number };
        let by = Author { token: "deploy".into(), address: IpAddr::from([192, 0, 2, 1]) };
        Past::new(applied, by, SystemTime::UNIX_EPOCH, Strength::Hard, selectors)
    }

    fn tag(site: &str, tag: &str) -> Selector {
        Selector::Tag { site: site.into(), tag: tag.into() }
    }

    #[test]
    fn the_ring_keeps_the_newest_and_counts_by_epoch() {
        let mut history = History::new(3);
        for number in 1..=5 {
            history.note(past(number, &[tag("s", "t")]));
        }
        history.count(40, 2, 100);
        history.count(40, 1, 10);
        history.count(10, 9, 9);
        history.count(41, 9, 9);
        history.swept(40);
        let seen: Vec<_> = history
            .newest(9, |_| true)
            .iter()
            .map(|past| (past.applied.sequence, past.matched, past.freed_bytes, past.swept))
            .collect();
        assert_eq!(seen, [(5, 0, 0, false), (4, 3, 110, true), (3, 0, 0, true)]);
        assert_eq!(history.newest(1, |past| past.applied.sequence < 5)[0].applied.sequence, 4);
        assert_eq!(history.find(4).unwrap().matched, 3);
        assert!(history.find(1).is_none());
        let mut none = History::new(0);
        none.note(past(1, &[Selector::All]));
        assert!(none.newest(9, |_| true).is_empty());
    }

    #[test]
    fn a_row_is_bounded_whatever_was_purged() {
        let long: Vec<Selector> =
            (0..1000).map(|at| tag("s", &format!("{at}{}", "\u{e9}".repeat(100)))).collect();
        let row = past(1, &long);
        assert_eq!(row.count, 1000);
        assert!(row.selectors.iter().map(|named| named.text.len()).sum::<usize>() <= TEXT_BYTES);
        let short: Vec<Selector> = (0..1000).map(|at| tag("s", &at.to_string())).collect();
        assert_eq!(past(1, &short).selectors.len(), SELECTORS);
    }

    #[test]
    fn sites_are_told_unless_one_selector_is_about_all() {
        let row = past(1, &[tag("b", "x"), tag("a", "x"), tag("b", "y")]);
        let sites: Vec<&str> = row.sites.iter().flatten().map(|site| &**site).collect();
        assert_eq!(sites, ["a", "b"]);
        assert_eq!(past(1, &[tag("a", "x"), Selector::All]).sites, None);
    }
}
