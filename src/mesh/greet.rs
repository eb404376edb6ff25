//! From a TCP connection to one whose peer has shown who it is.
//!
//! ```text
//! dialler                                    dialled
//!   TLS 1.3, both certificates, ALPN  <---->
//!   Hello: name, PoP, life, ... ----------->  same name as the certificate's? in the roster?
//!                                             another connection to that node?
//!   <-------------------------------- Hello   or Bye
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::frame::{self, FrameReader, Kind, SMALL_BYTES};
use super::hello::{self, Hello};
use super::link::Connection;
use super::peers::{Attached, Candidate, Peer};
use super::rule::Dialled;
use super::shared::{Shared, Word};
use super::sockets;
use super::tickets;
use super::tls::{Shown, certified};
use crate::clock;
use crate::replication::Name;
use crate::telemetry::LinkRefused;

/// What a dial came to, other than a link.
#[derive(Debug)]
pub(super) enum NoLink {
    /// It failed.
    Refused(LinkRefused),
    /// A node answered that has a link already.
    Linked(Name),
}

impl From<LinkRefused> for NoLink {
    fn from(why: LinkRefused) -> Self {
        Self::Refused(why)
    }
}

/// Dials an address. Where `expected` is said, that node must answer.
pub(super) async fn dial(
    shared: &Shared,
    address: SocketAddr,
    expected: Option<&Name>,
) -> Result<Connection, NoLink> {
    let dialled = timeout(shared.limits.handshake, try_dial(shared, address, expected)).await;
    let result = dialled.unwrap_or(Err(LinkRefused::Timeout.into()));
    if let Err(NoLink::Refused(why)) = &result
        && *why != LinkRefused::Own
    {
        shared.metrics().refused(*why);
        tracing::debug!(%address, why = why.label(), "no link");
    }
    result
}

async fn try_dial(
    shared: &Shared,
    address: SocketAddr,
    expected: Option<&Name>,
) -> Result<Connection, NoLink> {
    let stream = TcpStream::connect(address).await.map_err(|_error| LinkRefused::Network)?;
    sockets::prepare(&stream, shared.limits.idle);
    let credentials = shared.identity.current(clock::now());
    let mut stream = credentials.connect(stream).await?;
    let peer = who(shared, &stream)?;
    if expected.is_some_and(|expected| *expected != peer.name) {
        return Err(LinkRefused::Name.into());
    }
    if expected.is_none() && peer.is_linked() {
        return Err(NoLink::Linked(peer.name.clone()));
    }
    let dial = shared.next_dial();
    let mut out = BytesMut::new();
    frame::write(Kind::Hello, &hello::encode(&shared.hello(&peer, dial)), &mut out);
    stream.write_all_buf(&mut out).await.map_err(|_error| LinkRefused::Network)?;
    stream.flush().await.map_err(|_error| LinkRefused::Network)?;
    let (hello, reader) = greeting(&mut stream, &peer).await?;
    let dialled = Dialled { life: hello.life, by_me: true, dial };
    // Its word on what it has seen is about this very dial, so it decides nothing.
    let connection = attach(shared, stream, reader, &peer, &hello, dialled, 0);
    Ok(connection)
}

/// Greets who has connected.
pub(super) async fn welcome(shared: &Shared, stream: TcpStream) -> Result<Connection, LinkRefused> {
    let result = timeout(shared.limits.handshake, try_welcome(shared, stream)).await;
    let result = result.unwrap_or(Err(LinkRefused::Timeout));
    if let Err(why) = &result {
        shared.metrics().refused(*why);
    }
    result
}

async fn try_welcome(shared: &Shared, stream: TcpStream) -> Result<Connection, LinkRefused> {
    sockets::prepare(&stream, shared.limits.idle);
    let credentials = shared.identity.current(clock::now());
    let mut stream = credentials.accept(stream).await?;
    let peer = who(shared, &stream)?;
    let (hello, reader) = greeting(&mut stream, &peer).await?;
    let dialled = Dialled { life: hello.life, by_me: false, dial: hello.dial };
    let seen = hello.seen;
    Ok(attach(shared, stream, reader, &peer, &hello, dialled, seen))
}

