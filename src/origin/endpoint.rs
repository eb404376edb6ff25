//! One address of a server: what is under way to it and what is known of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::balance::PeakEwma;
use crate::config::HttpVersions;
use crate::health::{EndpointHealth, HealthRules, Order, State};
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
    /// Stands where this node stands.
    pub(super) near: bool,
    /// Where it stands in consistent hashing: a hash of its address, alike on all nodes.
    pub(super) ring: u64,
    /// Its turn in round robin, as `balance` reckons it.
    pub(super) turn: AtomicU64,
    /// What is known of it; outlives it, see [`super::memory`].
    pub(super) view: Arc<Lock<View>>,
    tier: AtomicU16,
    weight: AtomicU32,
    in_flight: AtomicU32,
    retired: AtomicBool,
    /// Whether TLS agreed on HTTP/1.1 when it could have had HTTP/2.
    prefers_http1: AtomicBool,
}

/// Where an endpoint is to be, and how it stands among its fellows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// 0 is used first.
    pub(super) tier: u16,
    pub(super) weight: u32,
}

/// What is known of an endpoint.
#[derive(Debug)]
pub(super) struct View {
    pub(super) health: EndpointHealth,
    pub(super) latency: PeakEwma,
    pub(super) last_error: Option<String>,
    pub(super) order: Order,
    /// When the next probe is due.
    pub(super) probe_due: Option<Duration>,
}

impl View {
    /// Nothing; `returned` as in [`EndpointHealth::new`].
    pub(super) fn new(returned: Option<Duration>) -> Arc<Lock<Self>> {
        Arc::new(Lock::new(Self {
            health: EndpointHealth::new(returned),
            latency: PeakEwma::default(),
            last_error: None,
            order: Order::Auto,
            probe_due: None,
        }))
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Endpoint {
    /// A new one, of which this is known.
    pub(super) fn new(
        server: usize,
        target: Target,
        tls: Option<TlsIdentity>,
        view: Arc<Lock<View>>,
    ) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            server,
            address: target.address,
            tls,
            near: false,
            ring: ring(target.address),
            turn: AtomicU64::new(0),
            view,
            tier: AtomicU16::new(target.tier),
            weight: AtomicU32::new(target.weight),
            in_flight: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            prefers_http1: AtomicBool::new(false),
        }
    }

    /// The same, near this node or not.
    pub(super) fn standing(self, near: bool) -> Self {
        Self { near, ..self }
    }

    /// Endpoints of a tier are used only when those of all lower tiers are down.
    pub(super) fn tier(&self) -> u16 {
        self.tier.load(Ordering::Relaxed)
    }

    /// Share of the load beside its fellows in the tier.
    pub(super) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Where it is and how it stands.
    pub(super) fn target(&self) -> Target {
        Target { address: self.address, tier: self.tier(), weight: self.weight() }
    }

    /// Takes tier and weight of a newer answer about the same address.
    pub(super) fn stand_as(&self, target: Target) {
        self.tier.store(target.tier, Ordering::Relaxed);
        self.weight.store(target.weight, Ordering::Relaxed);
    }

    /// Requests under way.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Its address is gone: nothing new goes there, idle connections are closed.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether nothing new goes there: its address is gone, or an operator has said so.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed) || !self.is_offered()
    }

    /// Whether no operator has taken it out.
    pub(super) fn is_offered(&self) -> bool {
        self.view.lock().order == Order::Auto
    }

    /// Notes which version TLS agreed on where there was a choice.
    pub(super) fn note_version(&self, http1: bool) {
        self.prefers_http1.store(http1, Ordering::Relaxed);
    }

    /// Whether streams share connections to it, as far as is known.
    pub(super) fn shares(&self, versions: HttpVersions) -> bool {
        match versions {
            HttpVersions::One => false,
            HttpVersions::Two => true,
            HttpVersions::Auto => self.tls.is_some() && !self.prefers_http1.load(Ordering::Relaxed),
        }
    }

    /// Notes why something failed; the next success clears it.
    pub(super) fn note_error(&self, error: &SendError) {
        self.view.lock().last_error = Some(error.to_string());
    }

    /// How it stands, for people.
    pub(super) fn status(&self, rules: &HealthRules, now: Duration) -> EndpointStatus {
        let mut view = self.view.lock();
        let state = match view.health.state(now) {
            _ if view.order != Order::Auto => view.order.label(),
            _ if !view.health.probes_well() => "down",
            State::Up => "up",
            State::Ejected { .. } => "ejected",
            State::Probation { .. } => "probation",
        };
        EndpointStatus {
            address: self.address,
            server: self.server,
            state,
            order: view.order.label(),
            share: view.health.ramp(rules, now),
            in_flight: self.in_flight(),
            ewma_ms: view.latency.seconds(now).map(|seconds| seconds * 1000.0),
            last_error: view.last_error.clone(),
        }
    }
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
