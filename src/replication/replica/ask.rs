//! Asking the witnesses, and reckoning the lease from what they answer.
//!
//! Questions are numbered and remembered with the moment they were sent. An answer that names
//! records which are missing here stays open until they are applied; then it counts from when its
//! question was sent, not from when that happened.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::Now;
use crate::replication::identity::{Incarnation, Name};
use crate::replication::lease::{Lease, Stamp};
use crate::replication::message::{Have, Message};
use crate::replication::mutation::Mutation;
use crate::replication::quorum::{Count, Standings, Testimony, WitnessSet, note};
use crate::replication::settings::{Action, ResetWhy};
use crate::replication::vector::Vector;

use super::{Replica, is_due};

/// Questions whose answers are waited for.
const QUESTIONS: usize = 8;

/// Answers of one witness that wait for records.
const OPEN: usize = 4;

/// A lease longer than this is not believed, whoever grants it.
const LEASE_MOST: Duration = Duration::from_millis(1_800);

/// Who answered. The incarnation is the same for all, except under a planted bug.
type Voter = (Name, Incarnation);

/// What was asked and answered.
#[derive(Debug)]
pub(super) struct Leasing {
    asked: Option<Duration>,
    number: u64,
    questions: VecDeque<(u64, Stamp)>,
    answers: BTreeMap<Voter, Answers>,
    relays: Vec<Relayed>,
    published: Option<Lease>,
    /// The lease that rests on witnesses' answers: the only one that a relay hands on.
    direct: Option<Lease>,
}

/// One witness's answers.
#[derive(Debug)]
struct Answers {
    newest: (Stamp, Testimony),
    /// The newest whose records are all applied.
    covered: Option<Covered>,
    open: Vec<(Covered, Vector)>,
}

#[derive(Clone, Debug)]
struct Covered {
    stamp: Stamp,
    testimony: Testimony,
    length: Duration,
}

/// One relay's answer.
#[derive(Debug)]
struct Relayed {
    stamp: Stamp,
    length: Duration,
    generation: u64,
    /// What must be applied before it counts.
    open: Option<Vector>,
}

impl Leasing {
    /// Questions are numbered from `draw` on: an answer to another process of this node is none to
    /// this one.
    pub(super) fn new(draw: u64) -> Self {
        Self {
            asked: None,
            number: draw / 2,
            questions: VecDeque::new(),
            answers: BTreeMap::new(),
            relays: Vec::new(),
            published: None,
            direct: None,
        }
    }

    pub(super) fn published(&self) -> Option<Lease> {
        self.published
    }

    /// Forgets all questions and answers: what they rest on is gone.
    pub(super) fn forget(&mut self) {
        self.questions.clear();
        self.answers.clear();
        self.relays.clear();
    }

    pub(super) fn forget_generations_but(&mut self, generation: u64) {
        self.answers.retain(|_, answers| answers.newest.1.generation == generation);
        self.relays.retain(|relay| relay.generation == generation);
    }

    fn stamp(&self, question: u64, now: Now, mutation: Mutation) -> Option<Stamp> {
        let (_, newest) = self.questions.back()?;
        let asked = match mutation {
            Mutation::QuestionNumberIgnored => Some(newest),
            _ => self.questions.iter().find(|(number, _)| *number == question).map(|(_, at)| at),
        };
        let stamp = asked.copied()?;
        Some(if mutation == Mutation::LeaseFromAnswer { Stamp::of(now) } else { stamp })
    }
}

impl Replica {
    pub(super) fn tick_lease(&mut self, now: Now) {
        if is_due(&mut self.leasing.asked, self.settings.ask_every, now) {
            self.ask(now);
        }
        self.reckon(now);
    }

