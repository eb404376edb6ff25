//! One address of a server: what is under way to it and what is known of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::balance::PeakEwma;
use crate::health::{EndpointHealth, State};
use crate::semantics::affinity;

use super::lock::Lock;
use super::tls::TlsIdentity;
use super::{EndpointStatus, SendError};

/// An address that takes requests. Gone from DNS it is retired: it takes no new ones, and a later
/// answer with the same address makes a new endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Never used twice in a process; what pools and retries know it by. It stands for the
    /// address, the TLS name and the rules of verification together.
    pub(super) id: u64,
    /// Position of its server in the origin.
    pub(super) server: usize,
    /// Where it is.
    pub(super) address: SocketAddr,
    /// How to speak TLS to it; `None` speaks in plain.
    pub(super) tls: Option<TlsIdentity>,
    /// Share of the load.
    pub(super) weight: u32,
    /// Used only while nothing in a tier with a lower number is up; see [`tier_of`].
    pub(super) tier: u32,
    /// Stands where this node stands.
    pub(super) near: bool,
    /// Where it stands in consistent hashing: a hash of its address, alike on all nodes.
    pub(super) ring: u64,
    /// Its turn in round robin, as `balance` reckons it.
    pub(super) turn: AtomicU64,
    /// What is known of it.
    pub(super) view: Lock<View>,
    in_flight: AtomicU32,
    retired: AtomicBool,
}

/// What is known of an endpoint.
#[derive(Debug)]
pub(super) struct View {
    pub(super) health: EndpointHealth,
    pub(super) latency: PeakEwma,
    pub(super) last_error: Option<String>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Endpoint {
    /// A new one; `returned` as in [`EndpointHealth::new`].
    pub(super) fn new(
        server: usize,
        address: SocketAddr,
        tls: Option<TlsIdentity>,
        (weight, tier, near): (u32, u32, bool),
        returned: Option<Duration>,
    ) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            server,
            address,
            tls,
            weight,
            tier,
            near,
            ring: ring(address),
            turn: AtomicU64::new(0),
            view: Lock::new(View {
                health: EndpointHealth::new(returned),
                latency: PeakEwma::default(),
                last_error: None,
            }),
            in_flight: AtomicU32::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// Requests under way.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Belongs to a server that stands in for others.
    pub(super) fn is_backup(&self) -> bool {
        self.tier >> 16 > 0
    }

    /// Its address is gone: nothing new goes there, idle connections are closed.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether its address is gone.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Notes why something failed; the next success clears it.
    pub(super) fn note_error(&self, error: &SendError) {
        self.view.lock().last_error = Some(error.to_string());
    }

    /// How it stands, for people.
    pub(super) fn status(&self, now: Duration) -> EndpointStatus {
        let mut view = self.view.lock();
        let state = match view.health.state(now) {
            _ if !view.health.probes_well() => "down",
            State::Up => "up",
            State::Ejected { .. } => "ejected",
            State::Probation { .. } => "probation",
        };
        EndpointStatus {
            address: self.address,
            server: self.server,
            state,
            in_flight: self.in_flight(),
            ewma_ms: view.latency.seconds(now).map(|seconds| seconds * 1000.0),
            last_error: view.last_error.clone(),
        }
    }
}

/// The tier of an address: that of its server, and within it the priority that DNS gives (SRV).
pub(super) fn tier_of(server: u32, priority: u16) -> u32 {
    server << 16 | u32::from(priority)
}

/// Where an address stands in consistent hashing: the same on every node, and after a restart.
fn ring(address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    affinity(&[&ip, &address.port().to_be_bytes()])
}

/// Counts a request as under way to an endpoint until it is dropped.
#[derive(Debug)]
pub(super) struct Flight(Arc<Endpoint>);

impl Flight {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    /// The same request, under way to `endpoint` instead.
    pub(super) fn moved_to(self, endpoint: &Arc<Endpoint>) -> Self {
        if self.0.id == endpoint.id { self } else { Self::new(Arc::clone(endpoint)) }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
