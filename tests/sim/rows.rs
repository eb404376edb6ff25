//! A purge table whose steps can be told apart, so that a request can come between them.

use std::collections::{BTreeMap, VecDeque};

use super::origin::{Object, Selector, Site};

/// Narrow rows of a site before the oldest fold.
const NARROW: usize = 3;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row {
    pub(crate) hard: u64,
    pub(crate) check: u64,
    pub(crate) soft: u64,
}

impl Row {
    pub(crate) fn newest(self) -> u64 {
        self.hard.max(self.check).max(self.soft)
    }

    fn absorb(&mut self, other: Self) {
        self.hard = self.hard.max(other.hard);
        self.check = self.check.max(other.check);
        self.soft = self.soft.max(other.soft);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Rows {
    rows: BTreeMap<Selector, Row>,
    order: BTreeMap<Site, VecDeque<Selector>>,
}

impl Rows {
    /// Writes a row. Where its site has too many, says which one is to fold.
    pub(crate) fn write(&mut self, selector: Selector, row: Row) -> Option<Selector> {
        self.rows.entry(selector).or_default().absorb(row);
        let site = selector.narrow_site()?;
        let order = self.order.entry(site).or_default();
        order.retain(|other| *other != selector);
        order.push_back(selector);
        if order.len() > NARROW { order.pop_front() } else { None }
    }

    /// The first step of folding: the wider row.
    pub(crate) fn widen(&mut self, narrow: Selector, row: Row) {
        if let Some(site) = narrow.narrow_site() {
            self.rows.entry(Selector::Site(site)).or_default().absorb(row);
        }
    }

    pub(crate) fn row(&self, selector: Selector) -> Row {
        self.rows.get(&selector).copied().unwrap_or_default()
    }

    /// The second step of folding: the narrower row goes, if it is no newer than when it folded.
    pub(crate) fn remove(&mut self, narrow: Selector, up_to: u64) {
        if self.row(narrow).newest() <= up_to {
            self.rows.remove(&narrow);
        }
    }

    pub(crate) fn find(&self, object: Object) -> Row {
        let mut met = Row::default();
        object.selectors().into_iter().for_each(|selector| met.absorb(self.row(selector)));
        met
    }

    pub(crate) fn drop_up_to(&mut self, epoch: u64) {
        self.rows.retain(|_, row| row.newest() > epoch);
        let rows = &self.rows;
        self.order.values_mut().for_each(|order| order.retain(|row| rows.contains_key(row)));
    }
}
