//! The last good answer for a name, and what may become of it.
//!
//! DNS adds and replaces addresses; it never takes the last ones away. A name that does not exist,
//! an empty answer, a server that fails or does not answer all leave the last good answer in force,
//! for `dns_keep`. Each address family is kept by itself: an AAAA question that fails does not
//! disturb the A records.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Limits;

use super::dns::{DnsFailure, Family, Reply};

/// The last good answer for a name.
#[derive(Debug, Default)]
pub(super) struct Kept {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    /// When it came.
    pub(super) good: Option<Duration>,
    /// Lookups in a row that failed since.
    pub(super) failures: u32,
    /// Which addresses are taken of too many; another choice on every node.
    sample: RandomState,
}

impl Kept {
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().chain(&self.v6).copied()
    }

    /// Takes in a reply; of its addresses those that are `allowed`. `Ok`: the time for which it is
    /// good, within the limits.
    pub(super) fn take(
        &mut self,
        reply: Reply,
        allowed: impl Fn(IpAddr) -> bool,
        limits: &Limits,
        now: Duration,
    ) -> Result<Duration, DnsFailure> {
        let (v4, v6) = (filter(reply.v4, &allowed), filter(reply.v6, &allowed));
        if let Some(why) = useless(&v4, &v6) {
            self.failures = self.failures.saturating_add(1);
            if is_over(self.good, limits, now) {
                self.v4.clear();
                self.v6.clear();
            }
            return Err(why);
        }
        self.failures = 0;
        self.good = Some(now);
        let most = limits.dns_addresses.max(1);
        let v4 = replace(&mut self.v4, v4, most, &self.sample);
        let v6 = replace(&mut self.v6, v6, most, &self.sample);
        let room = most.saturating_sub(self.v4.len().min(most.div_ceil(2)));
        self.v6.truncate(room);
        self.v4.truncate(most - self.v6.len());
        Ok(within(v4.min(v6), limits))
    }
}

/// Whether the last good answer has been kept for long enough.
pub(super) fn is_over(good: Option<Duration>, limits: &Limits, now: Duration) -> bool {
    good.is_some_and(|good| now.saturating_sub(good) >= limits.dns_keep)
}

/// A time to live within the limits.
pub(super) fn within(ttl: Duration, limits: &Limits) -> Duration {
    ttl.clamp(limits.dns_ttl_least, limits.dns_ttl_most.max(limits.dns_ttl_least))
}

/// What is left of a family's answer without addresses that a name must not point to.
fn filter(family: Family, allowed: impl Fn(IpAddr) -> bool) -> Family {
    let Family::Addresses(mut addresses, ttl) = family else { return family };
    addresses.retain(|address| allowed(*address));
    if addresses.is_empty() {
        return Family::Failed(DnsFailure::Forbidden);
    }
    Family::Addresses(addresses, ttl)
}

/// Why a reply gives nothing to work with.
fn useless(v4: &Family, v6: &Family) -> Option<DnsFailure> {
    match (v4, v6) {
        (Family::Addresses(..), _) | (_, Family::Addresses(..)) => None,
        (Family::Failed(why), _) | (_, Family::Failed(why)) => Some(why.clone()),
        (Family::Nothing(why), Family::Nothing(_)) => Some(why.clone()),
    }
}

