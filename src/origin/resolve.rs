//! Names of servers: one refresher each, which asks again when the answer's time is over.
//!
//! DNS adds and replaces endpoints; it never takes the last ones away. A name that does not exist,
//! an empty answer, a server that fails or does not answer all leave the last good answer in force,
//! for `dns_keep`, while it is asked again with growing pauses. Each address family is kept by
//! itself: an AAAA question that fails does not disturb the A records.
//!
//! ```text
//! answer --- TTL, within 5 s and 300 s, less up to a tenth ---> ask again
//! failure -- 1 s, 2 s, 4 s .. 30 s, more or less a tenth -----> ask again
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::config::Limits;
use crate::health::{backoff, jittered};

use super::SendError;
use super::address::is_internal;
use super::dice::Dice;
use super::dns::{Asker, Family, Reply};
use super::set::Origin;

/// First and longest pause after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// A name and whom its addresses are for.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) host: String,
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
                        && name.resolvers == config.resolvers
                        && name.allow_internal == config.allow_internal_addresses
                };
                match names.iter_mut().find(same) {
                    Some(name) => name.users.push(user),
                    None => names.push(Self {
                        host: server.host.clone(),
                        resolvers: config.resolvers.clone(),
                        allow_internal: config.allow_internal_addresses,
                        users: vec![user],
                    }),
                }
            }
        }
        names
    }
}

/// Keeps the addresses of a name up to date for ever.
pub(super) async fn run(name: Name, limits: Arc<Limits>, dice: Arc<Dice>) {
    let mut asker = Asker::new(name.resolvers.clone(), limits.origin_dns);
    let mut kept = Kept::default();
    loop {
        let reply = reachable(asker.ask(&name.host).await, has_route);
        let now = clock::now().boot;
        let outcome = kept.take(reply, name.allow_internal, &limits, now);
        apply(&name, &kept, &outcome, now);
        let wait = match outcome {
            Ok(ttl) => ttl.mul_f64(1.0 - dice.draw() / 10.0).max(limits.dns_ttl_least),
            Err(_) => {
                let first = RETRY_FIRST.min(limits.dns_ttl_least);
                jittered(backoff(first, RETRY_MOST, kept.failures), dice.draw())
            }
        };
        tokio::time::sleep(wait).await;
    }
}

fn apply(name: &Name, kept: &Kept, outcome: &Result<Duration, SendError>, now: Duration) {
    if let Err(error) = outcome
        && kept.failures == 1
    {
        let left = kept.addresses().count();
        tracing::warn!(name = name.host, %error, left, "DNS fails; the last good answer is kept");
    }
    let addresses: Vec<_> = kept.addresses().collect();
    for (origin, server) in &name.users {
        if outcome.is_err() {
            origin.measure(|metrics| metrics.dns_failures.inc());
        }
        origin.apply(*server, &origin.targets(*server, &addresses), now);
        origin.resolved(*server, outcome.clone().map(|_ttl| ()), now);
    }
}

/// The last good answer for a name.
#[derive(Debug, Default)]
struct Kept {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    good: Option<Duration>,
    failures: u32,
}

impl Kept {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().chain(&self.v6).copied()
    }

    /// Takes in a reply. `Ok`: the time for which it is good, within the limits.
    fn take(
        &mut self,
        reply: Reply,
        allow_internal: bool,
        limits: &Limits,
        now: Duration,
    ) -> Result<Duration, SendError> {
        let (v4, v6) = (filter(reply.v4, allow_internal), filter(reply.v6, allow_internal));
        if let Some(error) = useless(&v4, &v6) {
            self.failures = self.failures.saturating_add(1);
            let good = self.good.unwrap_or(now);
            if now.saturating_sub(good) >= limits.dns_keep {
                self.v4.clear();
                self.v6.clear();
            }
            return Err(error);
        }
        self.failures = 0;
        self.good = Some(now);
        let most = limits.dns_addresses.max(1);
        let ttl = replace(&mut self.v4, v4, most).min(replace(&mut self.v6, v6, most));
        let room = most.saturating_sub(self.v4.len().min(most.div_ceil(2)));
        self.v6.truncate(room);
        self.v4.truncate(most - self.v6.len());
        Ok(ttl.clamp(limits.dns_ttl_least, limits.dns_ttl_most.max(limits.dns_ttl_least)))
    }
}

