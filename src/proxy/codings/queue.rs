//! Codings that wait to be made: each once, bounded, dropped rather than waited for.
//!
//! A job holds its response weakly, so that a long queue keeps nothing in memory that the store
//! has let go. What was tried is not tried again for a while: a copy that the store keeps pushing
//! out would otherwise be made anew for every request.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::semantics::Coding;
use crate::store::Stored;

/// Time from one try to the next.
const RETRY_TIME: Duration = Duration::from_secs(30);
/// Tries that are remembered at least.
const TRIES: usize = 4096;
/// Stands for the moment of the next try while one is under way.
const UNDER_WAY: Duration = Duration::MAX;

/// The queue.
#[derive(Debug)]
pub(in crate::proxy) struct Queue<T = Stored> {
    state: Mutex<State<T>>,
    more: Condvar,
    /// Jobs that may wait.
    most: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Job<T>>,
    /// Moments on the boot clock from which a coding of a lineage may be tried again.
    tries: HashMap<(u64, Coding), Duration>,
}

/// A coding to make.
#[derive(Debug)]
pub(super) struct Job<T = Stored> {
    pub(super) stored: Weak<T>,
    pub(super) coding: Coding,
    lineage: u64,
}

impl<T> Queue<T> {
    pub(in crate::proxy) fn new(most: usize) -> Self {
        let state = State { waiting: VecDeque::new(), tries: HashMap::new() };
        Self { state: Mutex::new(state), more: Condvar::new(), most }
    }

    /// Asks for a coding of the bytes of a lineage, unless it is waited for or was tried a moment
    /// ago. `false`: no room.
    pub(super) fn ask(&self, stored: &Arc<T>, lineage: u64, coding: Coding, now: Duration) -> bool {
        let mut state = self.lock();
        if state.tries.get(&(lineage, coding)).is_some_and(|from| now < *from) {
            return true;
        }
        if state.waiting.len() >= self.most {
            return false;
        }
        if state.tries.len() >= TRIES.max(2 * self.most) {
            state.tries.retain(|_, from| *from == UNDER_WAY);
        }
        state.tries.insert((lineage, coding), UNDER_WAY);
        state.waiting.push_back(Job { stored: Arc::downgrade(stored), coding, lineage });
        drop(state);
        self.more.notify_one();
        true
    }

    /// The next job; `None` where none comes within `patience`.
    pub(super) fn next(&self, patience: Duration) -> Option<Job<T>> {
        let state = self.lock();
        let (mut state, _) = self
            .more
            .wait_timeout_while(state, patience, |state| state.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting.pop_front()
    }

    /// Notes that a job is done, whatever came of it.
    pub(super) fn done(&self, job: &Job<T>, now: Duration) {
        self.lock().tries.insert((job.lineage, job.coding), now + RETRY_TIME);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn next(queue: &Queue<u8>) -> Option<Job<u8>> {
        queue.next(Duration::ZERO)
    }

    #[test]
    fn a_coding_is_asked_for_once_until_the_time_of_its_next_try() {
        let queue = Queue::new(10);
        let stored = Arc::new(1);
        assert!(queue.ask(&stored, 7, Coding::Br, NOW));
        assert!(queue.ask(&stored, 7, Coding::Br, NOW));
        assert!(queue.ask(&stored, 7, Coding::Gzip, NOW));
        assert!(queue.ask(&stored, 8, Coding::Br, NOW));
        let jobs: Vec<_> = std::iter::from_fn(|| next(&queue)).collect();
        let named: Vec<_> = jobs.iter().map(|job| (job.lineage, job.coding)).collect();
        assert_eq!(named, [(7, Coding::Br), (7, Coding::Gzip), (8, Coding::Br)]);
        assert!(queue.ask(&stored, 7, Coding::Br, NOW), "it is still being made");
        assert!(next(&queue).is_none());
        queue.done(&jobs[0], NOW);
        assert!(queue.ask(&stored, 7, Coding::Br, NOW + RETRY_TIME / 2));
        assert!(next(&queue).is_none());
        assert!(queue.ask(&stored, 7, Coding::Br, NOW + RETRY_TIME));
        assert!(next(&queue).is_some());
    }

    #[test]
    fn what_has_no_room_may_be_asked_for_again() {
        let queue = Queue::new(2);
        let stored = Arc::new(1);
        for lineage in 0..2 {
            assert!(queue.ask(&stored, lineage, Coding::Br, NOW));
        }
        assert!(!queue.ask(&stored, 2, Coding::Br, NOW));
        assert!(next(&queue).is_some());
        assert!(queue.ask(&stored, 2, Coding::Br, NOW));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_under_way_is_not_forgotten() {
        let queue = Queue::new(2);
        let stored = Arc::new(1);
        assert!(queue.ask(&stored, u64::MAX, Coding::Br, NOW));
        let first = next(&queue);
        for lineage in 0..3 * TRIES as u64 {
            assert!(queue.ask(&stored, lineage, Coding::Br, NOW));
            queue.done(&next(&queue).unwrap(), NOW);
            assert!(queue.lock().tries.len() <= TRIES);
        }
        assert!(queue.ask(&stored, u64::MAX, Coding::Br, NOW) && first.is_some());
        assert!(next(&queue).is_none(), "the first is still being made");
    }

    #[test]
    fn a_job_keeps_nothing_that_the_store_let_go() {
        let queue = Queue::new(2);
        let stored = Arc::new(1);
        assert!(queue.ask(&stored, 7, Coding::Br, NOW));
        drop(stored);
        assert!(next(&queue).unwrap().stored.upgrade().is_none());
    }
}
