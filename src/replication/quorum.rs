//! Who the witnesses are, and which of their replies count together.
//!
//! A reply counts only beside replies under the same set number and of the same generation, and only
//! while no reply beside it knows that its sender has begun a new life without its log (crash
//! vectors: Michael, Ports, Sharma, Szekeres, "Recovering Shared Objects Without Stable Storage",
//! DISC 2017).
//!
//! ```text
//! set 4   old: a b c   new: b c d       a joint set: a majority of each half is needed
//! reply of a, life 2 | b says: a is in life 3    -> a's does not count
//! ```

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::identity::{Incarnation, Name};
use super::mutation::Mutation;

/// One life of a witness with its memory. Lives are counted by those who saw them begin, so that
/// they have an order without a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// How many times its memory was lost, as far as those asked knew.
    pub count: u64,
    /// Tells two processes apart that began at once.
    pub incarnation: Incarnation,
}

/// The newest lives of witnesses that somebody knows.
pub type Standings = BTreeMap<Name, Standing>;

/// Takes over what is newer in `other`. Says whether anything was.
pub(super) fn note(known: &mut Standings, other: &Standings) -> bool {
    let mut newer = false;
    for (name, standing) in other {
        let own = known.entry(name.clone()).or_default();
        newer |= standing > own;
        *own = (*own).max(*standing);
    }
    newer
}

/// A configured, numbered set of witnesses; while it changes, the old one and the new one together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WitnessSet {
    /// Grows with each change.
    pub number: u64,
    /// The witnesses: one, three or five.
    pub members: Vec<Name>,
    /// Those that shall take over; a majority of each is needed until they have.
    pub joining: Option<Vec<Name>>,
}

/// Which set is meant: its number, and a hash of who is in it. Two sets that bear one number, because
/// somebody wrote them so or two operators changed them at once, are two sets all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SetMark {
    /// The set's number.
    pub number: u64,
    /// Over its members and those that are joining. Not keyed: nodes are trusted not to lie.
    pub members: u64,
}

impl WitnessSet {
    /// Which one it is, to others. The order of its members is no matter.
    #[must_use]
    pub fn mark(&self, mutation: Mutation) -> SetMark {
        let mut hasher = SipHasher13::new();
        for half in self.halves() {
            let mut names: Vec<&Name> = half.iter().collect();
            names.sort_unstable();
            hasher.write_u64(names.len() as u64);
            for name in names {
                hasher.write_u64(name.as_str().len() as u64);
                hasher.write(name.as_str().as_bytes());
            }
        }
        let by_number = mutation == Mutation::SetKnownByNumber;
        SetMark { number: self.number, members: if by_number { 0 } else { hasher.finish() } }
    }

    /// Everybody in it.
    pub fn everyone(&self) -> impl Iterator<Item = &Name> {
        let joining = self.joining.iter().flatten();
        self.members.iter().chain(joining.filter(|name| !self.members.contains(name)))
    }

    /// Whether a node is in it.
    #[must_use]
    pub fn contains(&self, name: &Name) -> bool {
        self.everyone().any(|member| member == name)
    }

    /// Whether these are enough: a majority, of both halves where there are two. Each is in there
    /// once.
    #[must_use]
    pub fn is_majority(&self, voters: &[&Name]) -> bool {
        let votes = |half: &Vec<Name>| voters.iter().filter(|name| half.contains(name)).count();
        self.halves().all(|half| votes(half) >= majority(half))
    }

    /// Whether `counts` are enough others for `me` to adopt from, after its memory was lost: of n
    /// witnesses with majority m, n - m + 1, so that every majority that `me` was part of has another
    /// member among them. Who has never been in the old half adopts from a majority of it.
    pub fn may_adopt(&self, me: &Name, counts: impl Fn(&Name) -> bool) -> bool {
        let others = |name: &Name| name != me && counts(name);
        if !self.members.contains(me) {
            return votes(&self.members, others) >= majority(&self.members);
        }
        let mut halves = self.halves().filter(|half| half.contains(me));
        halves.all(|half| votes(half, others) > half.len() - majority(half))
    }

