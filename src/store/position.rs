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
        self.wait_for_all(std::slice::from_ref(identity), most).await
    }

    /// The same of several records together.
    pub async fn wait_for_all(&self, identities: &[Identity], most: Duration) -> bool {
        let all = || identities.iter().all(|identity| self.has(identity));
        if all() {
            return true;
        }
        let Some(_place) = Place::take(self) else { return false };
        let mut moved = self.moved.subscribe();
        let applied = async {
            // Subscribed before it is looked at: what is noted in between wakes.
            while !all() {
                if moved.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whichever way this ends, what is in force counts.
        let _ = tokio::time::timeout(most, applied).await;
        all()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn identity(sequence: u64) -> Identity {
        read_position(&format!("n1/00000000000000ab/{sequence}")).unwrap()
    }

    #[test]
    fn what_is_not_known_is_not_applied() {
        let positions = Positions::default();
        assert!(!positions.has(&identity(1)));
        positions.note(&identity(1).source, 7);
        positions.note(&identity(1).source, 3);
        assert!(positions.has(&identity(7)) && !positions.has(&identity(8)));
        let other = read_position("n1/00000000000000ac/1").unwrap();
        assert!(!positions.has(&other), "another life has applied nothing");
        positions.retain(|source| *source == other.source);
        assert!(!positions.has(&identity(1)));
    }

    #[test]
    fn a_name_is_read_with_slashes_and_with_dots() {
        for text in ["fra.1/00000000000000ab/7", "fra.1.00000000000000ab.7"] {
            let found = read_position(text).map(|identity| identity.to_string());
            assert_eq!(found.as_deref(), Some("fra.1/00000000000000ab/7"), "{text}");
        }
        for text in ["", "7", "ab.7", "n1.ab.7", "n1.00000000000000ab.0", "n1.00000000000000ab."] {
            assert_eq!(read_position(text), None, "{text}");
        }
    }

    #[test]
    fn sources_are_bounded() {
        let positions = Positions::default();
        for number in 0..SOURCES as u64 + 5 {
            let source =
                Source { incarnation: crate::replication::Incarnation(number), node: "n".into() };
            positions.note(&source, 1);
        }
        assert_eq!(positions.applied.read().unwrap().len(), SOURCES);
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_it_is_in_force() {
        let positions = Arc::new(Positions::default());
        let waiter = {
            let positions = Arc::clone(&positions);
            tokio::spawn(
                async move { positions.wait_for(&identity(2), Duration::from_secs(60)).await },
            )
        };
        while positions.waiting.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        positions.note(&identity(1).source, 1);
        positions.note(&identity(1).source, 2);
        assert!(waiter.await.unwrap());
        assert_eq!(positions.waiting.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_he_may_nor_beyond_the_places() {
        let positions = Positions::default();
        assert!(!positions.wait_for(&identity(1), Duration::from_millis(5)).await);
        positions.bound_waiters(0);
        assert!(!positions.wait_for(&identity(1), Duration::from_secs(3600)).await);
        positions.note(&identity(1).source, 1);
        assert!(positions.wait_for(&identity(1), Duration::ZERO).await);
    }
}
