//! The purge table: rows by selector, each with its newest epoch of every strength.
//!
//! ```text
//! all     one row
//! site    its own row  +  rows of URLs, tags, hosts, prefixes  +  a list of patterns
//! ```
//!
//! Rows and patterns are budgeted per site. When a site outgrows its budget, its oldest rows fold
//! into the site's own row, at strengths and epochs no weaker: that purges more than was asked for,
//! never less, and only what is older than the rows that fold. They fold straight into the site, not
//! into a prefix or a host on the way: a row in the middle would have to be chosen by looking at its
//! neighbours, under the lock, in the very moment when purges come fastest. The sweep drops rows
//! that no stored response can meet any more, so folding is rare.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::Duration;

use super::glob::Glob;
use super::ready::ReadyHasher;
use super::rows::{Bearer, Place, RowKey, Secret, prefixes};
use super::selector::Strength;

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
    /// A row of one purge; `now` is the moment on the boot clock.
    #[must_use]
    pub fn of(strength: Strength, epoch: u64, now: Duration) -> Self {
        match strength {
            Strength::Hard => Self { hard: epoch, ..Self::default() },
            Strength::Check => Self { check: epoch, ..Self::default() },
            Strength::Soft => Self { soft: epoch, soft_at: now, ..Self::default() },
        }
    }

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
    /// The newest epochs that were met, older ones than the response included.
    pub met: Row,
}

/// A row within a site.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: Row,
    /// Of a host or a prefix.
    wide: bool,
}

/// The rows of one site.
#[derive(Debug, Default)]
struct Site {
    /// Its own.
    row: Row,
    /// By host, prefix, URL and tag, counted; they are in the table's map.
    rows: usize,
    /// Of those, by host and prefix.
    prefixes: usize,
    /// A bit for each depth that a prefix has or had.
    depths: u64,
    globs: Vec<(Glob, Row)>,
    /// Everything that hosts, prefixes and patterns say, for whom it can't be told which.
    wide: Row,
    /// Rows by the epoch of their writing, oldest first. One written again stands here twice, and
    /// counts where its newest epoch is.
    order: VecDeque<(u64, RowKey)>,
}

impl Site {
    fn is_empty(&self) -> bool {
        self.rows == 0 && self.globs.is_empty() && self.row.newest() == 0
    }

    fn remove(&mut self, entry: Entry) {
        self.rows = self.rows.saturating_sub(1);
        self.prefixes = self.prefixes.saturating_sub(usize::from(entry.wide));
        self.tidy();
    }

    /// Forgets what only rows that are gone made necessary.
    fn tidy(&mut self) {
        if self.prefixes == 0 {
            self.depths = 0;
        }
        if self.prefixes == 0 && self.globs.is_empty() {
            self.wide = Row::default();
        }
    }
}

type Map<T> = HashMap<RowKey, T, BuildHasherDefault<ReadyHasher>>;

/// All rows of a node.
#[derive(Debug)]
pub struct Table {
    all: Row,
    sites: Map<Site>,
    rows: Map<Entry>,
    rows_per_site: usize,
    globs_per_site: usize,
}

impl Table {
    /// An empty table that keeps at most `rows_per_site` rows of each site, and at least two, and at
    /// most `globs_per_site` patterns.
    #[must_use]
    pub fn new(rows_per_site: usize, globs_per_site: usize) -> Self {
        Self {
            all: Row::default(),
            sites: Map::default(),
            rows: Map::default(),
            rows_per_site: rows_per_site.max(2),
            globs_per_site,
        }
    }

