//! Gives memory back after purges and drops rows that nothing can meet any more.

use super::pieces::Orphans;
use super::stored::Slot;
use super::{Fills, Purges, Store};

/// What one walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Stored responses looked at.
    pub walked: u64,
    /// Dead ones removed.
    pub removed: u64,
    /// Bytes they took, and pieces whose heads are gone.
    pub freed_bytes: u64,
    /// Epoch up to which rows were let go. Below the one the walk began with, where an older fill
    /// still waits for its head and may have to answer to those rows.
    pub floor: u64,
}

/// Walks the store once. Begun at epoch E: removes the dead, moves everything alive to E, fills
/// under way included, then raises the floor to E, and only then lets the rows up to E go. Blocks;
/// run it on a thread of its own.
pub fn sweep(store: &Store, purges: &Purges, fills: &Fills) -> Sweep {
    let epoch = purges.epoch();
    let mut seen = Sweep::default();
    let mut orphans = Orphans::new(store);
    for slot in store.iter() {
        let stored = match slot {
            Slot::Response(stored) => stored,
            Slot::Variants(_) => continue,
            Slot::Piece(piece) => {
                orphans.met_piece(&piece);
                continue;
            }
        };
        seen.walked += 1;
        if purges.verdict(stored.head(), epoch).is_none() {
            seen.removed += 1;
            seen.freed_bytes += stored.weight();
            store.remove(&stored);
        } else {
            orphans.met_head(stored.head());
        }
    }
    seen.freed_bytes += orphans.remove(store);
    let (heads, waiting_since) = fills.heads();
    for head in heads {
        let _ = purges.verdict(&head, epoch);
    }
    seen.floor = waiting_since.map_or(epoch, |born| epoch.min(born));
    purges.raise_floor(seen.floor);
    seen
}
