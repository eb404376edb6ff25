//! SRV records: hosts, ports, priorities and weights under one name (RFC 2782).
//!
//! The records have a refresher, and so has each host that they name, by its own time to live.
//! Priorities become tiers: the lowest that the name has is the first, the next one its backup, and
//! so on. Weights hold within a tier; the addresses of one host share its weight.
//!
//! ```text
//! records in force --------.          every new host has been asked for,
//! records that came later --+-------> and there is an address: in force, the old ones drained
//! ```
//!
//! New records wait for their hosts, so that a move to hosts which do not resolve yet takes nothing
//! away. Records and addresses are kept over failures each by itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::clock;
use crate::config::Limits;

use super::SendError;
use super::dns::{self, Asker, DnsFailure, Service};
use super::endpoint::Target;
use super::kept::{is_over, within};
use super::lock::Lock;
use super::resolve::{Manner, Name, follow};

/// What is known of a host that records name.
#[derive(Clone, Debug)]
struct Host {
    addresses: Vec<IpAddr>,
    good: Option<Duration>,
    error: Option<SendError>,
}

/// Hosts by name, as their followers know them.
type Hosts = HashMap<String, Host>;

/// Keeps the endpoints behind SRV records up to date for ever.
pub(super) async fn run(name: Name, manner: Manner) {
    let mut asker = Asker::new(name.resolvers.clone(), manner.limits.origin_dns);
    let mut records = Records::default();
    let mut followers = Followers::new(&name, &manner);
    let mut due = Instant::now();
    let mut settled = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {
                let answer = asker.services(&name.host).await;
                let now = clock::now().boot;
                let outcome = records.take(answer, &manner.limits, now);
                if let Err(why) = &outcome {
                    let first = records.failures == 1;
                    name.failed(&name.host, why, first, records.in_force.len());
                }
                due = Instant::now() + manner.pause(outcome.map_err(|_why| records.failures));
                followers.follow(records.hosts());
            }
            () = followers.news.notified() => {}
        }
        let hosts = followers.hosts.lock();
        records.settle(&hosts);
        settled |= !records.in_force.is_empty();
        publish(&name, &records, &hosts, settled, manner.limits.dns_addresses);
    }
}

/// Until records are `settled`, what a former configuration knew stands.
fn publish(name: &Name, records: &Records, hosts: &Hosts, settled: bool, most: usize) {
    let now = clock::now().boot;
    let found = targets(&records.in_force, hosts, most);
    let error = records.error(hosts);
    // Who waits for the first answer is told when there is one, or that there will be none.
    if found.is_empty() && error.is_none() {
        return;
    }
    for (origin, server) in &name.users {
        let base = origin.tier(*server);
        let at_base = |target: &Target| Target { tier: base + target.tier, ..*target };
        if settled {
            origin.apply(*server, &found.iter().map(at_base).collect::<Vec<_>>(), now);
        }
        origin.resolved(*server, records.good(hosts), error.clone());
    }
}

/// The records of a name.
#[derive(Debug, Default)]
struct Records {
    in_force: Vec<Service>,
    /// Came later, and wait for their hosts.
    next: Option<Vec<Service>>,
    good: Option<Duration>,
    failures: u32,
    error: Option<DnsFailure>,
}

impl Records {
    /// Takes in an answer. `Ok`: the time for which it is good, within the limits.
    fn take(
        &mut self,
        answer: dns::Services,
        limits: &Limits,
        now: Duration,
    ) -> Result<Duration, DnsFailure> {
        match answer {
            Ok((services, ttl)) => {
                self.failures = 0;
                self.good = Some(now);
                self.error = None;
                let services = self.bounded(services, limits.dns_addresses.max(1));
                self.next = (services != self.in_force).then_some(services);
                Ok(within(ttl, limits))
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                self.error = Some(why.clone());
                if is_over(self.good, limits, now) {
                    self.in_force.clear();
                    self.next = None;
                }
                Err(why)
            }
        }
    }

    /// Not more than `most`, each once: the first priorities, and those in force before others.
    fn bounded(&self, mut services: Vec<Service>, most: usize) -> Vec<Service> {
        let order = |service: &Service| {
            let known = self.in_force.iter().any(|own| own == service);
            (service.priority, !known, service.host.clone(), service.port, service.weight)
        };
        services.sort_by_cached_key(order);
        services.dedup();
        services.truncate(most);
        // The order of those that are left is not to depend on what was there before.
        services.sort_by_cached_key(|service| {
            (service.priority, service.host.clone(), service.port, service.weight)
        });
        services
    }

