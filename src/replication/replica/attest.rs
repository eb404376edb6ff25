//! Being a witness: acknowledging and answering, once the disk has what that rests on.
//!
//! A witness that serves never forgets, unless its process does; how one that did comes back is told
//! in `recover`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::clock::Now;
use crate::replication::disk::{Entry, Saved, State};
use crate::replication::identity::{Incarnation, Name, Source};
use crate::replication::message::{Beginning, Have, Holding, Message};
use crate::replication::mutation::Mutation;
use crate::replication::quorum::{Standing, Standings, Testimony, note};
use crate::replication::settings::{Action, Notice};
use crate::replication::vector::Mark;

use super::{Replica, is_due};

/// How often a witness without memory asks.
pub(super) const RECOVER_EVERY: Duration = Duration::from_millis(200);

/// How long another witness's word that it forgot is believed, and how long a generation is waited
/// for.
const FORGOTTEN_FOR: Duration = Duration::from_secs(3);

/// How long a witness that finds itself superseded leaves the field to the other process.
const STAND_BACK: Duration = Duration::from_secs(5);

/// How long a witness sees enough others and no majority in one generation before it gives up its
/// own life, so that a new generation can begin.
const STUCK_FOR: Duration = Duration::from_secs(6);

/// Messages that may wait for the disk.
const BEHIND_DISK: usize = 4_096;

/// A node as a witness.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) phase: Phase,
    pub(super) standing: Standing,
    pub(super) known: Standings,
    pub(super) beginning: Option<Beginning>,
    asked: Option<Duration>,
    /// When others asked to be noted.
    pub(super) recovering: BTreeMap<Name, Duration>,
    /// Since when no majority was seen in this witness's generation, although enough others were.
    stuck: Option<Duration>,
    tickets: u64,
    /// What is to be said once the disk has the ticket.
    behind: VecDeque<(u64, Vec<(Name, Message)>)>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Not in the set.
    Outside,
    /// Without memory.
    Recovering {
        since: Duration,
        replies: BTreeMap<Name, (Testimony, Holding)>,
        forgotten: BTreeMap<Name, (Standing, Duration)>,
    },
    /// A new generation that no majority has joined, as far as this node knows.
    Beginning { since: Duration, joined: BTreeSet<Name> },
    /// Counts.
    Serving,
}

impl Witness {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self {
            phase: Phase::Outside,
            standing: Standing { count: 1, incarnation },
            known: Standings::new(),
            beginning: None,
            asked: None,
            recovering: BTreeMap::new(),
            stuck: None,
            tickets: 0,
            behind: VecDeque::new(),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving)
    }

    pub(super) fn behind_disk(&self) -> usize {
        self.behind.iter().map(|(_, messages)| messages.len()).sum()
    }

    fn recover(&mut self, since: Duration) {
        let (replies, forgotten) = (BTreeMap::new(), BTreeMap::new());
        self.phase = Phase::Recovering { since, replies, forgotten };
        self.beginning = None;
    }
}

impl Replica {
    /// Goes on where the former process ended.
    pub(super) fn resume(&mut self, saved: Saved) {
        if let Some(set) = saved.set {
            self.sets.insert(set.number, set);
        }
        let Some(state) = saved.state else { return };
        self.vector = saved.vector;
        self.log = saved.log;
        self.fresh = false;
        self.generation = Some(state.generation);
        self.witness.standing = state.standing;
        self.witness.known = state.known;
        self.witness.phase = Phase::Serving;
        self.sets.insert(state.set.number, state.set);
    }

    /// Finds its place in the newest set.
    pub(super) fn enter_set(&mut self, now: Now) {
        self.inquiry = None;
        if !self.witnesses().contains(&self.settings.me) {
            self.witness.phase = Phase::Outside;
        } else if self.is_serving() {
            self.write_state();
        } else {
            self.witness.recover(now.boot);
        }
    }

    /// Is without memory from here on, as a process that has just begun.
    pub(super) fn lose_standing(&mut self, now: Now) {
        if self.is_serving() {
            self.inquiry = None;
            self.witness.standing.count += 1;
            self.witness.standing.incarnation = Incarnation(self.dice.next());
            self.witness.recover(now.boot);
        }
    }

