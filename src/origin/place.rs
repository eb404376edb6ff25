//! Places: how many requests may be under way to one origin, and the queue before them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;

use super::SendError;
use super::set::Origin;

/// The places of an origin, across all workers. First come, first served.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: usize,
    queued: AtomicUsize,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        let all = count.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(all)), all, queued: AtomicUsize::new(0) }
    }

    /// Requests that hold a place.
    pub(super) fn taken(&self) -> usize {
        self.all.saturating_sub(self.free.available_permits())
    }

    /// Requests that wait for one.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

/// A request's place; held until its answer's body has ended.
#[derive(Debug)]
pub(super) struct Place {
    origin: Arc<Origin>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Takes a place, or waits for one where the queue has room, up to its deadline.
    pub(super) async fn take(origin: &Arc<Origin>) -> Result<Self, SendError> {
        let free = &origin.places.free;
        if let Ok(permit) = Arc::clone(free).try_acquire_owned() {
            return Ok(Self::new(permit, origin));
        }
        let waiting = Waiting::new(origin).ok_or(SendError::ConnectionLimitReached)?;
        let acquire = Arc::clone(free).acquire_owned();
        let permit = tokio::time::timeout(origin.limits.origin_queue_wait, acquire).await;
        drop(waiting);
        match permit {
            Ok(Ok(permit)) => Ok(Self::new(permit, origin)),
            Ok(Err(_)) | Err(_) => Err(SendError::ConnectionLimitReached),
        }
    }

    /// Takes a place if one is free and nobody waits for it.
    pub(super) fn take_spare(origin: &Arc<Origin>) -> Option<Self> {
        let permit = Arc::clone(&origin.places.free).try_acquire_owned().ok()?;
        (origin.places.queued() == 0).then(|| Self::new(permit, origin))
    }

    fn new(permit: OwnedSemaphorePermit, origin: &Arc<Origin>) -> Self {
        origin.measure(|metrics| metrics.in_flight.inc());
        Self { origin: Arc::clone(origin), _permit: permit }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.origin.limits
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.origin.measure(|metrics| metrics.in_flight.dec());
    }
}

/// A request in the queue.
struct Waiting<'a>(&'a Origin);

impl<'a> Waiting<'a> {
    /// `None`: the queue is full.
    fn new(origin: &'a Origin) -> Option<Self> {
        let most = origin.limits.origin_queue;
        let join = |queued: usize| (queued < most).then_some(queued + 1);
        origin.places.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, join).ok()?;
        origin.measure(|metrics| metrics.queued.inc());
        Some(Self(origin))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.places.queued.fetch_sub(1, Ordering::Relaxed);
        self.0.measure(|metrics| metrics.queued.dec());
    }
}
