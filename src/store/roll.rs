//! The roll of all that is stored, for those who walk through it.
//!
//! The cache's own iteration looks each key up by its hash, a journey of cache misses: most of what a
//! walk of the sweep took. Here entries stand in the order in which they came, one word each, and
//! are read in a row. They are held weakly: the cache owns and evicts them as if there were no roll,
//! and an entry leaves its place when the last who holds it lets go. So also what was evicted and is
//! still being sent is met, and a walk over the store reaches the copies, too.
//!
//! ```text
//! shard 0   [weak][weak][    ][weak] ...     chunks of places; the free ones are used again
//! shard 1   [weak][weak] ...
//! ```
//!
//! Memory: 8 bytes for as many places as were ever taken at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Shards, each behind a lock of its own.
const SHARDS: usize = 16;
const SHARD_BITS: u32 = SHARDS.ilog2();
/// Places that are made at once; as many neighbours go to one shard, since what came together lies
/// together in memory.
const CHUNK: usize = 1024;
/// Entries that a walk takes out under one lock: newcomers wait no longer than for these.
const AT_ONCE: usize = 128;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(pub(super) u32);

impl Place {
    /// Of what stands nowhere.
    pub(super) const NONE: Self = Self(u32::MAX);

    fn of(shard: usize, index: usize) -> Option<Self> {
        let place = u32::try_from((index << SHARD_BITS) | shard).ok().map(Self)?;
        (place != Self::NONE).then_some(place)
    }

    fn parts(self) -> (usize, usize) {
        let number = usize::try_from(self.0).unwrap_or(usize::MAX);
        (number % SHARDS, number >> SHARD_BITS)
    }
}

/// Everything of a kind that is alive and was entered.
pub(super) struct Roll<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
    entered: AtomicUsize,
}

struct Shard<T> {
    chunks: Vec<Box<[Option<Weak<T>>]>>,
    /// Places that nobody has, the last to be taken first.
    free: Vec<u32>,
}

impl<T> Default for Roll<T> {
    fn default() -> Self {
        let shard = |_| Mutex::new(Shard { chunks: Vec::new(), free: Vec::new() });
        Self { shards: std::array::from_fn(shard), entered: AtomicUsize::new(0) }
    }
}

impl<T> std::fmt::Debug for Roll<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Roll").finish_non_exhaustive()
    }
}

impl<T> Roll<T> {
    /// Gives an entry a place. Where there is none left, it is met by no walk.
    pub(super) fn enter(&self, entry: &Arc<T>) -> Place {
        let number = self.entered.fetch_add(1, Ordering::Relaxed) / CHUNK % SHARDS;
        let Some(mut shard) = self.shard(number) else { return Place::NONE };
        shard.take(entry).and_then(|index| Place::of(number, index)).unwrap_or(Place::NONE)
    }

    /// Frees the place of an entry that is gone.
    pub(super) fn leave(&self, place: Place) {
        if place == Place::NONE {
            return;
        }
        let (number, index) = place.parts();
        if let Some(mut shard) = self.shard(number) {
            shard.free(index);
        }
    }

    /// Goes through all entries. Those that come meanwhile may be met or not.
    pub(super) fn walk(&self) -> Walk<'_, T> {
        Walk { roll: self, shard: 0, index: 0, taken: Vec::with_capacity(AT_ONCE) }
    }

    fn shard(&self, number: usize) -> Option<MutexGuard<'_, Shard<T>>> {
        Some(self.shards.get(number)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Shard<T> {
    fn take(&mut self, entry: &Arc<T>) -> Option<usize> {
        if self.free.is_empty() {
            let from = self.chunks.len() * CHUNK;
            let till =
                u32::try_from(from + CHUNK).ok().filter(|till| *till < u32::MAX >> SHARD_BITS)?;
            self.chunks.push(std::iter::repeat_with(|| None).take(CHUNK).collect());
            self.free.extend((u32::try_from(from).unwrap_or(till)..till).rev());
        }
        let index = usize::try_from(self.free.pop()?).ok()?;
        *self.place(index)? = Some(Arc::downgrade(entry));
        Some(index)
    }

    fn free(&mut self, index: usize) {
        let Ok(number) = u32::try_from(index) else { return };
        if self.place(index).and_then(Option::take).is_some() {
            self.free.push(number);
        }
    }

    fn place(&mut self, index: usize) -> Option<&mut Option<Weak<T>>> {
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }
}

/// A walk through a [`Roll`].
pub(super) struct Walk<'a, T> {
    roll: &'a Roll<T>,
    shard: usize,
    index: usize,
    taken: Vec<Arc<T>>,
}