    pub(super) fn hear_question(&mut self, from: &Name, question: u64, digest: u128) {
        if let Some(testimony) = self.testimony() {
            let same = digest == self.vector.digest();
            let have = if same { Have::Same } else { Have::Holding(self.holding()) };
            let lease = self.settings.lease;
            self.say(from, Message::Answer { question, testimony, lease, have });
        }
    }

    /// Looks at what a witness says of others' lives, and of this one's.
    pub(super) fn heed(&mut self, from: &Name, testimony: &Testimony, now: Now) {
        let same = Some(testimony.generation) == self.generation
            && testimony.set == self.witnesses().mark(self.mutation);
        if !same || !self.is_serving() {
            return;
        }
        let me = self.settings.me.clone();
        if testimony.known.get(&me).is_some_and(|newest| *newest > self.witness.standing) {
            self.notice(Notice::Superseded);
            self.lose_standing(now);
            self.witness.recover(now.boot + STAND_BACK);
            return;
        }
        if self.mutation == Mutation::RestartNotNoted {
            return;
        }
        note(&mut self.witness.known, &testimony.known);
        let own = Standings::from([(from.clone(), testimony.standing)]);
        note(&mut self.witness.known, &own);
        self.witness.known.remove(&me);
    }

    /// Goes over to a generation that a majority answers in. A reset follows, which writes it down.
    pub(super) fn follow_generation(&mut self, generation: u64, known: Standings) {
        self.generation = Some(generation);
        if self.is_serving() {
            self.witness.known = known;
            self.witness.known.remove(&self.settings.me.clone());
            self.witness.beginning = None;
        }
    }

    pub(super) fn tick_witness(&mut self, now: Now) {
        let (since, recovering) = match &mut self.witness.phase {
            Phase::Outside => return,
            Phase::Serving => return self.give_up_if_stuck(now),
            Phase::Recovering { since, forgotten, .. } => {
                forgotten.retain(|_, (_, at)| now.boot.saturating_sub(*at) < FORGOTTEN_FOR);
                (*since, true)
            }
            Phase::Beginning { since, .. } => (*since, false),
        };
        if now.boot < since || !is_due(&mut self.witness.asked, RECOVER_EVERY, now) {
            return;
        }
        if recovering {
            self.ask_to_recover();
            self.inquire(now);
            self.begin(now);
        } else if now.boot.saturating_sub(since) > FORGOTTEN_FOR {
            self.witness.recover(now.boot);
        } else {
            self.tell_beginning();
        }
    }

    /// Where witnesses serve in several generations and others have forgotten, no majority may come
    /// about any more. Then those who serve give up what they are, not what they know.
    fn give_up_if_stuck(&mut self, now: Now) {
        self.witness.recovering.retain(|_, at| now.boot.saturating_sub(*at) < FORGOTTEN_FOR);
        let set = self.witnesses();
        let me = &self.settings.me;
        let answering = self.answering(now);
        let with = |wanted: &dyn Fn(&Name) -> bool| -> bool {
            let names: Vec<&Name> = set.everyone().filter(|name| wanted(name)).collect();
            set.is_majority(&names)
        };
        let in_own = |name: &Name| {
            name == me || answering.get(name).is_some_and(|own| Some(*own) == self.generation)
        };
        let seen = |name: &Name| {
            name == me || answering.contains_key(name) || self.witness.recovering.contains_key(name)
        };
        if with(&in_own) || !with(&seen) {
            self.witness.stuck = None;
            return;
        }
        let since = *self.witness.stuck.get_or_insert(now.boot);
        if now.boot.saturating_sub(since) > STUCK_FOR {
            self.witness.stuck = None;
            self.notice(Notice::Superseded);
            self.lose_standing(now);
        }
    }

    /// The acknowledgement that is due to a source's issuer.
    pub(super) fn acknowledgement(&self, source: &Source) -> Option<(Name, Message)> {
        let (source, mark) = (source.clone(), self.vector.mark(source));
        let issuer = source.node.clone();
        Some((issuer, Message::Acknowledge { source, mark, testimony: self.testimony()? }))
    }