/// A family to which this machine has no route is left out while the other has addresses: most
/// machines without IPv6 ask about names that have it.
fn reachable(reply: Reply, has_route: impl Fn(IpAddr) -> bool) -> Reply {
    let routed = |family: &Family| match family {
        Family::Addresses(addresses, _) => addresses.iter().any(|&address| has_route(address)),
        Family::Nothing | Family::Failed(_) => false,
    };
    let absent = |family: &Family| matches!(family, Family::Addresses(..)) && !routed(family);
    if routed(&reply.v4) && absent(&reply.v6) {
        return Reply { v6: Family::Nothing, ..reply };
    }
    if routed(&reply.v6) && absent(&reply.v4) {
        return Reply { v4: Family::Nothing, ..reply };
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

/// What is left of a family's answer without addresses that a name must not point to.
fn filter(family: Family, allow_internal: bool) -> Family {
    let Family::Addresses(mut addresses, ttl) = family else { return family };
    if !allow_internal {
        addresses.retain(|address| !is_internal(*address));
    }
    if addresses.is_empty() {
        let why = "answers only with addresses of this machine, the link or metadata services";
        return Family::Failed(SendError::DnsError(why.to_owned()));
    }
    Family::Addresses(addresses, ttl)
}

/// Why a reply gives nothing to work with.
fn useless(v4: &Family, v6: &Family) -> Option<SendError> {
    match (v4, v6) {
        (Family::Addresses(..), _) | (_, Family::Addresses(..)) => None,
        (Family::Failed(error), _) | (_, Family::Failed(error)) => Some(error.clone()),
        (Family::Nothing, Family::Nothing) => {
            Some(SendError::DnsError("the name has no address".to_owned()))
        }
    }
}

/// Puts a family's answer in place of `kept`; addresses in use come first, so that a cut at `most`
/// does not change them with every answer. Gives the time to live.
fn replace(kept: &mut Vec<IpAddr>, family: Family, most: usize) -> Duration {
    match family {
        Family::Failed(_) => Duration::MAX,
        Family::Nothing => {
            kept.clear();
            Duration::MAX
        }
        Family::Addresses(addresses, ttl) => {
            kept.retain(|address| addresses.contains(address));
            for address in addresses {
                if kept.len() < most && !kept.contains(&address) {
                    kept.push(address);
                }
            }
            ttl
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn some(addresses: &[&str], ttl: u64) -> Family {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Family::Addresses(addresses, at(ttl))
    }

    fn failed() -> Family {
        Family::Failed(SendError::DnsTimeout)
    }

    fn shown(kept: &Kept) -> Vec<String> {
        kept.addresses().map(|address| address.to_string()).collect()
    }

    #[test]
    fn the_last_good_answer_survives_every_failure() {
        let limits = Limits::default();
        let failures = [
            ("timeout", Reply { v4: failed(), v6: failed() }),
            ("no such name, or no address", Reply { v4: Family::Nothing, v6: Family::Nothing }),
            ("half failed, half empty", Reply { v4: failed(), v6: Family::Nothing }),
            ("only internal", Reply { v4: some(&["127.0.0.1"], 60), v6: Family::Nothing }),
        ];
        for (case, failure) in failures {
            let mut kept = Kept::default();
            let good = Reply { v4: some(&["192.0.2.1"], 60), v6: some(&["2001:db8::1"], 40) };
            assert_eq!(kept.take(good, false, &limits, at(0)), Ok(at(40)), "{case}");
            assert!(kept.take(failure.clone(), false, &limits, at(60)).is_err(), "{case}");
            assert_eq!(shown(&kept), ["192.0.2.1", "2001:db8::1"], "{case}");
            assert!(kept.take(failure, false, &limits, at(86400)).is_err(), "{case}");
            assert!(shown(&kept).is_empty(), "{case}: kept for a day, not longer");
        }
    }

    #[test]
    fn each_family_is_kept_by_itself() {
        let limits = Limits::default();
        let mut kept = Kept::default();
        let both = Reply { v4: some(&["192.0.2.1"], 60), v6: some(&["2001:db8::1"], 60) };
        kept.take(both, false, &limits, at(0)).unwrap();
        let half = Reply { v4: some(&["192.0.2.2"], 60), v6: failed() };
        kept.take(half, false, &limits, at(60)).unwrap();
        assert_eq!(shown(&kept), ["192.0.2.2", "2001:db8::1"]);
        let only = Reply { v4: some(&["192.0.2.2"], 60), v6: Family::Nothing };
        kept.take(only, false, &limits, at(120)).unwrap();
        assert_eq!(shown(&kept), ["192.0.2.2"]);
    }

    #[test]
    fn times_to_live_are_kept_within_bounds() {
        let limits = Limits::default();
        for (ttl, expected) in [(0, 5), (4, 5), (60, 60), (301, 300), (2_147_483_648, 300)] {
            let mut kept = Kept::default();
            let reply = Reply { v4: some(&["192.0.2.1"], ttl), v6: Family::Nothing };
            assert_eq!(kept.take(reply, false, &limits, at(0)), Ok(at(expected)));
        }
    }

    #[test]
    fn a_flood_of_addresses_is_cut_without_changing_those_in_use() {
        let limits = Limits { dns_addresses: 4, ..Limits::default() };
        let mut kept = Kept::default();
        let row = |from: u8| -> Vec<String> {
            (0..100).map(|index| format!("192.0.2.{}", from.wrapping_add(index))).collect()
        };
        for from in [0, 255, 254, 253] {
            let row = row(from);
            let row: Vec<&str> = row.iter().map(String::as_str).collect();
            let reply = Reply { v4: some(&row, 60), v6: some(&["2001:db8::1"], 60) };
            kept.take(reply, false, &limits, at(0)).unwrap();
            let first: Vec<_> = shown(&kept).into_iter().filter(|a| a.contains('.')).collect();
            assert_eq!(first, ["192.0.2.0", "192.0.2.1", "192.0.2.2"], "{from}");
            assert_eq!(kept.addresses().count(), 4);
        }
    }

    #[test]
    fn a_family_without_a_route_is_left_out_while_the_other_has_one() {
        let v4 = || some(&["192.0.2.1"], 60);
        let v6 = || some(&["2001:db8::1"], 60);
        let (all, none) = ((true, true), (false, false));
        let cases = [
            (all, v4(), v6(), v4(), v6()),
            ((true, false), v4(), v6(), v4(), Family::Nothing),
            ((false, true), v4(), v6(), Family::Nothing, v6()),
            (none, v4(), v6(), v4(), v6()),
            ((true, false), v4(), failed(), v4(), failed()),
            ((true, false), Family::Nothing, v6(), Family::Nothing, v6()),
        ];
        for ((has_v4, has_v6), v4, v6, left_v4, left_v6) in cases {
            let has_route = |address: IpAddr| if address.is_ipv4() { has_v4 } else { has_v6 };
            let left = reachable(Reply { v4, v6 }, has_route);
            assert_eq!(left, Reply { v4: left_v4, v6: left_v6 });
        }
    }

    #[test]
    fn internal_addresses_are_left_out_unless_allowed() {
        let limits = Limits::default();
        let mixed = || Reply {
            v4: some(&["169.254.169.254", "192.0.2.1", "127.0.0.1"], 60),
            v6: some(&["::1"], 60),
        };
        let mut kept = Kept::default();
        kept.take(mixed(), false, &limits, at(0)).unwrap();
        assert_eq!(shown(&kept), ["192.0.2.1"]);
        kept.take(mixed(), true, &limits, at(0)).unwrap();
        assert_eq!(kept.addresses().count(), 4);
    }
}
