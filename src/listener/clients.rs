//! Accounts of clients: how many connections and streams each holds, how fast it comes.
//!
//! A client is an IPv4 address or an IPv6 /64. The accounts live in a table of fixed size, shared
//! by all workers: buckets of eight places, each bucket under a lock of its own that is held for a
//! few lines. Who holds nothing may lose its place to a newcomer; where all eight hold something,
//! the newcomer goes without an account and only the cap on all connections counts it. To get
//! there somebody needs tens of thousands of networks, against which caps per network are no
//! answer anyway.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use crate::clock::Now;
use crate::config::Limits;

/// Places in a bucket.
const WAYS: usize = 8;
/// Most buckets: 8192 of 8 places are about 5 MiB.
const MOST_BUCKETS: usize = 8192;

/// Why a connection, a handshake or a stream is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// The process has as many client connections as it may have.
    Connections,
    /// The client has.
    ConnectionsOfClient,
    /// The client connects too often.
    Accepts,
    /// The client begins TLS handshakes too often.
    Handshakes,
    /// The client has as many HTTP/2 streams as it may have.
    Streams,
}

/// The accounts of all clients.
pub struct Clients {
    buckets: Box<[Mutex<[Account; WAYS]>]>,
    secret: (u64, u64),
    open: AtomicUsize,
    most_open: usize,
    most_of_client: u32,
    most_streams: u32,
    accepts: f64,
    handshakes: f64,
    exempt: Vec<IpNet>,
}

/// A client's account.
#[derive(Clone, Copy, Default)]
struct Account {
    /// Address or prefix, shifted so that 0 means an empty place.
    client: u128,
    connections: u32,
    streams: u32,
    accepts: Tokens,
    handshakes: Tokens,
}

impl Account {
    fn holds_something(&self) -> bool {
        self.connections > 0 || self.streams > 0
    }
}

/// A bucket of tokens that holds one second's worth.
#[derive(Clone, Copy, Default)]
struct Tokens {
    spent: f64,
    /// Boot clock.
    read: Duration,
}

impl Tokens {
    /// Takes one token if fewer than a second's worth are spent. `rate` 0 means no cap.
    fn take(&mut self, rate: f64, now: Now) -> bool {
        if rate <= 0.0 {
            return true;
        }
        let passed = now.boot.saturating_sub(self.read).as_secs_f64();
        self.read = now.boot;
        self.spent = (self.spent - passed * rate).max(0.0);
        let granted = self.spent + 1.0 <= rate.max(1.0);
        if granted {
            self.spent += 1.0;
        }
        granted
    }
}

/// Where an account stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    bucket: usize,
    way: usize,
}

/// The place of one connection among all; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    clients: Arc<Clients>,
}

/// The right to one connection of a client; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Arc<Clients>,
    /// `None` for exempt clients and those without an account.
    place: Option<Place>,
}

/// The right to one HTTP/2 stream of a client; given back when dropped, which is when the work
/// for the stream ends, not when the client has reset it.
#[derive(Debug)]
pub(super) struct StreamSeat {
    held: Option<(Arc<Clients>, Place)>,
}

