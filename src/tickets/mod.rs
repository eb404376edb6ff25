//! Keys of TLS session tickets that the nodes of a mesh share, so that a session which was begun on one
//! of them can be resumed on any other.
//!
//! `set` says which keys there are and which is used, `wire` how they are told; a link of the mesh carries
//! them. Here is what makes tickets and opens them: the first sixteen bytes of a ticket name its key,
//! then come a nonce and what AES-256-GCM-SIV makes of the session, with the name bound to it. That
//! construction bears even that two nodes draw the same nonce.
//!
//! Keys are in memory only. A node that has heard of none makes tickets with one of its own.

pub mod check;
mod set;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

pub use set::KeyPaces;
use set::{KeyName, KeySecret, Set, Taken};
use wire::WireError;

use crate::clock::{self, Now};
use crate::telemetry::Metrics;

/// Longest ticket that is opened; what a server puts into one is far shorter.
const TICKET_BYTES: usize = 32 << 10;

/// The keys of a node, and what is made with them.
pub struct Tickets {
    paces: KeyPaces,
    set: Mutex<Set>,
    usable: ArcSwap<Usable>,
    metrics: Arc<Metrics>,
}

/// Keys that are ready to be used.
struct Usable {
    keys: Vec<(KeyName, RandomizedNonceKey)>,
    /// The one that new tickets are made with.
    issuing: Option<usize>,
}

impl Tickets {
    /// A node that knows no keys but its own.
    #[must_use]
    pub fn new(paces: KeyPaces, metrics: Arc<Metrics>) -> Arc<Self> {
        let now = clock::now();
        let tickets = Self {
            paces,
            set: Mutex::new(Set::new(paces, now.boot)),
            usable: ArcSwap::from_pointee(Usable { keys: Vec::new(), issuing: None }),
            metrics,
        };
        tickets.stand_in(&mut tickets.set(), now);
        tickets.publish(&tickets.set(), now);
        Arc::new(tickets)
    }

    /// How long keys are used.
    #[must_use]
    pub fn paces(&self) -> KeyPaces {
        self.paces
    }

    /// What other nodes are told; `None` while there is nothing to tell.
    #[must_use]
    pub fn told(&self, now: Now) -> Option<Vec<u8>> {
        let keys = self.set().told(now.boot);
        (!keys.is_empty()).then(|| wire::encode(&keys))
    }

    /// Takes what another node of the mesh has told.
    pub fn take(&self, told: &[u8], now: Now) {
        let metrics = &self.metrics.tickets;
        let heard = match wire::decode(told) {
            Ok(heard) => heard,
            Err(WireError::Later) => return self.metrics.links.unknown.inc(),
            Err(WireError::Malformed) => {
                tracing::warn!("keys of session tickets cannot be read and are not taken");
                return metrics.refused.inc();
            }
        };
        let mut set = self.set();
        let Taken { new, refused } = set.take(heard, now.boot);
        metrics.refused.inc_by(refused as u64);
        if new > 0 {
            metrics.taken.inc_by(new as u64);
            self.publish(&set, now);
        }
    }

    /// Time has passed. Says whether a key was made that the others have to be told of; `rank` is this
    /// node's among those that it sees, from 0.
    pub fn turn(&self, rank: u32, now: Now) -> bool {
        let mut set = self.set();
        set.trim(now.boot);
        let wanted = set.wants(rank, now.boot);
        let made = wanted.then(draw).flatten().map(|(name, secret)| {
            set.add(name, secret, false, now.boot);
            self.metrics.tickets.made.inc();
        });
        if set.issuing(now.boot).is_none() {
            self.stand_in(&mut set, now);
        }
        self.publish(&set, now);
        made.is_some()
    }

    /// Draws a key that nobody else is told of.
    fn stand_in(&self, set: &mut Set, now: Now) {
        if let Some((name, secret)) = draw() {
            set.add(name, secret, true, now.boot);
        }
    }

