//! Which keys there are, and which of them new tickets are made with.
//!
//! ```text
//! age of a key   0 ------ spread ------------ rotate ------- rotate + spread ---------- 3 rotate + 2 spread
//!                | spread  | new tickets are made with it        | opens those that there are     | forgotten
//!                                             | the next one is made
//! ```
//!
//! Every node holds the union of what it has heard of, so that whoever makes one, and however often one
//! is heard, all nodes come to the same set. A key is not used before all have had time to hear of it; a
//! node that comes later hears of it by its age and uses it at once. Two that were made at once do no harm:
//! everybody can open the tickets of both.
//!
//! Ages are told, not moments: no clock is compared between nodes. What a message takes on its way makes a
//! key look younger, so of several ages the oldest counts.

use std::fmt;
use std::time::Duration;

/// Most keys of the mesh; the oldest go first. Three are in use at any time.
pub(super) const MOST: usize = 16;

/// Longest time before a key is used by its maker, who has told everybody at once.
const LONGEST_SPREAD: Duration = Duration::from_secs(30);
/// Longest time for which a node that knows no key waits to hear of one.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Name of a key, by which a ticket says what it was made with.
pub(super) type KeyName = [u8; 16];
/// What makes a ticket, and opens it.
pub(super) type KeySecret = [u8; 32];

/// How long keys are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPaces {
    /// Age of a key at which the next is made.
    pub(super) rotate: Duration,
}

impl KeyPaces {
    /// One key after the other for this long each.
    #[must_use]
    pub fn new(rotate: Duration) -> Self {
        Self { rotate }
    }

    /// Time for everybody to hear of a key.
    pub(super) fn spread(self) -> Duration {
        (self.rotate / 10).min(LONGEST_SPREAD)
    }

    /// How long tickets are good for.
    pub(super) fn lifetime(self) -> Duration {
        self.rotate * 2
    }

    /// Age at which a key is forgotten: the last ticket made with it is not good any more.
    pub(super) fn forgotten(self) -> Duration {
        self.rotate + self.lifetime() + self.spread() * 2
    }

    /// How long a node that knows none waits before it makes one.
    fn wait(self) -> Duration {
        self.spread().min(LONGEST_WAIT)
    }
}

/// A key as it is told.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: KeyName,
    pub(super) secret: KeySecret,
    /// Its age when it was told.
    pub(super) age: Duration,
}

/// Without the secret: what is shown gets written down.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = u128::from_be_bytes(self.name);
        f.debug_struct("Key").field("name", &name).field("age", &self.age).finish_non_exhaustive()
    }
}

/// A key as it is held.
#[derive(Clone)]
struct Held {
    name: KeyName,
    secret: KeySecret,
    /// When it was made, in milliseconds of the boot clock; before its zero for an older one.
    made: i64,
    /// Nobody else knows it: it stands in until there is one of the mesh.
    own: bool,
}

/// What came of keys that were heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Keys that were not known.
    pub(super) new: usize,
    /// Keys that were not taken: too old, or another one under a known name.
    pub(super) refused: usize,
}

/// The keys that a node knows.
#[derive(Clone)]
pub(super) struct Set {
    paces: KeyPaces,
    /// The oldest first.
    keys: Vec<Held>,
    /// Since when none of the mesh is known.
    without: i64,
}

impl Set {
    pub(super) fn new(paces: KeyPaces, now: Duration) -> Self {
        Self { paces, keys: Vec::new(), without: millis(now) }
    }

    /// Those of the mesh, to be told.
    pub(super) fn told(&self, now: Duration) -> Vec<Key> {
        let told =
            |held: &Held| Key { name: held.name, secret: held.secret, age: self.age(held, now) };
        self.keys.iter().filter(|held| !held.own).map(told).collect()
    }