impl Clients {
    /// Empty accounts under these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let most_open = most_connections(limits);
        let buckets = (most_open / WAYS * 2).next_power_of_two().clamp(16, MOST_BUCKETS);
        let random = || {
            use std::hash::BuildHasher;
            std::collections::hash_map::RandomState::new().hash_one(0_u8)
        };
        Arc::new(Self {
            buckets: (0..buckets).map(|_| Mutex::default()).collect(),
            secret: (random(), random()),
            open: AtomicUsize::new(0),
            most_open,
            most_of_client: cap(limits.connections_per_client),
            most_streams: cap(limits.http2_streams_per_client),
            accepts: f64::from(limits.accepts_per_client),
            handshakes: f64::from(limits.handshakes_per_client),
            exempt: limits.exempt_networks.clone(),
        })
    }

    /// Client connections open now, in the whole process.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Client connections that the process may have at once.
    #[must_use]
    pub fn most_open(&self) -> usize {
        self.most_open
    }

    /// A place among all connections.
    pub(super) fn slot(self: &Arc<Self>) -> Result<Slot, TooMany> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most_open {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(TooMany::Connections);
        }
        Ok(Slot { clients: Arc::clone(self) })
    }

    /// The right of the client at `address` to one more connection, made at `now`.
    pub(super) fn seat(self: &Arc<Self>, address: IpAddr, now: Now) -> Result<Seat, TooMany> {
        let place = match self.account_of(address) {
            None => None,
            Some(client) => self.connect(client, now)?,
        };
        Ok(Seat { clients: Arc::clone(self), place })
    }

    fn account_of(&self, address: IpAddr) -> Option<u128> {
        let address = address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return None;
        }
        Some(client_of(address))
    }

    fn connect(&self, client: u128, now: Now) -> Result<Option<Place>, TooMany> {
        let bucket = self.bucket_of(client);
        let mut accounts = self.lock(bucket);
        let Some(way) = place_for(&accounts, client) else { return Ok(None) };
        let Some(account) = accounts.get_mut(way) else { return Ok(None) };
        if account.client != client {
            *account = Account { client, ..Account::default() };
        }
        if !account.accepts.take(self.accepts, now) {
            return Err(TooMany::Accepts);
        }
        if account.connections >= self.most_of_client {
            return Err(TooMany::ConnectionsOfClient);
        }
        account.connections += 1;
        Ok(Some(Place { bucket, way }))
    }

    fn bucket_of(&self, client: u128) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        hasher.write_u128(client);
        let mask = self.buckets.len() as u64 - 1;
        usize::try_from(hasher.finish() & mask).unwrap_or(0)
    }

    /// The accounts of a bucket. A panic elsewhere cannot leave them half written.
    #[expect(clippy::indexing_slicing, reason = "bucket numbers come from bucket_of alone")]
    fn lock(&self, bucket: usize) -> MutexGuard<'_, [Account; WAYS]> {
        self.buckets[bucket].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, place: Place, act: impl FnOnce(&mut Account) -> R) -> Option<R> {
        self.lock(place.bucket).get_mut(place.way).map(act)
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Clients({} of {} connections)", self.open(), self.most_open)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.clients.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    /// Whether the client may begin another TLS handshake at `now`.
    pub(super) fn handshake(&self, now: Now) -> Result<(), TooMany> {
        let Some(place) = self.place else { return Ok(()) };
        let rate = self.clients.handshakes;
        match self.clients.with(place, |account| account.handshakes.take(rate, now)) {
            Some(false) => Err(TooMany::Handshakes),
            Some(true) | None => Ok(()),
        }
    }

    /// The right to one more HTTP/2 stream.
    pub(super) fn stream(&self) -> Result<StreamSeat, TooMany> {
        let Some(place) = self.place else { return Ok(StreamSeat::free()) };
        let most = self.clients.most_streams;
        let granted = self.clients.with(place, |account| {
            let granted = account.streams < most;
            account.streams += u32::from(granted);
            granted
        });
        match granted {
            Some(true) => Ok(StreamSeat { held: Some((Arc::clone(&self.clients), place)) }),
            Some(false) => Err(TooMany::Streams),
            None => Ok(StreamSeat::free()),
        }
    }
}

impl StreamSeat {
    /// One that no account is charged for.
    pub(super) fn free() -> Self {
        Self { held: None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.clients.with(place, |account| {
                account.connections = account.connections.saturating_sub(1);
            });
        }
    }
}

impl Drop for StreamSeat {
    fn drop(&mut self) {
        if let Some((clients, place)) = &self.held {
            clients.with(*place, |account| account.streams = account.streams.saturating_sub(1));
        }
    }
}

/// The place of `client`, or one that it may take: an empty one, else the one that has been
/// without connections and streams for longest.
fn place_for(accounts: &[Account; WAYS], client: u128) -> Option<usize> {
    if let Some(way) = accounts.iter().position(|account| account.client == client) {
        return Some(way);
    }
    accounts
        .iter()
        .enumerate()
        .filter(|(_, account)| !account.holds_something())
        .min_by_key(|(_, account)| account.accepts.read)
        .map(|(way, _)| way)
}

/// What counts as one client: the IPv4 address, or the IPv6 /64. Never 0.
fn client_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => (1 << 127) | u128::from(address.to_bits()),
        IpAddr::V6(address) => (1 << 126) | (address.to_bits() >> 64),
    }
}

