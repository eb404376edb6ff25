//! Connections to endpoints: TCP with further addresses in the race where the first takes long,
//! the PROXY header where one is asked for, then TLS, all within one deadline.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock;
use crate::health::Observed;

use super::endpoint::Endpoint;
use super::proxy_header;
use super::race::{Race, Rivals, tcp_error};
use super::set::Origin;
use super::tls::{TlsIdentity, handshake_error};
use super::{Hop, SendError};

/// Free room in the read buffer below which it is made larger.
const READ_LEAST: usize = 4 * 1024;

/// Plain or TLS.
#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to an endpoint, with the bytes that were read but not used.
#[derive(Debug)]
pub(super) struct Connection {
    io: Io,
    pub(super) endpoint: Arc<Endpoint>,
    /// Read and not yet consumed.
    pub(super) buffer: BytesMut,
    /// When it was opened, by the boot clock.
    pub(super) opened: Duration,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
    /// Whether it speaks for one client (PROXY protocol) and must never carry another's request.
    pub(super) single: bool,
    _open: Open,
}

/// Counts a connection as open.
#[derive(Debug)]
struct Open(Arc<Origin>);

impl Open {
    fn new(origin: &Arc<Origin>) -> Self {
        origin.measure(|metrics| {
            metrics.connections_opened.inc();
            metrics.connections_open.inc();
        });
        Self(Arc::clone(origin))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.measure(|metrics| metrics.connections_open.dec());
    }
}

/// Connects to `first`, or to one of the `rivals` where it fails or takes longer than its head
/// start, on behalf of `hop`. What goes wrong on the way is held against the endpoint where it
/// went wrong.
pub(super) async fn connect(
    origin: &Arc<Origin>,
    first: &Arc<Endpoint>,
    rivals: Rivals,
    hop: Option<Hop>,
) -> Result<Connection, SendError> {
    let most = origin.limits.origin_connect;
    let deadline = tokio::time::Instant::now() + most;
    let mut race = Race::new(first, rivals);
    let winner = race.run(|endpoint, error| blame(origin, endpoint, error));
    let Ok(winner) = tokio::time::timeout_at(deadline, winner).await else {
        // Whoever had half the time has had enough; a late starter has not.
        for silent in race.silent(most / 2) {
            blame(origin, silent, &SendError::ConnectionTimeout);
        }
        return Err(SendError::ConnectionTimeout);
    };
    let (tcp, endpoint) = winner?;
    let outcome = tokio::time::timeout_at(deadline, establish(origin, &endpoint, tcp, hop))
        .await
        .unwrap_or(Err(SendError::ConnectionTimeout));
    if let Err(error) = &outcome {
        blame(origin, &endpoint, error);
    }
    outcome
}

/// Connects for a probe: one address, nobody blamed.
pub(super) async fn connect_once(
    origin: &Arc<Origin>,
    endpoint: &Arc<Endpoint>,
) -> Result<Connection, SendError> {
    let tcp = TcpStream::connect(endpoint.address).await.map_err(|error| tcp_error(&error))?;
    establish(origin, endpoint, tcp, None).await
}

async fn establish(
    origin: &Arc<Origin>,
    endpoint: &Arc<Endpoint>,
    mut tcp: TcpStream,
    hop: Option<Hop>,
) -> Result<Connection, SendError> {
    // A socket without the option still works, only less promptly.
    let _ = tcp.set_nodelay(true);
    let header = proxy_header::encode(origin.config.proxy_protocol, hop);
    if let Some(header) = &header {
        tcp.write_all(header).await.map_err(|error| tcp_error(&error))?;
    }
    let io = match &endpoint.tls {
        None => Io::Plain(tcp),
        Some(identity) => Io::Tls(Box::new(handshake(identity, tcp).await?)),
    };
    Ok(Connection {
        io,
        endpoint: Arc::clone(endpoint),
        buffer: BytesMut::new(),
        opened: clock::now().boot,
        reused: false,
        single: header.is_some(),
        _open: Open::new(origin),
    })
}

fn blame(origin: &Origin, endpoint: &Endpoint, error: &SendError) {
    endpoint.note_error(error);
    origin.observe(endpoint, Observed::Failure, None, clock::now().boot);
}

async fn handshake(
    identity: &TlsIdentity,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, SendError> {
    TlsConnector::from(Arc::clone(&identity.config))
        .connect(identity.name.clone(), tcp)
        .await
        .map_err(|error| handshake_error(&error))
}

impl Connection {
    /// Reads into the buffer, up to `most` bytes at once. 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        most: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < READ_LEAST.min(most) {
            self.buffer.reserve(most);
        }
        let buffer = &mut self.buffer;
        match &mut self.io {
            Io::Plain(io) => pin!(io.read_buf(buffer)).poll(context),
            Io::Tls(io) => pin!(io.read_buf(buffer)).poll(context),
        }
    }

    /// Writes from the start of `pieces`.
    pub(super) fn poll_write(
        &mut self,
        pieces: &[io::IoSlice<'_>],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(context, pieces),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(context, pieces),
        }
    }

    /// Sends what TLS holds back.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_flush(context),
        }
    }

    /// Whether the other side has sent nothing since the last response: not a byte that another
    /// user could take for an answer, and no end. TLS may have sent tickets or new keys, which
    /// mean nothing here.
    pub(super) fn is_quiet(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        match &mut self.io {
            Io::Plain(io) => is_silent(io),
            Io::Tls(io) => !has_plaintext(io) && is_silent(io.get_ref().0),
        }
    }
}

/// Asks the socket itself: what the runtime knows of it may be older than its last event.
fn is_silent(tcp: &TcpStream) -> bool {
    let mut byte = [0_u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(tcp, &mut byte, flags), Err(rustix::io::Errno::AGAIN))
}

/// Whether TLS has something to hand over, its end included.
fn has_plaintext(io: &mut TlsStream<TcpStream>) -> bool {
    let mut byte = [0_u8; 1];
    let mut room = ReadBuf::new(&mut byte);
    let mut context = Context::from_waker(std::task::Waker::noop());
    Pin::new(io).poll_read(&mut context, &mut room).is_ready()
}
