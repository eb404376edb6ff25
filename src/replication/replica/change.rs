//! Slow changes: the set of witnesses, and sources that retire.
//!
//! ```text
//! set 4: a b c  -->  set 5: a b c and b c d, a majority of each needed  -->  set 6: b c d
//!                    '-- until all know of 5, more or less, and then a majority
//!                        of both answers under 5 (see `inquire`) --'
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Now;
use crate::replication::identity::{Name, Source};
use crate::replication::message::{Beat, Message};
use crate::replication::mutation::Mutation;
use crate::replication::quorum::{SetMark, Standing, WitnessSet};
use crate::replication::retire::{SOURCES_PER_STEP, Step};
use crate::replication::roster::Roster;
use crate::replication::settings::{Notice, TooFewForChange};
use crate::replication::vector::Mark;

use super::{Replica, SETS, is_due};

/// How often sources are looked through.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was heard of others, for changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    heard: BTreeMap<Name, Heard>,
    /// Since when a source is where it is, and nothing was heard of its life.
    quiet: BTreeMap<Source, (u64, Duration)>,
    looked: Option<Duration>,
    to_self: Vec<Message>,
}

#[derive(Debug)]
struct Heard {
    source: Source,
    set: SetMark,
}

impl Changes {
    pub(super) fn hear(&mut self, from: &Name, beat: &Beat, now: Now) {
        let heard = Heard { source: beat.source.clone(), set: beat.set };
        self.heard.insert(from.clone(), heard);
        if let Some((_, since)) = self.quiet.get_mut(&beat.source) {
            *since = now.boot;
        }
    }

    /// Forgets those who are in the mesh no more.
    fn keep(&mut self, roster: &Roster) {
        self.heard.retain(|name, _| roster.contains(name));
    }

    /// What a node has to say to itself: a witness asks itself, too.
    pub(super) fn say_to_self(&mut self, message: Message) {
        self.to_self.push(message);
    }
}

impl Replica {
    /// Hears what it has said to itself.
    pub(super) fn hear_self(&mut self, now: Now) {
        let me = self.settings.me.clone();
        for message in std::mem::take(&mut self.changes.to_self) {
            self.hear(&me, message, now);
        }
    }

    /// Others are in the mesh now.
    pub(super) fn enter_roster(&mut self, roster: Roster) {
        self.changes.keep(&roster);
        self.repair.keep(&roster);
        self.settings.roster = roster;
        self.inquiry = None;
    }

    /// The operator wants these witnesses: old and new together first, if those can be left again.
    pub(super) fn want_witnesses(&mut self, members: Vec<Name>, now: Now) {
        if !self.would_change(&members) {
            return;
        }
        if let Err(too_few) = self.may_change_to(&members) {
            return self.notice(Notice::ChangeRefused(too_few));
        }
        let joint = self.witnesses().joined_by(&members);
        let at_once = WitnessSet { number: joint.number, members, joining: None };
        let hasty = self.mutation == Mutation::SetChangedInOneStep;
        self.take_set(if hasty { &at_once } else { &joint }, now);
    }

    /// Whether these can become the witnesses, if they are not: a joint set that could never be left is
    /// not taken.
    ///
    /// # Errors
    /// There are too few nodes.
    pub fn may_change_to(&self, members: &[Name]) -> Result<(), TooFewForChange> {
        if !self.would_change(members) || self.mutation == Mutation::SetLeftForTooFew {
            return Ok(());
        }
        self.too_few_for(&self.witnesses().joined_by(members)).map_or(Ok(()), Err)
    }

    /// Whether a change would begin. None does before the last one has ended.
    fn would_change(&self, members: &[Name]) -> bool {
        let set = self.witnesses();
        set.joining.is_none() && set.members != members && !members.is_empty()
    }

    /// Whether even if all nodes held the joint set it could not be left.
    pub(super) fn too_few_for(&self, joint: &WitnessSet) -> Option<TooFewForChange> {
        let panel = self.settings.roster.panel();
        let (from, to) = (joint.members.clone(), joint.joining.clone()?);
        let too_few = TooFewForChange { from, to, nodes: panel.len() };
        (!joint.may_be_left(&panel, |_| true)).then_some(too_few)
    }

    pub(super) fn hear_set(&mut self, set: &WitnessSet, now: Now) {
        if set.number > self.witnesses().number && !set.members.is_empty() {
            self.take_set(set, now);
        }
    }

    /// Compares the set that another node holds with the newest one here. One with a lower number is
    /// told of it. One with the same number and others in it was told another: neither takes over the
    /// other's, for that would be a change in one step.
    pub(super) fn compare_sets(&mut self, from: &Name, theirs: SetMark) {
        let own = self.witnesses();
        if theirs.number < own.number {
            let set = own.clone();
            self.send(from, Message::Witnesses(set));
            return;
        }
        let other = theirs.number == own.number && theirs != own.mark(self.mutation);
        let known = self.changes.heard.get(from).is_some_and(|heard| heard.set == theirs);
        if other && !known {
            self.notice(Notice::OtherWitnesses { node: from.clone(), number: theirs.number });
        }
    }

    pub(super) fn beat_to(&mut self, to: &Name) {
        let beat = self.beat_now();
        self.send(to, Message::Beat(beat));
    }

    pub(super) fn witness_standing(&self) -> Standing {
        self.witness.standing()
    }

    pub(super) fn tick_changes(&mut self, now: Now) {
        if !is_due(&mut self.changes.looked, LOOK_EVERY, now) || !self.is_serving() {
            return;
        }
        if self.witnesses().joining.is_some() {
            self.inquire(now);
            self.finish_change(now);
        }
        self.retire_sources(now);
    }

    pub(super) fn take_set(&mut self, set: &WitnessSet, now: Now) {
        self.notice(Notice::Witnesses { number: set.number });
        let tell: Vec<Name> = set.everyone().cloned().collect();
        self.sets.insert(set.number, set.clone());
        while self.sets.len() > SETS {
            self.sets.pop_first();
        }
        self.enter_set(now);
        self.write_set();
        for name in tell {
            self.send(&name, Message::Witnesses(set.clone()));
        }
    }

    /// The first witness retires sources of lives that are over and have long been silent.
    fn retire_sources(&mut self, now: Now) {
        let first = self.witnesses().members.first() == Some(&self.settings.me);
        if !first || self.vector.len() <= self.settings.sources {
            self.changes.quiet.clear();
            return;
        }
        let quiet = &mut self.changes.quiet;
        quiet.retain(|source, (sequence, _)| self.vector.mark(source).sequence == *sequence);
        for (source, mark) in self.vector.marks() {
            quiet.entry(source.clone()).or_insert((mark.sequence, now.boot));
        }
        let ended = |source: &Source| {
            let heard = self.changes.heard.get(&source.node);
            let gone = !self.settings.roster.contains(&source.node);
            *source != self.issuer.source
                && (gone || heard.is_some_and(|heard| heard.source != *source))
        };
        let after = self.settings.retire_after;
        let silent = self.changes.quiet.iter().filter(|(source, (_, since))| {
            now.boot.saturating_sub(*since) >= after && ended(source)
        });
        let retired: Vec<(Source, Mark)> = silent
            .map(|(source, _)| (source.clone(), self.vector.mark(source)))
            .take(SOURCES_PER_STEP)
            .collect();
        if !retired.is_empty() {
            let step = Step::new(&self.vector, retired, self.dice.next());
            self.take_step(step);
        }
    }
}
