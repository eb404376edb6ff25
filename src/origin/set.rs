//! One origin: its servers, the endpoints behind them, and the places that requests need.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::balance::Latencies;
use crate::clock;
use crate::config::{self, Limits};
use crate::health::{
    HealthRules, Member, Observed, ProbeRules, RetryBudget, State, Tier, may_eject, usable,
};
use crate::store::{Events, What};
use crate::telemetry::{Metrics, OriginMetrics};

use super::endpoint::{Endpoint, Target};
use super::lock::Lock;
use super::place::Places;
use super::race::{Rivals, alternate};
use super::tls::TlsIdentity;
use super::{OriginStatus, SendError, ServerStatus};

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
    editing: Lock<()>,
    changed: watch::Sender<()>,
    pub(super) places: Places,
    panic: AtomicBool,
    /// Of round robin, as `balance` reckons it.
    pub(super) turn: AtomicU64,
    rules: HealthRules,
    index: usize,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
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
        index: usize,
        config: config::Origin,
        tls: Vec<Option<TlsIdentity>>,
        limits: Arc<Limits>,
        (metrics, events): (Arc<Metrics>, Arc<Events>),
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
            places: Places::new(limits.origin_connections),
            config,
            limits,
            servers,
            endpoints: ArcSwap::default(),
            editing: Lock::default(),
            changed: watch::Sender::new(()),
            panic: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            index,
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

    /// The origin's own measures; none only if the metrics were made for another configuration.
    pub(super) fn measure(&self, act: impl FnOnce(&OriginMetrics)) {
        if let Some(metrics) = self.metrics.origins.get(self.index) {
            act(metrics);
        }
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
                let returned = stays.then_some(now);
                let new_one = Endpoint::new(server, target, its.tls.clone(), returned);
                new.push(Arc::new(new_one.standing(its.config.near)));
            }
        }
        self.endpoints.store(Arc::new(new));
        gone.iter().for_each(|endpoint| endpoint.retire());
        drop(editing);
        self.measure_endpoints(now);
        self.changed.send_replace(());
    }

    /// Notes how a server's name stands: when the oldest answer in use came, and what is wrong.
    pub(super) fn resolved(&self, server: usize, good: Option<Duration>, error: Option<SendError>) {
        if let Some(server) = self.servers.get(server) {
            *server.resolution.lock() = Resolution { tried: true, good, error };
        }
        self.changed.send_replace(());
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
                    member: Member { tier: endpoint.tier(), up: view.health.is_up(now) },
                    takes: view.health.takes(endpoint.in_flight(), now),
                    latency: view.latency.seconds(now),
                    ramp: view.health.ramp(&self.rules, now),
                }
            })
            .collect()
    }

    /// Takes in how a request went; `latency` is the time to the final head.
    pub(super) fn observe(
        &self,
        endpoint: &Endpoint,
        observed: Observed,
        latency: Option<Duration>,
        now: Duration,
    ) {
        let mut view = endpoint.view.lock();
        if let Some(latency) = latency {
            view.latency.observe(latency, now);
        }
        if observed == Observed::Success {
            view.last_error = None;
        }
        let before = view.health.state(now);
        let earned = view.health.observe(observed, &self.rules, now);
        let after = view.health.state(now);
        drop(view);
        if earned {
            self.eject(endpoint, now);
        } else if before != after && after == State::Up {
            tracing::info!(origin = self.config.name, endpoint = %endpoint.address, "endpoint is back");
            self.measure_endpoints(now);
            self.tell(endpoint, None, now);
        }
    }

    /// Ejects an endpoint that has earned it, if the set can spare it.
    fn eject(&self, endpoint: &Endpoint, now: Duration) {
        let editing = self.editing.lock();
        let endpoints = self.endpoints.load();
        let (mut ejected, mut usable) = (0, 0);
        for other in endpoints.iter() {
            let mut view = other.view.lock();
            let out = matches!(view.health.state(now), State::Ejected { .. });
            ejected += usize::from(out && other.id != endpoint.id);
            usable += usize::from(view.health.is_up(now));
        }
        let most = self.limits.eject_at_most_percent;
        if !may_eject(endpoints.len(), ejected, usable, most) {
            return;
        }
        let mut view = endpoint.view.lock();
        view.health.eject(&self.rules, now);
        view.latency.reset();
        let why = view.last_error.clone().unwrap_or_default();
        drop(view);
        drop(editing);
        self.measure(|metrics| metrics.ejections.inc());
        self.measure_endpoints(now);
        tracing::warn!(
            origin = self.config.name, endpoint = %endpoint.address, why, "endpoint ejected"
        );
        self.tell(endpoint, Some(why), now);
    }

    /// Tells those who follow the node how an endpoint stands now.
    fn tell(&self, endpoint: &Endpoint, why: Option<String>, now: Duration) {
        let what = What::Health {
            origin: self.config.name.clone(),
            address: endpoint.address,
            state: endpoint.status(now).state,
            why: why.filter(|why| !why.is_empty()),
        };
        self.events.publish(what, clock::now().wall);
    }

    /// Takes in how a probe went.
    pub(super) fn observe_probe(
        &self,
        endpoint: &Endpoint,
        outcome: Result<(), SendError>,
        rules: ProbeRules,
        now: Duration,
    ) {
        let well = outcome.is_ok();
        let mut view = endpoint.view.lock();
        let changed = view.health.observe_probe(well, rules, now);
        if let Err(error) = &outcome {
            view.last_error = Some(format!("probe: {error}"));
        } else if changed.is_some() {
            view.last_error = None;
            view.latency.reset();
        }
        drop(view);
        if !well {
            self.measure(|metrics| metrics.probes_failed.inc());
        }
        let Some(well) = changed else { return };
        self.measure_endpoints(now);
        let why = outcome.err().map(|error| format!("probe: {error}")).unwrap_or_default();
        self.tell(endpoint, Some(why.clone()), now);
        let (origin, endpoint) = (&self.config.name, endpoint.address);
        if well {
            tracing::info!(origin, %endpoint, "probes find the endpoint well again");
        } else {
            tracing::warn!(origin, %endpoint, why, "probes find the endpoint down");
        }
    }

    /// Sets the gauges and tells of panic; called on changes, and now and then for those that time
    /// makes.
    pub(super) fn measure_endpoints(&self, now: Duration) {
        let endpoints = self.endpoints.load();
        let known = self.judge(&endpoints, now);
        let up = known.iter().filter(|known| known.member.up).count();
        let answered = self.servers.iter().filter_map(|server| server.resolution.lock().good);
        let age = answered.min().map_or(0, |good| now.saturating_sub(good).as_secs());
        self.measure(|metrics| {
            metrics.dns_age.set(i64::try_from(age).unwrap_or(i64::MAX));
            metrics.endpoints.set(i64::try_from(endpoints.len()).unwrap_or(i64::MAX));
            metrics.endpoints_up.set(i64::try_from(up).unwrap_or(i64::MAX));
        });
        let panic = !known.is_empty() && usable(known.iter().map(|known| known.member)).panic;
        let (origin, all) = (&self.config.name, known.len());
        match (self.panic.swap(panic, Ordering::Relaxed), panic) {
            (false, true) => {
                tracing::warn!(origin, up, all, "nearly all endpoints look down; all are used");
            }
            (true, false) => tracing::info!(origin, up, all, "endpoints are believed again"),
            _ => {}
        }
    }

    /// How it stands, for people.
    pub(super) fn status(&self, now: Duration) -> OriginStatus {
        let endpoints = self.endpoints.load();
        let known = self.judge(&endpoints, now);
        let tier: Tier = usable(known.iter().map(|known| known.member));
        OriginStatus {
            name: self.config.name.clone(),
            in_flight: self.places.taken(),
            queued: self.places.queued(),
            healthy: known.iter().any(|known| known.member.up),
            panic: tier.panic && !endpoints.is_empty(),
            servers: self.servers.iter().map(|server| server.status(now)).collect(),
            endpoints: endpoints.iter().map(|endpoint| endpoint.status(now)).collect(),
        }
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
