//! Connections to endpoints: TCP with further addresses in the race where the first takes long,
//! the PROXY header where one is asked for, then TLS, all within one deadline.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock;
use crate::config::Descriptors;
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
pub(super) enum Io {
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
    open: Open,
}

/// Counts a connection as open.
#[derive(Debug)]
pub(super) struct Open(Arc<Origin>);

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

/// What may be spoken on a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// Whatever the origin's configuration allows and TLS agrees on.
    Configured,
    /// HTTP/1.1 and nothing else: for what HTTP/2 cannot carry.
    One,
}

/// Connects to `first`, or to one of the `rivals` where it fails or takes longer than its head
/// start, on behalf of `hop`. What goes wrong on the way is held against the endpoint where it
/// went wrong.
pub(super) async fn connect(
    origin: &Arc<Origin>,
    first: &Arc<Endpoint>,
    rivals: Rivals,
    hop: Option<Hop>,
    versions: Versions,
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
    let outcome =
        tokio::time::timeout_at(deadline, establish(origin, &endpoint, tcp, hop, versions))
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
    versions: Versions,
) -> Result<Connection, SendError> {
    let tcp = TcpStream::connect(endpoint.address).await.map_err(|error| tcp_error(&error))?;
    establish(origin, endpoint, tcp, None, versions).await
}

async fn establish(
    origin: &Arc<Origin>,
    endpoint: &Arc<Endpoint>,
    mut tcp: TcpStream,
    hop: Option<Hop>,
    versions: Versions,
) -> Result<Connection, SendError> {
    if Descriptors::of(&origin.limits).are_short(&tcp) {
        origin.count_short_of_descriptors();
        return Err(SendError::ConnectionLimitReached);
    }
    // A socket without the option still works, only less promptly.
    let _ = tcp.set_nodelay(true);
    let header = proxy_header::encode(origin.config.proxy_protocol, hop);
    if let Some(header) = &header {
        tcp.write_all(header).await.map_err(|error| tcp_error(&error))?;
    }
    let io = match &endpoint.tls {
        None => Io::Plain(tcp),
        Some(identity) => {
            // HTTP/2 would share what speaks for one client.
            let versions = if header.is_some() { Versions::One } else { versions };
            Io::Tls(Box::new(handshake(identity, tcp, versions).await?))
        }
    };
    Ok(Connection {
        io,
        endpoint: Arc::clone(endpoint),
        buffer: BytesMut::new(),
        opened: clock::now().boot,
        reused: false,
        single: header.is_some(),
        open: Open::new(origin),
    })
}

/// What we run short of ourselves is no fault of theirs: it must not eject them all.
fn blame(origin: &Origin, endpoint: &Endpoint, error: &SendError) {
    if *error == SendError::ConnectionLimitReached {
        return;
    }
    endpoint.note_error(error);
    origin.observe(endpoint, Observed::Failure, None, clock::now().boot);
}

async fn handshake(
    identity: &TlsIdentity,
    tcp: TcpStream,
    versions: Versions,
) -> Result<TlsStream<TcpStream>, SendError> {
    let settings = match versions {
        Versions::Configured => &identity.config,
        Versions::One => &identity.http1,
    };
    TlsConnector::from(Arc::clone(settings))
        .connect(identity.name.clone(), tcp)
        .await
        .map_err(|error| handshake_error(&error))
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write(context, bytes),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(context, parts),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_flush(context),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(context),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(context),
        }
    }
}

impl Connection {
    /// Whether TLS has agreed on HTTP/2.
    pub(super) fn agreed_on_http2(&self) -> bool {
        match &self.io {
            Io::Plain(_) => false,
            Io::Tls(io) => io.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Notes how many bytes of one request or answer wait here.
    pub(super) fn note_waiting(&self, bytes: usize) {
        self.open.0.measure(|metrics| metrics.stream_waits(bytes));
    }

    /// The bare bytes, for another protocol than HTTP/1, and what counts the connection as open.
    /// Nothing may have been read.
    pub(super) fn into_io(self) -> (Io, Open) {
        (self.io, self.open)
    }

    /// A second handle of the socket, to look at what lies on it.
    pub(super) fn duplicate(&self) -> Option<OwnedFd> {
        let tcp = match &self.io {
            Io::Plain(io) => io,
            Io::Tls(io) => io.get_ref().0,
        };
        rustix::io::fcntl_dupfd_cloexec(tcp, 0).ok()
    }

    /// Reads into the buffer, up to `most` bytes at once. 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        most: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < READ_LEAST.min(most) {
            self.buffer.reserve(most);
        }
        let mut buffer = (&mut self.buffer).limit(most);
        let buffer = &mut buffer;
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

    /// Reads into `room`, past the buffer.
    pub(super) fn poll_read_into(
        &mut self,
        room: &mut ReadBuf<'_>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(context, room),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_read(context, room),
        }
    }

    /// Ends our side.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(context),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(context),
        }
    }

    /// Has the connection reset rather than ended when it is dropped.
    pub(super) fn reset(&self) {
        let tcp = match &self.io {
            Io::Plain(io) => io,
            Io::Tls(io) => io.get_ref().0,
        };
        // If this fails it ends with FIN, and there is no other way to tell.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
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
