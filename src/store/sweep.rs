//! Gives memory back after purges and drops rows that nothing can meet any more; and the same walk
//! without effect, for those who look before they purge.

use std::collections::{HashMap, HashSet};

use super::pieces::Orphans;
use super::purges::Dead;
use super::stored::Slot;
use super::{Fills, Purges, Store};
use crate::purge::Selector;

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
    // By the epoch of the purge that killed them: responses and bytes.
    let mut killed: HashMap<u64, (u64, u64)> = HashMap::new();
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
        match purges.judge(&stored, epoch) {
            Ok(_) => orphans.met_head(stored.head()),
            Err(dead) => {
                seen.removed += 1;
                seen.freed_bytes += stored.weight();
                if store.take_out(&stored) {
                    let (responses, bytes) = killed.entry(dead.by).or_default();
                    *responses += 1;
                    *bytes += stored.weight();
                }
            }
        }
    }
    for (by, (responses, bytes)) in killed {
        purges.count_freed(Dead { by }, responses, bytes);
    }
    purges.walked(epoch);
    seen.freed_bytes += orphans.remove(store);
    let (heads, waiting_since) = fills.heads();
    for head in heads {
        let _ = purges.verdict(&head, epoch);
    }
    seen.floor = waiting_since.map_or(epoch, |born| epoch.min(born));
    purges.raise_floor(seen.floor);
    seen
}

/// What selectors would hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Stored responses looked at, the dead not counted.
    pub stored: u64,
    /// Those that are named.
    pub matched: u64,
    /// Bytes that these take, their pieces included.
    pub bytes: u64,
}

/// Walks the store once and counts what `selectors` name. Changes nothing. Blocks.
#[must_use]
pub fn try_out(store: &Store, purges: &Purges, selectors: &[Selector]) -> Tried {
    let trial = purges.trial(selectors);
    let epoch = purges.epoch();
    let mut tried = Tried::default();
    let mut lineages = HashSet::new();
    let mut pieces: HashMap<u64, u64> = HashMap::new();
    for slot in store.iter() {
        let stored = match slot {
            Slot::Response(stored) => stored,
            Slot::Variants(_) => continue,
            Slot::Piece(piece) => {
                *pieces.entry(piece.lineage()).or_default() += piece.weight();
                continue;
            }
        };
        if purges.judge(&stored, epoch).is_err() {
            continue;
        }
        let head = stored.head();
        tried.stored += 1;
        if trial.hits(head) {
            tried.matched += 1;
            tried.bytes += stored.weight();
            if head.may_have_pieces() {
                lineages.insert(head.lineage);
            }
        }
    }
    tried.bytes += lineages.iter().filter_map(|lineage| pieces.get(lineage)).sum::<u64>();
    tried
}
