//! Forgetting and recovering.
//!
//! ```text
//! Outside -- joins the set --> Recovering -- enough others tell --------------> Serving
//!                               |      ^                                          |
//!        a majority forgot, too '--> Beginning -- a majority has joined --------> '
//!                                      |                 (a new generation)
//!                                      '-- nobody came --> Recovering
//! ```
//!
//! A witness that serves never forgets, unless its process does. One that begins again without its
//! log is in a new life: it has the others note that life before they tell it what they have, so
//! that whatever its former life may still say counts no more beside theirs.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Now;
use crate::replication::identity::Name;
use crate::replication::message::{Beginning, Holding, Message, Recover};
use crate::replication::mutation::Mutation;
use crate::replication::quorum::{Count, Standing, Standings, Testimony, note};
use crate::replication::settings::{Notice, ResetWhy};
use crate::replication::vector::Vector;

use super::Replica;
use super::attest::{Phase, RECOVER_EVERY};

impl Replica {
    pub(super) fn hear_recover(&mut self, from: &Name, recover: &Recover, now: Now) {
        let set = self.witnesses();
        let same = recover.set == set.mark(self.mutation);
        if !same || !set.contains(from) {
            self.compare_sets(from, recover.set);
            return;
        }
        match &mut self.witness.phase {
            Phase::Recovering { forgotten, .. } => {
                forgotten.insert(from.clone(), (recover.standing, now.boot));
            }
            Phase::Serving => {
                self.witness.recovering.insert(from.clone(), now.boot);
                self.note_and_tell(from, recover.standing);
            }
            Phase::Outside | Phase::Beginning { .. } => {}
        }
    }

    pub(super) fn hear_adopt(
        &mut self,
        from: &Name,
        noted: Standing,
        testimony: Testimony,
        holding: Holding,
        now: Now,
    ) {
        let Phase::Recovering { replies, .. } = &mut self.witness.phase else { return };
        let own = &mut self.witness.standing;
        if noted > *own {
            let other = noted.incarnation != own.incarnation;
            own.count = noted.count + u64::from(other);
            replies.clear();
        } else if noted == *own {
            replies.insert(from.clone(), (testimony, holding));
            self.adopt(now);
        }
    }

    pub(super) fn hear_begin(&mut self, beginning: Beginning, now: Now) {
        let own = (self.settings.me.clone(), self.witness.standing);
        let asked = self.is_newest_set() || self.mutation == Mutation::JoinsUnasked;
        let fits = beginning.set == self.witnesses().mark(self.mutation)
            && beginning.members.contains(&own);
        if fits && matches!(self.witness.phase, Phase::Recovering { .. }) && asked {
            self.enter_beginning(beginning, now);
        }
    }

    pub(super) fn hear_joined(
        &mut self,
        from: &Name,
        beginning: &Beginning,
        settled: bool,
        now: Now,
    ) {
        if self.witness.beginning.as_ref() != Some(beginning) {
            return;
        }
        match &mut self.witness.phase {
            Phase::Beginning { joined, .. } => {
                joined.insert(from.clone());
                self.settle(now);
            }
            Phase::Serving if !settled && self.generation == Some(beginning.generation) => {
                let beginning = beginning.clone();
                self.say(from, Message::Joined { beginning, settled: true });
            }
            Phase::Serving | Phase::Outside | Phase::Recovering { .. } => {}
        }
    }

    fn note_and_tell(&mut self, from: &Name, standing: Standing) {
        let known = self.witness.known.get(from).copied().unwrap_or_default();
        let mut noted = known.max(standing);
        if self.mutation == Mutation::RestartNotNoted {
            noted = standing;
        } else if standing > known {
            self.witness.known.insert(from.clone(), standing);
            self.write_state();
        }
        if let Some(testimony) = self.testimony() {
            let holding = self.holding();
            self.say(from, Message::Adopt { noted, testimony, holding });
        }
    }

    pub(super) fn ask_to_recover(&mut self) {
        let set = self.witnesses();
        let recover = Recover { standing: self.witness.standing, set: set.mark(self.mutation) };
        let others: Vec<Name> = set.everyone().cloned().collect();
        for name in others {
            self.send(&name, Message::Recover(recover.clone()));
        }
    }

