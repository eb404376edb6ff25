//! The purge table: rows by selector, each with its newest epoch of every strength.
//!
//! Rows are budgeted per site. When a site outgrows its budget, the older half of its rows folds
//! into the site's own row, at strengths and epochs no weaker: that purges more than was asked
//! for, never less. The sweeper drops rows that no stored response can meet any more, so folding
//! is rare.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use super::ready::ReadyHasher;
use super::selector::{RowKey, Secret, Selector, Selectors, Strength};

/// Newest epoch of each strength; 0 means never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Newest hard purge.
    pub hard: u64,
    /// Newest purge that asks for the origin's confirmation.
    pub check: u64,
    /// Newest soft purge.
    pub soft: u64,
    /// Moment of the newest soft purge, on the boot clock.
    pub soft_at: Duration,
}

impl Row {
    /// Newest epoch of any strength.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.hard.max(self.check).max(self.soft)
    }

    /// Takes over whatever is newer in `other`.
    fn absorb(&mut self, other: &Self) {
        self.hard = self.hard.max(other.hard);
        self.check = self.check.max(other.check);
        if other.soft > self.soft {
            self.soft = other.soft;
            self.soft_at = other.soft_at;
        }
    }
}

/// What the rows say of a response born at some epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Killed.
    pub hard: bool,
    /// To be confirmed by the origin before use.
    pub check: bool,
    /// Stale since this moment on the boot clock.
    pub soft_at: Option<Duration>,
}

/// A row with the site that it belongs to.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: Row,
    site: Option<RowKey>,
}

/// All rows of a node.
#[derive(Debug)]
pub struct Table {
    rows: HashMap<RowKey, Entry, BuildHasherDefault<ReadyHasher>>,
    narrow: HashMap<RowKey, usize, BuildHasherDefault<ReadyHasher>>,
    rows_per_site: usize,
}

impl Table {
    /// An empty table that keeps at most `rows_per_site` rows of each site, and at least two.
    #[must_use]
    pub fn new(rows_per_site: usize) -> Self {
        Self {
            rows: HashMap::default(),
            narrow: HashMap::default(),
            rows_per_site: rows_per_site.max(2),
        }
    }

    /// Rows in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the row of `selector` at `epoch`; `now` is the moment on the boot clock.
    pub fn write(
        &mut self,
        secret: Secret,
        selector: &Selector,
        strength: Strength,
        epoch: u64,
        now: Duration,
    ) {
        let mut row = Row::default();
        match strength {
            Strength::Hard => row.hard = epoch,
            Strength::Check => row.check = epoch,
            Strength::Soft => {
                row.soft = epoch;
                row.soft_at = now;
            }
        }
        let key = selector.row(secret);
        let site = selector.site_row(secret).filter(|site| *site != key);
        self.absorb(key, site, &row);
        if let Some(site) = site
            && self.narrow.get(&site).copied().unwrap_or(0) > self.rows_per_site
        {
            self.fold(site);
        }
    }

    /// What the rows newer than `born` say of a response with these selectors.
    #[must_use]
    pub fn find(&self, selectors: &Selectors, born: u64) -> Found {
        let mut newest = Row::default();
        for key in selectors.rows() {
            if let Some(entry) = self.rows.get(key) {
                newest.absorb(&entry.row);
            }
        }
        Found {
            hard: newest.hard > born,
            check: newest.check > born,
            soft_at: (newest.soft > born).then_some(newest.soft_at),
        }
    }

    /// One row, where something was purged under its name.
    #[must_use]
    pub fn row(&self, key: RowKey) -> Option<Row> {
        self.rows.get(&key).map(|entry| entry.row)
    }

    /// Drops every row whose newest epoch is not above `floor`.
    pub fn drop_up_to(&mut self, floor: u64) {
        let narrow = &mut self.narrow;
        self.rows.retain(|_, entry| {
            let keep = entry.row.newest() > floor;
            if !keep {
                forget(narrow, entry.site);
            }
            keep
        });
    }

    fn absorb(&mut self, key: RowKey, site: Option<RowKey>, row: &Row) {
        let narrow = &mut self.narrow;
        self.rows
            .entry(key)
            .or_insert_with(|| {
                if let Some(site) = site {
                    *narrow.entry(site).or_insert(0) += 1;
                }
                Entry { row: Row::default(), site }
            })
            .row
            .absorb(row);
    }