/// Puts a family's answer in place of `kept`. Of too many addresses those in use stay, and others
/// join them in an order that answers do not change: neither their rotation nor a further address
/// moves requests elsewhere. Gives the time to live.
fn replace(kept: &mut Vec<IpAddr>, family: Family, most: usize, sample: &RandomState) -> Duration {
    match family {
        Family::Failed(_) => Duration::MAX,
        Family::Nothing(_) => {
            kept.clear();
            Duration::MAX
        }
        Family::Addresses(mut addresses, ttl) => {
            kept.retain(|address| addresses.contains(address));
            if addresses.len() > most {
                addresses.sort_by_cached_key(|address| sample.hash_one(address));
            }
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
    use super::super::address::is_internal;
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn some(addresses: &[&str], ttl: u64) -> Family {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Family::Addresses(addresses, at(ttl))
    }

    fn failed() -> Family {
        Family::Failed(DnsFailure::Timeout)
    }

    fn nothing() -> Family {
        Family::Nothing(DnsFailure::NoName)
    }

    fn shown(kept: &Kept) -> Vec<String> {
        kept.addresses().map(|address| address.to_string()).collect()
    }

    fn outside(address: IpAddr) -> bool {
        !is_internal(address)
    }

    #[test]
    fn the_last_good_answer_survives_every_failure() {
        let limits = Limits::default();
        let failures = [
            ("timeout", Reply { v4: failed(), v6: failed() }, "timeout"),
            ("no such name", Reply { v4: nothing(), v6: nothing() }, "no_name"),
            ("half failed, half empty", Reply { v4: failed(), v6: nothing() }, "timeout"),
            ("only internal", Reply { v4: some(&["127.0.0.1"], 60), v6: nothing() }, "forbidden"),
        ];
        for (case, failure, label) in failures {
            let mut kept = Kept::default();
            let good = Reply { v4: some(&["192.0.2.1"], 60), v6: some(&["2001:db8::1"], 40) };
            assert_eq!(kept.take(good, outside, &limits, at(0)), Ok(at(40)), "{case}");
            let why = kept.take(failure.clone(), outside, &limits, at(60)).unwrap_err();
            assert_eq!(why.label(), label, "{case}");
            assert_eq!(shown(&kept), ["192.0.2.1", "2001:db8::1"], "{case}");
            assert!(kept.take(failure, outside, &limits, at(86400)).is_err(), "{case}");
            assert!(shown(&kept).is_empty(), "{case}: kept for a day, not longer");
        }
    }

    #[test]
    fn each_family_is_kept_by_itself() {
        let limits = Limits::default();
        let mut kept = Kept::default();
        let both = Reply { v4: some(&["192.0.2.1"], 60), v6: some(&["2001:db8::1"], 60) };
        kept.take(both, outside, &limits, at(0)).unwrap();
        let half = Reply { v4: some(&["192.0.2.2"], 60), v6: failed() };
        kept.take(half, outside, &limits, at(60)).unwrap();
        assert_eq!(shown(&kept), ["192.0.2.2", "2001:db8::1"]);
        let only = Reply { v4: some(&["192.0.2.2"], 60), v6: nothing() };
        kept.take(only, outside, &limits, at(120)).unwrap();
        assert_eq!(shown(&kept), ["192.0.2.2"]);
    }

    #[test]
    fn times_to_live_are_kept_within_bounds() {
        let limits = Limits::default();
        for (ttl, expected) in [(0, 5), (4, 5), (60, 60), (301, 300), (2_147_483_648, 300)] {
            let mut kept = Kept::default();
            let reply = Reply { v4: some(&["192.0.2.1"], ttl), v6: nothing() };
            assert_eq!(kept.take(reply, outside, &limits, at(0)), Ok(at(expected)));
        }
    }

    #[test]
    fn a_flood_of_addresses_is_cut_without_changing_those_in_use() {
        let limits = Limits { dns_addresses: 64, ..Limits::default() };
        let mut kept = Kept::default();
        let row = |from: usize| -> Vec<IpAddr> {
            let address = |index: usize| {
                let [.., high, low] = (from + index).to_be_bytes();
                IpAddr::from([10, 0, high, low])
            };
            (0..1000).map(address).collect()
        };
        let six = || some(&["2001:db8::1"], 60);
        let take = |kept: &mut Kept, addresses: Vec<IpAddr>| {
            let v4 = Family::Addresses(addresses, at(60));
            kept.take(Reply { v4, v6: six() }, outside, &limits, at(0)).unwrap();
            assert_eq!(kept.addresses().count(), 64);
            assert!(kept.addresses().any(|address| address.is_ipv6()), "both families have room");
            kept.addresses().collect::<std::collections::HashSet<_>>()
        };
        let first = take(&mut kept, row(0));
        let mut turned = row(0);
        turned.rotate_left(500);
        assert_eq!(take(&mut kept, turned), first, "the order of an answer means nothing");
        let later = take(&mut kept, row(10));
        let gone = first.difference(&row(10).into_iter().collect()).filter(|a| a.is_ipv4()).count();
        assert_eq!(first.difference(&later).count(), gone, "only what is gone is replaced");
        assert_ne!(take(&mut Kept::default(), row(0)), first, "another node takes others");
    }

    #[test]
    fn internal_addresses_are_left_out_unless_allowed() {
        let limits = Limits::default();
        let mixed = || Reply {
            v4: some(&["169.254.169.254", "192.0.2.1", "127.0.0.1"], 60),
            v6: some(&["::1"], 60),
        };
        let mut kept = Kept::default();
        kept.take(mixed(), outside, &limits, at(0)).unwrap();
        assert_eq!(shown(&kept), ["192.0.2.1"]);
        kept.take(mixed(), |_| true, &limits, at(0)).unwrap();
        assert_eq!(kept.addresses().count(), 4);
    }
}
