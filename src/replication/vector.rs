//! What a node has applied: for each source, up to which record.
//!
//! ```text
//! retired 3 | fra-1/a4.. 17   fra-2/09.. 4   nyc-1/77.. 120
//! ```
//!
//! Vectors merge by maximum, so loss, repetition and disorder change nothing. A source leaves the
//! vector only with a step of `retired` (see [`super::retire`]); vectors of different steps are not
//! compared.

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::identity::Source;
use super::mutation::Mutation;
use super::record::Chain;

/// Up to where a source's records are held, and the hash over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Sequence of the last; 0 for none.
    pub sequence: u64,
    /// Hash over all up to it.
    pub chain: Chain,
}

impl Mark {
    /// Whether who is here has everything that one at `other` has. Of two histories neither has the
    /// other's.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.sequence > other.sequence || self == other
    }
}

/// How often sources were retired, and a random number that tells two such steps apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retired {
    /// Steps so far.
    pub count: u64,
    /// Drawn with the last step.
    pub draw: u64,
}

/// A version vector. Its digest is kept up to date with each change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vector {
    retired: Retired,
    marks: BTreeMap<Source, Mark>,
    digest: u128,
}

impl Vector {
    /// Nothing applied, after a step of retirement.
    #[must_use]
    pub fn new(retired: Retired) -> Self {
        Self { retired, ..Self::default() }
    }

    /// The step of retirement that it is after.
    #[must_use]
    pub fn retired(&self) -> Retired {
        self.retired
    }

    /// Moves it to another step; who may do that is judged elsewhere.
    pub(super) fn set_retired(&mut self, retired: Retired) {
        self.retired = retired;
    }

    /// Up to where the records of `source` are held.
    #[must_use]
    pub fn mark(&self, source: &Source) -> Mark {
        self.marks.get(source).copied().unwrap_or_default()
    }

    /// Sources with their marks.
    pub fn marks(&self) -> impl ExactSizeIterator<Item = (&Source, &Mark)> {
        self.marks.iter()
    }

    /// Number of sources.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether nothing was applied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Moves a source's mark.
    pub fn set(&mut self, source: &Source, mark: Mark) {
        self.remove(source);
        if mark.sequence > 0 {
            self.digest = self.digest.wrapping_add(print(source, &mark));
            self.marks.insert(source.clone(), mark);
        }
    }

    /// Drops a source.
    pub(super) fn remove(&mut self, source: &Source) {
        if let Some(old) = self.marks.remove(source) {
            self.digest = self.digest.wrapping_sub(print(source, &old));
        }
    }

    /// Takes over what is further in `other`. Of two histories under one name the one with the
    /// greater hash wins, on all nodes alike.
    pub fn merge(&mut self, other: &Self) {
        for (source, mark) in &other.marks {
            if *mark > self.mark(source) {
                self.set(source, *mark);
            }
        }
    }

    /// Whether everything that `other` covers is covered here.
    #[must_use]
    pub fn covers(&self, other: &Self, mutation: Mutation) -> bool {
        if mutation == Mutation::MaximumAcrossIncarnations {
            return self.covers_by_node(other);
        }
        let retired = mutation == Mutation::RetiredForgotten || self.retired == other.retired;
        retired && other.marks.iter().all(|(source, mark)| self.mark(source).covers(mark))
    }

    /// 128-bit digest: equal ones mean equal vectors.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut hasher = SipHasher13::new();
        hasher.write_u64(self.retired.count);
        hasher.write_u64(self.retired.draw);
        hasher.write_u128(self.digest);
        hasher.finish128().as_u128()
    }

    fn covers_by_node(&self, other: &Self) -> bool {
        let furthest = |source: &Source| {
            let same = self.marks.iter().filter(|(own, _)| own.node == source.node);
            same.map(|(_, mark)| mark.sequence).max().unwrap_or(0)
        };
        other.marks.iter().all(|(source, mark)| furthest(source) >= mark.sequence)
    }
}

impl FromIterator<(Source, Mark)> for Vector {
    fn from_iter<I: IntoIterator<Item = (Source, Mark)>>(marks: I) -> Self {
        let mut vector = Self::default();
        marks.into_iter().for_each(|(source, mark)| vector.set(&source, mark));
        vector
    }
}

fn print(source: &Source, mark: &Mark) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(source.incarnation.0);
    hasher.write_u64(mark.sequence);
    hasher.write_u128(mark.chain);
    hasher.write(source.node.as_str().as_bytes());
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replication::Incarnation;

    fn source(number: u64) -> Source {
        Source { incarnation: Incarnation(number), node: "n".into() }
    }

    fn vectors() -> impl Strategy<Value = Vector> {
        proptest::collection::vec((0..4_u64, 1..5_u64, 0..2_u128), 0..6).prop_map(|marks| {
            marks
                .into_iter()
                .map(|(number, sequence, chain)| (source(number), Mark { sequence, chain }))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn merging_knows_no_order(a in vectors(), b in vectors(), c in vectors()) {
            let merged = |vectors: [&Vector; 3]| {
                let mut whole = Vector::default();
                vectors.into_iter().for_each(|vector| whole.merge(vector));
                whole
            };
            let whole = merged([&a, &b, &c]);
            prop_assert_eq!(&whole, &merged([&c, &a, &b]));
            prop_assert_eq!(whole.digest(), merged([&b, &b, &whole]).digest());
        }

        #[test]
        fn equal_digests_mean_equal_vectors(a in vectors(), b in vectors()) {
            prop_assert_eq!(a == b, a.digest() == b.digest());
        }

        #[test]
        fn who_covers_gains_nothing_by_merging(a in vectors(), b in vectors()) {
            if a.covers(&b, Mutation::None) {
                let mut merged = a.clone();
                merged.merge(&b);
                prop_assert_eq!(merged, a);
            }
        }
    }

    #[test]
    fn another_step_of_retirement_is_not_covered() {
        let after = Vector::new(Retired { count: 1, draw: 5 });
        assert!(!after.covers(&Vector::default(), Mutation::None));
        assert!(!Vector::default().covers(&after, Mutation::None));
        assert_ne!(after.digest(), Vector::default().digest());
    }

    #[test]
    fn two_histories_do_not_cover_one_another() {
        let of =
            |chain| -> Vector { [(source(1), Mark { sequence: 3, chain })].into_iter().collect() };
        assert!(!of(1).covers(&of(2), Mutation::None));
        assert!(!of(2).covers(&of(1), Mutation::None));
    }
}