    /// Hosts that must be known, each once.
    fn hosts(&self) -> Vec<&str> {
        let all = self.in_force.iter().chain(self.next.iter().flatten());
        let mut hosts: Vec<_> = all.map(|service| service.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// Puts later records in force once their hosts are known. The first ones need not wait for
    /// all of them, only for those that are no backups.
    fn settle(&mut self, hosts: &Hosts) {
        let Some(next) = &self.next else { return };
        let asked = |service: &Service| hosts.contains_key(&service.host);
        let found = |service: &Service| has_address(service, hosts);
        let ready = if self.in_force.iter().any(found) {
            next.iter().all(asked)
        } else {
            let priority = next.first().map(|service| service.priority);
            let mut first = next.iter().filter(|service| Some(service.priority) == priority);
            first.clone().any(found) || first.all(asked)
        };
        if ready && next.iter().any(found) {
            self.in_force = self.next.take().unwrap_or_default();
        }
    }

    /// What is wrong, if something is.
    fn error(&self, hosts: &Hosts) -> Option<SendError> {
        if let Some(why) = &self.error {
            return Some(why.as_send_error());
        }
        let newest = self.next.as_ref().unwrap_or(&self.in_force);
        let asked = newest.iter().all(|service| hosts.contains_key(&service.host));
        let mut errors =
            newest.iter().filter_map(|service| hosts.get(&service.host)?.error.clone());
        if asked { errors.next() } else { None }
    }

    /// When the oldest answer in use came.
    fn good(&self, hosts: &Hosts) -> Option<Duration> {
        let used = self.in_force.iter().filter(|service| has_address(service, hosts));
        let oldest = used.filter_map(|service| hosts.get(&service.host)?.good).min();
        oldest.into_iter().chain(self.good).min()
    }
}

fn has_address(service: &Service, hosts: &Hosts) -> bool {
    hosts.get(&service.host).is_some_and(|host| !host.addresses.is_empty())
}

/// Endpoints of `services` whose hosts are known, at most `most`, first priorities first. Tiers
/// count from 0 without gaps.
fn targets(services: &[Service], hosts: &Hosts, most: usize) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut tier = 0;
    for peers in services.chunk_by(|one, other| one.priority == other.priority) {
        let weightless = peers.iter().all(|service| service.weight == 0);
        let before = targets.len();
        let mut depth = 0;
        // Each host's first address before any second one, should they be too many.
        loop {
            let at_depth = |service: &Service| {
                let addresses = &hosts.get(&service.host)?.addresses;
                let address = SocketAddr::new(*addresses.get(depth)?, service.port);
                let weight = weight(service, weightless, addresses.len());
                Some(Target { address, tier, weight })
            };
            let found: Vec<_> = peers.iter().filter_map(at_depth).collect();
            if found.is_empty() {
                break;
            }
            found.into_iter().for_each(|target| join(&mut targets, target, most));
            depth += 1;
        }
        tier += u16::from(targets.len() > before);
    }
    reduce(&mut targets);
    targets
}

/// An address that several records name stays in its first tier, with their weights together.
fn join(targets: &mut Vec<Target>, target: Target, most: usize) {
    let room = targets.len() < most;
    match targets.iter_mut().find(|known| known.address == target.address) {
        Some(known) if known.tier == target.tier => {
            known.weight = known.weight.saturating_add(target.weight);
        }
        Some(_) => {}
        None if room => targets.push(target),
        None => {}
    }
}

/// An address's part of a record's weight. Zero means "hardly ever" beside others, and nothing
/// where all are zero.
fn weight(service: &Service, weightless: bool, addresses: usize) -> u32 {
    /// Has many divisors: hosts have two, three or four addresses.
    const FINE: u32 = 120;
    let whole = match service.weight {
        _ if weightless => FINE,
        0 => 1,
        weight => u32::from(weight) * FINE,
    };
    (whole / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)).max(1)
}