    /// All of them, as tickets are opened with them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&KeyName, &KeySecret)> {
        self.keys.iter().map(|held| (&held.name, &held.secret))
    }

    /// Takes what was heard of.
    pub(super) fn take(&mut self, heard: Vec<Key>, now: Duration) -> Taken {
        let mut taken = Taken::default();
        for key in heard {
            if key.age >= self.paces.forgotten() {
                taken.refused += 1;
                continue;
            }
            let made = millis(now).saturating_sub(millis(key.age));
            match self.keys.iter_mut().find(|held| held.name == key.name) {
                Some(known) if known.secret != key.secret || known.own => taken.refused += 1,
                Some(known) => known.made = known.made.min(made),
                None => {
                    taken.new += 1;
                    let Key { name, secret, .. } = key;
                    self.keys.push(Held { name, secret, made, own: false });
                }
            }
        }
        self.trim(now);
        taken
    }

    /// Adds a key that was drawn here; `own`: it is told to nobody.
    pub(super) fn add(&mut self, name: KeyName, secret: KeySecret, own: bool, now: Duration) {
        self.keys.push(Held { name, secret, made: millis(now), own });
        self.trim(now);
    }

    /// Forgets what is too old. Says whether something was.
    pub(super) fn trim(&mut self, now: Duration) -> bool {
        let before = self.keys.len();
        let (forgotten, moment) = (millis(self.paces.forgotten()), millis(now));
        self.keys.retain(|held| moment.saturating_sub(held.made) < forgotten);
        self.keys.sort_by_key(|held| (held.made, held.name));
        let of_mesh = self.keys.iter().filter(|held| !held.own).count();
        let mut too_many = of_mesh.saturating_sub(MOST);
        self.keys.retain(|held| {
            let goes = !held.own && too_many > 0;
            too_many -= usize::from(goes);
            !goes
        });
        if self.keys.iter().any(|held| !held.own) {
            self.without = moment;
        }
        self.keys.len() != before
    }

    /// The key that new tickets are made with: of those that everybody knows the newest. Where none is
    /// old enough for that the oldest of the mesh, else the newest of its own.
    pub(super) fn issuing(&self, now: Duration) -> Option<&KeyName> {
        let of_mesh = || self.keys.iter().filter(|held| !held.own);
        let known = of_mesh().rev().find(|held| self.age(held, now) >= self.paces.spread());
        let held = known.or_else(|| of_mesh().next()).or_else(|| self.keys.last());
        held.map(|held| &held.name)
    }

    /// Whether this node is to make a key for all, being the `rank`-th of those it sees, from 0. The first one
    /// makes it when it is due; the others step in if they hear of none.
    pub(super) fn wants(&self, rank: u32, now: Duration) -> bool {
        let newest = self.keys.iter().rev().find(|held| !held.own);
        let (since, patience, step) = match newest {
            Some(newest) => (newest.made, self.paces.rotate, self.paces.spread()),
            None => (self.without, self.paces.wait(), self.paces.wait()),
        };
        let due = patience.saturating_add(step.saturating_mul(rank));
        millis(now).saturating_sub(since) >= millis(due)
    }

    fn age(&self, held: &Held, now: Duration) -> Duration {
        let age = millis(now).saturating_sub(held.made);
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACES: KeyPaces = KeyPaces { rotate: Duration::from_secs(1_000) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(name: u8, age: u64) -> Key {
        Key { name: [name; 16], secret: [name; 32], age: at(age) }
    }

    fn set(keys: &[(u8, u64)], now: u64) -> Set {
        let mut set = Set::new(PACES, at(now));
        let keys = keys.iter().map(|(name, age)| key(*name, *age)).collect();
        set.take(keys, at(now));
        set
    }

    fn names(set: &Set) -> Vec<u8> {
        set.told(at(0)).iter().map(|key| key.name[0]).collect()
    }

    #[test]
    fn a_key_is_used_once_all_had_time_to_hear_of_it_and_until_the_next_is() {
        let (spread, now) = (PACES.spread().as_secs(), 10_000);
        for (keys, expected) in [
            (vec![], None),
            (vec![(1, 5)], Some(1)),
            (vec![(1, 5), (2, 4)], Some(1)),
            (vec![(1, 900), (2, spread - 1)], Some(1)),
            (vec![(1, 900), (2, spread)], Some(2)),
            (vec![(1, 900), (2, 500), (3, 2)], Some(2)),
        ] {
            let got = set(&keys, now).issuing(at(now)).map(|name| name[0]);
            assert_eq!(got, expected, "{keys:?}");
        }
    }

    #[test]
    fn an_own_key_stands_in_until_there_is_one_of_the_mesh_and_is_told_to_nobody() {
        let mut set = Set::new(PACES, at(0));
        set.add([9; 16], [9; 32], true, at(0));
        assert_eq!((set.issuing(at(1)), set.told(at(1)).len()), (Some(&[9; 16]), 0));
        assert_eq!(set.take(vec![key(9, 3)], at(2)).refused, 1, "its name is not another's");
        set.take(vec![key(1, 0)], at(2));
        assert_eq!(set.issuing(at(2)), Some(&[1; 16]));
        assert_eq!(set.all().count(), 2, "it still opens what was made with it");
    }

    #[test]
    fn who_comes_first_makes_the_next_and_the_others_step_in() {
        let now = 50_000;
        for (age, rank, wants) in [
            (999, 0, false),
            (1_000, 0, true),
            (1_029, 1, false),
            (1_030, 1, true),
            (1_060, 2, true),
        ] {
            assert_eq!(set(&[(1, age)], now).wants(rank, at(now)), wants, "{age} {rank}");
        }
        let empty = Set::new(PACES, at(now));
        for (later, rank, wants) in [(1, 0, false), (2, 0, true), (3, 1, false), (4, 1, true)] {
            assert_eq!(empty.wants(rank, at(now + later)), wants, "{later} {rank}");
        }
        assert!(!empty.wants(u32::MAX, at(now * 2)));
    }

    #[test]
    fn a_key_lives_as_long_as_the_last_ticket_that_was_made_with_it() {
        let mut set = set(&[(1, 0)], 0);
        let last_made = PACES.rotate + PACES.spread();
        let end = PACES.forgotten();
        assert!(end >= last_made + PACES.lifetime());
        assert!(!set.trim(end - at(1)));
        assert!(set.trim(end));
        assert_eq!(set.issuing(end), None);
        let old = Key { age: end, ..key(2, 0) };
        assert_eq!(set.take(vec![old], end), Taken { new: 0, refused: 1 });
        assert!(!set.wants(0, end), "it waits to hear of one first");
        assert!(set.wants(0, end + at(2)));
    }

    #[test]
    fn another_key_under_a_known_name_is_refused() {
        let mut set = set(&[(1, 0)], 0);
        let forged = Key { secret: [7; 32], ..key(1, 0) };
        assert_eq!(set.take(vec![forged], at(1)), Taken { new: 0, refused: 1 });
        assert_eq!(set.told(at(1)), [key(1, 1)]);
    }

    #[test]
    fn a_key_older_than_this_machine_is_kept_with_its_age() {
        let set = set(&[(1, 700)], 5);
        assert_eq!(set.told(at(6)), [key(1, 701)]);
    }

    #[test]
    fn of_too_many_the_newest_stay() {
        let many: Vec<(u8, u64)> = (0..40).map(|name| (name, 500 - u64::from(name))).collect();
        let all: Vec<u8> = (24..40).collect();
        assert_eq!(names(&set(&many, 1_000)), all);
    }

    proptest! {
        #[test]
        fn whoever_hears_of_the_same_keys_in_any_order_uses_the_same(
            keys in prop::collection::vec((0_u8..40, 0_u64..3_500), 0..24),
            cuts in prop::collection::vec(0_usize..24, 0..4),
            now in 0_u64..100_000,
        ) {
            // Each key has one age.
            let ages: std::collections::BTreeMap<u8, u64> = keys.iter().copied().collect();
            let all: Vec<Key> = ages.iter().map(|(name, age)| key(*name, *age)).collect();
            let mut once = Set::new(PACES, at(now));
            once.take(all.clone(), at(now));
            let mut parts = Set::new(PACES, at(now));
            for cut in cuts {
                let from = cut.min(all.len());
                parts.take(all[from..].to_vec(), at(now));
            }
            parts.take(all.iter().rev().cloned().collect(), at(now));
            parts.take(once.told(at(now)), at(now));
            prop_assert_eq!(names(&once), names(&parts));
            prop_assert_eq!(once.issuing(at(now)), parts.issuing(at(now)));
            prop_assert!(once.told(at(now)).len() <= MOST);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_made_anywhere_is_opened_everywhere_while_it_is_good(
            arrives in prop::collection::vec(any::<bool>(), 40..=40),
            skew in 0_u64..1_000,
        ) {
            // Two nodes with boot clocks of their own; what one tells may get lost, but not for 25 s.
            let shift = [at(5_000), at(5_000 + skew)];
            let mut nodes = shift.map(|zero| Set::new(PACES, zero));
            let mut used: std::collections::BTreeMap<KeyName, Duration> = Default::default();
            let (mut drawn, mut told) = (0_u8, 0);
            for second in (0..12_000_u64).step_by(5) {
                let now = at(second);
                for rank in 0..2_usize {
                    let clock = shift[rank] + now;
                    nodes[rank].trim(clock);
                    if nodes[rank].wants(u32::try_from(rank).unwrap(), clock) {
                        drawn += 1;
                        nodes[rank].add([drawn; 16], [drawn; 32], false, clock);
                    }
                    let heard = nodes[rank].told(clock);
                    told += 1;
                    if arrives[told % 40] || second % 25 == 0 {
                        nodes[1 - rank].take(heard, shift[1 - rank] + now);
                    }
                    // The first keys are used while some may not have heard of them.
                    if let Some(name) = nodes[rank].issuing(clock).filter(|_| second > 200) {
                        used.insert(*name, now);
                    }
                }
                used.retain(|_, last| now < *last + PACES.lifetime());
                for (name, last) in &used {
                    for node in &nodes {
                        let opens = node.all().any(|(known, _)| known == name);
                        prop_assert!(opens, "used at {last:?}, asked at {now:?}");
                    }
                }
            }
            prop_assert!((10..=15).contains(&drawn), "{drawn}");
        }
    }
}