    /// Takes over what enough others have, if they do.
    fn adopt(&mut self, now: Now) {
        let Phase::Recovering { replies, .. } = &self.witness.phase else { return };
        let set = self.witnesses();
        let me = &self.settings.me;
        let testimonies = || replies.iter().map(|(name, (testimony, _))| (name, testimony));
        let enough = testimonies().map(|(_, testimony)| testimony.generation).find(|generation| {
            let count = Count::new(set, *generation, testimonies(), self.mutation);
            let counts = |name: &Name| {
                replies.get(name).is_some_and(|(testimony, _)| count.holds(name, testimony))
            };
            set.may_adopt(me, counts) || self.mutation == Mutation::OnePeerTrusted
        });
        let Some(generation) = enough else { return };
        let mut known = Standings::new();
        let mut holdings = Vec::new();
        for (name, (testimony, holding)) in replies {
            if testimony.generation == generation {
                note(&mut known, &testimony.known);
                let own = Standings::from([(name.clone(), testimony.standing)]);
                note(&mut known, &own);
                holdings.push((name.clone(), holding.clone()));
            }
        }
        known.remove(me);
        for (name, holding) in &holdings {
            self.compare(name, holding, now);
        }
        let mut merged = Vector::default();
        let level = |holding: &&Holding| holding.vector.retired() == self.vector.retired();
        let level: Vec<&Holding> =
            holdings.iter().map(|(_, holding)| holding).filter(level).collect();
        if level.len() < holdings.len() {
            // Some are a step of retirement behind: once they have taken it they answer again.
            if let Phase::Recovering { replies, .. } = &mut self.witness.phase {
                replies.clear();
            }
            return;
        }
        level.iter().for_each(|holding| merged.merge(&holding.vector));
        self.serve(generation, known, &merged, ResetWhy::FirstAdoption, now);
    }

    fn serve(
        &mut self,
        generation: u64,
        known: Standings,
        vector: &Vector,
        why: ResetWhy,
        now: Now,
    ) {
        self.generation = Some(generation);
        self.witness.known = known;
        self.witness.phase = Phase::Serving;
        self.leasing.forget_generations_but(generation);
        self.notice(Notice::Serving { generation });
        self.reset(why, vector, now);
    }

    /// Where a majority has forgotten, its first begins a new generation: of a set that is the newest, by
    /// the word of most nodes.
    pub(super) fn begin(&mut self, now: Now) {
        let Phase::Recovering { forgotten, since, .. } = &self.witness.phase else { return };
        let set = self.witnesses();
        let me = &self.settings.me;
        let alone = set.everyone().count() == 1;
        let patience = if alone { Duration::ZERO } else { 3 * RECOVER_EVERY };
        if now.boot < *since + patience {
            return;
        }
        let standing = |name: &Name| {
            if name == me { Some(self.witness.standing) } else { Some(forgotten.get(name)?.0) }
        };
        let members: Vec<(Name, Standing)> =
            set.everyone().filter_map(|name| Some((name.clone(), standing(name)?))).collect();
        let names: Vec<&Name> = members.iter().map(|(name, _)| name).collect();
        if names.first() != Some(&me) || !set.is_majority(&names) {
            return;
        }
        if !self.is_newest_set() {
            return self.tell_unconfirmed(now);
        }
        let set = set.mark(self.mutation);
        let generation = self.dice.next();
        self.enter_beginning(Beginning { generation, set, members }, now);
    }

    fn enter_beginning(&mut self, beginning: Beginning, now: Now) {
        let joined = BTreeSet::from([self.settings.me.clone()]);
        self.witness.phase = Phase::Beginning { since: now.boot, joined };
        self.witness.beginning = Some(beginning);
        self.tell_beginning();
        self.settle(now);
    }

    pub(super) fn tell_beginning(&mut self) {
        let Some(beginning) = self.witness.beginning.clone() else { return };
        let leads = beginning.members.first().is_some_and(|(name, _)| *name == self.settings.me);
        for (name, _) in &beginning.members {
            if leads {
                self.send(name, Message::Begin(beginning.clone()));
            }
            let beginning = beginning.clone();
            self.send(name, Message::Joined { beginning, settled: false });
        }
    }

    /// Counts once a majority has joined.
    fn settle(&mut self, now: Now) {
        let Phase::Beginning { joined, .. } = &self.witness.phase else { return };
        let joined: Vec<&Name> = joined.iter().collect();
        if !self.witnesses().is_majority(&joined) {
            return;
        }
        let Some(beginning) = self.witness.beginning.clone() else { return };
        let mut known: Standings = beginning.members.into_iter().collect();
        known.remove(&self.settings.me);
        let vector = self.vector.clone();
        self.serve(beginning.generation, known, &vector, ResetWhy::Generation, now);
    }
}
