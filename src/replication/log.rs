//! The records that a node still has, to hand them to those who missed them.
//!
//! Bounded by bytes and by number; the oldest arrivals go first. Of each source it holds the last
//! ones up to the vector's mark, without a hole. Who misses older ones has to reset.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::identity::{Identity, Source};
use super::record::{Chain, Record};

/// Records by source, with the order in which they came.
#[derive(Clone, Debug)]
pub struct Log {
    runs: BTreeMap<Source, VecDeque<Arc<Record>>>,
    /// Oldest first. What was forgotten since stands here until it is its turn.
    order: VecDeque<Identity>,
    records: usize,
    bytes: usize,
    most_records: usize,
    most_bytes: usize,
}

/// A piece of a source's records as it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next ones; empty where there are none yet.
    Records(Vec<Arc<Record>>),
    /// The first one asked for is gone.
    Gone,
}

impl Log {
    /// An empty one with its bounds.
    #[must_use]
    pub fn new(most_records: usize, most_bytes: usize) -> Self {
        Self {
            runs: BTreeMap::new(),
            order: VecDeque::new(),
            records: 0,
            bytes: 0,
            most_records,
            most_bytes,
        }
    }

    /// Appends the record after its source's last; the oldest of all make room.
    pub fn push(&mut self, record: Arc<Record>) {
        let run = self.runs.entry(record.identity.source.clone()).or_default();
        let next = run.back().map(|last| last.identity.sequence + 1);
        if next.is_some_and(|next| next != record.identity.sequence) {
            // The vector has jumped: what is before the jump is of no use to anyone.
            self.records -= run.len();
            self.bytes -= run.iter().map(|old| old.weight_bytes()).sum::<usize>();
            run.clear();
        }
        self.records += 1;
        self.bytes += record.weight_bytes();
        self.order.push_back(record.identity.clone());
        run.push_back(record);
        self.truncate(self.most_records, self.most_bytes);
    }

    /// Lets the oldest go until the bounds hold.
    pub fn truncate(&mut self, most_records: usize, most_bytes: usize) {
        while self.records > most_records || self.bytes > most_bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            self.drop_first(&oldest);
        }
        if self.order.len() > 2 * self.records + 64 {
            let runs = &self.runs;
            self.order.retain(|identity| {
                let run = runs.get(&identity.source).and_then(VecDeque::front);
                run.is_some_and(|first| first.identity.sequence <= identity.sequence)
            });
        }
    }

    /// Forgets a source.
    pub fn forget(&mut self, source: &Source) {
        if let Some(run) = self.runs.remove(source) {
            self.records -= run.len();
            self.bytes -= run.iter().map(|record| record.weight_bytes()).sum::<usize>();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.most_records, self.most_bytes);
    }

    /// The records of `source` after `after`, as many as are allowed; the last may go over the bytes.
    #[must_use]
    pub fn after(&self, source: &Source, after: u64, most: usize, most_bytes: usize) -> Piece {
        let Some(run) = self.runs.get(source) else { return Piece::Gone };
        let Some(first) = run.front() else { return Piece::Gone };
        let Some(skip) = (after + 1).checked_sub(first.identity.sequence) else {
            return Piece::Gone;
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut left = most_bytes;
        let piece = run.iter().skip(skip).take(most).take_while(|record| {
            let fits = left > 0;
            left = left.saturating_sub(record.wire_bytes());
            fits
        });
        Piece::Records(piece.cloned().collect())
    }

    /// One record.
    #[must_use]
    pub fn record(&self, identity: &Identity) -> Option<&Arc<Record>> {
        let run = self.runs.get(&identity.source)?;
        let skip = identity.sequence.checked_sub(run.front()?.identity.sequence)?;
        run.get(usize::try_from(skip).ok()?)
    }

    /// The records of a source, oldest first.
    pub fn of(&self, source: &Source) -> impl Iterator<Item = &Arc<Record>> {
        self.runs.get(source).into_iter().flatten()
    }

    /// Hash over the records up to this one, where it is still here.
    #[must_use]
    pub fn chain(&self, identity: &Identity) -> Option<Chain> {
        self.record(identity).map(|record| record.after())
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Memory that they take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn drop_first(&mut self, oldest: &Identity) {
        let Some(run) = self.runs.get_mut(&oldest.source) else { return };
        let first = run.pop_front_if(|first| first.identity.sequence == oldest.sequence);
        if let Some(first) = first {
            self.records -= 1;
            self.bytes -= first.weight_bytes();
        }
        if run.is_empty() {
            self.runs.remove(&oldest.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::{Incarnation, Scope};

    fn record(number: u64, sequence: u64) -> Arc<Record> {
        let source = Source { incarnation: Incarnation(number), node: "n".into() };
        Arc::new(Record {
            identity: Identity { source, sequence },
            before: 0,
            scope: Scope::All,
            receipt: false,
            payload: Arc::from([]),
        })
    }

    fn sequences(piece: Piece) -> Option<Vec<u64>> {
        match piece {
            Piece::Records(records) => {
                Some(records.iter().map(|record| record.identity.sequence).collect())
            }
            Piece::Gone => None,
        }
    }

    #[test]
    fn the_oldest_go_first_and_who_needs_them_is_told() {
        let mut log = Log::new(4, usize::MAX);
        for sequence in 1..=3 {
            log.push(record(1, sequence));
            log.push(record(2, sequence));
        }
        let source = record(1, 1).identity.source.clone();
        assert_eq!(log.len(), 4);
        assert_eq!(log.after(&source, 0, 9, usize::MAX), Piece::Gone);
        assert_eq!(sequences(log.after(&source, 1, 9, usize::MAX)), Some(vec![2, 3]));
        assert_eq!(sequences(log.after(&source, 1, 1, usize::MAX)), Some(vec![2]));
        assert_eq!(sequences(log.after(&source, 3, 9, usize::MAX)), Some(vec![]));
    }

    #[test]
    fn a_jump_leaves_no_hole() {
        let mut log = Log::new(10, usize::MAX);
        [1, 2, 7].into_iter().for_each(|sequence| log.push(record(1, sequence)));
        let source = record(1, 1).identity.source.clone();
        assert_eq!(log.len(), 1);
        assert_eq!(log.after(&source, 1, 9, usize::MAX), Piece::Gone);
        assert_eq!(sequences(log.after(&source, 6, 9, usize::MAX)), Some(vec![7]));
        assert!(log.record(&record(1, 2).identity).is_none());
    }

    #[test]
    fn what_is_forgotten_takes_nothing() {
        let mut log = Log::new(10, usize::MAX);
        (1..=3).for_each(|sequence| log.push(record(1, sequence)));
        log.forget(&record(1, 1).identity.source.clone());
        assert_eq!((log.len(), log.bytes()), (0, 0));
    }
}
