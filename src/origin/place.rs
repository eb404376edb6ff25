//! Places: how many requests may be under way to one origin, and the queue before them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::clock;
use crate::config::Limits;
use crate::guard::network;
use crate::telemetry::Refused;

use super::breaker::Pass;
use super::lock::Lock;
use super::set::Origin;
use super::turns::{Holder, Number, Turns};
use super::{Hop, SendError};

/// The places of an origin, across all workers, shared out among clients.
#[derive(Debug)]
pub(super) struct Places {
    turns: Lock<Turns<oneshot::Sender<Seat>>>,
    all: usize,
    /// Those who wait, for a place or for the breaker's gate before it.
    queued: AtomicUsize,
}

/// One of them; given back when dropped.
#[derive(Debug)]
struct Seat {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let all = limits.origin_connections.clamp(1, Semaphore::MAX_PERMITS);
        let turns = Lock::new(Turns::new(all, limits.origin_queue, limits.origin_client_percent));
        Arc::new(Self { turns, all, queued: AtomicUsize::new(0) })
    }

    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.all
    }

    /// Requests that hold a place.
    pub(super) fn taken(&self) -> usize {
        self.all.saturating_sub(self.turns.lock().free())
    }

    /// Requests that wait for one.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>, holder: Holder) -> Option<Seat> {
        self.turns.lock().take(holder).then(|| self.seat(holder))
    }

    fn seat(self: &Arc<Self>, holder: Holder) -> Seat {
        Seat { places: Arc::clone(self), holder }
    }

    /// Waits for its turn. `None`: the queue has no room for this holder.
    async fn wait(self: &Arc<Self>, holder: Holder) -> Option<Seat> {
        let (told, turn) = oneshot::channel();
        let number = {
            let mut turns = self.turns.lock();
            if turns.take(holder) {
                drop(turns);
                return Some(self.seat(holder));
            }
            turns.wait(holder, told)?
        };
        let _in_line = InLine { places: self, holder, number };
        turn.await.ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let next = self.places.turns.lock().give_back(self.holder);
        // Who has left meanwhile gives it back in turn; so the lock must be free here.
        for (holder, told) in next {
            let _ = told.send(self.places.seat(holder));
        }
    }
}

/// Somebody in the queue.
struct InLine<'a> {
    places: &'a Places,
    holder: Holder,
    number: Number,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.places.turns.lock().leave(self.holder, self.number);
    }
}

/// A request's place; held until its answer's body has ended.
#[derive(Debug)]
pub(super) struct Place {
    origin: Arc<Origin>,
    _seat: Seat,
    /// Of the breaker's gate, while the origin recovers.
    _gate: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Takes a place for who comes by `hop`, or waits for one where the queue has room, up to its
    /// deadline. Nobody waits for an origin that does not answer.
    pub(super) async fn take(origin: &Arc<Origin>, hop: Option<Hop>) -> Result<Self, SendError> {
        let gate = match origin.breaker.admit(clock::now().boot) {
            Pass::Free => None,
            Pass::Limited(gate) => Some(gate),
            Pass::Refused => return Err(refused(origin, Refused::Circuit)),
        };
        let holder = holder(origin, hop);
        if let Some(rights) = take_now(&origin.places, holder, gate.as_ref()) {
            return Ok(Self::new(rights, origin));
        }
        let waiting = Waiting::new(origin).ok_or_else(|| refused(origin, Refused::QueueFull))?;
        let opened = origin.breaker.opened();
        let turn = take_later(&origin.places, holder, gate);
        let rights = tokio::select! {
            rights = tokio::time::timeout(origin.limits.origin_queue_wait, turn) => rights,
            () = opened => return Err(refused(origin, Refused::Circuit)),
        };
        drop(waiting);
        match rights {
            Ok(Ok(rights)) => Ok(Self::new(rights, origin)),
            Ok(Err(why)) => Err(refused(origin, why)),
            Err(_) => Err(refused(origin, Refused::QueueWait)),
        }
    }

    /// Takes a place if one is free, nobody waits for it and the origin is well.
    pub(super) fn take_spare(origin: &Arc<Origin>, hop: Option<Hop>) -> Option<Self> {
        if !origin.breaker.is_calm() || origin.places.queued() > 0 {
            return None;
        }
        let seat = origin.places.take(holder(origin, hop))?;
        Some(Self::new((seat, None), origin))
    }

    fn new((seat, gate): Rights, origin: &Arc<Origin>) -> Self {
        origin.measure(|metrics| metrics.in_flight.inc());
        Self { origin: Arc::clone(origin), _seat: seat, _gate: gate }
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
type Rights = (Seat, Option<OwnedSemaphorePermit>);

/// To whose account a request is put: its client's network, but for those without caps and requests
/// that nobody sent.
fn holder(origin: &Origin, hop: Option<Hop>) -> Holder {
    let client = hop?.from.ip().to_canonical();
    let exempt = &origin.limits.exempt_networks;
    (!exempt.iter().any(|network| network.contains(&client))).then(|| network(client))
}

fn take_now(places: &Arc<Places>, holder: Holder, gate: Option<&Arc<Semaphore>>) -> Option<Rights> {
    let gate = match gate {
        Some(gate) => Some(Arc::clone(gate).try_acquire_owned().ok()?),
        None => None,
    };
    Some((places.take(holder)?, gate))
}

/// Waits for both; an error where the gate is closed meanwhile, or the queue has no room.
async fn take_later(
    places: &Arc<Places>,
    holder: Holder,
    gate: Option<Arc<Semaphore>>,
) -> Result<Rights, Refused> {
    let gate = match gate {
        Some(gate) => Some(gate.acquire_owned().await.map_err(|_closed| Refused::Circuit)?),
        None => None,
    };
    Ok((places.wait(holder).await.ok_or(Refused::QueueFull)?, gate))
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