impl<T> Walk<'_, T> {
    /// Takes the next entries out, in reverse; says whether there was anything left to look at.
    fn refill(&mut self) -> bool {
        let Some(shard) = self.roll.shard(self.shard) else { return false };
        let Some(chunk) = shard.chunks.get(self.index / CHUNK) else {
            (self.shard, self.index) = (self.shard + 1, 0);
            return true;
        };
        let from = self.index % CHUNK;
        let places = chunk.get(from..(from + AT_ONCE).min(CHUNK)).unwrap_or_default();
        self.taken.extend(places.iter().rev().flatten().filter_map(Weak::upgrade));
        self.index += places.len();
        true
    }
}

impl<T> Iterator for Walk<'_, T> {
    type Item = Arc<T>;

    fn next(&mut self) -> Option<Arc<T>> {
        while self.taken.is_empty() {
            if !self.refill() {
                return None;
            }
        }
        self.taken.pop()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn met(roll: &Roll<usize>) -> Vec<usize> {
        let mut met: Vec<usize> = roll.walk().map(|entry| *entry).collect();
        met.sort_unstable();
        met
    }

    #[test]
    fn places_are_used_again() {
        let roll = Roll::default();
        for round in 0..50 {
            let entries: Vec<_> = (0..CHUNK * 3).map(|number| Arc::new(number + round)).collect();
            let places: Vec<Place> = entries.iter().map(|entry| roll.enter(entry)).collect();
            assert_eq!(met(&roll), (round..CHUNK * 3 + round).collect::<Vec<_>>());
            drop(entries);
            assert_eq!(met(&roll), [0; 0], "held weakly");
            places.into_iter().for_each(|place| roll.leave(place));
        }
        let chunks: usize = (0..SHARDS).map(|at| roll.shard(at).unwrap().chunks.len()).sum();
        assert!(chunks <= SHARDS + 3, "{chunks} chunks for three chunks of entries");
    }

    #[test]
    fn a_walk_meets_all_that_stay_while_others_come_and_go() {
        let roll = Roll::default();
        let stay: Vec<_> = (0..5000).map(Arc::new).collect();
        assert!(stay.iter().all(|entry| roll.enter(entry) != Place::NONE));
        let done = std::sync::atomic::AtomicBool::new(false);
        let (done, roll) = (&done, &roll);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let entry = Arc::new(usize::MAX);
                    let place = roll.enter(&entry);
                    drop(entry);
                    roll.leave(place);
                }
            });
            for _ in 0..20 {
                let seen = met(roll);
                assert_eq!(seen.iter().filter(|number| **number < 5000).count(), 5000);
            }
            done.store(true, Ordering::Release);
        });
    }

    proptest! {
        #[test]
        fn who_is_alive_and_entered_is_met_once(
            steps in proptest::collection::vec((any::<bool>(), any::<usize>()), 0..200),
        ) {
            let roll = Roll::default();
            let mut there: Vec<(Arc<usize>, Place)> = Vec::new();
            for (number, (enters, which)) in steps.into_iter().enumerate() {
                if enters || there.is_empty() {
                    let entry = Arc::new(number);
                    let place = roll.enter(&entry);
                    there.push((entry, place));
                } else {
                    let (entry, place) = there.swap_remove(which % there.len());
                    drop(entry);
                    roll.leave(place);
                }
                let mut expected: Vec<usize> = there.iter().map(|(entry, _)| **entry).collect();
                expected.sort_unstable();
                prop_assert_eq!(met(&roll), expected);
            }
        }
    }
}