    /// How many of those `among` others that hold this joint set know of it still, whichever witnesses of
    /// the old half forget it: all of those that leave, and of those that stay as many as the new half
    /// can be without.
    pub(super) fn spared(&self, among: &[&Name], holds: impl Fn(&Name) -> bool) -> usize {
        let count = |counts: &dyn Fn(&Name) -> bool| votes(among.iter().copied(), counts);
        let Some(joining) = &self.joining else { return count(&holds) };
        let old = |name: &Name| self.members.contains(name);
        let stays = |name: &Name| old(name) && joining.contains(name);
        let away = count(&|name| stays(name) && !holds(name));
        let forgets = joining.len().saturating_sub(majority(joining) + away);
        let staying = count(&|name| stays(name) && holds(name));
        count(&|name| holds(name) && !old(name)) + staying.saturating_sub(forgets)
    }

    /// Whether it may be left for the next one when these `among` all nodes hold it: every majority of them
    /// has one that does, whichever witnesses of the old half forget it.
    pub(super) fn may_be_left(&self, among: &[&Name], holds: impl Fn(&Name) -> bool) -> bool {
        let least_majority = among.len() / 2 + 1;
        self.spared(among, holds) + least_majority > among.len()
    }

    /// The joint set on the way from this one to other witnesses.
    #[must_use]
    pub fn joined_by(&self, members: &[Name]) -> Self {
        let joining = Some(members.to_vec());
        Self { number: self.number + 1, members: self.members.clone(), joining }
    }

    /// The set that is in force after this joint one.
    #[must_use]
    pub fn after(&self) -> Option<Self> {
        let members = self.joining.clone()?;
        Some(Self { number: self.number + 1, members, joining: None })
    }

    fn halves(&self) -> impl Iterator<Item = &Vec<Name>> {
        std::iter::once(&self.members).chain(self.joining.as_ref())
    }
}

fn majority(half: &[Name]) -> usize {
    half.len() / 2 + 1
}

fn votes<'a>(names: impl IntoIterator<Item = &'a Name>, counts: impl Fn(&Name) -> bool) -> usize {
    names.into_iter().filter(|name| counts(name)).count()
}

/// What every reply of a witness bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// The set under which it answers.
    pub set: SetMark,
    /// The generation that it belongs to.
    pub generation: u64,
    /// The life that it is in.
    pub standing: Standing,
    /// The newest lives of the others that it knows of.
    pub known: Standings,
}

/// Which of some replies count together under a set, and of which generation.
#[derive(Debug)]
pub(super) struct Count {
    set: SetMark,
    known: Standings,
    generation: u64,
    mutation: Mutation,
}

