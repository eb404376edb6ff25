//! One origin: its servers, the endpoints behind them, and the places that requests need.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::balance::Latencies;
use crate::config::{self, Limits};
use crate::health::{HealthRules, Member, Order, RetryBudget, Tier, usable};
use crate::store::Events;
use crate::telemetry::OriginMetrics;

use super::breaker::Breaker;
use super::endpoint::{Endpoint, Target, View};
use super::lock::Lock;
use super::memory::Memory;
use super::place::Places;
use super::race::{Rivals, alternate};
use super::tls::TlsIdentity;
use super::{AbsentStatus, OriginStatus, SendError, ServerStatus};

/// Tiers of endpoints within one tier of servers: more than the priorities that one name's SRV
/// records make.
const BACKUPS: u16 = 1 << 10;

/// An origin, shared by all workers.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) config: config::Origin,
    pub(super) limits: Arc<Limits>,
    pub(super) budget: Lock<RetryBudget>,
    /// Of the requests that may be hedged.
    pub(super) latencies: Lock<Latencies>,
    servers: Vec<Server>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Held while `endpoints` is made anew, or while it is decided who may be ejected.
    pub(super) editing: Lock<()>,
    /// Of addresses that are not in use.
    pub(super) memory: Lock<Memory>,
    changed: watch::Sender<()>,
    pub(super) places: Arc<Places>,
    pub(super) breaker: Breaker,
    pub(super) panic: AtomicBool,
    /// Of round robin, as `balance` reckons it.
    pub(super) turn: AtomicU64,
    pub(super) rules: HealthRules,
    /// SHA-256 of the files that its TLS was made of.
    pub(super) files: Vec<u8>,
    metrics: OriginMetrics,
    pub(super) events: Arc<Events>,
}

/// A server as configured, and how its name stands.
#[derive(Debug)]
struct Server {
    config: config::Server,
    tls: Option<TlsIdentity>,
    resolution: Lock<Resolution>,
}

/// What is known of a server's name.
#[derive(Debug, Default)]
struct Resolution {
    tried: bool,
    good: Option<Duration>,
    error: Option<SendError>,
}

impl Origin {
    /// An origin whose `servers` come with their TLS settings. Literal addresses and `localhost`
    /// are endpoints at once, names when they are resolved.
    pub(super) fn new(
        config: config::Origin,
        tls: Vec<Option<TlsIdentity>>,
        files: Vec<u8>,
        limits: Arc<Limits>,
        (metrics, events): (OriginMetrics, Arc<Events>),
    ) -> Self {
        let servers: Vec<_> = config
            .servers
            .iter()
            .zip(tls)
            .map(|(server, tls)| Server {
                config: server.clone(),
                tls,
                resolution: Lock::default(),
            })
            .collect();
        let origin = Self {
            rules: HealthRules {
                eject_failures: limits.eject_failures,
                eject_share_percent: limits.eject_share_percent,
                eject_time: limits.eject_time,
                slow_start: limits.slow_start,
            },
            budget: Lock::new(RetryBudget::new(limits.retry_budget_percent)),
            latencies: Lock::default(),
            places: Places::new(&limits),
            breaker: Breaker::new(&limits),
            config,
            limits,
            servers,
            endpoints: ArcSwap::default(),
            editing: Lock::default(),
            memory: Lock::default(),
            changed: watch::Sender::new(()),
            panic: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            files,
            metrics,
            events,
        };
        for position in 0..origin.servers.len() {
            if let Some(addresses) = origin.fixed_addresses(position) {
                let targets = origin.targets(position, &addresses);
                origin.apply(position, &targets, Duration::ZERO);
            }
        }
        origin
    }

    /// Addresses that need no DNS; `None` for names that do.
    pub(super) fn fixed_addresses(&self, server: usize) -> Option<Vec<IpAddr>> {
        let config = &self.servers.get(server)?.config;
        let host = &config.host;
        if config.srv {
            return None;
        }
        if let Ok(address) = host.parse() {
            return Some(vec![address]);
        }
        let local = host == "localhost" || host.ends_with(".localhost");
        local.then(|| {
            vec![IpAddr::from(std::net::Ipv4Addr::LOCALHOST), std::net::Ipv6Addr::LOCALHOST.into()]
        })
    }

    /// The origin's own measures.
    pub(super) fn measure(&self, act: impl FnOnce(&OriginMetrics)) {
        act(&self.metrics);
    }

    /// Counts a connection that was given up since the process may not open more.
    pub(super) fn count_short_of_descriptors(&self) {
        self.metrics.descriptors_short.inc();
    }

    /// The endpoints in force.
    pub(super) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Addresses of a server as endpoints: port, weight and tier are the server's.
    pub(super) fn targets(&self, server: usize, addresses: &[IpAddr]) -> Vec<Target> {
        let Some(Server { config, .. }) = self.servers.get(server) else { return Vec::new() };
        let (tier, weight) = (self.tier(server), config.weight);
        let target =
            |&address| Target { address: SocketAddr::new(address, config.port), tier, weight };
        addresses.iter().map(target).collect()
    }

