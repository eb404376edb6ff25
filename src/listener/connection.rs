//! One client connection from the accept to its protocol: PROXY header, TLS, then HTTP/1 or 2.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::clients::{Seat, Slot};
use super::context::Context;
use super::http1::serve_http1;
use super::http2::{PREFACE, serve_http2};
use super::proxy_protocol;
use super::request::{Client, Handler};
use super::socket::Socket;
use super::tls::{self, TlsAcceptorState};
use crate::clock;
use crate::config::Listener;
use crate::telemetry::Metrics;

/// What the connections of one listener share on one worker.
pub(super) struct Door<H> {
    pub(super) listener: Listener,
    pub(super) tls: Option<Arc<TlsAcceptorState>>,
    pub(super) handler: Arc<H>,
    pub(super) context: Arc<Context>,
    /// Position of the listener in the configuration.
    pub(super) place: usize,
}

impl<H> Door<H> {
    /// The door as it is for connections from now on, where that is another one. Socket and TLS stay.
    pub(super) fn renewed(&self) -> Option<Arc<Self>> {
        let (context, terms) = self.context.renewed()?;
        let now = terms.listeners.get(self.place).unwrap_or(&self.listener);
        let Listener { address, tls, .. } = self.listener;
        let listener = Listener { address, tls, ..now.clone() };
        let (tls, handler) = (self.tls.clone(), Arc::clone(&self.handler));
        Some(Arc::new(Self { listener, tls, handler, context, place: self.place }))
    }
}

/// Counts a connection as open while it lives.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.doors.connections_open.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.doors.connections_open.dec();
    }
}

/// Serves a connection to its end. `slot` and `seat` are given back then.
pub(super) async fn serve<H: Handler>(
    mut stream: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    mut seat: Option<Seat>,
    door: Arc<Door<H>>,
) {
    let _slot = slot;
    let _open = Open::new(&door.context.metrics);
    let deadline = Instant::now() + door.context.limits.handshake;
    let Ok(local) = stream.local_addr() else { return };
    let mut client = Client {
        address: canonical(peer),
        local: canonical(local),
        tls: None,
        trusted_hop: door.listener.trusts(peer.ip()),
        told_by: door.listener.proxies_write,
    };
    let mut first = BytesMut::new();
    if door.listener.proxy_protocol {
        // `welcome` has seen to it that only a trusted peer gets here.
        let told = timeout_at(deadline, proxy_protocol::read(&mut stream, &mut first)).await;
        let Ok(Ok(told)) = told else { return };
        // A header that names nobody leaves it open who speaks HTTP: nothing more is believed.
        client.trusted_hop = false;
        if let Some(told) = told {
            client.address = canonical(told.client);
            client.local = canonical(told.local);
            client.trusted_hop = door.listener.trusts(client.address.ip());
        }
        let Ok(granted) = door.context.clients.seat(client.address.ip(), clock::now()) else {
            door.context.metrics.doors.connections_refused.inc();
            return;
        };
        seat = Some(granted);
    }
    if door.listener.tls {
        Box::pin(over_tls(stream, first, client, seat, deadline, &door)).await;
    } else {
        Box::pin(in_plain(stream, first, client, seat, deadline, &door)).await;
    }
}

async fn over_tls<H: Handler>(
    stream: TcpStream,
    first: BytesMut,
    mut client: Client,
    seat: Option<Seat>,
    deadline: Instant,
    door: &Door<H>,
) {
    let doors = &door.context.metrics.doors;
    let Some(acceptor) = &door.tls else { return };
    if seat.as_ref().is_some_and(|seat| seat.handshake(clock::now()).is_err()) {
        doors.connections_refused.inc();
        return;
    }
    let stream = Socket::new(stream);
    let taken = stream.taken();
    let stream = Prefixed { stream, first };
    let accepted = timeout_at(deadline, acceptor.accept(stream, door.listener.http2)).await;
    let Ok(Ok(stream)) = accepted else {
        doors.handshake_failures.inc();
        return;
    };
    let (info, http2) = tls::outcome(&stream);
    doors.handshakes.inc();
    if info.resumed {
        doors.handshakes_resumed.inc();
    }
    client.tls = Some(info);
    let client = Arc::new(client);
    let (handler, context) = (Arc::clone(&door.handler), Arc::clone(&door.context));
    if http2 {
        serve_http2(stream, taken, BytesMut::new(), client, seat.as_ref(), handler, context).await;
    } else if let Some(stream) =
        serve_http1(stream, taken, BytesMut::new(), client, handler, context).await
    {
        stream.get_ref().0.stream.reset();
    }
}

async fn in_plain<H: Handler>(
    stream: TcpStream,
    mut first: BytesMut,
    client: Client,
    seat: Option<Seat>,
    deadline: Instant,
    door: &Door<H>,
) {
    let mut stream = Socket::new(stream);
    let taken = stream.taken();
    let client = Arc::new(client);
    let (handler, context) = (Arc::clone(&door.handler), Arc::clone(&door.context));
    if door.listener.http2 {
        match timeout_at(deadline, is_http2(&mut stream, &mut first)).await {
            Ok(Ok(true)) => {
                return serve_http2(stream, taken, first, client, seat.as_ref(), handler, context)
                    .await;
            }
            Ok(Ok(false)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    if let Some(stream) = serve_http1(stream, taken, first, client, handler, context).await {
        stream.reset();
    }
}

/// Closes with a reset once the stream is dropped, at once and without a TIME_WAIT of ours.
pub(super) fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Reads until the bytes are the HTTP/2 preface or can no longer become it. They stay in `first`.
async fn is_http2(stream: &mut Socket, first: &mut BytesMut) -> io::Result<bool> {
    loop {
        let seen = first.len().min(PREFACE.len());
        if first.get(..seen) != PREFACE.get(..seen) {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        if stream.read_buf(first).await? == 0 {
            return Ok(false);
        }
    }
}

/// An IPv4 address in IPv6 clothes is that IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A socket some of whose bytes have been read already.
#[derive(Debug)]
struct Prefixed {
    stream: Socket,
    first: BytesMut,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.stream).poll_read(task, buffer);
        }
        let take = this.first.len().min(buffer.remaining());
        buffer.put_slice(this.first.get(..take).unwrap_or_default());
        this.first.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(task, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(task)
    }
}
