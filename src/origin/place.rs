//! Places: how many requests may be under way to one origin, and the queue before them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock;
use crate::config::Limits;
use crate::telemetry::Refused;

use super::SendError;
use super::breaker::Pass;
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

    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.all
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
    /// Of the breaker's gate, while the origin recovers.
    _gate: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Takes a place, or waits for one where the queue has room, up to its deadline. Nobody waits
    /// for an origin that does not answer.
    pub(super) async fn take(origin: &Arc<Origin>) -> Result<Self, SendError> {
        let gate = match origin.breaker.admit(clock::now().boot) {
            Pass::Free => None,
            Pass::Limited(gate) => Some(gate),
            Pass::Refused => return Err(refused(origin, Refused::Circuit)),
        };
        let free = Arc::clone(&origin.places.free);
        if let Some(permits) = take_now(&free, gate.as_ref()) {
            return Ok(Self::new(permits, origin));
        }
        let waiting = Waiting::new(origin).ok_or_else(|| refused(origin, Refused::QueueFull))?;
        let opened = origin.breaker.opened();
        let acquire = take_later(free, gate);
        let permits = tokio::select! {
            permits = tokio::time::timeout(origin.limits.origin_queue_wait, acquire) => permits,
            () = opened => return Err(refused(origin, Refused::Circuit)),
        };
        drop(waiting);
        match permits {
            Ok(Some(permits)) => Ok(Self::new(permits, origin)),
            Ok(None) => Err(refused(origin, Refused::Circuit)),
            Err(_) => Err(refused(origin, Refused::QueueWait)),
        }
    }

    /// Takes a place if one is free, nobody waits for it and the origin is well.
    pub(super) fn take_spare(origin: &Arc<Origin>) -> Option<Self> {
        if !origin.breaker.is_calm() {
            return None;
        }
        let permit = Arc::clone(&origin.places.free).try_acquire_owned().ok()?;
        (origin.places.queued() == 0).then(|| Self::new((permit, None), origin))
    }

    fn new((permit, gate): Permits, origin: &Arc<Origin>) -> Self {
        origin.measure(|metrics| metrics.in_flight.inc());
        Self { origin: Arc::clone(origin), _permit: permit, _gate: gate }
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

/// A place, and a permit of the gate where there is one.
type Permits = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

fn take_now(free: &Arc<Semaphore>, gate: Option<&Arc<Semaphore>>) -> Option<Permits> {
    let gate = match gate {
        Some(gate) => Some(Arc::clone(gate).try_acquire_owned().ok()?),
        None => None,
    };
    let permit = Arc::clone(free).try_acquire_owned().ok()?;
    Some((permit, gate))
}

/// Waits for both; `None` where the gate is closed meanwhile.
async fn take_later(free: Arc<Semaphore>, gate: Option<Arc<Semaphore>>) -> Option<Permits> {
    let gate = match gate {
        Some(gate) => Some(gate.acquire_owned().await.ok()?),
        None => None,
    };
    Some((free.acquire_owned().await.ok()?, gate))
}

fn refused(origin: &Origin, why: Refused) -> SendError {
    origin.measure(|metrics| metrics.breaker.refused(why));
    match why {
        Refused::Circuit => SendError::DestinationUnavailable,
        Refused::QueueFull | Refused::QueueWait => SendError::ConnectionLimitReached,
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
