//! One node of the mesh: events and `now` in, actions out.
//!
//! Which part does what:
//!
//! | `issue` | numbers this node's purges, sends them out, counts acknowledgements, keeps receipts |
//! | `receive` | takes records in, in order, once |
//! | `repair` | notices what is missing, asks for it, and resets where it can't be had |
//! | `report` | tells issuers how far their purges are in force here, and asks for that |
//! | `attest` | acknowledges and answers as a witness |
//! | `recover` | brings a witness back that forgot; begins a new generation |
//! | `ask` | asks the witnesses and reckons the lease |
//! | `inquire` | asks all whether they know a newer set of witnesses |
//! | `change` | changes the set of witnesses; retires sources |

mod ask;
mod attest;
mod change;
mod inquire;
mod issue;
mod receive;
mod recover;
mod repair;
mod report;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::Now;

use super::disk::Entry;
use super::identity::{Identity, Incarnation, Name, Source};
use super::lease::Lease;
use super::log::Log;
use super::message::{Holding, Message};
use super::mutation::Mutation;
use super::quorum::WitnessSet;
use super::retire::Step;
use super::settings::{Action, Event, Notice, Reset, ResetWhy, Settings, Start};
use super::vector::{Mark, Vector};

use ask::Leasing;
use attest::Witness;
use change::Changes;
use inquire::Inquiry;
use issue::Issuer;
pub use issue::{NodeState, Receipt, Refusal, T as PROMISE};
use receive::Waiting;
use repair::Repair;
use report::Reports;

/// Steps of retirement that are remembered, so that late records of who left are known as such.
const STEPS: usize = 8;

/// Witness sets that are remembered: replies under an older one still count for what they were
/// asked for.
const SETS: usize = 3;

/// One node of the mesh.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    mutation: Mutation,
    vector: Vector,
    log: Log,
    waiting: Waiting,
    steps: VecDeque<Step>,
    /// By number; the last one is the newest.
    sets: BTreeMap<u64, WitnessSet>,
    generation: Option<u64>,
    /// Whether nothing was ever taken over from others.
    fresh: bool,
    issuer: Issuer,
    repair: Repair,
    reports: Reports,
    witness: Witness,
    leasing: Leasing,
    changes: Changes,
    inquiry: Option<Inquiry>,
    dice: Dice,
    out: Vec<Action>,
}

/// Numbers for tests and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Sources in the vector.
    pub sources: usize,
    /// Records in the log.
    pub log_records: usize,
    /// Bytes of them.
    pub log_bytes: usize,
    /// Records that wait for those before them.
    pub waiting: usize,
    /// Receipts.
    pub receipts: usize,
    /// Messages that wait for the disk.
    pub behind_disk: usize,
}

impl Replica {
    /// A node that starts. `draw` is random: it becomes the incarnation.
    #[must_use]
    pub fn new(settings: Settings, start: Start, mutation: Mutation, draw: u64, now: Now) -> Self {
        let mut dice = Dice(draw);
        let incarnation = Incarnation(dice.next());
        let source = Source { incarnation, node: settings.me.clone() };
        let first = settings.witnesses.clone();
        let mut replica = Self {
            mutation,
            vector: Vector::default(),
            log: Log::new(settings.log_records, settings.log_bytes),
            waiting: Waiting::default(),
            steps: VecDeque::new(),
            sets: BTreeMap::from([(first.number, first)]),
            generation: None,
            fresh: true,
            issuer: Issuer::new(source, &settings, now),
            repair: Repair::default(),
            reports: Reports::default(),
            witness: Witness::new(incarnation),
            leasing: Leasing::new(dice.next()),
            changes: Changes::default(),
            inquiry: None,
            dice,
            out: Vec::new(),
            settings,
        };
        if let Start::Saved(saved) = start {
            replica.resume(*saved);
        }
        replica.enter_set(now);
        replica
    }

    /// Something has happened. `draw` is random.
    pub fn handle(&mut self, event: Event, draw: u64, now: Now) -> Vec<Action> {
        self.dice = Dice(draw);
        match event {
            Event::Tick => self.tick(now),
            Event::Message { from, message } => self.hear(&from, message, now),
            Event::Persisted { ticket } => self.persisted(ticket),
            Event::Roster(roster) => self.enter_roster(roster),
            Event::Witnesses(members) => self.want_witnesses(members, now),
        }
        self.hear_self(now);
        std::mem::take(&mut self.out)
    }

    /// What it has applied.
    #[must_use]
    pub fn vector(&self) -> &Vector {
        &self.vector
    }

    /// Whether it has applied this purge.
    #[must_use]
    pub fn has_applied(&self, identity: &Identity) -> bool {
        self.reached(&identity.source).sequence >= identity.sequence
    }

