//! Noticing what is missing, and getting it.
//!
//! Spreading is at once and may lose; repair is what makes it whole. Whatever a peer says of what it
//! has (a beat, a vector, an answer to a question about the lease) is compared, and what is missing
//! here is asked for, one question per source at a time. What is in nobody's log any more can't be
//! had: then everything is reset.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Now;
use crate::replication::disk::Entry;
use crate::replication::identity::{Name, Source};
use crate::replication::log::Piece;
use crate::replication::message::{Beat, Holding, Message, Range};
use crate::replication::mutation::Mutation;
use crate::replication::retire::{Catch, Step, catch};
use crate::replication::roster::Roster;
use crate::replication::settings::{Notice, ResetWhy};
use crate::replication::vector::{Mark, Vector};

use super::{Replica, STEPS, is_due};

/// One of so many beats compares whole vectors even where the digests are equal.
const COMPARE_ALL_THE_SAME: u64 = 16;

/// Ranges in one question.
const RANGES: usize = 256;

/// What is being asked for.
#[derive(Debug, Default)]
pub(super) struct Repair {
    wants: BTreeMap<Source, Wanted>,
    /// Comparisons so far that found something missing.
    rounds: u64,
    compared: BTreeMap<Name, Duration>,
    beaten: Option<Duration>,
}

#[derive(Debug)]
struct Wanted {
    /// When it was asked for last; `None` when something has come since.
    asked: Option<Duration>,
    /// Up to where somebody has records.
    goal: u64,
    /// The comparison that it was asked for after. One question has room for some sources, one answer
    /// for some records: with the answer, the rest of its round is asked for.
    round: u64,
}

impl Repair {
    /// Something of this source has come.
    pub(super) fn arrived(&mut self, source: &Source) {
        if let Some(wanted) = self.wants.get_mut(source) {
            wanted.asked = None;
        }
    }

    pub(super) fn clear(&mut self) {
        self.wants.clear();
    }

    /// Forgets when those were asked who are in the mesh no more.
    pub(super) fn keep(&mut self, roster: &Roster) {
        self.compared.retain(|name, _| roster.contains(name));
    }

    /// Notes what is missing of a source, and whether it is to be asked for now.
    fn note(&mut self, source: &Source, goal: u64, every: Duration, now: Now) -> bool {
        let fresh = Wanted { asked: None, goal, round: self.rounds };
        let wanted = self.wants.entry(source.clone()).or_insert(fresh);
        wanted.goal = wanted.goal.max(goal);
        let due = wanted.asked.is_none_or(|asked| now.boot.saturating_sub(asked) >= every);
        if due {
            wanted.round = self.rounds;
        }
        due
    }
}

impl Replica {
    pub(super) fn hear_beat(&mut self, from: &Name, beat: &Beat, now: Now) {
        self.compare_sets(from, beat.set);
        self.changes.hear(from, beat, now);
        self.answer_beat(beat);
        if beat.source != self.issuer.source {
            self.want(from, &beat.source, beat.mark.sequence, now);
        }
        let differs = beat.digest != half(self.vector.digest());
        if differs || self.dice.next().is_multiple_of(COMPARE_ALL_THE_SAME) {
            self.ask_holding(from, now);
        }
    }

