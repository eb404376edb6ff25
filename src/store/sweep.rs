//! Gives memory back after purges and drops rows that nothing can meet any more; and the same walk
//! without effect, for those who look before they purge.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use super::pieces::{Orphans, Piece};
use super::purges::Dead;
use super::{Fills, Head, Purges, Store};
use crate::clock::Now;
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
    store.gauge.pieces().for_each(|piece| orphans.met_piece(&piece));
    for stored in store.gauge.responses() {
        if !stored.is_shelved() {
            // In use and not in the store any more: what it is used for goes on while it is alive.
            let _ = purges.verdict(stored.head(), epoch);
            continue;
        }
        seen.walked += 1;
        match purges.judge(&stored, epoch) {
            Ok(_) => orphans.met_head(stored.head()),
            Err(dead) => {
                if store.take_out(&stored) {
                    seen.removed += 1;
                    seen.freed_bytes += stored.weight();
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
#[derive(Clone, Debug, Default)]
pub struct Tried {
    /// Stored responses looked at, the dead not counted.
    pub stored: u64,
    /// Those that are named.
    pub matched: u64,
    /// Bytes that these take, their pieces included.
    pub bytes: u64,
    /// Requests per second that these served over the last minute.
    pub per_second: f64,
    /// Heads of those that served most, the most first.
    pub hottest: Vec<Arc<Head>>,
}

/// Walks the store once and counts what `selectors` name, and gives the heads of the `hottest` of
/// them. Changes nothing. Blocks.
#[must_use]
pub fn try_out(
    store: &Store,
    purges: &Purges,
    selectors: &[Selector],
    hottest: usize,
    now: Now,
) -> Tried {
    let trial = purges.trial(selectors);
    let epoch = purges.epoch();
    let mut tried = Tried::default();
    let mut lineages = HashSet::new();
    let mut ranks = Ranks::new(hottest);
    for stored in store.gauge.responses() {
        if !stored.is_shelved() || purges.judge(&stored, epoch).is_err() {
            continue;
        }
        let head = stored.head();
        tried.stored += 1;
        if trial.hits(head) {
            tried.matched += 1;
            tried.bytes += stored.weight();
            let per_second = stored.uses_per_second(now);
            tried.per_second += per_second;
            ranks.note(per_second, head);
            if head.may_have_pieces() {
                lineages.insert(head.lineage);
            }
        }
    }
    if !lineages.is_empty() {
        let own = |piece: &Arc<Piece>| piece.is_shelved() && lineages.contains(&piece.lineage());
        tried.bytes += store.gauge.pieces().filter(own).map(|piece| piece.weight()).sum::<u64>();
    }
    tried.hottest = ranks.heads();
    tried
}

/// The hottest of those that were noted.
struct Ranks {
    most: usize,
    /// The coldest on top.
    heap: BinaryHeap<Rank>,
}

struct Rank {
    per_second: f64,
    head: Arc<Head>,
}

impl Ranks {
    fn new(most: usize) -> Self {
        Self { most, heap: BinaryHeap::new() }
    }

    /// What nobody has asked for is not hot.
    fn note(&mut self, per_second: f64, head: &Arc<Head>) {
        let full = self.heap.len() >= self.most;
        let colder = || self.heap.peek().is_none_or(|least| per_second <= least.per_second);
        if per_second <= 0.0 || (full && colder()) {
            return;
        }
        if full {
            self.heap.pop();
        }
        self.heap.push(Rank { per_second, head: Arc::clone(head) });
    }

    fn heads(self) -> Vec<Arc<Head>> {
        self.heap.into_sorted_vec().into_iter().map(|rank| rank.head).collect()
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.per_second.total_cmp(&self.per_second)
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}
