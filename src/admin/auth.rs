//! Bearer tokens: who asks, and what they may do.
//!
//! The configuration holds hashes only. A presented token is hashed and compared with every hash
//! in constant time, so that time tells nothing about how near a guess came or which token it was.
//! Wrong tokens are counted by address; who guesses too fast is not even compared.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use http::{HeaderMap, header};

use super::problem::Problem;
use super::rate::Buckets;
use crate::clock::Now;
use crate::config::{Scope, Token};

/// Wrong tokens per second from one address in the long run.
const FAILURES_PER_SECOND: f64 = 1.0;

/// Wrong tokens at once from one address.
const FAILURES_AT_ONCE: f64 = 20.0;

/// Addresses whose failures are remembered.
const ADDRESSES: usize = 1024;

/// Judges tokens.
#[derive(Debug)]
pub(super) struct Guard {
    failures: Buckets<IpAddr>,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self { failures: Buckets::new(FAILURES_PER_SECOND, FAILURES_AT_ONCE, ADDRESSES) }
    }

    /// The token that a request presents, with its position.
    pub(super) fn judge<'a>(
        &self,
        tokens: &'a [Token],
        headers: &HeaderMap,
        client: IpAddr,
        now: Now,
    ) -> Result<(usize, &'a Token), Problem> {
        let address = network(client);
        self.failures.check(address, now).map_err(too_many)?;
        let presented = bearer(headers).ok_or_else(Problem::no_token)?;
        find(tokens, presented).ok_or_else(|| {
            // Whether there was room for it is what the check above asks the next time.
            let _ = self.failures.take(address, 1.0, now);
            tracing::warn!(%client, "an unknown token was presented to the admin listener");
            Problem::no_token()
        })
    }
}

fn too_many(wait: Duration) -> Problem {
    Problem::wait("too-many-failures", "too many unknown tokens came from this address", wait)
}

/// An IPv6 client is known by its /64, since it can choose freely within it.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// The token of the one `Authorization: Bearer` line (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next()?.as_bytes();
    let (scheme, token) = line.split_at_checked("Bearer ".len())?;
    let alone = lines.next().is_none();
    let token = token.trim_ascii();
    (alone && scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// Compares with every hash, also after one has matched.
fn find<'a>(tokens: &'a [Token], presented: &[u8]) -> Option<(usize, &'a Token)> {
    let hash = digest::digest(&digest::SHA256, presented);
    let mut found = None;
    for (position, token) in tokens.iter().enumerate() {
        if verify_slices_are_equal(&token.hash, hash.as_ref()).is_ok() {
            found = Some((position, token));
        }
    }
    found
}

/// Whether a token has a scope. Who may purge everything may purge parts of it.
pub(super) fn covers(token: &Token, scope: Scope) -> bool {
    token.scopes.contains(&scope)
        || (scope == Scope::Purge && token.scopes.contains(&Scope::PurgeAll))
}

/// Whether a token may act on a site.
pub(super) fn covers_site(token: &Token, site: &str) -> bool {
    token.sites.is_empty() || token.sites.iter().any(|name| name == site)
}

/// Refuses a token that is bound to sites, for what concerns the whole node.
pub(super) fn whole_node(token: &Token) -> Result<(), Problem> {
    if token.sites.is_empty() {
        return Ok(());
    }
    Err(Problem::forbidden("site", "this concerns the whole node, and the token is bound to sites"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn token(name: &str, secret: &str, scopes: &[Scope]) -> Token {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
        Token { name: name.into(), hash, scopes: scopes.to_vec(), sites: Vec::new() }
    }

    fn presenting(lines: &[&'static str]) -> HeaderMap {
        let lines =
            lines.iter().map(|line| (header::AUTHORIZATION, HeaderValue::from_static(line)));
        lines.collect()
    }

    #[test]
    fn only_one_well_formed_line_with_a_known_token_passes() {
        let tokens = [token("a", "first", &[]), token("b", "second", &[])];
        let rows: [(&[&'static str], Option<&str>); 9] = [
            (&["Bearer first"], Some("a")),
            (&["bearer  second "], Some("b")),
            (&["Bearer second", "Bearer second"], None),
            (&["Bearer third"], None),
            (&["Bearer "], None),
            (&["Bearer"], None),
            (&["Basic first"], None),
            (&["first"], None),
            (&[], None),
        ];
        for (lines, expected) in rows {
            let client = IpAddr::from([192, 0, 2, 1]);
            let found = Guard::new().judge(&tokens, &presenting(lines), client, Now::at(1)).ok();
            assert_eq!(found.map(|(_, token)| &*token.name), expected, "{lines:?}");
        }
    }

    #[test]
    fn guessing_is_slowed_down_by_network_and_ends_with_time() {
        let tokens = [token("a", "first", &[])];
        let guard = Guard::new();
        let ask = |line, client: &str, second| {
            let headers = presenting(&[line]);
            let answer = guard.judge(&tokens, &headers, client.parse().unwrap(), Now::at(second));
            answer.err().map(|problem| problem.status())
        };
        let mut refused = Vec::new();
        for host in 1..=25 {
            refused.push(ask("Bearer wrong", &format!("2001:db8::{host}"), 10).unwrap().as_u16());
        }
        assert_eq!(refused.iter().filter(|status| **status == 401).count(), 20);
        assert_eq!(refused.last(), Some(&429));
        assert_eq!(ask("Bearer first", "2001:db8::1", 10).unwrap().as_u16(), 429);
        assert_eq!(ask("Bearer first", "2001:db8:1::1", 10), None);
        assert_eq!(ask("Bearer first", "2001:db8::1", 12), None);
    }
}
