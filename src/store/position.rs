//! How far this node has applied the purges of each source, for those who ask with a purge in hand.
//!
//! A position is noted after the epoch of its record is published: whoever sees it and reads the
//! epoch afterwards reads one that has the record in force. What is not known here counts as not
//! applied. Both a reset and a step of retirement only make that answer more careful.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::replication::{Identity, Source};

/// Sources that are remembered; the protocol retires its own long before.
const SOURCES: usize = 65_536;

/// Up to where the records of each source are in force.
#[derive(Debug)]
pub struct Positions {
    applied: RwLock<HashMap<Source, u64>>,
    /// Moves when a position does while somebody waits.
    moved: watch::Sender<u64>,
    waiting: AtomicUsize,
    most_waiting: AtomicUsize,
}

impl Default for Positions {
    fn default() -> Self {
        Self {
            applied: RwLock::default(),
            moved: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            most_waiting: AtomicUsize::new(1000),
        }
    }
}

impl Positions {
    /// Bounds how many may wait at once; who comes beyond that does not wait.
    pub fn bound_waiters(&self, most: usize) {
        self.most_waiting.store(most, Ordering::Relaxed);
    }

    /// Notes that a source's records up to `sequence` are in force. To be called after the epoch
    /// of the last of them was published.
    pub fn note(&self, source: &Source, sequence: u64) {
        {
            let mut applied = self.applied.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = applied.get_mut(source) {
                *at = sequence.max(*at);
            } else if applied.len() < SOURCES {
                applied.insert(source.clone(), sequence);
            }
        }
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.moved.send_modify(|moved| *moved = moved.wrapping_add(1));
        }
    }

    /// Forgets sources that the vector has no more.
    pub fn retain(&self, keep: impl Fn(&Source) -> bool) {
        let mut applied = self.applied.write().unwrap_or_else(PoisonError::into_inner);
        applied.retain(|source, _| keep(source));
    }

    /// Whether a record is in force here.
    #[must_use]
    pub fn has(&self, identity: &Identity) -> bool {
        let applied = self.applied.read().unwrap_or_else(PoisonError::into_inner);
        applied.get(&identity.source).is_some_and(|at| *at >= identity.sequence)
    }

    /// Waits until a record is in force here, `most` at longest. Says whether it is.
    pub async fn wait_for(&self, identity: &Identity, most: Duration) -> bool {
        if self.has(identity) {
            return true;
        }
        let Some(_place) = Place::take(self) else { return false };
        let mut moved = self.moved.subscribe();
        let applied = async {
            // Subscribed before it is looked at: what is noted in between wakes.
            while !self.has(identity) {
                if moved.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whichever way this ends, what is in force counts.
        let _ = tokio::time::timeout(most, applied).await;
        self.has(identity)
    }
}

/// Reads a purge's name as the admin API tells it: `node/incarnation/sequence`, or with dots where
/// the node is alone.
#[must_use]
pub fn read_position(text: &str) -> Option<Identity> {
    Identity::parse(text).or_else(|| {
        let (rest, sequence) = text.rsplit_once('.')?;
        let (node, incarnation) = rest.rsplit_once('.')?;
        Identity::parse(&format!("{node}/{incarnation}/{sequence}"))
    })
}

/// A place among those who wait, given back when it is dropped.
struct Place<'a>(&'a Positions);

impl<'a> Place<'a> {
    fn take(positions: &'a Positions) -> Option<Self> {
        let place = Self(positions);
        let before = positions.waiting.fetch_add(1, Ordering::AcqRel);
        (before < positions.most_waiting.load(Ordering::Relaxed)).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
