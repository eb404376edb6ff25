//! Who may ask: bearer tokens judged in constant time, and guesses slowed down.
//!
//! The configuration holds hashes only. A presented token is hashed and compared with every hash
//! in constant time, so that time tells nothing about how near a guess came or which token it was.
//! Wrong tokens are counted by address; who guesses too fast is not even compared.
//!
//! Each door has a guard of its own: strangers who guess at the door for clients must not lock
//! operators out of the admin listener, whom they may share an address with behind a balancer.

mod proof;
mod rate;
mod rates;
mod sketch;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;

pub use proof::{base64, proves};
pub use rate::Buckets;
pub use rates::{Rates, TooFast};
pub use sketch::{Account, Sketch};

use crate::clock::Now;
use crate::config::{Token, hash_token};

/// Wrong tokens per second from one address in the long run.
const FAILURES_PER_SECOND: f64 = 1.0;

/// Wrong tokens at once from one address.
const FAILURES_AT_ONCE: f64 = 20.0;

/// Addresses whose failures are remembered.
const ADDRESSES: usize = 1024;

/// Judges the tokens that come through one door.
#[derive(Debug)]
pub struct Guard {
    failures: Buckets<IpAddr>,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Too many wrong ones came from this address; the next is looked at after this time.
    TooMany(Duration),
    /// None was presented.
    Missing,
    /// It is not known.
    Unknown,
}

impl Default for Guard {
    fn default() -> Self {
        Self { failures: Buckets::new(FAILURES_PER_SECOND, FAILURES_AT_ONCE, ADDRESSES) }
    }
}

impl Guard {
    /// The one of `tokens` that `client` presents, with its position.
    ///
    /// # Errors
    /// Why none counts. Only a wrong one is counted against the address.
    pub fn judge<'a>(
        &self,
        tokens: &'a [Token],
        presented: Option<&[u8]>,
        client: IpAddr,
        now: Now,
    ) -> Result<(usize, &'a Token), Denied> {
        let address = network(client);
        self.failures.check(address, now).map_err(Denied::TooMany)?;
        let presented = presented.ok_or(Denied::Missing)?;
        find(tokens, presented).ok_or_else(|| {
            // Whether there was room for it is what the check above asks the next time.
            let _ = self.failures.take(address, 1.0, now);
            Denied::Unknown
        })
    }

    /// Whether `client` may try to prove something by other means than a token.
    ///
    /// # Errors
    /// The time after which it may.
    pub fn may_try(&self, client: IpAddr, now: Now) -> Result<(), Duration> {
        self.failures.check(network(client), now)
    }

    /// Counts a proof of `client` that failed.
    pub fn note_failure(&self, client: IpAddr, now: Now) {
        let _ = self.failures.take(network(client), 1.0, now);
    }
}

/// An IPv6 client is known by its /64, since it can choose freely within it.
#[must_use]
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// Compares with every hash, also after one has matched.
fn find<'a>(tokens: &'a [Token], presented: &[u8]) -> Option<(usize, &'a Token)> {
    let hash = hash_token(presented);
    let mut found = None;
    for (position, token) in tokens.iter().enumerate() {
        if verify_slices_are_equal(&token.hash, &hash).is_ok() {
            found = Some((position, token));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_tokens_pass_and_others_do_not() {
        let tokens = [Token::full("a", "first"), Token::full("b", "second")];
        let client = IpAddr::from([192, 0, 2, 1]);
        for (presented, expected) in [
            (Some("first"), Ok(0)),
            (Some("second"), Ok(1)),
            (Some("Second"), Err(Denied::Unknown)),
            (Some(""), Err(Denied::Unknown)),
            (None, Err(Denied::Missing)),
        ] {
            let found =
                Guard::default().judge(&tokens, presented.map(str::as_bytes), client, Now::at(1));
            assert_eq!(found.map(|(position, _)| position), expected, "{presented:?}");
        }
    }

    #[test]
    fn guessing_is_slowed_down_by_network_and_ends_with_time() {
        let tokens = [Token::full("a", "first")];
        let guard = Guard::default();
        let ask = |token: &str, client: &str, second| {
            let client = client.parse().unwrap();
            guard.judge(&tokens, Some(token.as_bytes()), client, Now::at(second)).map(|_| ())
        };
        let unknown = (1..=25)
            .filter(|host| ask("wrong", &format!("2001:db8::{host}"), 10) == Err(Denied::Unknown))
            .count();
        assert_eq!(unknown, 20);
        assert!(matches!(ask("first", "2001:db8::1", 10), Err(Denied::TooMany(_))));
        assert_eq!(ask("first", "2001:db8:1::1", 10), Ok(()));
        assert_eq!(ask("first", "2001:db8::1", 12), Ok(()));
    }
}