    /// Records that somebody has and this node has not, as far as it knows.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let wants = self.repair.wants.iter();
        wants
            .map(|(source, wanted)| wanted.goal.saturating_sub(self.reached(source).sequence))
            .sum()
    }

    pub(super) fn say_holding(&mut self, to: &Name) {
        let holding = self.holding();
        self.send(to, Message::Vector(holding));
    }

    /// Looks at what a peer has, and asks for what is missing here.
    pub(super) fn compare(&mut self, from: &Name, holding: &Holding, now: Now) {
        if !self.catch_up_steps(holding, now) {
            return;
        }
        if self.fresh {
            self.reset(ResetWhy::FirstAdoption, &holding.vector, now);
        }
        self.take_back(&holding.vector);
        let mut missing = Vec::new();
        let mut conflict = false;
        for (source, mark) in holding.vector.marks() {
            let own = self.vector.mark(source);
            if *source == self.issuer.source {
                if *mark > own {
                    self.be_reborn();
                }
            } else if mark.sequence > own.sequence {
                missing.push((source, mark.sequence));
            } else {
                conflict |= mark.sequence == own.sequence && *mark > own;
            }
        }
        if conflict {
            self.reset(ResetWhy::Conflict, &holding.vector, now);
        } else {
            self.want_all(from, &missing, now);
        }
    }

    /// A peer still has, or has again, sources that left the vector here: what they issued had its
    /// effect, so the vector may say so again.
    fn take_back(&mut self, theirs: &Vector) {
        let behind = |(source, mark): &(&Source, &Mark)| {
            *source != &self.issuer.source && self.vector.mark(source).sequence < mark.sequence
        };
        let left = theirs.marks().filter(behind).map(|(source, _)| source);
        let left: Vec<(Source, Mark)> = left
            .map(|source| (source.clone(), self.reached(source)))
            .filter(|(source, mark)| *mark > self.vector.mark(source))
            .collect();
        if left.is_empty() {
            return;
        }
        for (source, mark) in &left {
            self.move_mark(source, *mark);
        }
        self.write_down(vec![Entry::Vector(self.vector.clone())], Vec::new());
    }

    /// Asks for the records of a source up to `goal`, as far as they are missing.
    pub(super) fn want(&mut self, from: &Name, source: &Source, goal: u64, now: Now) {
        self.want_all(from, &[(source, goal)], now);
    }

    /// Asks for what is missing of some sources, each with its goal: as much as a question has room
    /// for, unless it was asked for just now.
    fn want_all(&mut self, from: &Name, missing: &[(&Source, u64)], now: Now) {
        self.repair.rounds += 1;
        let mut ranges = Vec::new();
        for (source, goal) in missing {
            let after = self.reached(source).sequence;
            if *goal > after && self.repair.note(source, *goal, self.settings.ask_again, now) {
                ranges.push(Range { source: (*source).clone(), after });
            }
        }
        self.ask_for(from, ranges, now);
    }

    /// Goes on asking where an answer has ended: for the rest of its sources, and for those of the
    /// same round that it had no room for.
    pub(super) fn want_rest(&mut self, from: &Name, sources: &[Source], now: Now) {
        let of = sources.iter().filter_map(|source| self.repair.wants.get(source));
        let rounds: BTreeSet<u64> = of.map(|wanted| wanted.round).collect();
        let rest = self.repair.wants.iter().filter(|(_, wanted)| rounds.contains(&wanted.round));
        let ranges = rest.filter_map(|(source, wanted)| {
            let after = self.reached(source).sequence;
            (wanted.goal > after).then(|| Range { source: source.clone(), after })
        });
        self.ask_for(from, ranges.take(RANGES).collect(), now);
    }

    fn ask_for(&mut self, from: &Name, mut ranges: Vec<Range>, now: Now) {
        ranges.truncate(RANGES);
        for range in &ranges {
            if let Some(wanted) = self.repair.wants.get_mut(&range.source) {
                wanted.asked = Some(now.boot);
            }
        }
        if !ranges.is_empty() {
            self.send(from, Message::Want(ranges));
        }
    }

    pub(super) fn hear_want(&mut self, from: &Name, ranges: &[Range]) {
        let mut batch = Vec::new();
        let mut beyond = false;
        let mut room = self.settings.batch_bytes;
        for range in ranges {
            let mark = self.vector.mark(&range.source);
            let left = self.settings.batch_records.saturating_sub(batch.len());
            if mark.sequence <= range.after || left == 0 || room == 0 {
                continue;
            }
            match self.log.after(&range.source, range.after, left, room) {
                Piece::Records(records) => {
                    let bytes: usize = records.iter().map(|record| record.wire_bytes()).sum();
                    room = room.saturating_sub(bytes);
                    batch.extend(records);
                }
                Piece::Gone => beyond = true,
            }
        }
        if !batch.is_empty() {
            self.send(from, Message::Records(batch));
        }
        if beyond {
            let holding = self.holding();
            self.send(from, Message::Beyond(holding));
        }
    }

    /// What was asked for is gone. Somebody else may have it still; but who knows who: everything
    /// that is covered there is taken over, and all that is stored is to be checked.
    pub(super) fn hear_beyond(&mut self, from: &Name, holding: &Holding, now: Now) {
        if !self.catch_up_steps(holding, now) {
            return;
        }
        let ahead = |(source, mark): (&Source, &_)| {
            *source != self.issuer.source && *mark > self.vector.mark(source)
        };
        if holding.vector.marks().any(ahead) {
            self.reset(ResetWhy::LogTruncated, &holding.vector, now);
        }
        self.compare(from, holding, now);
    }

    pub(super) fn tick_repair(&mut self, now: Now) {
        self.waiting.tire(now);
        let vector = &self.vector;
        self.repair.wants.retain(|source, wanted| vector.mark(source).sequence < wanted.goal);
        if is_due(&mut self.repair.beaten, self.settings.beat_every, now) {
            self.beat();
        }
    }

    /// Takes the steps of retirement that a peer has taken. Says whether both are at the same then.
    fn catch_up_steps(&mut self, holding: &Holding, now: Now) -> bool {
        let theirs = holding.vector.retired();
        if self.fresh && theirs > self.vector.retired() {
            self.vector.set_retired(theirs);
            self.steps = holding.step.iter().cloned().collect();
            return true;
        }
        let step = holding.step.as_ref();
        let what = match catch(&self.vector, theirs, step) {
            Catch::Reset if self.mutation == Mutation::RetiredForgotten => Catch::Along,
            what => what,
        };
        match (what, step) {
            (Catch::Nothing, _) => true,
            (Catch::Behind, _) => false,
            (Catch::Along, Some(step)) => {
                self.take_step(step.clone());
                true
            }
            (Catch::Reset, Some(step)) => {
                self.reset(ResetWhy::Retired, &step.ended.iter().cloned().collect(), now);
                self.take_step(step.clone());
                true
            }
            (Catch::Forget | Catch::Along | Catch::Reset, _) => {
                self.forget(holding, now);
                true
            }
        }
    }

    pub(super) fn take_step(&mut self, step: Step) {
        step.take(&mut self.vector);
        for (source, _) in &step.ended {
            if self.vector.mark(source).sequence == 0 {
                self.log.forget(source);
                self.waiting.forget(source);
                if *source == self.issuer.source {
                    self.be_reborn();
                }
            }
        }
        self.notice(Notice::Retired { sources: step.ended.len() });
        self.steps.push_back(step);
        if self.steps.len() > STEPS {
            self.steps.pop_front();
        }
        let vector = self.vector.clone();
        self.write_down(vec![Entry::Vector(vector)], Vec::new());
    }

    /// Begins anew from what a peer has: this node can't tell what left since.
    fn forget(&mut self, holding: &Holding, now: Now) {
        self.log.clear();
        self.waiting.clear();
        self.repair.clear();
        self.leasing.forget();
        self.lose_standing(now);
        self.be_reborn();
        self.vector = Vector::new(holding.vector.retired());
        self.steps = holding.step.iter().cloned().collect();
        self.reset(ResetWhy::Retired, &holding.vector, now);
    }

    fn ask_holding(&mut self, from: &Name, now: Now) {
        let asked = self.repair.compared.entry(from.clone()).or_default();
        let wait = self.settings.ask_again;
        if *asked == Duration::ZERO || now.boot.saturating_sub(*asked) >= wait {
            *asked = now.boot;
            self.send(from, Message::Compare);
        }
    }

    fn beat(&mut self) {
        let me = &self.settings.me;
        let roster = &self.settings.roster;
        let near = roster.near(me, |others| self.dice.below(others));
        let far = roster.far(me, |others| self.dice.below(others));
        let mut to: Vec<Name> = [near, far].into_iter().flatten().cloned().collect();
        if self.witnesses().contains(&self.settings.me) {
            to.extend(self.witnesses().everyone().cloned());
        }
        to.sort_unstable();
        to.dedup();
        let beat = self.beat_now();
        to.iter().for_each(|name| self.send(name, Message::Beat(beat.clone())));
    }
}

impl Replica {
    pub(super) fn beat_now(&self) -> Beat {
        Beat {
            source: self.issuer.source.clone(),
            mark: self.vector.mark(&self.issuer.source),
            digest: half(self.vector.digest()),
            set: self.witnesses().mark(self.mutation),
            asks: false,
        }
    }
}

fn half(digest: u128) -> u64 {
    u64::try_from(digest >> 64).unwrap_or(0)
}