    /// Rows in all, patterns included.
    #[must_use]
    pub fn len(&self) -> usize {
        let sites = self.sites.values();
        let own: usize =
            sites.map(|site| usize::from(site.row.newest() > 0) + site.globs.len()).sum();
        usize::from(self.all.newest() > 0) + own + self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a site has more than a quarter of its budget in use: a walk over a large store takes
    /// a while, and rows come meanwhile.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.sites.values().any(|site| {
            site.rows > self.rows_per_site / 4 || site.globs.len() > self.globs_per_site / 4
        })
    }

    /// Writes a row. Rows come in the order of their epochs.
    pub fn write(&mut self, place: Place<'_>, row: Row) {
        match place {
            Place::All => self.all.absorb(&row),
            Place::Site(site) => self.sites.entry(site).or_default().row.absorb(&row),
            Place::Narrow { site, key } => self.write_row(site, key, None, row),
            Place::Prefix { site, key, depth } => self.write_row(site, key, Some(depth), row),
            Place::Glob { site, glob } => self.write_glob(site, glob, row),
        }
    }

    /// What the rows newer than `born` say of a response.
    #[must_use]
    pub fn find(&self, secret: Secret, bearer: &Bearer<'_>, born: u64) -> Found {
        let mut met = self.all;
        if let Some((key, site)) = bearer.site().and_then(|key| Some((key, self.sites.get(&key)?)))
        {
            met.absorb(&site.row);
            if site.rows > site.prefixes {
                bearer.narrow().iter().for_each(|key| self.meet(key, &mut met));
            }
            if site.prefixes > 0 || !site.globs.is_empty() {
                self.meet_wide(secret, key, site, bearer, &mut met);
            }
        }
        Found {
            hard: met.hard > born,
            check: met.check > born,
            soft_at: (met.soft > born).then_some(met.soft_at),
            met,
        }
    }

    /// One row, where something was purged under its name.
    #[must_use]
    pub fn row(&self, place: &Place<'_>) -> Option<Row> {
        let row = match place {
            Place::All => self.all,
            Place::Site(site) => self.sites.get(site)?.row,
            Place::Narrow { key, .. } | Place::Prefix { key, .. } => self.rows.get(key)?.row,
            Place::Glob { site, glob } => {
                self.sites.get(site)?.globs.iter().find(|(other, _)| other == *glob)?.1
            }
        };
        (row.newest() > 0).then_some(row)
    }

    /// The patterns of a site that match a URL: host and target.
    pub fn globs(&self, site: RowKey, host: &str, target: &str) -> impl Iterator<Item = &Glob> {
        let text = [host, target].concat().to_ascii_lowercase();
        let globs = self.sites.get(&site).map_or(&[][..], |site| &site.globs);
        globs.iter().map(|(glob, _)| glob).filter(move |glob| glob.matches(&text))
    }

    /// Drops rows whose newest epoch is not above `floor`, `most` and a few at a time so that
    /// readers need not wait for all. Says whether there are more.
    pub fn drop_up_to(&mut self, floor: u64, most: usize) -> bool {
        let mut left = most;
        if self.all.newest() <= floor {
            self.all = Row::default();
        }
        let rows = &mut self.rows;
        self.sites.retain(|_, site| {
            if site.row.newest() <= floor {
                site.row = Row::default();
            }
            site.globs.retain(|(_, row)| row.newest() > floor);
            while left > 0
                && let Some((epoch, key)) = site.order.pop_front_if(|(epoch, _)| *epoch <= floor)
            {
                left -= 1;
                take_written_at(rows, key, epoch).into_iter().for_each(|gone| site.remove(gone));
            }
            site.tidy();
            !site.is_empty()
        });
        if left > 0 && self.rows.capacity() > 1024 + 4 * self.rows.len() {
            self.rows.shrink_to(2 * self.rows.len());
        }
        left == 0
    }

    fn meet(&self, key: &RowKey, met: &mut Row) {
        if let Some(entry) = self.rows.get(key) {
            met.absorb(&entry.row);
        }
    }

    fn meet_wide(
        &self,
        secret: Secret,
        key: RowKey,
        site: &Site,
        bearer: &Bearer<'_>,
        met: &mut Row,
    ) {
        let Some(url) = bearer.url() else { return met.absorb(&site.wide) };
        for (_, row) in prefixes(secret, key, url.host, url.path, site.depths) {
            self.meet(&row, met);
        }
        if !site.globs.is_empty() {
            let text = url.text();
            let matching = site.globs.iter().filter(|(glob, _)| glob.matches(&text));
            matching.for_each(|(_, row)| met.absorb(row));
        }
    }

    fn write_row(&mut self, site: RowKey, key: RowKey, depth: Option<u8>, row: Row) {
        let own = self.sites.entry(site).or_default();
        let entry = self.rows.entry(key).or_insert_with(|| {
            own.rows += 1;
            own.prefixes += usize::from(depth.is_some());
            Entry { row: Row::default(), wide: depth.is_some() }
        });
        // Many purges of one epoch may name the same: it has one place among the rows of that epoch.
        let placed = entry.row.newest() == row.newest();
        entry.row.absorb(&row);
        if let Some(depth) = depth {
            own.depths |= 1 << depth;
            own.wide.absorb(&row);
        }
        if !placed {
            own.order.push_back((row.newest(), key));
        }
        while own.rows > self.rows_per_site {
            let Some((epoch, key)) = own.order.pop_front() else { break };
            // The wider row is written while the narrower is still there.
            if let Some(old) = self.rows.get(&key).filter(|old| old.row.newest() == epoch) {
                own.row.absorb(&old.row);
                take_written_at(&mut self.rows, key, epoch)
                    .into_iter()
                    .for_each(|gone| own.remove(gone));
            }
        }
        if own.order.len() > 2 * own.rows + 64 {
            let rows = &self.rows;
            own.order.retain(|(epoch, key)| {
                rows.get(key).is_some_and(|entry| entry.row.newest() == *epoch)
            });
        }
    }

    fn write_glob(&mut self, site: RowKey, glob: &Glob, row: Row) {
        let own = self.sites.entry(site).or_default();
        own.wide.absorb(&row);
        match own.globs.iter().position(|(other, _)| other == glob) {
            Some(at) => {
                // The oldest stay in front.
                let (glob, mut whole) = own.globs.remove(at);
                whole.absorb(&row);
                own.globs.push((glob, whole));
            }
            None => own.globs.push((glob.clone(), row)),
        }
        let beyond = own.globs.len().saturating_sub(self.globs_per_site);
        for (_, old) in own.globs.iter().take(beyond) {
            own.row.absorb(old);
        }
        own.globs.drain(..beyond);
        own.tidy();
    }
}

/// Takes a row out if it was last written at `epoch`.
fn take_written_at(rows: &mut Map<Entry>, key: RowKey, epoch: u64) -> Option<Entry> {
    let newest = rows.get(&key)?.row.newest();
    if newest == epoch { rows.remove(&key) } else { None }
}

#[cfg(test)]
mod tests;
