//! Taking records in: in order, each once.
//!
//! A record that comes before its predecessors waits for them. One whose number is known is either
//! the same, then it changes nothing, or another, then it is refused and its issuer told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::replication::disk::Entry;
use crate::replication::identity::{Identity, Name, Source};
use crate::replication::message::Message;
use crate::replication::mutation::Mutation;
use crate::replication::record::Record;
use crate::replication::settings::{Action, Notice, ResetWhy};
use crate::replication::vector::Mark;

use super::Replica;

/// How long a record waits for its predecessors before it is dropped: whoever brings those brings
/// it again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records whose predecessors are not here.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<Source, Queue>);

#[derive(Debug)]
struct Queue {
    since: Duration,
    records: BTreeMap<u64, Arc<Record>>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.0.values().map(|queue| queue.records.len()).sum()
    }

    pub(super) fn forget(&mut self, source: &Source) {
        self.0.remove(source);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Drops what has waited too long.
    pub(super) fn tire(&mut self, now: Now) {
        self.0.retain(|_, queue| now.boot.saturating_sub(queue.since) < PATIENCE);
    }

    /// Keeps the record; those closest to the gap stay when there are too many. Says whether it is
    /// new.
    fn keep(&mut self, record: Arc<Record>, most: usize, now: Now) -> bool {
        let fresh = || Queue { since: now.boot, records: BTreeMap::new() };
        let queue = self.0.entry(record.identity.source.clone()).or_insert_with(fresh);
        let new = queue.records.insert(record.identity.sequence, record).is_none();
        if queue.records.len() > most {
            queue.records.pop_last();
        }
        new
    }

    /// The record that follows `mark`, if it waits.
    fn take_next(&mut self, source: &Source, mark: Mark) -> Option<Arc<Record>> {
        let queue = self.0.get_mut(source)?;
        queue.records.retain(|sequence, _| *sequence > mark.sequence);
        let next = queue.records.remove(&(mark.sequence + 1));
        if queue.records.is_empty() {
            self.0.remove(source);
        }
        next
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It is the next one.
    Next,
    /// It waits.
    Waits {
        /// Whether it was not waiting already.
        new: bool,
    },
    /// It was known.
    Known,
    /// It is not what is known under its name, or does not follow what is known.
    Other,
}

/// Whether a record is the next of a source that has come up to `mark`.
fn follows(record: &Record, source: &Source, mark: Mark) -> bool {
    let Identity { source: own, sequence } = &record.identity;
    own == source && *sequence == mark.sequence + 1 && record.before == mark.chain
}

impl Replica {
    /// A record as it spreads.
    pub(super) fn hear_record(
        &mut self,
        from: &Name,
        record: &Arc<Record>,
        pass_on: bool,
        now: Now,
    ) {
        let source = record.identity.source.clone();
        if source == self.issuer.source {
            return self.hear_own(record);
        }
        let next = self.reached(&source).sequence + 1;
        if record.identity.sequence >= next && !self.issuer.admits(&source.node, now) {
            // Later, by repair: what is missing shows with the next comparison.
            return;
        }
        match self.take(record, now) {
            Taken::Next => {
                let records = self.with_followers(record.clone(), now);
                self.apply(&records, now);
                self.pass_on(from, record, pass_on);
            }
            Taken::Waits { new } => {
                self.want(from, &source, record.identity.sequence - 1, now);
                if new {
                    self.pass_on(from, record, pass_on);
                }
            }
            Taken::Known if *from == source.node => self.acknowledge(&source),
            Taken::Known => {}
            Taken::Other => self.refuse(record, now),
        }
    }

    /// Records that were asked for: applied at one epoch.
    pub(super) fn hear_records(&mut self, from: &Name, records: Vec<Arc<Record>>, now: Now) {
        let mut batch: Vec<Arc<Record>> = Vec::new();
        let mut sources: Vec<Source> = Vec::new();
        let mut run: Option<(Source, Mark)> = None;
        for record in records {
            let next = run.as_mut().filter(|run| follows(&record, &run.0, run.1));
            if let Some((_, mark)) = next {
                // Most are the next of one source: its mark is noted once for all of them.
                *mark = Mark { sequence: record.identity.sequence, chain: record.after() };
                batch.push(record);
                continue;
            }
            if let Some((source, mark)) = run.take() {
                self.move_on(&source, mark);
            }
            let source = record.identity.source.clone();
            if source == self.issuer.source {
                self.hear_own(&record);
                continue;
            }
            match self.take(&record, now) {
                Taken::Next => {
                    self.note_mark(&record);
                    run = Some((source.clone(), self.vector.mark(&source)));
                    batch.push(record);
                    if sources.last() != Some(&source) {
                        sources.push(source);
                    }
                }
                Taken::Other => self.refuse(&record, now),
                Taken::Known | Taken::Waits { .. } => {}
            }
        }
        if let Some((source, mark)) = run {
            self.move_on(&source, mark);
        }
        for source in &sources {
            let followers = self.followers(source, now);
            batch.extend(followers);
        }
        self.apply(&batch, now);
        self.want_rest(from, &sources, now);
    }

    /// Applies records whose marks are noted already.
    pub(super) fn apply(&mut self, records: &[Arc<Record>], now: Now) {
        if records.is_empty() {
            return;
        }
        self.out.push(Action::Apply(records.to_vec()));
        let mut sources: Vec<&Source> =
            records.iter().map(|record| &record.identity.source).collect();
        sources.dedup();
        let mut wanted: BTreeMap<&Source, u64> = BTreeMap::new();
        for record in records {
            self.log.push(record.clone());
            let Identity { source, sequence } = &record.identity;
            if record.receipt && source.node != self.settings.me {
                wanted.insert(source, *sequence);
            }
        }
        for (source, sequence) in wanted {
            self.report(source, sequence, now);
        }
        let acknowledgements =
            sources.into_iter().filter_map(|source| self.acknowledgement(source)).collect();
        let entries = if self.is_serving() {
            records.iter().cloned().map(Entry::Record).collect()
        } else {
            Vec::new()
        };
        self.write_down(entries, acknowledgements);
        self.reckon(now);
    }

    /// The record, noted, and those that waited for it.
    pub(super) fn with_followers(&mut self, record: Arc<Record>, now: Now) -> Vec<Arc<Record>> {
        let source = record.identity.source.clone();
        self.note_mark(&record);
        let mut records = vec![record];
        records.extend(self.followers(&source, now));
        records
    }

    fn followers(&mut self, source: &Source, now: Now) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        loop {
            let mark = self.reached(source);
            match self.waiting.take_next(source, mark) {
                Some(next) if next.before == mark.chain => {
                    self.note_mark(&next);
                    records.push(next);
                }
                Some(other) => self.refuse(&other, now),
                None => return records,
            }
        }
    }

    pub(super) fn note_mark(&mut self, record: &Record) {
        let mark = Mark { sequence: record.identity.sequence, chain: record.after() };
        self.move_on(&record.identity.source, mark);
    }

    fn move_on(&mut self, source: &Source, mark: Mark) {
        self.vector.set(source, mark);
        self.repair.arrived(source);
    }

    fn take(&mut self, record: &Arc<Record>, now: Now) -> Taken {
        let mark = self.reached(&record.identity.source);
        let sequence = record.identity.sequence;
        if sequence <= mark.sequence {
            let known = self.log.record(&record.identity);
            let same = known.is_none_or(|known| known.after() == record.after());
            return if same { Taken::Known } else { Taken::Other };
        }
        if sequence == mark.sequence + 1 {
            return if record.before == mark.chain { Taken::Next } else { Taken::Other };
        }
        if self.mutation == Mutation::AcknowledgedOverHole {
            let past = Mark { sequence, chain: record.after() };
            self.acknowledge_as(&record.identity.source, past);
        }
        let new = self.waiting.keep(record.clone(), self.settings.waiting_records, now);
        Taken::Waits { new }
    }

    /// Two histories under one name. The record is not taken for what is known under its name, and
    /// its issuer is told; what it meant is covered by a reset where it goes further than what is
    /// known.
    fn refuse(&mut self, record: &Record, now: Now) {
        self.notice(Notice::Refused(record.identity.clone()));
        let source = record.identity.source.clone();
        self.send(&source.node.clone(), Message::Conflict(record.identity.clone()));
        let mark = Mark { sequence: record.identity.sequence, chain: record.after() };
        if mark > self.reached(&source) {
            let theirs = [(source, mark)].into_iter().collect();
            self.reset(ResetWhy::Conflict, &theirs, now);
        }
    }

    /// A record of this node's own, from elsewhere: an echo, or from a life that this one is a copy
    /// of.
    fn hear_own(&mut self, record: &Record) {
        let known = self.log.record(&record.identity);
        let other = known.is_some_and(|known| known.after() != record.after());
        if other || record.identity.sequence > self.issuer.sequence() {
            self.notice(Notice::Refused(record.identity.clone()));
            self.be_reborn();
        }
    }

    /// A relay hands the record to the rest of its PoP.
    fn pass_on(&mut self, from: &Name, record: &Arc<Record>, pass_on: bool) {
        if !pass_on {
            return;
        }
        let others = |name: &&Name| *name != from && **name != record.identity.source.node;
        let beside = self.settings.roster.beside(&self.settings.me);
        let inside: Vec<Name> = beside.filter(others).cloned().collect();
        for name in inside {
            self.send(&name, Message::Record { record: record.clone(), pass_on: false });
        }
    }
}
