//! Whether a row may have been written lately: a look without the table's lock.
//!
//! After each purge the next use of every stored response asks about its rows. Mostly there is
//! nothing new among them, and this says so from a few words of memory that stay in the processor's
//! cache, however many rows the table has: one cell per hash of a row's name, with the newest epoch
//! at which a row of that hash was written. Rows that a response does not name itself (of hosts,
//! prefixes, patterns) count for their whole site. Two names in one cell cost a look at the table
//! and nothing else.

use std::sync::atomic::AtomicU64;

use super::order::Cell as _;
use crate::purge::{Place, RowKey};

/// Cells: 512 KiB. With 20,000 purges a second and a response used every tenth of a second, three
/// percent of its rows share a cell with one of the 2,000 purges in between.
const CELLS: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Lately {
    /// Newest epoch at which everything was purged.
    all: AtomicU64,
    cells: Box<[AtomicU64]>,
}

impl Lately {
    pub(super) fn new() -> Self {
        let cells = (0..CELLS).map(|_| AtomicU64::new(0)).collect();
        Self { all: AtomicU64::new(0), cells }
    }

    /// Notes a row that was written at `epoch`. One writer at a time, and epochs never fall.
    pub(super) fn note(&self, place: &Place<'_>, epoch: u64) {
        match place {
            Place::All => self.all.tell(epoch),
            Place::Narrow { key, .. } => self.tell(*key, epoch),
            Place::Site(site) | Place::Prefix { site, .. } | Place::Glob { site, .. } => {
                self.tell(*site, epoch);
            }
        }
    }

    /// Whether no row that a response answers to was written after `epoch`: `keys` are the rows it
    /// names, the site's among them.
    pub(super) fn untouched_since(&self, keys: &[RowKey], epoch: u64) -> bool {
        let untouched = |key: &RowKey| self.cell(*key).is_some_and(|cell| cell.see() <= epoch);
        self.all.see() <= epoch && keys.iter().all(untouched)
    }

    fn tell(&self, key: RowKey, epoch: u64) {
        if let Some(cell) = self.cell(key) {
            cell.tell(epoch);
        }
    }

    fn cell(&self, key: RowKey) -> Option<&AtomicU64> {
        let at = key.bits() as usize % CELLS;
        self.cells.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::{Glob, Secret};

    #[test]
    fn every_row_that_a_response_answers_to_is_noticed() {
        let secret = Secret(1, 2);
        let site = RowKey::site(secret, "s");
        let keys = [RowKey::tag(secret, site, "t"), RowKey::url(secret, site, "h", "/a"), site];
        let (prefix, depth) = RowKey::prefix(secret, site, "h", "/");
        let glob = Glob::parse("h/*").unwrap();
        let places = [
            Place::Narrow { site, key: keys[0] },
            Place::Narrow { site, key: keys[1] },
            Place::Prefix { site, key: prefix, depth },
            Place::Glob { site, glob: &glob },
            Place::Site(site),
            Place::All,
        ];
        for place in &places {
            let lately = Lately::new();
            assert!(lately.untouched_since(&keys, 0));
            lately.note(place, 7);
            assert!(!lately.untouched_since(&keys, 6), "{place:?}");
            assert!(lately.untouched_since(&keys, 7), "{place:?}");
        }
        let (lately, other) = (Lately::new(), RowKey::site(secret, "other"));
        lately.note(&Place::Narrow { site, key: RowKey::tag(secret, site, "u") }, 7);
        lately.note(&Place::Site(other), 7);
        assert!(lately.untouched_since(&keys, 0));
    }
}
