//! What the connections of a worker share: limits, measures, the state of draining, the accounts
//! of the clients, and how short of memory the process is.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::clients::Clients;
use super::inherited::OpenSocket;
use super::thinning::Thinning;
use crate::clock::Now;
use crate::config::{Descriptors, Limits, Listener};
use crate::telemetry::Metrics;

/// Whether the process takes work, is finishing, or must go at once.
///
/// ```text
/// Open -- first signal --> Draining -- second signal, or the lead loses patience --> Abort
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Normal service.
    Open,
    /// Finish what was asked, ask clients to go elsewhere. Accepting goes on for `drain_notice`,
    /// connections end by themselves until `drain` is over, then they are cut off.
    Draining {
        /// When the draining began.
        since: Now,
    },
    /// Cut every connection off now.
    Abort,
}

/// How short of memory the process is; each step includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing to do.
    None,
    /// The store gives memory back.
    Evict,
    /// Keep-alive ends and misses are refused.
    Shed,
    /// New connections are refused.
    Refuse,
}

/// The step of memory pressure in force: written by whoever measures, read by everyone.
#[derive(Debug, Default)]
pub struct PressureGauge(AtomicU8);

impl PressureGauge {
    /// Publishes a step.
    pub fn set(&self, pressure: Pressure) {
        let step = match pressure {
            Pressure::None => 0,
            Pressure::Evict => 1,
            Pressure::Shed => 2,
            Pressure::Refuse => 3,
        };
        self.0.store(step, Ordering::Relaxed);
    }

    /// The step in force.
    #[must_use]
    pub fn step(&self) -> Pressure {
        match self.0.load(Ordering::Relaxed) {
            0 => Pressure::None,
            1 => Pressure::Evict,
            2 => Pressure::Shed,
            _ => Pressure::Refuse,
        }
    }
}

/// Shared by the connections of the process; cheap to clone through its `Arc`.
#[derive(Debug)]
pub struct Context {
    /// Every limit and timeout.
    pub limits: Arc<Limits>,
    /// Counters of the process.
    pub metrics: Arc<Metrics>,
    /// Accounts of connections, streams, accepts and handshakes by client.
    pub clients: Arc<Clients>,
    /// How short of memory the process is.
    pub pressure: Arc<PressureGauge>,
    /// Descriptors that strangers do not get.
    pub descriptors: Descriptors,
    /// Which idle connections have to go for lack of room.
    pub thinning: Arc<Thinning>,
    /// State of draining. Clone it to wait for a change.
    pub drain: watch::Receiver<Drain>,
    /// What connections from now on are held to.
    newest: Arc<ArcSwap<Terms>>,
    sockets: Arc<Sockets>,
}

/// The listening sockets, for a process that takes over.
#[derive(Debug, Default)]
struct Sockets {
    open: Mutex<Vec<OpenSocket>>,
    /// Another process accepts on them.
    handed_over: AtomicBool,
}

/// What connections are held to, as a configuration says it.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Every limit and timeout.
    pub limits: Arc<Limits>,
    /// The listeners, as many and in the order in which they were bound.
    pub listeners: Arc<[Listener]>,
}

impl Context {
    /// A context with accounts of its own and no memory pressure.
    #[must_use]
    pub fn new(
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        drain: watch::Receiver<Drain>,
    ) -> Arc<Self> {
        let clients = Clients::new(&limits);
        let descriptors = Descriptors::of(&limits);
        let newest = Terms { limits: Arc::clone(&limits), listeners: Arc::default() };
        let newest = Arc::new(ArcSwap::from_pointee(newest));
        Arc::new(Self {
            limits,
            metrics,
            clients,
            pressure: Arc::default(),
            descriptors,
            thinning: Arc::default(),
            drain,
            newest,
            sockets: Arc::default(),
        })
    }

    /// Keeps listening sockets, for a process that takes over, until accepting ends.
    pub fn keep(&self, sockets: Vec<OpenSocket>) {
        self.open_sockets().extend(sockets);
    }