    /// Folds the older half of a site's rows into the site's own row: that one is written first.
    fn fold(&mut self, site: RowKey) {
        let mut rows: Vec<(u64, RowKey)> = self
            .rows
            .iter()
            .filter(|(_, entry)| entry.site == Some(site))
            .map(|(key, entry)| (entry.row.newest(), *key))
            .collect();
        rows.sort_unstable();
        rows.truncate(rows.len().div_ceil(2));
        for (_, key) in rows {
            let Some(row) = self.rows.get(&key).map(|entry| entry.row) else { continue };
            self.absorb(site, None, &row);
            self.rows.remove(&key);
            forget(&mut self.narrow, Some(site));
        }
    }
}

fn forget(
    narrow: &mut HashMap<RowKey, usize, BuildHasherDefault<ReadyHasher>>,
    site: Option<RowKey>,
) {
    if let Some(site) = site
        && let Some(count) = narrow.get_mut(&site)
    {
        *count = count.saturating_sub(1);
        if *count == 0 {
            narrow.remove(&site);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const SECRET: Secret = Secret(3, 5);

    fn tag(tag: &str) -> Selector {
        Selector::Tag { site: Arc::from("s"), tag: tag.to_owned() }
    }

    fn response(tags: &[&str]) -> Selectors {
        let tags: Vec<Box<str>> = tags.iter().map(|tag| Box::from(*tag)).collect();
        Selectors::new(SECRET, "s", "h", "/", &tags)
    }

    #[test]
    fn a_row_counts_only_against_what_was_born_before_it() {
        let mut table = Table::new(10);
        table.write(SECRET, &tag("a"), Strength::Hard, 5, Duration::ZERO);
        assert!(table.find(&response(&["a"]), 4).hard);
        assert!(!table.find(&response(&["a"]), 5).hard);
        assert!(!table.find(&response(&["b"]), 4).hard);
    }

    #[test]
    fn a_soft_purge_does_not_hide_an_older_hard_one() {
        let mut table = Table::new(10);
        table.write(SECRET, &tag("a"), Strength::Hard, 5, Duration::ZERO);
        table.write(SECRET, &tag("a"), Strength::Soft, 6, Duration::from_secs(9));
        let found = table.find(&response(&["a"]), 4);
        assert!(found.hard);
        let found = table.find(&response(&["a"]), 5);
        assert_eq!(found, Found { soft_at: Some(Duration::from_secs(9)), ..Found::default() });
    }

    #[test]
    fn url_site_and_all_reach_a_response() {
        let url = Selector::Url { site: Arc::from("s"), host: "h".into(), target: "/".into() };
        for selector in [url, Selector::Site { site: Arc::from("s") }, Selector::All] {
            let mut table = Table::new(10);
            table.write(SECRET, &selector, Strength::Hard, 1, Duration::ZERO);
            assert!(table.find(&response(&[]), 0).hard, "{selector:?}");
        }
        let mut table = Table::new(10);
        let other = Selector::Site { site: Arc::from("other") };
        table.write(SECRET, &other, Strength::Hard, 1, Duration::ZERO);
        assert!(!table.find(&response(&[]), 0).hard);
    }

    #[test]
    fn dropping_keeps_what_is_newer_than_the_floor() {
        let mut table = Table::new(10);
        table.write(SECRET, &tag("a"), Strength::Hard, 1, Duration::ZERO);
        table.write(SECRET, &tag("b"), Strength::Hard, 2, Duration::ZERO);
        table.drop_up_to(1);
        assert_eq!(table.len(), 1);
        assert!(table.find(&response(&["b"]), 0).hard);
    }

    proptest! {
        #[test]
        fn folding_never_purges_less(
            writes in proptest::collection::vec((0..40_u8, 0..3_u8), 1..200),
            born in 0..200_u64,
            asked in 0..40_u8,
        ) {
            let mut folded = Table::new(8);
            let mut whole = Table::new(10_000);
            for (epoch, (name, strength)) in (1_u64..).zip(writes) {
                let strength = match strength {
                    0 => Strength::Hard,
                    1 => Strength::Check,
                    _ => Strength::Soft,
                };
                for table in [&mut folded, &mut whole] {
                    let now = Duration::from_secs(epoch);
                    table.write(SECRET, &tag(&name.to_string()), strength, epoch, now);
                }
            }
            prop_assert!(folded.len() <= 10);
            let selectors = response(&[&asked.to_string()]);
            let (narrow, wide) = (whole.find(&selectors, born), folded.find(&selectors, born));
            prop_assert!(wide.hard || !narrow.hard);
            prop_assert!(wide.check || !narrow.check);
            prop_assert!(wide.soft_at >= narrow.soft_at);
        }
    }
}