    /// Says again up to where it holds a source.
    pub(super) fn acknowledge(&mut self, source: &Source) {
        let messages = self.acknowledgement(source).into_iter().collect();
        self.write_down(Vec::new(), messages);
    }

    /// Says that it holds a source up to `mark`, which it does not.
    pub(super) fn acknowledge_as(&mut self, source: &Source, mark: Mark) {
        if let Some((issuer, Message::Acknowledge { source, testimony, .. })) =
            self.acknowledgement(source)
        {
            let message = Message::Acknowledge { source, mark, testimony };
            self.write_down(Vec::new(), vec![(issuer, message)]);
        }
    }

    /// Says up to where it holds everything, after a leap.
    pub(super) fn acknowledge_all(&mut self) {
        let sources: Vec<Source> = self.vector.marks().map(|(source, _)| source.clone()).collect();
        sources.iter().for_each(|source| self.acknowledge(source));
    }

    /// Has the disk keep `entries`, and says `messages` once it has.
    pub(super) fn write_down(&mut self, entries: Vec<Entry>, messages: Vec<(Name, Message)>) {
        if !self.is_serving() {
            return;
        }
        let early = self.mutation == Mutation::AcknowledgedBeforeDisk;
        let waits = self.settings.disk && !(entries.is_empty() && self.witness.behind.is_empty());
        if self.settings.disk && !entries.is_empty() {
            self.persist(entries);
        }
        let room = self.witness.behind_disk() < BEHIND_DISK;
        match self.witness.behind.back_mut() {
            Some((_, waiting)) if waits && !early => {
                if room {
                    waiting.extend(messages);
                }
            }
            _ => self.loop_back(messages),
        }
    }

    fn persist(&mut self, entries: Vec<Entry>) {
        self.witness.tickets += 1;
        let ticket = self.witness.tickets;
        self.out.push(Action::Persist { ticket, entries });
        match self.witness.behind.back_mut() {
            // Nothing waits for the ticket before: however slow the disk is, no more tickets
            // are kept than messages.
            Some((waiting, messages)) if messages.is_empty() => *waiting = ticket,
            _ => self.witness.behind.push_back((ticket, Vec::new())),
        }
    }

    pub(super) fn persisted(&mut self, ticket: u64) {
        while let Some((_, messages)) =
            self.witness.behind.pop_front_if(|(waiting, _)| *waiting <= ticket)
        {
            self.loop_back(messages);
        }
    }

    /// Says something that rests on what the disk must keep.
    pub(super) fn say(&mut self, to: &Name, message: Message) {
        let to = to.clone();
        match self.witness.behind.back_mut() {
            Some((_, waiting)) if waiting.len() < BEHIND_DISK => waiting.push((to, message)),
            Some(_) => {}
            None => self.loop_back(vec![(to, message)]),
        }
    }

    fn loop_back(&mut self, messages: Vec<(Name, Message)>) {
        for (to, message) in messages {
            if to == self.settings.me {
                self.changes.say_to_self(message);
            } else {
                self.send(&to, message);
            }
        }
    }

    pub(super) fn testimony(&self) -> Option<Testimony> {
        let generation = self.generation.filter(|_| self.is_serving())?;
        Some(Testimony {
            set: self.witnesses().mark(self.mutation),
            generation,
            standing: self.witness.standing,
            known: self.witness.known.clone(),
        })
    }

    pub(super) fn write_state(&mut self) {
        let state = self.state().into_iter().collect();
        self.write_down(state, Vec::new());
    }

    /// Has the disk keep the set of a node that does not answer under it.
    pub(super) fn write_set(&mut self) {
        if self.settings.disk && !self.is_serving() {
            let set = self.witnesses().clone();
            self.persist(vec![Entry::Set(set)]);
        }
    }

    /// As what it answers.
    pub(super) fn state(&self) -> Option<Entry> {
        let Testimony { generation, standing, known, .. } = self.testimony()?;
        let set = self.witnesses().clone();
        Some(Entry::State(State { set, generation, standing, known }))
    }
}