fn cap(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// `limits.connections`, or its share of the descriptors that the process may open.
#[must_use]
pub fn most_connections(limits: &Limits) -> usize {
    if limits.connections > 0 {
        return limits.connections;
    }
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(1 << 20)
        .min(1 << 24);
    let share = descriptors.saturating_mul(u64::from(limits.connections_share_percent)) / 100;
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections: 100,
            connections_per_client: 3,
            http2_streams_per_client: 2,
            accepts_per_client: 10,
            handshakes_per_client: 2,
            ..Limits::default()
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_holds_at_most_its_cap_and_gets_back_what_it_gives_up() {
        let clients = Clients::new(&limits());
        let now = Now::at(1);
        let mut seats: Vec<_> =
            (0..3).map(|_| clients.seat(address("192.0.2.1"), now).unwrap()).collect();
        let refused = clients.seat(address("192.0.2.1"), now).unwrap_err();
        assert_eq!(refused, TooMany::ConnectionsOfClient);
        assert!(clients.seat(address("192.0.2.2"), now).is_ok(), "others are not affected");
        seats.pop();
        assert!(clients.seat(address("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn a_slash_64_is_one_client_and_a_mapped_address_is_its_ipv4_address() {
        let clients = Clients::new(&limits());
        let now = Now::at(1);
        let _held: Vec<_> = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff"]
            .map(|text| clients.seat(address(text), now).unwrap())
            .into();
        assert!(clients.seat(address("2001:db8::3"), now).is_err());
        assert!(clients.seat(address("2001:db8:0:1::3"), now).is_ok());
        let _more: Vec<_> = ["192.0.2.9", "::ffff:192.0.2.9", "192.0.2.9"]
            .map(|text| clients.seat(address(text), now).unwrap())
            .into();
        assert!(clients.seat(address("::ffff:192.0.2.9"), now).is_err());
    }

    #[test]
    fn exempt_networks_have_no_cap() {
        let clients = Clients::new(&limits());
        let held: Vec<_> =
            (0..50).map(|_| clients.seat(address("127.0.0.1"), Now::at(1)).unwrap()).collect();
        assert!(held.iter().all(|seat| seat.handshake(Now::at(1)).is_ok()));
        assert!(held[0].stream().is_ok());
    }

    #[test]
    fn rates_of_accepts_and_handshakes_are_capped_and_refill() {
        let clients = Clients::new(&limits());
        let now = Now::at(5);
        let granted = (0..20).filter(|_| clients.seat(address("192.0.2.1"), now).is_ok()).count();
        assert_eq!(granted, 10);
        let later = now.plus(Duration::from_millis(200));
        let granted = (0..20).filter(|_| clients.seat(address("192.0.2.1"), later).is_ok()).count();
        assert_eq!(granted, 2);
        let seat = clients.seat(address("192.0.2.7"), now).unwrap();
        assert!(seat.handshake(now).is_ok() && seat.handshake(now).is_ok());
        assert_eq!(seat.handshake(now), Err(TooMany::Handshakes));
        assert!(seat.handshake(now.plus(Duration::from_secs(1))).is_ok());
    }

    #[test]
    fn streams_are_counted_over_all_connections_of_a_client_until_the_work_ends() {
        let clients = Clients::new(&limits());
        let now = Now::at(1);
        let first = clients.seat(address("192.0.2.1"), now).unwrap();
        let second = clients.seat(address("192.0.2.1"), now).unwrap();
        let stream = first.stream().unwrap();
        let _other = second.stream().unwrap();
        assert_eq!(second.stream().unwrap_err(), TooMany::Streams);
        drop(first);
        assert!(second.stream().is_err(), "the work goes on without its connection");
        drop(stream);
        assert!(second.stream().is_ok());
    }

    #[test]
    fn the_cap_on_all_connections_holds_and_places_come_back() {
        let clients = Clients::new(&Limits { connections: 2, ..limits() });
        let first = clients.slot().unwrap();
        let _second = clients.slot().unwrap();
        assert_eq!(clients.slot().unwrap_err(), TooMany::Connections);
        drop(first);
        assert!(clients.slot().is_ok());
        assert_eq!(clients.open(), 1);
    }

    #[test]
    fn the_share_of_the_descriptors_is_the_cap() {
        let share = |percent| {
            let limits = Limits { connections: 0, connections_share_percent: percent, ..limits() };
            most_connections(&limits)
        };
        assert!(share(40).abs_diff(share(80) / 2) <= 1, "{} and {}", share(40), share(80));
        let number = Limits { connections: 7, connections_share_percent: 80, ..limits() };
        assert_eq!(most_connections(&number), 7, "a number of its own wins");
    }

    #[test]
    fn a_full_bucket_keeps_those_who_hold_something() {
        let clients = Clients::new(&limits());
        let now = Now::at(1);
        let held: Vec<_> = (0..4000_u32)
            .map(|number| {
                clients.seat(IpAddr::V4(std::net::Ipv4Addr::from_bits(number)), now).unwrap()
            })
            .collect();
        let places = held.iter().filter(|seat| seat.place.is_some()).count();
        assert_eq!(places, clients.buckets.len() * WAYS);
        drop(held);
        let free = clients
            .buckets
            .iter()
            .all(|bucket| bucket.lock().unwrap().iter().all(|account| !account.holds_something()));
        assert!(free);
    }
}