    pub(super) fn hear_answer(
        &mut self,
        from: &Name,
        question: u64,
        testimony: Testimony,
        length: Duration,
        have: Have,
        now: Now,
    ) {
        let Some(stamp) = self.leasing.stamp(question, now, self.mutation) else { return };
        if testimony.set.number > self.witnesses().number {
            self.beat_to(from);
        }
        self.heed(from, &testimony, now);
        let open = match have {
            Have::Same => None,
            Have::Holding(holding) => {
                self.compare(from, &holding, now);
                Some(holding.vector)
            }
        };
        let voter = self.voter(from, &testimony);
        let newest = (stamp, testimony.clone());
        let fresh = || Answers { newest: newest.clone(), covered: None, open: Vec::new() };
        let answers = self.leasing.answers.entry(voter).or_insert_with(fresh);
        answers.newest = newest.clone();
        let covered = Covered { stamp, testimony, length: length.min(LEASE_MOST) };
        match open {
            None => answers.cover(covered),
            Some(vector) => answers.wait(covered, vector),
        }
        self.look_for_generation(now);
        self.reckon(now);
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one message")]
    pub(super) fn hear_relayed(
        &mut self,
        from: &Name,
        question: u64,
        age: Duration,
        length: Duration,
        generation: u64,
        have: Have,
        now: Now,
    ) {
        let age = if self.mutation == Mutation::RelayAgeForgotten { Duration::ZERO } else { age };
        let stamp = self.leasing.stamp(question, now, self.mutation);
        let Some(stamp) = stamp.and_then(|stamp| stamp.earlier(age)) else { return };
        if !self.is_own_pop(from) {
            return;
        }
        let mut theirs = Vector::default();
        let open = match have {
            Have::Same => None,
            Have::Holding(holding) => {
                self.compare(from, &holding, now);
                theirs = holding.vector.clone();
                Some(holding.vector)
            }
        };
        if self.generation != Some(generation) {
            // The relay is beyond a change that this node has not seen: what was stored before is
            // to be checked.
            self.change_generation(generation, Standings::new(), &theirs, now);
        }
        let length = length.min(LEASE_MOST);
        self.leasing.relays.truncate(OPEN);
        self.leasing.relays.insert(0, Relayed { stamp, length, generation, open });
        self.reckon(now);
    }

    /// Hands on what this node's own questions were answered with, to a node of its PoP.
    pub(super) fn answer_as_relay(&mut self, from: &Name, question: u64, digest: u128, now: Now) {
        let direct = self.leasing.direct.filter(|lease| lease.holds(now));
        let (Some(lease), Some(generation)) = (direct, self.generation) else { return };
        if !self.is_own_pop(from) {
            return;
        }
        let same = digest == self.vector.digest();
        let have = if same { Have::Same } else { Have::Holding(self.holding()) };
        let age = now.boot.saturating_sub(lease.asked.boot);
        let lease = lease.until.saturating_sub(lease.asked.boot);
        self.send(from, Message::Relayed { question, age, lease, generation, have });
    }

    /// Reckons the lease from what is covered by now, and publishes it.
    pub(super) fn reckon(&mut self, now: Now) {
        self.close_open(now);
        let direct = self.direct_lease(now);
        let relayed = self.leasing.relays.iter().filter(|relay| {
            relay.open.is_none()
                && Some(relay.generation) == self.generation
                && relay.stamp.is_trusted(now, self.mutation)
        });
        let relayed = relayed.map(|relay| Lease::new(relay.stamp, relay.length, self.mutation));
        let best = relayed.chain(direct).max_by_key(|lease| lease.until);
        let best = best.filter(|lease| lease.holds(now));
        self.leasing.direct = direct;
        if best != self.leasing.published {
            self.leasing.published = best;
            self.out.push(Action::Lease(best));
        }
    }

    /// Whose vote a reply is.
    pub(super) fn voter(&self, from: &Name, testimony: &Testimony) -> Voter {
        let twice = self.mutation == Mutation::TwoProcessesTwoVotes;
        (from.clone(), if twice { testimony.standing.incarnation } else { Incarnation(0) })
    }

    fn ask(&mut self, now: Now) {
        self.leasing.number += 1;
        let question = self.leasing.number;
        self.leasing.questions.push_back((question, Stamp::of(now)));
        if self.leasing.questions.len() > QUESTIONS {
            self.leasing.questions.pop_front();
        }
        let digest = self.vector.digest();
        let me = self.settings.me.clone();
        for (name, relay) in self.whom_to_ask(now) {
            if name == me {
                self.hear_question(&name, question, digest);
            } else {
                self.send(&name, Message::Ask { question, digest, relay });
            }
        }
    }

    /// The witnesses; or, where that is wanted and has worked so far, the relays of the own PoP. With
    /// each, whether it is asked as a relay.
    fn whom_to_ask(&self, now: Now) -> Vec<(Name, bool)> {
        let me = &self.settings.me;
        let holds = self.leasing.published.is_some_and(|lease| {
            lease.holds(now) && lease.until > now.boot + self.settings.ask_every
        });
        let relays: Vec<&Name> =
            self.settings.roster.beside(me).take(self.settings.relays).collect();
        let own = relays.contains(&me) || self.witnesses().contains(me);
        let through = self.settings.asks_relays() && !own;
        let direct = self.witnesses().everyone().filter(|_| !through || !holds);
        let relays = relays.into_iter().filter(|_| through).map(|name| (name.clone(), true));
        relays.chain(direct.map(|name| (name.clone(), false))).collect()
    }

    fn close_open(&mut self, now: Now) {
        let (vector, mutation) = (&self.vector, self.mutation);
        // Once the clocks have parted, a wall clock that is set back makes nothing good again.
        let trusted = |stamp: &Stamp| stamp.is_trusted(now, mutation);
        self.leasing.questions.retain(|(_, stamp)| trusted(stamp));
        self.leasing.relays.retain(|relay| trusted(&relay.stamp));
        for answers in self.leasing.answers.values_mut() {
            answers.covered.take_if(|covered| !trusted(&covered.stamp));
            answers.open.retain(|(answer, _)| trusted(&answer.stamp));
        }
        let covers = |theirs: &Vector| {
            mutation == Mutation::LeaseBeforeCatchUp || vector.covers(theirs, mutation)
        };
        for answers in self.leasing.answers.values_mut() {
            let (closed, open) = std::mem::take(&mut answers.open)
                .into_iter()
                .partition::<Vec<_>, _>(|(_, theirs)| covers(theirs));
            answers.open = open;
            answers
                .open
                .retain(|(answer, _)| now.boot.saturating_sub(answer.stamp.boot) < LEASE_MOST);
            closed.into_iter().for_each(|(answer, _)| answers.cover(answer));
        }
        for relay in &mut self.leasing.relays {
            relay.open.take_if(|theirs| covers(theirs));
        }
    }

    fn direct_lease(&self, now: Now) -> Option<Lease> {
        let generation = self.generation?;
        self.sets
            .values()
            .filter_map(|set| self.lease_under(set, generation, now))
            .max_by_key(|lease| lease.until)
    }

    /// The longest lease that a majority of `set` grants: its oldest question counts.
    fn lease_under(&self, set: &WitnessSet, generation: u64, now: Now) -> Option<Lease> {
        let answers = &self.leasing.answers;
        let covered = || {
            answers
                .iter()
                .filter_map(|((name, _), answers)| Some((name, answers.covered.as_ref()?)))
        };
        let newest = answers.iter().map(|((name, _), answers)| (name, &answers.newest.1));
        let replies = covered().map(|(name, covered)| (name, &covered.testimony)).chain(newest);
        let count = Count::new(set, generation, replies, self.mutation);
        let mut counted: Vec<(&Name, &Covered)> = covered()
            .filter(|(name, covered)| count.holds(name, &covered.testimony))
            .filter(|(_, covered)| covered.stamp.is_trusted(now, self.mutation))
            .collect();
        counted.sort_by_key(|(_, covered)| std::cmp::Reverse(covered.stamp.boot));
        let mut voters: Vec<&Name> = Vec::new();
        let mut length = LEASE_MOST;
        for (name, covered) in counted {
            voters.push(name);
            length = length.min(covered.length);
            if set.is_majority(&voters) {
                return Some(Lease::new(covered.stamp, length, self.mutation));
            }
        }
        None
    }

    /// The witnesses that have answered of late, each with its generation.
    pub(super) fn answering(&self, now: Now) -> BTreeMap<Name, u64> {
        let fresh = self
            .leasing
            .answers
            .iter()
            .filter(|(_, answers)| now.boot.saturating_sub(answers.newest.0.boot) < LEASE_MOST);
        fresh.map(|((name, _), answers)| (name.clone(), answers.newest.1.generation)).collect()
    }

    /// Goes over to another generation where a majority has just answered in it.
    fn look_for_generation(&mut self, now: Now) {
        let set = self.witnesses();
        let newest = || {
            self.leasing.answers.iter().filter_map(|((name, _), answers)| {
                let (stamp, testimony) = &answers.newest;
                let age = now.boot.saturating_sub(stamp.boot);
                (age < LEASE_MOST).then_some((name, testimony))
            })
        };
        let other = newest().map(|(_, testimony)| testimony.generation).find(|generation| {
            if Some(*generation) == self.generation {
                return false;
            }
            let count = Count::new(set, *generation, newest(), Mutation::None);
            let counted = newest().filter(|(name, reply)| count.holds(name, reply));
            let voters: Vec<&Name> = counted.map(|(name, _)| name).collect();
            set.is_majority(&voters)
        });
        let Some(generation) = other else { return };
        let mut known = Standings::new();
        for (name, testimony) in newest() {
            if testimony.generation == generation {
                note(&mut known, &testimony.known);
                note(&mut known, &Standings::from([(name.clone(), testimony.standing)]));
            }
        }
        let mut theirs = Vector::new(self.vector.retired());
        for answers in self.leasing.answers.values() {
            let level = |theirs: &&Vector| theirs.retired() == self.vector.retired();
            let open = answers.open.iter().map(|(_, vector)| vector).filter(level);
            open.for_each(|vector| theirs.merge(vector));
        }
        self.change_generation(generation, known, &theirs, now);
    }

    fn change_generation(&mut self, generation: u64, known: Standings, theirs: &Vector, now: Now) {
        if known.get(&self.settings.me).is_some_and(|newest| *newest > self.witness_standing()) {
            self.lose_standing(now);
        }
        self.leasing.forget_generations_but(generation);
        self.follow_generation(generation, known);
        self.reset(ResetWhy::Generation, theirs, now);
    }
}

impl Answers {
    fn cover(&mut self, answer: Covered) {
        let newer = self.covered.as_ref().is_none_or(|old| {
            old.testimony.generation != answer.testimony.generation
                || answer.stamp.boot >= old.stamp.boot
        });
        if newer {
            self.covered = Some(answer);
        }
    }

    fn wait(&mut self, answer: Covered, vector: Vector) {
        if self.open.len() >= OPEN {
            self.open.pop();
        }
        self.open.push((answer, vector));
    }
}
