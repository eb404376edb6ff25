//! Telling issuers how far their purges are in force here, and asking those that did not say.
//!
//! Who has a purge has all that its source issued before it, so one word on the last stands for all:
//!
//! ```text
//!   records 17 18 .. 400  --> applied at once        --> Applied 400
//!   record  401           --> at once                --> Applied 401
//!   records 402 .. 460    --> within 5 ms of that    --> Applied 460, with the next one or the next tick
//! ```
//!
//! A word that got lost is said again when the issuer asks: its newest receipt names those who are
//! silent, and a beat that `asks` has them say how far they are.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Now;
use crate::replication::identity::{Identity, Name, Source};
use crate::replication::message::{Beat, Message};
use crate::replication::mutation::Mutation;

use super::{Replica, is_due};

/// Words to one issuer come no faster than this.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// A receipt this old should be complete: who is silent is asked, and asked again.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long they are asked. A node that is away for longer says so with the next purge.
const ASK_FOR: Duration = Duration::from_secs(30);

/// Nodes asked at once.
const ASKED: usize = 64;

/// What was said of late.
#[derive(Debug, Default)]
pub(super) struct Reports {
    told: BTreeMap<Source, Told>,
    asked: Option<Duration>,
}

#[derive(Debug)]
struct Told {
    at: Duration,
    /// Up to where it is to be said still.
    waits: Option<u64>,
}

impl Replica {
    /// A source's purges are in force here up to `sequence`, and it wants to know.
    pub(super) fn report(&mut self, source: &Source, sequence: u64, now: Now) {
        if let Some(told) = self.reports.told.get_mut(source)
            && now.boot.saturating_sub(told.at) < GATHERED_FOR
        {
            told.waits = Some(sequence);
            return;
        }
        self.reports.told.insert(source.clone(), Told { at: now.boot, waits: None });
        self.say_applied(source, sequence);
    }

    pub(super) fn tick_reports(&mut self, now: Now) {
        let mut due = Vec::new();
        self.reports.told.retain(|source, told| {
            due.extend(told.waits.take().map(|sequence| (source.clone(), sequence)));
            now.boot.saturating_sub(told.at) < GATHERED_FOR
        });
        due.iter().for_each(|(source, sequence)| self.say_applied(source, *sequence));
        if is_due(&mut self.reports.asked, ASK_EVERY, now) {
            self.ask_silent(now);
        }
    }

    /// A beat wants to know how far its sender's records are in force here.
    pub(super) fn answer_beat(&mut self, beat: &Beat) {
        let sequence = self.reached(&beat.source).sequence;
        if beat.asks && sequence > 0 {
            self.say_applied(&beat.source, sequence);
        }
    }

    fn say_applied(&mut self, source: &Source, sequence: u64) {
        let identity = Identity { source: source.clone(), sequence };
        self.send(&source.node, Message::Applied(identity));
    }

    /// Asks some of those who did not say that they have the newest purge whose receipt should be
    /// complete.
    fn ask_silent(&mut self, now: Now) {
        let Some(receipt) = self.issuer.due(ASK_EVERY, ASK_FOR, now) else { return };
        let roster = &self.settings.roster;
        if self.mutation == Mutation::AppliedOnce {
            return;
        }
        // By name and not by number: one that has left the roster may have said that it had it.
        let silent = |name: &&Name| !receipt.applied.contains_key(*name);
        let silent: Vec<Name> = roster.names().filter(silent).cloned().collect();
        if silent.is_empty() {
            return;
        }
        let first = self.dice.below(silent.len());
        let beat = Beat { asks: true, ..self.beat_now() };
        for name in silent.iter().cycle().skip(first).take(ASKED.min(silent.len())) {
            self.send(name, Message::Beat(beat.clone()));
        }
    }
}