/// Takes out what all weights have in common.
fn reduce(targets: &mut [Target]) {
    fn common(one: u32, other: u32) -> u32 {
        if other == 0 { one } else { common(other, one % other) }
    }
    let shared = targets.iter().fold(0, |all, target| common(all, target.weight)).max(1);
    for target in targets {
        target.weight /= shared;
    }
}

/// The refreshers of hosts. They end with this.
struct Followers {
    name: Name,
    manner: Manner,
    tasks: JoinSet<()>,
    by_host: HashMap<String, AbortHandle>,
    hosts: Arc<Lock<Hosts>>,
    news: Arc<Notify>,
}

impl Followers {
    fn new(name: &Name, manner: &Manner) -> Self {
        Self {
            name: name.clone(),
            manner: manner.clone(),
            tasks: JoinSet::new(),
            by_host: HashMap::new(),
            hosts: Arc::default(),
            news: Arc::default(),
        }
    }

    /// Follows these hosts and no others.
    fn follow(&mut self, hosts: Vec<&str>) {
        self.by_host.retain(|host, task| {
            let stays = hosts.binary_search(&host.as_str()).is_ok();
            if !stays {
                task.abort();
            }
            // One that panicked is started anew below.
            stays && !task.is_finished()
        });
        while self.tasks.try_join_next().is_some() {}
        self.hosts.lock().retain(|host, _| hosts.binary_search(&host.as_str()).is_ok());
        for host in hosts {
            if !self.by_host.contains_key(host) {
                let task = self.tasks.spawn(self.follower(host.to_owned()));
                self.by_host.insert(host.to_owned(), task);
            }
        }
    }

    fn follower(&self, host: String) -> impl Future<Output = ()> + Send + use<> {
        let (name, manner) = (self.name.clone(), self.manner.clone());
        let (hosts, news) = (Arc::clone(&self.hosts), Arc::clone(&self.news));
        async move {
            follow(&name, &host, &manner, |kept, outcome, _now| {
                let known = Host {
                    addresses: kept.addresses().collect(),
                    good: kept.good,
                    error: outcome.as_ref().err().map(DnsFailure::as_send_error),
                };
                hosts.lock().insert(host.clone(), known);
                news.notify_one();
            })
            .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, host: &str) -> Service {
        Service { priority, weight, port: 80, host: host.to_owned() }
    }

    fn hosts(known: &[(&str, &[u8])]) -> Hosts {
        let host = |&(name, last): &(&str, &[u8])| {
            let addresses = last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
            let error = last.is_empty().then_some(SendError::DnsTimeout);
            (name.to_owned(), Host { addresses, good: Some(Duration::from_secs(1)), error })
        };
        known.iter().map(host).collect()
    }

    fn shown(targets: &[Target]) -> Vec<(u8, u16, u32)> {
        let last = |target: &Target| match target.address.ip() {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        targets.iter().map(|target| (last(target), target.tier, target.weight)).collect()
    }

    #[test]
    fn priorities_become_tiers_and_weights_weights() {
        let known = hosts(&[("a", &[1]), ("b", &[2]), ("c", &[3]), ("d", &[4, 5]), ("none", &[])]);
        // (what is said, records, address with tier and weight)
        type Row<'a> = (&'a str, Vec<Service>, Vec<(u8, u16, u32)>);
        let cases: Vec<Row<'_>> = vec![
            ("one", vec![service(10, 5, "a")], vec![(1, 0, 1)]),
            (
                "two tiers, gaps closed",
                vec![service(10, 60, "a"), service(10, 20, "b"), service(900, 0, "c")],
                vec![(1, 0, 60), (2, 0, 20), (3, 1, 1)],
            ),
            (
                "addresses share their host's weight",
                vec![service(0, 1, "a"), service(0, 1, "d")],
                vec![(1, 0, 2), (4, 0, 1), (5, 0, 1)],
            ),
            (
                "no weights",
                vec![service(0, 0, "a"), service(0, 0, "b")],
                vec![(1, 0, 1), (2, 0, 1)],
            ),
            (
                "zero beside others is hardly ever",
                vec![service(0, 0, "a"), service(0, 3, "b")],
                vec![(1, 0, 1), (2, 0, 360)],
            ),
            (
                "a priority without addresses is no tier",
                vec![service(0, 1, "none"), service(1, 1, "a")],
                vec![(1, 0, 1)],
            ),
            (
                "named twice",
                vec![
                    service(0, 1, "a"),
                    service(0, 1, "a"),
                    service(0, 1, "b"),
                    service(1, 1, "b"),
                ],
                vec![(1, 0, 2), (2, 0, 1)],
            ),
        ];
        for (case, services, expected) in cases {
            assert_eq!(shown(&targets(&services, &known, 64)), expected, "{case}");
        }
    }

