//! What a request is judged by when it has come, and nobody judges anew afterwards.
//!
//! ```text
//! head complete --> the clocks are read --> lease --> (named purges: waits for them shortly) --> epoch, store
//!                                             |
//!             holds, or policy serves on: memory may answer
//!             else: only what the origin said to a request that left after this one had come
//! ```
//!
//! `Atoll-Purge-Position` names purges that the answer must not be older than. A node that has not
//! applied one of them by the end of a short wait asks the origin, whatever policy says. What cannot
//! be read as a purge's name, and what there is too much of, counts as not applied: a wish that is
//! not understood must not be taken for one that is met.
//!
//! Any stranger may send the field, and so have the origin asked. Three bounds hold that: those who
//! ask for the same share one question at a time, one client may do so only so often, and waiting
//! has a number of places.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use super::{Ask, Edge, Worker};
use crate::clock::Now;
use crate::guard::{Buckets, network};
use crate::listener::{Client, Response};
use crate::replication::Identity;
use crate::semantics::{Policy, Request, Trust, lookup_allowed};
use crate::store::read_position;
use crate::telemetry::{Position, Record};

/// Purges that one request may name.
const POSITIONS: usize = 8;

/// Clients whose questions are counted.
const CLIENTS: usize = 1024;

/// Accounts of those who name purges that are not in force: so many a second, and as many at once.
pub(super) fn rates(per_second: u32) -> Buckets<IpAddr> {
    let rate = f64::from(per_second);
    Buckets::new(rate, rate, CLIENTS)
}

/// What a request was judged by when it had come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// How far memory may answer it.
    pub(super) trust: Trust,
    /// Number of the next fill then: that one and all later ones left after the request had come.
    since: u64,
}

impl Moment {
    /// How far what the fill with this number brings, or has stored, may answer.
    pub(super) fn trust_in(self, fill: u64) -> Trust {
        if fill >= self.since { Trust::Lease } else { self.trust }
    }

    /// The first fill that may answer, where not every one may.
    pub(super) fn only_since(self) -> Option<u64> {
        (!self.trust.covers_memory()).then_some(self.since)
    }
}

impl Edge {
    /// What a request that came at `arrived` is judged by. `arrived` was read after its head was
    /// complete; the epoch, the store and the rows come later.
    pub(super) fn moment(&self, policy: &Policy, arrived: Now) -> Moment {
        let trust = Trust::of(self.purges.lease_holds(arrived), policy);
        Moment { trust, since: self.fills.next_number() }
    }

    /// Counts a request that is answered without a lease, or behind a purge.
    pub(super) fn count_trust(&self, ask: &Ask) {
        let from_memory = match ask.moment.trust {
            Trust::Lease | Trust::Behind => return,
            Trust::Regardless => true,
            Trust::NoLease => false,
        };
        if let Some(site) = self.config.sites.get(ask.site) {
            self.metrics.leases.without(&site.name, from_memory);
        }
    }
}

impl Worker {
    /// The same for a request that names purges.
    ///
    /// # Errors
    /// The client has had the origin asked too often: when it may again.
    pub(super) async fn moment_named(
        &self,
        request: &Request,
        policy: &Policy,
        client: &Client,
        arrived: Now,
    ) -> Result<Moment, Duration> {
        let edge = &self.edge;
        let moment = edge.moment(policy, arrived);
        // Nothing of it is answered from memory in any case.
        if lookup_allowed(request, policy).is_err() {
            return Ok(moment);
        }
        let found = self.position(&request.asks.positions).await;
        edge.metrics.leases.position(found);
        if found.is_in_force() {
            return Ok(moment);
        }
        if !self.of_the_house {
            let taken = edge.position_rates.take(network(client.address.ip()), 1.0, arrived);
            taken.inspect_err(|_| edge.metrics.leases.position(Position::Refused))?;
        }
        Ok(Moment { trust: Trust::Behind, ..moment })
    }

    /// Whether all purges that the lines name are in force, now or within the time that is given.
    async fn position(&self, lines: &[HeaderValue]) -> Position {
        let Some(named) = named(lines) else { return Position::Unreadable };
        let positions = self.edge.purges.positions();
        if named.iter().all(|identity| positions.has(identity)) {
            return Position::InForce;
        }
        let most = self.edge.config.limits.position_wait;
        match positions.wait_for_all(&named, most).await {
            true => Position::Waited,
            false => Position::Missing,
        }
    }

    /// 429 for a client that names purges that are not in force here, again and again.
    pub(super) fn too_many_positions(
        &self,
        wait: Duration,
        record: Box<Record>,
        now: Now,
    ) -> Response {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut response = self.own(status, "purge-positions", record, now);
        response.headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        response
    }
}

/// The purges that the lines name; `None` where that cannot be told.
fn named(lines: &[HeaderValue]) -> Option<Vec<Identity>> {
    let mut named = Vec::new();
    for line in lines {
        for text in line.to_str().ok()?.split(',') {
            if named.len() == POSITIONS {
                return None;
            }
            named.push(read_position(text.trim())?);
        }
    }
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purges_are_named_in_full_or_not_at_all() {
        let one = "n1/00000000000000ab/7";
        let many = [one; POSITIONS].join(",");
        let rows: [(&[&str], Option<usize>); 9] = [
            (&[one], Some(1)),
            (&["n1.00000000000000ab.7"], Some(1)),
            (&["a.b/c.00000000000000ab.7", one], Some(2)),
            (&[" n1/00000000000000ab/7 ,n2/00000000000000ab/1"], Some(2)),
            (&[&many], Some(POSITIONS)),
            (&[&many, one], None),
            (&["", one], None),
            (&[one, "n1/00000000000000ab"], None),
            (&["n1/00000000000000ab/0"], None),
        ];
        for (lines, expected) in rows {
            let values: Vec<_> =
                lines.iter().map(|line| HeaderValue::from_str(line).unwrap()).collect();
            assert_eq!(named(&values).map(|named| named.len()), expected, "{lines:?}");
        }
    }
}
