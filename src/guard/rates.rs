//! How fast clients may ask, over all limits of a configuration.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::network;
use super::sketch::{Account, Sketch};
use crate::clock::Now;
use crate::semantics::{KeySecret, RateLimit, Rules, TICK_NANOS, ticks};

/// Accounts of all clients and sites.
#[derive(Debug)]
pub struct Rates {
    clients: Arc<Sketch>,
    /// So many clients may be at their limits at once.
    most_clients: usize,
    /// By where a limit stands in the configuration.
    totals: HashMap<Arc<str>, Arc<Account>>,
    secret: KeySecret,
}

/// Whose limit a request is beyond, and the time after which one more is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooFast {
    /// The client's own.
    Client(Duration),
    /// That of all together.
    Total(Duration),
}

impl Rates {
    /// Accounts for what these rules limit; `None` where they limit nothing. `clients` may be at
    /// their limits at once. What the `former` ones have counted under the same limits counts on.
    pub fn new<'a>(
        rules: impl Iterator<Item = &'a Rules>,
        clients: usize,
        secret: KeySecret,
        former: Option<&Self>,
    ) -> Option<Self> {
        let (mut any, mut totals) = (false, HashMap::new());
        for rules in rules {
            any |= rules.rate_limit.is_some() || rules.rate_limit_total.is_some();
            if let Some(limit) = &rules.rate_limit_total {
                let known = former.and_then(|former| former.totals.get(&limit.scope));
                let account = known.map(Arc::clone).unwrap_or_default();
                totals.entry(Arc::clone(&limit.scope)).or_insert(account);
            }
        }
        let kept = former.filter(|former| former.most_clients == clients);
        any.then(|| Self {
            clients: kept
                .map_or_else(|| Arc::new(Sketch::new(clients)), |kept| Arc::clone(&kept.clients)),
            most_clients: clients,
            totals,
            secret,
        })
    }

    /// Counts a request of a client.
    ///
    /// # Errors
    /// The limit that it is beyond; then it counts for nothing that comes behind that.
    pub fn take(&self, rules: &Rules, client: IpAddr, now: Now) -> Result<(), TooFast> {
        let now = ticks(now.boot);
        let wait = |ticks: u64| Duration::from_nanos(ticks.saturating_mul(TICK_NANOS));
        if let Some(limit) = rules.rate_limit.as_ref().filter(|limit| counts(limit, client)) {
            let key = self.key(limit, client);
            self.clients
                .take(key, limit.rate, now)
                .map_err(|ticks| TooFast::Client(wait(ticks)))?;
        }
        if let Some(limit) = rules.rate_limit_total.as_ref().filter(|limit| counts(limit, client))
            && let Some(account) = self.totals.get(&limit.scope)
        {
            account.take(limit.rate, now).map_err(|ticks| TooFast::Total(wait(ticks)))?;
        }
        Ok(())
    }

    fn key(&self, limit: &RateLimit, client: IpAddr) -> u128 {
        let scope = limit.scope.as_bytes();
        match network(client) {
            IpAddr::V4(address) => self.secret.hash(&[scope, &address.octets()]),
            IpAddr::V6(address) => self.secret.hash(&[scope, &address.octets()]),
        }
    }
}

fn counts(limit: &RateLimit, client: IpAddr) -> bool {
    limit.exempt.as_ref().is_none_or(|exempt| !exempt.verdict(client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::{Networks, Rate};

    fn limit(scope: &str, burst: u64) -> Option<Arc<RateLimit>> {
        let rate = Rate::new(1, Duration::from_secs(1), burst);
        let exempt = Some(Networks::listed(&["192.0.2.0/24".parse().unwrap()]));
        Some(Arc::new(RateLimit { scope: scope.into(), rate, exempt }))
    }

    #[test]
    fn each_network_and_all_together_have_their_limits() {
        let site = Rules {
            rate_limit: limit("a", 2),
            rate_limit_total: limit("a", 4),
            ..Rules::default()
        };
        let rule = Rules { rate_limit: limit("b", 1), ..site.clone() };
        let rates = Rates::new([&site, &rule].into_iter(), 100, KeySecret([1, 2]), None).unwrap();
        let second = Duration::from_secs(1);
        let rows = [
            (&site, "2001:db8::1", 9, Ok(())),
            (&site, "2001:db8::2", 9, Ok(())),
            (&site, "2001:db8::3", 9, Err(TooFast::Client(second))),
            (&site, "2001:db8:0:1::1", 9, Ok(())),
            (&rule, "2001:db8::1", 9, Ok(())),
            (&rule, "2001:db8::1", 9, Err(TooFast::Client(second))),
            (&site, "203.0.113.1", 9, Err(TooFast::Total(second))),
            (&site, "192.0.2.1", 9, Ok(())),
            (&site, "203.0.113.1", 10, Ok(())),
            (&site, "::ffff:203.0.113.1", 10, Err(TooFast::Total(second))),
            (&site, "203.0.113.1", 10, Err(TooFast::Client(second))),
        ];
        for (number, (rules, client, at, expected)) in rows.into_iter().enumerate() {
            let found = rates.take(rules, client.parse().unwrap(), Now::at(at));
            assert_eq!(found, expected, "{number}: {client}");
        }
        assert!(Rates::new([&Rules::default()].into_iter(), 1, KeySecret([1, 2]), None).is_none());
        // Another configuration, the limits in another order: what was counted counts on.
        let client = "203.0.113.1".parse().unwrap();
        let next = Rates::new([&rule, &site].into_iter(), 100, KeySecret([1, 2]), Some(&rates));
        let next = next.unwrap();
        assert_eq!(next.take(&site, client, Now::at(10)), Err(TooFast::Client(second)));
        assert_eq!(next.take(&rule, client, Now::at(10)), Err(TooFast::Total(second)));
    }
}