impl Count {
    /// Over replies of one generation; the others are passed over.
    pub(super) fn new<'b>(
        set: &WitnessSet,
        generation: u64,
        replies: impl Iterator<Item = (&'b Name, &'b Testimony)>,
        mutation: Mutation,
    ) -> Self {
        let mut known = Standings::new();
        let set = set.mark(mutation);
        for (name, reply) in replies.filter(|(_, reply)| reply.set == set) {
            let heeds =
                ![Mutation::DeadReplyCounted, Mutation::TwoProcessesTwoVotes].contains(&mutation);
            if reply.generation == generation && heeds {
                note(&mut known, &reply.known);
                let own = known.entry(name.clone()).or_default();
                *own = (*own).max(reply.standing);
            }
        }
        Self { set, known, generation, mutation }
    }

    /// Whether the reply counts.
    #[must_use]
    pub(super) fn holds(&self, name: &Name, reply: &Testimony) -> bool {
        let generation =
            reply.generation == self.generation || self.mutation == Mutation::GenerationsMixed;
        reply.set == self.set
            && generation
            && self.known.get(name).is_none_or(|newest| reply.standing >= *newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &str) -> Vec<Name> {
        names.split(' ').map(Name::from).collect()
    }

    fn set(members: &str, joining: Option<&str>) -> WitnessSet {
        WitnessSet { number: 1, members: names(members), joining: joining.map(names) }
    }

    fn among<'a>(who: &'a str) -> impl Fn(&Name) -> bool + 'a {
        move |name| who.split(' ').any(|other| other == name.as_str())
    }

    #[test]
    fn a_majority_is_more_than_half_of_each_half() {
        for (set, who, is) in [
            (set("a", None), "a", true),
            (set("a b c", None), "a", false),
            (set("a b c", None), "a c", true),
            (set("a b c", None), "a x", false),
            (set("a b c d e", None), "a b", false),
            (set("a b c d e", None), "a b e", true),
            (set("a b c", Some("c d e")), "a b", false),
            (set("a b c", Some("c d e")), "b c", false),
            (set("a b c", Some("c d e")), "b c d", true),
        ] {
            let voters = names(who);
            let voters: Vec<&Name> = voters.iter().collect();
            assert_eq!(set.is_majority(&voters), is, "{who} of {set:?}");
        }
    }

    #[test]
    fn sets_of_one_number_are_told_apart_by_who_is_in_them() {
        let mark = |members: &str, joining| set(members, joining).mark(Mutation::None);
        assert_eq!(mark("a b c", None), mark("c a b", None));
        let others = [("a b d", None), ("a b", None), ("ab c", None), ("a b c", Some("a b d"))];
        for (members, joining) in others {
            assert_ne!(mark(members, joining), mark("a b c", None), "{members} {joining:?}");
        }
        assert_ne!(mark("a b", Some("c")), mark("a", Some("b c")));
    }

    #[test]
    fn who_forgot_adopts_from_so_many_that_every_majority_is_met() {
        for (set, who, may) in [
            (set("a b c", None), "a b", false),
            (set("a b c", None), "b c", true),
            (set("a b c d e", None), "b c", false),
            (set("a b c d e", None), "b c d", true),
            (set("a", None), "b", false),
            (set("b c d", Some("a c d")), "b", false),
            (set("b c d", Some("a c d")), "b c", true),
        ] {
            assert_eq!(set.may_adopt(&"a".into(), among(who)), may, "{who} of {set:?}");
        }
    }

    #[test]
    fn former_witnesses_that_may_forget_are_no_memory() {
        for (old, new, holders, spared) in [
            ("a", "b", "a b", 1),
            ("a", "b", "a b c d", 3),
            ("a b c", "a b d", "a b d", 2),
            ("a b c", "a b d", "a b c d e", 3),
            ("a b c", "b c d", "a b c d", 2),
            ("a b c", "b d e", "a b d e", 2),
            ("a b c", "d e f", "a b c d e f", 3),
            ("a b c", "c", "a b c", 1),
        ] {
            let all = names("a b c d e f");
            let among: Vec<&Name> = all.iter().collect();
            let counted = set(old, Some(new)).spared(&among, self::among(holders));
            assert_eq!(counted, spared, "{old} to {new}, held by {holders}");
        }
    }

    /// Those of `a` to `f` that a mask has.
    fn of(mask: usize) -> Vec<Name> {
        ["a", "b", "c", "d", "e", "f"]
            .iter()
            .enumerate()
            .filter(|(bit, _)| mask & 1 << bit != 0)
            .map(|(_, name)| Name::from(*name))
            .collect()
    }

    fn can_change(nodes: usize, old: usize, new: usize) -> bool {
        let all = of((1 << nodes) - 1);
        let old = WitnessSet { number: 1, members: of(old), joining: None };
        old.joined_by(&of(new)).may_be_left(&all.iter().collect::<Vec<_>>(), |_| true)
    }

    #[test]
    fn one_witness_comes_goes_or_is_replaced_in_a_mesh_of_any_size() {
        let mut changes = 0;
        for nodes in 1..=6 {
            let sets = || 1_usize..1 << nodes;
            for (old, new) in sets().flat_map(|old| sets().map(move |new| (old, new))) {
                let (gone, come) = ((old & !new).count_ones(), (new & !old).count_ones());
                if gone <= 1 && come <= 1 {
                    assert!(can_change(nodes, old, new), "of {nodes}: {old:b} to {new:b}");
                    changes += 1;
                }
            }
        }
        assert!(changes > 1_000, "{changes}");
    }

    #[test]
    fn several_at_once_need_more_nodes() {
        for (old, new, needs) in [
            (0b111, 0b011_100, 6),
            (0b111, 0b111_000, 6),
            (0b111, 0b001, 4),
            (0b111, 0b001_000, 6),
            (0b001, 0b111, 3),
            (0b111, 0b11_111, 5),
            (0b11_111, 0b111, 6),
            (0b11_111, 0b111_110, 6),
        ] {
            let held = |nodes: usize| old | new < 1 << nodes;
            let least = (1..=6).find(|nodes| held(*nodes) && can_change(*nodes, old, new));
            assert_eq!(least, Some(needs), "{old:b} to {new:b}");
        }
    }

    /// Whoever of the former witnesses forgets, as long as most of the new ones do not: those who know nothing of
    /// the newer set are never a majority.
    #[test]
    fn once_a_joint_set_may_be_left_no_majority_knows_nothing_of_it() {
        let mut left = 0;
        for nodes in 1..=5_usize {
            let (all, masks) = (of((1 << nodes) - 1), || 0_usize..1 << nodes);
            let all: Vec<&Name> = all.iter().collect();
            for (old, new) in
                masks().skip(1).flat_map(|old| masks().skip(1).map(move |new| (old, new)))
            {
                let before = WitnessSet { number: 1, members: of(old), joining: None };
                let joint = before.joined_by(&of(new));
                for held in masks() {
                    let holders = of(held);
                    if !joint.may_be_left(&all, |name| holders.contains(name)) {
                        continue;
                    }
                    for forgotten in masks().filter(|forgotten| forgotten & !(old & held) == 0) {
                        let know = held & !forgotten;
                        let serve = (know & new).count_ones() > new.count_ones() / 2;
                        let ignorant = nodes - know.count_ones() as usize;
                        assert!(
                            !serve || ignorant <= nodes / 2,
                            "{old:b} to {new:b}, {know:b} know"
                        );
                        left += usize::from(serve);
                    }
                }
            }
        }
        assert!(left > 1_000, "{left}");
    }

    #[test]
    fn a_reply_from_a_life_that_is_over_does_not_count() {
        let life = |count| Standing { count, incarnation: Incarnation(count) };
        let reply = |standing, known: &[(&str, Standing)]| Testimony {
            set: set("a b c", None).mark(Mutation::None),
            generation: 9,
            standing,
            known: known.iter().map(|(name, life)| (Name::from(*name), *life)).collect(),
        };
        let set = set("a b c", None);
        let (a, b) = (Name::from("a"), Name::from("b"));
        let old = reply(life(1), &[]);
        let knowing = reply(life(1), &[("a", life(2))]);
        let both = [(&a, &old), (&b, &knowing)];
        let count = Count::new(&set, 9, both.into_iter(), Mutation::None);
        assert!(!count.holds(&a, &old) && count.holds(&b, &knowing));
        let alone = Count::new(&set, 9, [(&a, &old)].into_iter(), Mutation::None);
        assert!(alone.holds(&a, &old));
        let other = Count::new(&set, 8, [(&a, &old)].into_iter(), Mutation::None);
        assert!(!other.holds(&a, &old));
    }
}