    /// The lease last published.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.leasing.published()
    }

    /// The newest set of witnesses that it knows.
    #[must_use]
    pub fn witnesses(&self) -> &WitnessSet {
        self.sets.last_key_value().map_or(&self.settings.witnesses, |(_, set)| set)
    }

    /// The generation of witnesses that it goes by.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Whether it counts as a witness now.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.witness.is_serving()
    }

    /// How much it holds.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            sources: self.vector.len(),
            log_records: self.log.len(),
            log_bytes: self.log.bytes(),
            waiting: self.waiting.len(),
            receipts: self.issuer.receipts(),
            behind_disk: self.witness.behind_disk(),
        }
    }

    fn hear(&mut self, from: &Name, message: Message, now: Now) {
        match message {
            Message::Record { record, pass_on } => self.hear_record(from, &record, pass_on, now),
            Message::Records(records) => self.hear_records(from, records, now),
            Message::Beat(beat) => self.hear_beat(from, &beat, now),
            Message::Vector(holding) => self.compare(from, &holding, now),
            Message::Compare => self.say_holding(from),
            Message::Want(ranges) => self.hear_want(from, &ranges),
            Message::Beyond(holding) => self.hear_beyond(from, &holding, now),
            Message::Acknowledge { source, mark, testimony } => {
                self.hear_acknowledgement(from, &source, mark, testimony, now);
            }
            Message::Ask { question, digest, relay: true } => {
                self.answer_as_relay(from, question, digest, now);
            }
            Message::Ask { question, digest, relay: false } => {
                self.hear_question(from, question, digest);
            }
            Message::Answer { question, testimony, lease, have } => {
                self.hear_answer(from, question, testimony, lease, have, now);
            }
            Message::Relayed { question, age, lease, generation, have } => {
                self.hear_relayed(from, question, age, lease, generation, have, now);
            }
            Message::Recover(recover) => self.hear_recover(from, &recover, now),
            Message::Adopt { noted, testimony, holding } => {
                self.hear_adopt(from, noted, testimony, holding, now);
            }
            Message::Begin(beginning) => self.hear_begin(beginning, now),
            Message::Joined { beginning, settled } => {
                self.hear_joined(from, &beginning, settled, now);
            }
            Message::Applied(identity) => self.hear_applied(from, &identity, now),
            Message::Conflict(identity) => self.hear_conflict(&identity),
            Message::Witnesses(set) => self.hear_set(&set, now),
            Message::Hold { question, set } => self.hear_hold(from, question, &set, now),
            Message::Holds { question, set, testimony } => {
                self.hear_holds(from, question, set, testimony, now);
            }
        }
    }

    fn tick(&mut self, now: Now) {
        self.tick_issuer(now);
        self.tick_repair(now);
        self.tick_reports(now);
        self.tick_witness(now);
        self.tick_lease(now);
        self.tick_changes(now);
    }

    fn send(&mut self, to: &Name, message: Message) {
        if *to != self.settings.me {
            self.out.push(Action::Send { to: to.clone(), message });
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.out.push(Action::Notice(notice));
    }

    /// What it has, for others.
    fn holding(&self) -> Holding {
        Holding { vector: self.vector.clone(), step: self.steps.back().cloned() }
    }

    /// Writes the row over everything and takes over `theirs`: what was missed is covered by it.
    fn reset(&mut self, why: ResetWhy, theirs: &Vector, now: Now) {
        let silent = self.mutation == Mutation::JumpWithoutReset && why == ResetWhy::LogTruncated
            || self.mutation == Mutation::GenerationWithoutReset && why == ResetWhy::Generation;
        if !silent {
            let check = self.mutation != Mutation::SoftReset;
            self.out.push(Action::Reset(Reset { why, check }));
        }
        self.fresh = false;
        for (source, mark) in theirs.marks() {
            if *mark > self.vector.mark(source) && *source != self.issuer.source {
                self.move_mark(source, *mark);
            }
        }
        self.write_leap();
        self.acknowledge_all();
        self.reckon(now);
    }

    /// Has the disk keep what was leapt to, and as what this witness answers from here on: in this order,
    /// so that a log which ends in between knows more than it stands for, and never less.
    fn write_leap(&mut self) {
        let mut entries = vec![Entry::Vector(self.vector.clone())];
        entries.extend(self.state());
        if self.mutation == Mutation::StateBeforeVector {
            entries.reverse();
        }
        self.write_down(entries, Vec::new());
    }

    /// Moves a mark past records that are not here.
    fn move_mark(&mut self, source: &Source, mark: Mark) {
        self.vector.set(source, mark);
        self.log.forget(source);
        self.waiting.forget(source);
        self.repair.arrived(source);
    }

    /// Up to where the records of a source have had their effect here: as the vector says, or, of one
    /// that left it, as the step says with which it left.
    fn reached(&self, source: &Source) -> Mark {
        let mark = self.vector.mark(source);
        let ended = self.steps.iter().flat_map(|step| &step.ended);
        let left = ended.filter(|(other, _)| other == source).map(|(_, mark)| *mark).max();
        left.map_or(mark, |left| left.max(mark))
    }

    fn is_own_pop(&self, name: &Name) -> bool {
        let pop = |name| self.settings.roster.pop(name);
        pop(name).is_some_and(|own| Some(own) == pop(&self.settings.me))
    }
}

/// Random draws stretched from one that was handed in (SplitMix64).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `count`, which is not 0.
    fn below(&mut self, count: usize) -> usize {
        let drawn = self.next() % u64::try_from(count).unwrap_or(u64::MAX).max(1);
        usize::try_from(drawn).unwrap_or(0)
    }
}

/// Whether `every` has passed since `last`, which is then moved.
fn is_due(last: &mut Option<Duration>, every: Duration, now: Now) -> bool {
    let due = last.is_none_or(|last| now.boot.saturating_sub(last) >= every);
    if due {
        *last = Some(now.boot);
    }
    due
}

#[cfg(test)]
mod tests;
