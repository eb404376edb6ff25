//! URLs that were purged lately, for whoever asks about a URL that is not its own.
//!
//! A stored response answers to the rows of its own URL, and rows go as soon as everything stored
//! has been checked against them. A response that is used for another URL than its own (one that
//! `No-Vary-Search` makes as good) must answer to that one's purges, too, however long ago they
//! were. So their URLs are remembered apart, as many as are allowed; when there are more, the oldest
//! are forgotten and everything that is older than those counts as purged.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::ready::ReadyHasher;
use super::rows::RowKey;

/// URLs by row, each with the newest epoch at which it was purged, whatever the strength.
#[derive(Debug)]
pub struct RecentUrls {
    epochs: HashMap<RowKey, u64, BuildHasherDefault<ReadyHasher>>,
    /// Oldest first; what was purged again stands there more than once.
    order: VecDeque<(u64, RowKey)>,
    /// Purges before this epoch may be forgotten.
    floor: u64,
    most: usize,
}

impl RecentUrls {
    /// None yet; keeps `most` at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { epochs: HashMap::default(), order: VecDeque::new(), floor: 0, most: most.max(1) }
    }

    /// Notes that a URL was purged at `epoch`. Epochs never fall.
    pub fn note(&mut self, url: RowKey, epoch: u64) {
        if self.epochs.insert(url, epoch) == Some(epoch) {
            return;
        }
        self.order.push_back((epoch, url));
        while self.order.len() > self.most {
            let Some((oldest, url)) = self.order.pop_front() else { return };
            if self.epochs.get(&url) == Some(&oldest) {
                self.epochs.remove(&url);
                self.floor = self.floor.max(oldest);
            }
        }
    }

    /// Whether another URL has no place without that one is forgotten.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.order.len() >= self.most
    }

    /// Any URL may have been purged at `epoch`: nobody can say which.
    pub fn note_any(&mut self, epoch: u64) {
        self.epochs.clear();
        self.order.clear();
        self.floor = self.floor.max(epoch);
    }

    /// Whether this URL is known not to have been purged since a response was `born`.
    #[must_use]
    pub fn untouched_since(&self, url: RowKey, born: u64) -> bool {
        born >= self.floor && self.epochs.get(&url).is_none_or(|epoch| *epoch <= born)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rows::Secret;
    use super::*;

    fn url(number: u8) -> RowKey {
        let secret = Secret(1, 2);
        RowKey::url(secret, RowKey::site(secret, "s"), "h", &format!("/{number}"))
    }

    #[test]
    fn a_url_counts_only_against_what_is_older_than_its_purge() {
        let mut recent = RecentUrls::new(8);
        recent.note(url(1), 5);
        assert!(!recent.untouched_since(url(1), 4));
        assert!(recent.untouched_since(url(1), 5));
        assert!(recent.untouched_since(url(2), 0));
        recent.note_any(7);
        assert!(!recent.untouched_since(url(2), 6));
        assert!(recent.untouched_since(url(1), 7));
    }

    #[test]
    fn what_is_forgotten_counts_as_purged() {
        let mut recent = RecentUrls::new(2);
        recent.note(url(1), 1);
        recent.note(url(1), 2);
        assert!(recent.is_full());
        recent.note(url(2), 3);
        assert!(recent.untouched_since(url(3), 0), "nothing is forgotten: 1 was purged again");
        recent.note(url(3), 4);
        assert!(!recent.untouched_since(url(4), 1));
        assert!(recent.untouched_since(url(4), 2));
    }

    proptest! {
        #[test]
        fn nothing_purged_is_ever_untouched(
            purged in proptest::collection::vec((0..12_u8, 0..2_u64), 0..60),
            most in 1..8_usize, asked in 0..12_u8, born in 0..60_u64,
        ) {
            let mut recent = RecentUrls::new(most);
            let (mut epoch, mut newest) = (0, None);
            for (number, step) in purged {
                epoch += step;
                recent.note(url(number), epoch);
                if number == asked {
                    newest = Some(epoch);
                }
            }
            prop_assert!(recent.order.len() <= most && recent.epochs.len() <= most);
            if newest.is_some_and(|newest| newest > born) {
                prop_assert!(!recent.untouched_since(url(asked), born));
            }
        }
    }
}
