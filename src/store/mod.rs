//! What is kept in memory: stored responses, the purge table, fills under way.
//!
//! Bounded and shared by all workers; opens no socket. Three owners, one each:
//! [`Store`] of the stored responses and their variants, [`Purges`] of the purge table and the
//! epoch, [`Fills`] of what is arriving.

mod again;
#[cfg(debug_assertions)]
mod checksum;
mod events;
mod fills;
mod history;
mod lately;
mod lease;
mod memory;
mod order;
mod parts;
mod peek;
mod pieces;
mod position;
mod purges;
mod roll;
mod searches;
mod stored;
mod sweep;
mod tagged;
mod uses;
mod variants;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

pub use events::{Event, Events, PurgeTold, ReloadTold, Since, UpgradeTold, WarmUp, What};
pub use fills::{
    Arrived, Claim, Fill, FillBody, FillEnd, FillHead, FillLimits, FillWriter, Fills, Passing,
    Room, UnderWay, Wish,
};
pub use history::{Author, Named, Past};
pub use lease::LeaseTerm;
pub use parts::Part;
pub use peek::{Kept, Peek, PieceSum};
pub use pieces::PieceName;
pub use position::{Positions, read_position};
pub use purges::{Applied, Batched, PurgeLimits, Purges};
pub use stored::{Head, NewHead, Stored, StoredBody};
pub use sweep::{Sweep, Tried, sweep, try_out};

use crate::purge::ReadyHasher;
use crate::semantics::{CacheKey, KeySecret, NotStored, Verdict};
use memory::Gauge;
use purges::Dead;
use searches::Searches;
use stored::Slot;
use variants::Variants;

/// Bodies up to this size are in the first class.
const SMALL_BYTES: u64 = 64 * 1024;
/// Bodies up to this size are in the second class.
const MIDDLE_BYTES: u64 = 1024 * 1024;

/// Number of size classes.
pub const CLASSES: usize = 3;

/// Shares of the store's budget per size class, in percent.
const SHARES: [u64; CLASSES] = [40, 30, 30];

type Class = Cache<u128, Slot, BuildHasherDefault<ReadyHasher>>;

/// What the store has for a request.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Nothing under the key.
    Miss,
    /// Responses under the key, none that this request selects.
    VaryMiss,
    /// A stored response that no purge has killed.
    Found(Arc<Stored>, Verdict),
}

/// That answers under a key are not shared.
#[derive(Clone, Copy, Debug)]
pub struct Uncacheable {
    /// Until when that is remembered, on the boot clock.
    pub until: Duration,
    /// Why the last one was not.
    pub why: NotStored,
}

/// Bounds of the store.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Memory for stored responses in bytes.
    pub budget_bytes: u64,
    /// Largest stored body in bytes; a sixteenth of the budget is a bound of its own.
    pub stored_bytes: u64,
    /// Variants of one key.
    pub variants: usize,
    /// Keys remembered as uncacheable.
    pub uncacheable_keys: u64,
    /// How long they are remembered.
    pub uncacheable_memory: Duration,
}

