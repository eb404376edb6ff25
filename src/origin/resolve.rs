//! Names of servers: one refresher each, which asks again when the answer's time is over.
//!
//! ```text
//! answer --- TTL, within 5 s and 300 s, less up to a tenth ---> ask again
//! failure -- 1 s, 2 s, 4 s .. 30 s, more or less a tenth -----> ask again
//! ```
//!
//! What a failure leaves in force stands in `kept`. SRV records are a level above: `services`
//! follows each host that they name in the same way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::config::Limits;
use crate::health::{backoff, jittered};

use super::address::{is_internal, is_own};
use super::dice::Dice;
use super::dns::{Asker, DnsFailure, Family, Reply};
use super::kept::Kept;
use super::services;
use super::set::Origin;

/// First and longest pause after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// A name and whom its addresses are for.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) host: String,
    /// Whether it is a name of SRV records.
    pub(super) srv: bool,
    /// DNS servers to ask; none: the system's.
    pub(super) resolvers: Vec<SocketAddr>,
    pub(super) allow_internal: bool,
    /// Origins with the position of the server that bears this name.
    pub(super) users: Vec<(Arc<Origin>, usize)>,
}

impl Name {
    /// All names of `origins` that need DNS. The same name under the same rules is asked for once.
    pub(super) fn of(origins: &[Arc<Origin>]) -> Vec<Self> {
        let mut names: Vec<Self> = Vec::new();
        for origin in origins {
            for (position, server) in origin.config.servers.iter().enumerate() {
                if origin.fixed_addresses(position).is_some() {
                    continue;
                }
                let user = (Arc::clone(origin), position);
                let config = &origin.config;
                let same = |name: &&mut Self| {
                    name.host == server.host
                        && name.srv == server.srv
                        && name.resolvers == config.resolvers
                        && name.allow_internal == config.allow_internal_addresses
                };
                match names.iter_mut().find(same) {
                    Some(name) => name.users.push(user),
                    None => names.push(Self {
                        host: server.host.clone(),
                        srv: server.srv,
                        resolvers: config.resolvers.clone(),
                        allow_internal: config.allow_internal_addresses,
                        users: vec![user],
                    }),
                }
            }
        }
        names
    }

    /// Whether its records may point to `address`.
    fn allows(&self, address: IpAddr) -> bool {
        self.allow_internal || !(is_internal(address) || is_own(address))
    }

    /// Counts a failure for all who use the name, and tells of it once.
    pub(super) fn failed(&self, host: &str, why: &DnsFailure, first: bool, left: usize) {
        for (origin, _) in &self.users {
            origin.measure(|metrics| metrics.dns_failures(why.label()).inc());
        }
        let name = host;
        match (first, left) {
            (true, 0) => tracing::warn!(name, %why, "DNS fails, and there is no answer to keep"),
            (true, _) => {
                tracing::warn!(name, %why, left, "DNS fails; the last good answer is kept")
            }
            (false, _) => {}
        }
    }
}

/// What bounds and jitters the asking.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) limits: Arc<Limits>,
    pub(super) dice: Arc<Dice>,
}

impl Manner {
    /// Time until the next question: an answer's own, or a growing one after failures.
    pub(super) fn pause(&self, outcome: Result<Duration, u32>) -> Duration {
        let least = self.limits.dns_ttl_least;
        match outcome {
            Ok(ttl) => ttl.mul_f64(1.0 - self.dice.draw() / 10.0).max(least),
            Err(failures) => {
                jittered(backoff(RETRY_FIRST.min(least), RETRY_MOST, failures), self.dice.draw())
            }
        }
    }
}

/// Keeps the endpoints behind a name up to date for ever.
pub(super) async fn run(name: Name, manner: Manner) {
    if name.srv {
        return services::run(name, manner).await;
    }
    follow(&name, &name.host, &manner, |kept, outcome, now| {
        let addresses: Vec<_> = kept.addresses().collect();
        for (origin, server) in &name.users {
            // Until there is an answer, what a former configuration knew stands.
            if kept.good.is_some() {
                origin.apply(*server, &origin.targets(*server, &addresses), now);
            }
            let error = outcome.as_ref().err().map(DnsFailure::as_send_error);
            origin.resolved(*server, kept.good, error);
        }
    })
    .await;
}

/// Asks for the addresses of `host` for ever, and tells what is kept after each answer.
pub(super) async fn follow(
    name: &Name,
    host: &str,
    manner: &Manner,
    mut tell: impl FnMut(&Kept, &Result<Duration, DnsFailure>, Duration),
) {
    let mut asker = Asker::new(name.resolvers.clone(), manner.limits.origin_dns);
    let mut kept = Kept::default();
    loop {
        let reply = reachable(asker.addresses(host).await, has_route);
        let now = clock::now().boot;
        let outcome = kept.take(reply, |address| name.allows(address), &manner.limits, now);
        if let Err(why) = &outcome {
            name.failed(host, why, kept.failures == 1, kept.addresses().count());
        }
        tell(&kept, &outcome, now);
        tokio::time::sleep(manner.pause(outcome.map_err(|_why| kept.failures))).await;
    }
}

/// A family to which this machine has no route is left out while the other has addresses: most
/// machines without IPv6 ask about names that have it.
fn reachable(reply: Reply, has_route: impl Fn(IpAddr) -> bool) -> Reply {
    let routed = |family: &Family| match family {
        Family::Addresses(addresses, _) => addresses.iter().any(|&address| has_route(address)),
        Family::Nothing(_) | Family::Failed(_) => false,
    };
    let absent = |family: &Family| matches!(family, Family::Addresses(..)) && !routed(family);
    if routed(&reply.v4) && absent(&reply.v6) {
        return Reply { v6: Family::Nothing(DnsFailure::NoRecords), ..reply };
    }
    if routed(&reply.v6) && absent(&reply.v4) {
        return Reply { v4: Family::Nothing(DnsFailure::NoRecords), ..reply };
    }
    reply
}

/// Whether a packet to `address` would leave this machine. Sends none.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    std::net::UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 9))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(address: &str) -> Family {
        Family::Addresses(vec![address.parse().unwrap()], Duration::from_secs(60))
    }

    #[test]
    fn a_family_without_a_route_is_left_out_while_the_other_has_one() {
        let v4 = || some("192.0.2.1");
        let v6 = || some("2001:db8::1");
        let nothing = || Family::Nothing(DnsFailure::NoRecords);
        let failed = || Family::Failed(DnsFailure::Timeout);
        let (all, none) = ((true, true), (false, false));
        let cases = [
            (all, v4(), v6(), v4(), v6()),
            ((true, false), v4(), v6(), v4(), nothing()),
            ((false, true), v4(), v6(), nothing(), v6()),
            (none, v4(), v6(), v4(), v6()),
            ((true, false), v4(), failed(), v4(), failed()),
            ((true, false), nothing(), v6(), nothing(), v6()),
        ];
        for ((has_v4, has_v6), v4, v6, left_v4, left_v6) in cases {
            let has_route = |address: IpAddr| if address.is_ipv4() { has_v4 } else { has_v6 };
            let left = reachable(Reply { v4, v6 }, has_route);
            assert_eq!(left, Reply { v4: left_v4, v6: left_v6 });
        }
    }
}