    /// The listening sockets once more.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn sockets(&self) -> std::io::Result<Vec<OpenSocket>> {
        let open = self.open_sockets();
        open.iter()
            .map(|open| OpenSocket::of(open.purpose, open.configured, &open.socket))
            .collect()
    }

    pub(super) fn let_sockets_go(&self) {
        self.open_sockets().clear();
    }

    fn open_sockets(&self) -> MutexGuard<'_, Vec<OpenSocket>> {
        self.sockets.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process accepts on the same sockets: accepting ends as soon as the draining begins.
    pub fn hand_over(&self) {
        self.sockets.handed_over.store(true, Ordering::Release);
    }

    /// Whether another process accepts on the same sockets.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.sockets.handed_over.load(Ordering::Acquire)
    }

    /// Puts other terms in force, for connections from now on; those that are open keep theirs. What
    /// the accounts of clients hold them to stays as it was.
    pub fn put_in_force(&self, terms: Terms) {
        self.newest.store(Arc::new(terms));
    }

    /// The terms in force.
    #[must_use]
    pub fn newest(&self) -> Arc<Terms> {
        self.newest.load_full()
    }

    /// The context of connections from now on, where that is another one.
    pub(super) fn renewed(&self) -> Option<(Arc<Self>, Arc<Terms>)> {
        let newest = self.newest.load();
        if Arc::ptr_eq(&newest.limits, &self.limits) {
            return None;
        }
        let context = Self {
            limits: Arc::clone(&newest.limits),
            metrics: Arc::clone(&self.metrics),
            clients: Arc::clone(&self.clients),
            pressure: Arc::clone(&self.pressure),
            descriptors: self.descriptors,
            thinning: Arc::clone(&self.thinning),
            drain: self.drain.clone(),
            newest: Arc::clone(&self.newest),
            sockets: Arc::clone(&self.sockets),
        };
        Some((Arc::new(context), Arc::clone(&newest)))
    }

    /// Whether connections should end after the request at hand: the process drains, or sheds
    /// load for lack of memory.
    #[must_use]
    pub fn closing(&self) -> bool {
        self.draining().is_some() || self.pressure.step() >= Pressure::Shed
    }

    /// When draining began, if it has. After an abort that is time zero.
    #[must_use]
    pub fn draining(&self) -> Option<Now> {
        match *self.drain.borrow() {
            Drain::Open => None,
            Drain::Draining { since } => Some(since),
            Drain::Abort => {
                Some(Now { wall: std::time::SystemTime::UNIX_EPOCH, boot: Duration::ZERO })
            }
        }
    }

    /// Resolves when an idle connection should be closed because the process drains: twice
    /// `drain_notice` after the draining began, so that a client which already sends its next
    /// request is still answered.
    pub async fn idle_end(&self) {
        let mut drain = self.drain.clone();
        // A sender that is gone means that nobody is left who could tell us to stop.
        let Ok(state) = drain.wait_for(|state| *state != Drain::Open).await.map(|state| *state)
        else {
            return std::future::pending().await;
        };
        if let Drain::Draining { since } = state {
            let notice = self.limits.drain_notice.saturating_mul(2);
            let left = notice.saturating_sub(crate::clock::now().since(since));
            let _ =
                tokio::time::timeout(left, drain.wait_for(|state| *state == Drain::Abort)).await;
        }
    }

    /// Age at which this connection ends after its current request: `connection_age` more or less
    /// a tenth, so that connections made together do not end together. `salt` picks the tenth.
    #[must_use]
    pub fn connection_age(&self, salt: u64) -> Duration {
        let age = self.limits.connection_age;
        // 0..=200 thousandths, from the middle bits of a multiplicative hash.
        let spread = (salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % 201;
        let thousandths = 900 + u32::try_from(spread).unwrap_or(100);
        age.saturating_mul(thousandths) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_reads_back_what_was_set_and_steps_are_ordered() {
        let gauge = PressureGauge::default();
        let steps = [Pressure::None, Pressure::Evict, Pressure::Shed, Pressure::Refuse];
        assert_eq!(gauge.step(), Pressure::None);
        for step in steps {
            gauge.set(step);
            assert_eq!(gauge.step(), step);
        }
        assert!(steps.is_sorted());
    }
}