    #[test]
    fn too_many_addresses_are_taken_evenly() {
        let known = hosts(&[("a", &[1, 2, 3, 4]), ("b", &[5, 6, 7])]);
        let services = [service(0, 1, "a"), service(0, 1, "b")];
        let some: Vec<_> = shown(&targets(&services, &known, 4)).iter().map(|row| row.0).collect();
        assert_eq!(some, [1, 5, 2, 6]);
    }

    fn answer(services: &[Service]) -> dns::Services {
        Ok((services.to_vec(), Duration::from_secs(60)))
    }

    #[test]
    fn later_records_wait_for_their_hosts() {
        let (limits, now) = (Limits::default(), Duration::ZERO);
        let mut records = Records::default();
        let (a, b, c) = (service(0, 1, "a"), service(0, 1, "b"), service(0, 1, "c"));
        records.take(answer(&[a.clone(), b.clone()]), &limits, now).unwrap();
        assert_eq!(records.hosts(), ["a", "b"]);
        records.settle(&hosts(&[]));
        assert_eq!(records.in_force, []);
        records.settle(&hosts(&[("a", &[1])]));
        assert_eq!(records.in_force, [a.clone(), b.clone()], "the first need not wait for all");
        let mut backed = Records::default();
        backed.take(answer(&[a.clone(), service(1, 1, "z")]), &limits, now).unwrap();
        backed.settle(&hosts(&[("z", &[9])]));
        assert_eq!(backed.in_force, [], "a backup waits for those before it");
        backed.settle(&hosts(&[("a", &[]), ("z", &[9])]));
        assert_eq!(backed.in_force.len(), 2);
        records.take(answer(std::slice::from_ref(&c)), &limits, now).unwrap();
        assert_eq!(records.hosts(), ["a", "b", "c"]);
        records.settle(&hosts(&[("a", &[1])]));
        assert_eq!(records.in_force, [a.clone(), b.clone()], "nobody has asked for c yet");
        let silent = hosts(&[("a", &[1]), ("c", &[])]);
        records.settle(&silent);
        assert_eq!(records.in_force, [a, b], "c has no address");
        assert_eq!(records.error(&silent), Some(SendError::DnsTimeout));
        records.settle(&hosts(&[("a", &[1]), ("c", &[3])]));
        assert_eq!(records.in_force, [c]);
        assert_eq!(records.hosts(), ["c"]);
    }

    #[test]
    fn records_are_kept_over_failures_for_a_day() {
        let limits = Limits::default();
        let mut records = Records::default();
        let a = service(0, 1, "a");
        records.take(answer(std::slice::from_ref(&a)), &limits, Duration::ZERO).unwrap();
        records.settle(&hosts(&[("a", &[1])]));
        for failure in [DnsFailure::NoName, DnsFailure::NoRecords, DnsFailure::Timeout] {
            let noon = Duration::from_secs(43_200);
            assert!(records.take(Err(failure), &limits, noon).is_err());
            assert_eq!(records.in_force, std::slice::from_ref(&a));
        }
        assert_eq!(records.failures, 3);
        let day = Duration::from_secs(86_400);
        assert!(records.take(Err(DnsFailure::Timeout), &limits, day).is_err());
        assert_eq!(records.in_force, []);
    }

    #[test]
    fn a_flood_of_records_is_cut_and_those_in_force_stay() {
        let limits = Limits { dns_addresses: 4, ..Limits::default() };
        let mut records = Records::default();
        let row = |from: u16| -> Vec<_> {
            (from..from + 100).map(|index| service(0, 1, &format!("h{index:03}"))).collect()
        };
        records.take(answer(&row(10)), &limits, Duration::ZERO).unwrap();
        records.settle(&hosts(&[("h010", &[1])]));
        let first = records.in_force.clone();
        assert_eq!(first.len(), 4);
        records.take(answer(&row(0)), &limits, Duration::ZERO).unwrap();
        assert_eq!(records.next, None, "further hosts change nothing");
        assert_eq!(records.in_force, first);
    }
}