    fn publish(&self, set: &Set, now: Now) {
        let issuing = set.issuing(now.boot).copied();
        let before = self.usable.load();
        let unchanged = before.keys.len() == set.all().count()
            && set.all().zip(&before.keys).all(|((name, _), (known, _))| name == known)
            && before.issuing_name() == issuing;
        if unchanged {
            return;
        }
        let keys: Vec<_> = set.all().filter_map(usable).collect();
        let issuing = keys.iter().position(|(name, _)| Some(*name) == issuing);
        self.metrics.tickets.keys.set(i64::try_from(keys.len()).unwrap_or(i64::MAX));
        self.usable.store(Arc::new(Usable { keys, issuing }));
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usable {
    fn issuing_name(&self) -> Option<KeyName> {
        self.keys.get(self.issuing?).map(|(name, _)| *name)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.paces.lifetime().as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let usable = self.usable.load();
        let (name, key) = usable.keys.get(usable.issuing?)?;
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok()?;
        Some([name, nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<16>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let usable = self.usable.load();
        let (name, key) = usable.keys.iter().find(|(known, _)| known == name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.open_in_place(nonce, Aad::from(name), &mut sealed).ok()?.len();
        sealed.truncate(plain);
        Some(sealed)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("paces", &self.paces).finish_non_exhaustive()
    }
}

fn usable((name, secret): (&KeyName, &KeySecret)) -> Option<(KeyName, RandomizedNonceKey)> {
    RandomizedNonceKey::new(&AES_256_GCM_SIV, secret).ok().map(|key| (*name, key))
}

/// A name and a secret; `None` where the system gives no randomness.
fn draw() -> Option<(KeyName, KeySecret)> {
    let (mut name, mut secret) = ([0; 16], [0; 32]);
    let drawn = aws_lc_rs::rand::fill(&mut name).and_then(|()| aws_lc_rs::rand::fill(&mut secret));
    match drawn {
        Ok(()) => Some((name, secret)),
        Err(_none) => {
            tracing::error!("the system gives no random bytes for a key of session tickets");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::test_config;

    fn node() -> Arc<Tickets> {
        let paces = KeyPaces::new(Duration::from_secs(1_000));
        Tickets::new(paces, Metrics::new(&test_config()))
    }

    fn later(seconds: u64) -> Now {
        clock::now().plus(Duration::from_secs(seconds))
    }

    fn tell(from: &Tickets, to: &Tickets, now: Now) {
        to.take(&from.told(now).unwrap(), now);
    }

    #[test]
    fn a_ticket_of_one_node_is_opened_by_another_that_was_told() {
        let (one, other) = (node(), node());
        let own = one.encrypt(b"session").unwrap();
        assert_eq!(one.decrypt(&own).unwrap(), b"session", "a node that is alone opens its own");
        assert_eq!(other.decrypt(&own), None);
        assert_eq!(one.told(later(0)), None, "its own key is told to nobody");
        assert!(one.turn(0, later(3)));
        tell(&one, &other, later(4));
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(other.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(one.decrypt(&own).unwrap(), b"session", "what it made before is still good");
        assert!(!other.turn(1, later(5)), "it needs none");
        let metrics = &other.metrics.tickets;
        assert_eq!((metrics.taken.get(), metrics.made.get(), metrics.keys.get()), (1, 0, 2));
    }

    #[test]
    fn after_a_rotation_the_former_tickets_are_good_for_their_time() {
        let (one, other) = (node(), node());
        one.turn(0, later(3));
        tell(&one, &other, later(4));
        let ticket = one.encrypt(b"session").unwrap();
        assert!(one.turn(0, later(1_010)));
        tell(&one, &other, later(1_011));
        assert_eq!(one.encrypt(b"x").unwrap()[..16], ticket[..16], "all have to hear of it first");
        one.turn(0, later(1_050));
        assert_ne!(one.encrypt(b"x").unwrap()[..16], ticket[..16]);
        other.turn(1, later(3_000));
        assert_eq!(other.decrypt(&ticket).unwrap(), b"session");
        other.turn(1, later(3_100));
        assert_eq!(other.decrypt(&ticket), None, "the key is gone");
    }

    #[test]
    fn what_is_no_ticket_is_not_opened() {
        let node = node();
        let ticket = node.encrypt(b"session").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(node.decrypt(&ticket[..length]), None);
        }
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(node.decrypt(&forged), None, "byte {at}");
        }
        let long = [&ticket[..], &[0; TICKET_BYTES]].concat();
        assert_eq!(node.decrypt(&long), None);
        assert_ne!(node.encrypt(b"session").unwrap(), ticket, "no two are alike");
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let node = node();
        for told in [&[][..], &[1], &[1, 1, 0], &[0, 0], &[1, 200]] {
            node.take(told, later(0));
        }
        node.take(&[2, 1, 9, 9], later(0));
        let metrics = &node.metrics;
        assert_eq!((metrics.tickets.refused.get(), metrics.links.unknown.get()), (5, 1));
        assert_eq!(metrics.tickets.keys.get(), 1);
        assert!(!format!("{node:?}").contains("secret"));
    }
}