    /// The first tier of a server's endpoints.
    pub(super) fn tier(&self, server: usize) -> u16 {
        let tier = self.servers.get(server).map_or(0, |server| server.config.tier());
        u16::try_from(tier).unwrap_or(u16::MAX).saturating_mul(BACKUPS)
    }

    /// Puts the endpoints of a server in force. Those that stay keep all that is known of them;
    /// those that go are retired; those that come to others start slowly. Where none stays there
    /// is nobody who could take their share meanwhile.
    pub(super) fn apply(&self, server: usize, targets: &[Target], now: Duration) {
        let Some(its) = self.servers.get(server) else { return };
        let editing = self.editing.lock();
        let old = self.endpoints.load_full();
        let wanted = |endpoint: &Endpoint| {
            targets.iter().find(|target| target.address == endpoint.address).copied()
        };
        let (mut new, mut gone, mut stays) = (Vec::new(), Vec::new(), false);
        for endpoint in old.iter() {
            if endpoint.server != server {
                new.push(Arc::clone(endpoint));
            } else if let Some(target) = wanted(endpoint) {
                stays = true;
                endpoint.stand_as(target);
                new.push(Arc::clone(endpoint));
            } else {
                gone.push(Arc::clone(endpoint));
            }
        }
        for &target in targets {
            let known = |endpoint: &Arc<Endpoint>| {
                endpoint.server == server && endpoint.address == target.address
            };
            if !new.iter().any(known) {
                let view = self.view(server, target.address, stays.then_some(now), now);
                let new_one = Endpoint::new(server, target, its.tls.clone(), view);
                new.push(Arc::new(new_one.standing(its.config.near)));
            }
        }
        let more = new.iter().any(|endpoint| !old.iter().any(|other| other.id == endpoint.id));
        self.endpoints.store(Arc::new(new));
        for gone in gone {
            gone.retire();
            self.memory.lock().keep((server, gone.address), Arc::clone(&gone.view), false);
        }
        drop(editing);
        if more {
            self.breaker.hasten(now);
        }
        self.measure_endpoints(now);
        self.changed.send_replace(());
    }

    /// What is known of an address that comes into use: what is remembered, else nothing. One that
    /// was away takes up its load slowly.
    fn view(
        &self,
        server: usize,
        address: SocketAddr,
        returned: Option<Duration>,
        now: Duration,
    ) -> Arc<Lock<View>> {
        let Some((view, stays)) = self.memory.lock().take(server, address) else {
            return View::new(returned);
        };
        if !stays {
            let mut view = view.lock();
            view.health.returns(now);
            view.latency.reset();
        }
        view
    }

    /// Takes over what `old`, the same origin in another configuration, knows of the addresses of
    /// servers that stay: their health, operators' orders, latencies, when they were probed, and the
    /// addresses themselves, so that no request waits for names that were known.
    pub(super) fn adopt(&self, old: &Self, now: Duration) {
        let place =
            |server: &config::Server| (server.tls, server.srv, server.host.clone(), server.port);
        let old_endpoints = old.endpoints();
        self.endpoints.store(Arc::default());
        for (position, server) in self.servers.iter().enumerate() {
            let same = |its: &Server| place(&its.config) == place(&server.config);
            let fixed = self.fixed_addresses(position).unwrap_or_default();
            let mut targets = self.targets(position, &fixed);
            if let Some(former) = old.servers.iter().position(same) {
                let used = old_endpoints.iter().filter(|endpoint| endpoint.server == former);
                let mut memory = self.memory.lock();
                for (server, address, view) in old.memory.lock().all() {
                    if server == former {
                        memory.keep((position, address), Arc::clone(view), false);
                    }
                }
                for endpoint in used {
                    let known = (position, endpoint.address);
                    memory.keep(known, Arc::clone(&endpoint.view), true);
                    if !targets.iter().any(|target| target.address == endpoint.address) {
                        targets.push(self.target_as(position, endpoint));
                    }
                }
            }
            if !targets.is_empty() {
                self.apply(position, &targets, now);
            }
        }
        self.breaker.adopt(&old.breaker);
    }

    /// An endpoint of an earlier configuration as one of a server: what its records said of tier and
    /// weight holds until they are asked for again, else the server's own.
    fn target_as(&self, server: usize, endpoint: &Endpoint) -> Target {
        let own = self.targets(server, &[endpoint.address.ip()]);
        match (self.servers.get(server), own.first()) {
            (Some(its), Some(&target)) if !its.config.srv => target,
            _ => endpoint.target(),
        }
    }

    /// Notes how a server's name stands: when the oldest answer in use came, and what is wrong.
    pub(super) fn resolved(&self, server: usize, good: Option<Duration>, error: Option<SendError>) {
        if let Some(server) = self.servers.get(server) {
            *server.resolution.lock() = Resolution { tried: true, good, error };
        }
        self.changed.send_replace(());
    }