/// Whose certificate it is.
fn who(shared: &Shared, stream: &TlsStream<TcpStream>) -> Result<Arc<Peer>, LinkRefused> {
    let name = certified(stream, |name| shared.is_known(&name.into()))?;
    if name == shared.me.name {
        return Err(LinkRefused::Own);
    }
    shared.peer(&name).cloned().ok_or(LinkRefused::Roster)
}

/// Reads the greeting, which must bear the certified name.
async fn greeting(
    stream: &mut TlsStream<TcpStream>,
    peer: &Peer,
) -> Result<(Hello, FrameReader), LinkRefused> {
    let mut reader = FrameReader::new(SMALL_BYTES);
    let frame = loop {
        if let Some(frame) = reader.next().map_err(|_error| LinkRefused::Greeting)? {
            break frame;
        }
        match stream.read_buf(reader.room()).await {
            Ok(0) => return Err(LinkRefused::Peer),
            Ok(_) => {}
            // A certificate that the other side refuses shows only now: it closes.
            Err(_error) => return Err(LinkRefused::Peer),
        }
    };
    match frame.kind {
        Some(Kind::Hello) => {}
        Some(Kind::Bye) => return Err(LinkRefused::Peer),
        _ => return Err(LinkRefused::Greeting),
    }
    let hello = hello::decode(&frame.body).map_err(|_error| LinkRefused::Greeting)?;
    if hello.name != peer.name {
        return Err(LinkRefused::Name);
    }
    if hello.pop != peer.pop {
        tracing::warn!(peer = %peer.name, says = %hello.pop, roster = %peer.pop, "a peer names another PoP than the roster");
    }
    Ok((hello, reader))
}

/// Makes the connection the peer's link, if it is to be.
fn attach(
    shared: &Shared,
    stream: TlsStream<TcpStream>,
    reader: FrameReader,
    peer: &Arc<Peer>,
    hello: &Hello,
    dialled: Dialled,
    seen: u64,
) -> Connection {
    peer.learn(hello.bump, listens(hello.address, &stream));
    let (id, wake) = (shared.next_connection(), Arc::new(Notify::new()));
    let candidate = Candidate { id, dialled, seen, wake: Arc::clone(&wake) };
    let attached = peer.attach(candidate, clock::now().boot);
    note(shared, peer, attached);
    let mut first = BytesMut::new();
    // Who dialled has greeted already. A connection that is not to be the link is closed at once.
    if !dialled.by_me && attached != Attached::No {
        frame::write(Kind::Hello, &hello::encode(&shared.hello(peer, 0)), &mut first);
    }
    let shown = Shown::on(&stream);
    Connection { stream, reader, peer: Arc::clone(peer), id, wake, first, shown }
}

fn note(shared: &Shared, peer: &Peer, attached: Attached) {
    if attached == Attached::No {
        return;
    }
    let metrics = shared.metrics();
    metrics.handshakes.inc();
    match attached {
        Attached::New => metrics.up.inc(),
        Attached::Again => {
            metrics.up.inc();
            metrics.reconnects.inc();
        }
        Attached::Instead => metrics.reconnects.inc(),
        Attached::No => {}
    }
    tracing::info!(peer = %peer.name, pop = %peer.pop, "a link is up");
    let _ = shared.words.try_send(Word::Up(peer.name.clone()));
    tickets::tell(shared, peer);
}

/// Where the peer listens: by its own word, or where it is seen if that names no host.
fn listens(told: SocketAddr, stream: &TlsStream<TcpStream>) -> SocketAddr {
    let seen = || stream.get_ref().0.peer_addr().map(|address| address.ip().to_canonical());
    match told.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() => told,
        IpAddr::V6(ip) if !ip.is_unspecified() => told,
        _ => seen().map_or(told, |ip| SocketAddr::new(ip, told.port())),
    }
}
