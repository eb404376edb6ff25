//! `rate_limit` and `rate_limit_total`.

use std::sync::Arc;
use std::time::Duration;

use crate::semantics::{Networks, Rate, RateLimit};

use super::super::super::reader::{Entry, Read, Table};
use super::Spot;

const HOUR: u64 = 3_600_000;

/// Longest time for which an account is remembered.
const MEMORY: Duration = Duration::from_secs(86_400);

/// Requests per second that can be told apart from any.
const FASTEST: u64 = 100_000;

/// A limit, or `"none"`.
struct Written(Option<RateLimit>);

pub(super) fn read(
    table: &mut Table<'_>,
    key: &'static str,
    into: &mut Option<Arc<RateLimit>>,
    spot: Spot<'_>,
) {
    let scope = || format!("{} {key}", spot.scope);
    if let Some(found) = table.optional::<Written>(key) {
        *into = found.value.0.map(|limit| Arc::new(RateLimit { scope: scope().into(), ..limit }));
    }
}

impl Read for Written {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const EXPECTED: &str = "{ requests = 100, per = \"1s\", burst = 200 } or \"none\"";
        if super::is_none(entry) {
            return Some(Self(None));
        }
        let Some(mut table) = entry.as_table("a rate limit") else {
            entry.parsed(EXPECTED, |_| Err::<(), _>(format!("expected {EXPECTED}")));
            return None;
        };
        let (mut requests, mut per) = (0_u64, Duration::from_secs(1));
        let required = table.span_of("requests").is_some();
        table.count("requests", &mut requests, 1..=1_000_000_000);
        table.time("per", &mut per, 1..=HOUR);
        let mut burst = requests;
        table.count("burst", &mut burst, 1..=1_000_000_000);
        let exempt = super::networks(&mut table, "exempt");
        table.finish();
        if !required {
            let message = format!("`{}` does not say how many `requests`", entry.place.key);
            entry.report(message, "how many?", format!("for example: {EXPECTED}"));
            return None;
        }
        let rate = Rate::new(requests, per, burst);
        let most = u128::from(FASTEST) * per.as_nanos() / 1_000_000_000;
        let wrong = if u128::from(requests) > most.max(1) {
            Some(("is faster than can be counted", "at most 100000 requests in \"1s\""))
        } else if rate.memory() > MEMORY {
            Some(("takes more than a day to be paid for", "a smaller `burst`, or a higher rate"))
        } else {
            None
        };
        if let Some((what, help)) = wrong {
            entry.report(format!("`{}` {what}", entry.place.key), "out of bounds", help);
            return None;
        }
        let exempt = exempt.filter(|list| !list.is_empty()).map(|list| Networks::listed(&list));
        Some(Self(Some(RateLimit { scope: Arc::default(), rate, exempt })))
    }
}