    /// When the oldest DNS answer in use came.
    pub(super) fn oldest_answer(&self) -> Option<Duration> {
        self.servers.iter().filter_map(|server| server.resolution.lock().good).min()
    }

    /// Waits until there is something to choose from: the first lookup of each name has ended, or
    /// one has given a server that is not a backup. Later lookups are never waited for.
    pub(super) async fn ready(&self) -> Result<(), SendError> {
        if let Some(outcome) = self.readiness() {
            return outcome;
        }
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.mark_unchanged();
                if let Some(outcome) = self.readiness() {
                    return outcome;
                }
                if changed.changed().await.is_err() {
                    return Err(SendError::DestinationUnavailable);
                }
            }
        };
        tokio::time::timeout(self.limits.origin_dns, wait)
            .await
            .unwrap_or(Err(SendError::DnsTimeout))
    }

    fn readiness(&self) -> Option<Result<(), SendError>> {
        let endpoints = self.endpoints.load();
        if endpoints.iter().any(|endpoint| endpoint.tier() < BACKUPS) {
            return Some(Ok(()));
        }
        let mut error = None;
        for (position, server) in self.servers.iter().enumerate() {
            let resolution = server.resolution.lock();
            if !resolution.tried && self.fixed_addresses(position).is_none() {
                return None;
            }
            error = error.or_else(|| resolution.error.clone());
        }
        Some(match error {
            Some(error) if endpoints.is_empty() => Err(error),
            _ if endpoints.is_empty() => Err(SendError::DestinationUnavailable),
            _ => Ok(()),
        })
    }

    /// Endpoints that may stand in for `first` on a new connection that takes long (RFC 8305):
    /// further addresses of the same name that stand alike.
    pub(super) fn rivals(&self, first: &Endpoint, now: Duration) -> Rivals {
        let endpoints = self.endpoints.load();
        let position = endpoints.iter().position(|endpoint| endpoint.id == first.id);
        let alike = |endpoint: &&Arc<Endpoint>| {
            endpoint.id != first.id
                && endpoint.server == first.server
                && endpoint.tier() == first.tier()
                && endpoint.is_offered()
                && endpoint.view.lock().health.is_up(now)
        };
        // From the chosen one on, so that not all turn to the same.
        let (before, after) = endpoints.split_at(position.unwrap_or(0));
        alternate(first, after.iter().chain(before).filter(alike).cloned())
    }

    /// What choosing needs to know of the endpoints.
    pub(super) fn judge(&self, endpoints: &[Arc<Endpoint>], now: Duration) -> SmallVec<[Known; 8]> {
        endpoints
            .iter()
            .map(|endpoint| {
                let mut view = endpoint.view.lock();
                Known {
                    member: Member {
                        tier: endpoint.tier(),
                        up: view.health.is_up(now),
                        out: view.order != Order::Auto,
                    },
                    takes: view.health.takes(endpoint.in_flight(), now),
                    latency: view.latency.seconds(now),
                    ramp: view.health.ramp(&self.rules, now),
                }
            })
            .collect()
    }

    /// How it stands, for people.
    pub(super) fn status(&self, now: Duration) -> OriginStatus {
        let endpoints = self.endpoints.load();
        let known = self.judge(&endpoints, now);
        let tier: Tier = usable(known.iter().map(|known| known.member));
        OriginStatus {
            name: self.config.name.clone(),
            in_flight: self.places.taken(),
            places: self.places.all(),
            queued: self.places.queued(),
            healthy: known.iter().any(|known| known.member.up && !known.member.out)
                && !self.breaker.is_open(),
            panic: tier.panic,
            circuit: self.breaker.state(),
            servers: self.servers.iter().map(|server| server.status(now)).collect(),
            endpoints: endpoints.iter().map(|endpoint| endpoint.status(&self.rules, now)).collect(),
            absent: AbsentStatus::all(&self.memory.lock()),
        }
    }
}

/// Once nothing is asked of it any more, its idle connections may go.
impl Drop for Origin {
    fn drop(&mut self) {
        self.endpoints.load().iter().for_each(|endpoint| endpoint.retire());
    }
}

/// What choosing needs to know of an endpoint.
pub(super) struct Known {
    pub(super) member: Member,
    pub(super) takes: bool,
    pub(super) latency: Option<f64>,
    pub(super) ramp: f64,
}

impl Server {
    fn status(&self, now: Duration) -> ServerStatus {
        let config = &self.config;
        let resolution = self.resolution.lock();
        ServerStatus {
            url: config.url(),
            weight: config.weight,
            tier: config.tier(),
            backup: config.tier() > 0,
            locality: config.locality.clone(),
            resolved_seconds_ago: resolution
                .good
                .map(|good| now.saturating_sub(good).as_secs_f64()),
            dns_error: resolution.error.as_ref().map(ToString::to_string),
        }
    }
}