/// Stored responses by key. One instance a size class, since admission weighs a newcomer against
/// the sum of what it would push out and would never admit a large body among small ones.
pub struct Store {
    classes: [Class; CLASSES],
    gauge: Arc<Gauge>,
    uncacheable: Cache<u128, Uncacheable, BuildHasherDefault<ReadyHasher>>,
    secret: KeySecret,
    limits: StoreLimits,
    searches: Searches,
    /// Pieces stored since the start.
    pieces: AtomicU64,
    /// Pieces may have lost their head since the last sweep.
    orphans: AtomicBool,
    /// Lineages whose heads were replaced since the sweep that is under way began.
    handed_on: Mutex<Option<HashSet<u64>>>,
    /// Whether an incomplete response was ever stored: where not, nobody needs to look for one.
    has_parts: AtomicBool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Store").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(limits: StoreLimits) -> Self {
        let budget_bytes = limits.budget_bytes - Searches::share(limits.budget_bytes);
        let class = |index: usize| {
            let share = SHARES.get(index).copied().unwrap_or(0);
            Cache::builder()
                .max_capacity(budget_bytes * share / 100)
                .eviction_policy(if index + 1 == CLASSES {
                    EvictionPolicy::lru()
                } else {
                    EvictionPolicy::tiny_lfu()
                })
                .weigher(|_: &u128, slot: &Slot| slot.weight())
                .build_with_hasher(BuildHasherDefault::default())
        };
        Self {
            classes: [class(0), class(1), class(2)],
            gauge: Arc::default(),
            uncacheable: Cache::builder()
                .max_capacity(limits.uncacheable_keys)
                .build_with_hasher(BuildHasherDefault::default()),
            secret: random_secret(),
            limits,
            searches: Searches::new(limits.budget_bytes),
            pieces: AtomicU64::new(0),
            orphans: AtomicBool::new(false),
            handed_on: Mutex::default(),
            has_parts: AtomicBool::new(false),
        }
    }

    /// Secret of the cache keys of this process.
    #[must_use]
    pub fn secret(&self) -> KeySecret {
        self.secret
    }

    /// Bytes that stored responses may take.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.limits.budget_bytes
    }

    /// Largest body that may be stored, in bytes.
    #[must_use]
    pub fn largest_body(&self) -> u64 {
        self.limits.stored_bytes.min(self.limits.budget_bytes / 16)
    }

    /// What is stored for a request, judged by the purges up to `epoch`. What a purge killed is
    /// removed and counts as absent.
    #[must_use]
    pub fn lookup(
        &self,
        key: &CacheKey,
        request: &HeaderMap,
        purges: &Purges,
        epoch: u64,
    ) -> Lookup {
        self.look(key, request, purges, epoch, Self::bury)
    }

    /// [`Store::lookup`], which does `dead` to what a purge has killed.
    fn look(
        &self,
        key: &CacheKey,
        request: &HeaderMap,
        purges: &Purges,
        epoch: u64,
        dead: fn(&Self, &Arc<Stored>, &Purges, Dead),
    ) -> Lookup {
        match self.slot(key.hash) {
            None | Some(Slot::Piece(_)) => Lookup::Miss,
            Some(Slot::Response(stored)) => self.judge(stored, key, purges, epoch, dead),
            Some(Slot::Variants(variants)) => self
                .select(&variants, key, request, purges, epoch, dead)
                .unwrap_or(Lookup::VaryMiss),
        }
    }

    /// Whether anything is stored under a key, whichever variant and whatever its fate.
    #[must_use]
    pub fn holds(&self, key: &CacheKey) -> bool {
        self.slot(key.hash).is_some() || self.holds_part(key)
    }

    /// Key under which a fill for this request is shared: of the variant as far as it is known.
    #[must_use]
    pub fn fill_key(&self, key: &CacheKey, request: &HeaderMap) -> u128 {
        match self.slot(key.hash) {
            Some(Slot::Variants(variants)) => variants
                .newest()
                .map_or(key.hash, |fields| key.variant(self.secret, &fields.secondary(request))),
            _ => key.hash,
        }
    }

    /// Makes known by which fields an arriving response varies, and gives the key under which
    /// requests that select it will look for its fill. `None` where it does not vary, or where a
    /// response that does not still stands: that one may yet be needed.
    #[must_use]
    pub fn learn_variant(&self, head: &Head) -> Option<u128> {
        let fields = head.vary.as_ref()?;
        if matches!(self.slot(head.key.hash), Some(Slot::Response(_))) {
            return None;
        }
        self.change_variants(head, |variants| variants.learn(fields));
        Some(head.variant_hash(self.secret))
    }

    /// Stores a response, unless a purge that came meanwhile has killed it or a response to a
    /// later request is there already. Says whether it is stored.
    pub fn insert(&self, stored: &Arc<Stored>, purges: &Purges) -> bool {
        let head = stored.head();
        if purges.verdict(head, purges.epoch()).is_none() {
            return false;
        }
        let hash = self.place(head);
        if head.vary.is_some() {
            self.add_variant(head, hash);
        }
        self.put(hash, stored)
    }

    /// Removes one stored response, if it is still the one under its key. Says whether it was.
    pub fn remove(&self, stored: &Arc<Stored>) -> bool {
        self.leave_pieces(stored.head());
        self.take_out(stored)
    }

    fn take_out(&self, stored: &Arc<Stored>) -> bool {
        let Some(class) = self.classes.get(stored.class()) else { return false };
        let done = class.entry(self.place(stored.head())).and_compute_with(|there| {
            match there.map(moka::Entry::into_value) {
                Some(Slot::Response(other)) if Arc::ptr_eq(&other, stored) => Op::Remove,
                _ => Op::Nop,
            }
        });
        let was_there = matches!(done, CompResult::Removed(_));
        stored.unshelve();
        self.gauge.removed(u64::from(was_there));
        was_there
    }

    /// Remembers that answers under this key are not shared, and why, so that requests do not queue.
    pub fn remember_uncacheable(&self, fill_key: u128, why: NotStored, now: Duration) {
        let until = now + self.limits.uncacheable_memory;
        self.uncacheable.insert(fill_key, Uncacheable { until, why });
    }

    /// Whether answers under this key were not shared lately.
    #[must_use]
    pub fn is_uncacheable(&self, fill_key: u128, now: Duration) -> bool {
        self.uncacheable.get(&fill_key).is_some_and(|remembered| now < remembered.until)
    }

    /// What is remembered of answers under this key that were not shared lately.
    #[must_use]
    pub fn uncacheable(&self, fill_key: u128, now: Duration) -> Option<Uncacheable> {
        self.uncacheable.get(&fill_key).filter(|remembered| now < remembered.until)
    }

    /// Forgets that answers under this key are not shared.
    pub fn forget_uncacheable(&self, fill_key: u128) {
        self.uncacheable.invalidate(&fill_key);
    }

    /// Empties the store.
    pub fn clear(&self) {
        for class in &self.classes {
            self.gauge.removed(class.entry_count());
            class.invalidate_all();
        }
        self.gauge.responses().for_each(|stored| stored.unshelve());
        self.gauge.pieces().for_each(|piece| piece.unshelve());
        self.uncacheable.invalidate_all();
        self.searches.clear();
        self.upkeep();
    }

    /// Evicts what is over budget. Called by a thread of its own every few milliseconds, so that
    /// requests seldom have to.
    pub fn upkeep(&self) {
        for class in &self.classes {
            class.run_pending_tasks();
        }
        self.uncacheable.run_pending_tasks();
        self.searches.upkeep();
    }

    /// Removes stored responses, the largest first, until about `bytes` are given back: memory is
    /// short, whatever the budget says.
    pub fn give_back(&self, bytes: u64) {
        let mut left = bytes;
        for class in self.classes.iter().rev() {
            left = remove_from(class, left, |left, _weight| left == 0);
        }
    }

    /// Removes about `bytes` of what is stored, of each size class as much as its part of the whole: others
    /// need the memory, and no class is to pay for all.
    pub fn make_room(&self, bytes: u64) {
        let all = u128::from(self.shelved_bytes().max(1));
        let mut left = 0_u64;
        for class in &self.classes {
            let part = u128::from(bytes) * u128::from(class.weighted_size()) / all;
            // Not the one response of a class for the few bytes that are its part.
            let enough = |left, weight| left < weight;
            left = remove_from(class, left + u64::try_from(part).unwrap_or(bytes), enough);
        }
    }

    /// Stored responses and pieces, and their bytes, in one size class, those still being sent
    /// included.
    #[must_use]
    pub fn class(&self, index: usize) -> (u64, u64) {
        self.gauge.class(index)
    }

    /// Bytes of all stored responses.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (0..CLASSES).map(|index| self.class(index).1).sum()
    }

    /// Bytes of what is no longer in the store, or never was, and is still being sent.
    #[must_use]
    pub fn kept_by_readers(&self) -> u64 {
        self.bytes().saturating_sub(self.shelved_bytes())
    }

    /// Bytes of what is in the store.
    #[must_use]
    pub fn shelved_bytes(&self) -> u64 {
        self.classes.iter().map(Class::weighted_size).sum()
    }

    /// Responses that had to make room since the start.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.gauge.evictions(self.classes.iter().map(Class::entry_count).sum())
    }

    /// Lookups since the start that met a response which a purge had killed.
    #[must_use]
    pub fn killed(&self) -> u64 {
        self.gauge.killed()
    }

    /// A gauge entry for a response of `body_bytes` and `weight`.
    fn account(&self, body_bytes: u64, weight: u64) -> memory::Accounted {
        memory::Accounted::new(&self.gauge, class_of(body_bytes), weight)
    }

    /// Makes a stored response of a head and a body.
    #[must_use]
    pub fn stored(&self, head: Arc<Head>, body: StoredBody) -> Arc<Stored> {
        let weight = stored::weight(&head, &body);
        let accounted = self.account(body.held_bytes(), weight);
        Arc::new(Stored::new(head, body, None, accounted))
    }

    /// Hash under which a response with this head is stored.
    fn place(&self, head: &Head) -> u128 {
        match &head.vary {
            None => head.key.hash,
            Some(_) => head.variant_hash(self.secret),
        }
    }

    fn slot(&self, hash: u128) -> Option<Slot> {
        self.classes.iter().find_map(|class| class.get(&hash))
    }

    /// Counts and removes what a look-up found killed.
    fn bury(&self, stored: &Arc<Stored>, purges: &Purges, why: Dead) {
        self.gauge.met_killed();
        if self.remove(stored) {
            purges.count_freed(why, 1, stored.weight());
        }
    }

    fn judge(
        &self,
        stored: Arc<Stored>,
        key: &CacheKey,
        purges: &Purges,
        epoch: u64,
        dead: fn(&Self, &Arc<Stored>, &Purges, Dead),
    ) -> Lookup {
        if stored.head().key.parts != key.parts {
            return Lookup::Miss;
        }
        #[cfg(debug_assertions)]
        if !stored.is_intact() {
            self.remove(&stored);
            return Lookup::Miss;
        }
        match purges.judge(&stored, epoch) {
            Ok(verdict) => Lookup::Found(stored, verdict),
            Err(why) => {
                dead(self, &stored, purges, why);
                Lookup::Miss
            }
        }
    }

    fn add_variant(&self, head: &Head, hash: u128) {
        let Some(fields) = &head.vary else { return };
        let most = self.limits.variants.max(1);
        let language =
            head.secondary_in_language().map(|name| head.key.variant(self.secret, &name));
        let pushed_out =
            self.change_variants(head, |variants| variants.add(fields, hash, language, most));
        for hash in pushed_out {
            for class in &self.classes {
                self.drop_from(class, hash);
            }
        }
    }

    /// Changes the record of variants under the key of `head`.
    fn change_variants<T: Default>(
        &self,
        head: &Head,
        change: impl FnOnce(&mut Variants) -> T,
    ) -> T {
        let mut out = T::default();
        let [small, rest @ ..] = &self.classes;
        let done = small.entry(head.key.hash).and_compute_with(|there| {
            let mut variants = match there.map(moka::Entry::into_value) {
                Some(Slot::Variants(variants)) => Variants::clone(&variants),
                other => {
                    other.inspect(Slot::unshelve);
                    Variants::default()
                }
            };
            out = change(&mut variants);
            Op::Put(Slot::Variants(Arc::new(variants)))
        });
        if matches!(done, CompResult::Inserted(_)) {
            self.gauge.inserted();
        }
        for class in rest {
            self.drop_from(class, head.key.hash);
        }
        out
    }

    fn put(&self, hash: u128, stored: &Arc<Stored>) -> bool {
        let own = class_of(stored.body().held_bytes());
        let head = stored.head();
        let newer = |there: &Slot| match there {
            Slot::Response(other) => {
                let other = other.head();
                (other.born, other.fill) > (head.born, head.fill)
                    && other.key.parts == head.key.parts
            }
            Slot::Variants(_) | Slot::Piece(_) => false,
        };
        let others = || self.classes.iter().enumerate().filter(|(index, _)| *index != own);
        if others().filter_map(|(_, class)| class.get(&hash)).any(|there| newer(&there)) {
            return false;
        }
        let Some(class) = self.classes.get(own) else { return false };
        // Before it can be found: what is not on the roll by then, the sweep does not meet.
        stored.shelve();
        let done = class.entry(hash).and_compute_with(|there| {
            let there = there.map(moka::Entry::into_value);
            if there.as_ref().is_some_and(newer) {
                return Op::Nop;
            }
            if let Some(there) = there {
                self.replaced(&there, stored);
            }
            Op::Put(Slot::Response(Arc::clone(stored)))
        });
        if matches!(done, CompResult::Unchanged(_)) {
            stored.unshelve();
            return false;
        }
        if matches!(done, CompResult::Inserted(_)) {
            self.gauge.inserted();
        }
        for (_, class) in others() {
            if let Some(slot) = self.drop_from(class, hash) {
                self.replaced(&slot, stored);
            }
        }
        true
    }

    /// Notes that a response has taken the place of what was there.
    fn replaced(&self, there: &Slot, by: &Arc<Stored>) {
        match there {
            Slot::Response(other) if Arc::ptr_eq(other, by) => {}
            Slot::Response(other) => {
                match other.head().lineage == by.head().lineage {
                    true => self.hand_on_pieces(by.head()),
                    false => self.leave_pieces(other.head()),
                }
                by.replace(other);
            }
            Slot::Variants(_) | Slot::Piece(_) => there.unshelve(),
        }
    }

    /// Removes what is under a hash in a class. Gives what it was.
    fn drop_from(&self, class: &Class, hash: u128) -> Option<Slot> {
        let slot = class.remove(&hash)?;
        self.gauge.removed(1);
        slot.unshelve();
        if let Slot::Response(stored) = &slot {
            self.leave_pieces(stored.head());
        }
        Some(slot)
    }
}

/// Removes responses from a class until about `bytes` are given back, or `enough` of that for the next; what is
/// left of it.
fn remove_from(class: &Class, bytes: u64, enough: impl Fn(u64, u64) -> bool) -> u64 {
    let mut left = bytes;
    for (hash, slot) in class {
        let weight = u64::from(slot.weight());
        if enough(left, weight) {
            break;
        }
        left = left.saturating_sub(weight);
        slot.unshelve();
        class.invalidate(&*hash);
    }
    left
}

fn class_of(body_bytes: u64) -> usize {
    if body_bytes <= SMALL_BYTES {
        0
    } else if body_bytes <= MIDDLE_BYTES {
        1
    } else {
        2
    }
}

/// Two random words from the standard library's per-process keys.
fn random_secret() -> KeySecret {
    let word = || RandomState::new().build_hasher().finish();
    KeySecret([word(), word()])
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
