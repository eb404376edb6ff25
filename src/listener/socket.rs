//! A client's socket that lets the kernel hold more for who takes more.
//!
//! What the kernel holds unsent looks sent to us, so a small hold is needed to tell a slow client
//! from a fast one, and to keep memory small. But with a small hold every few kilobytes of a large
//! body cost a wake-up. So the hold is small at first and grows once the client has shown that it
//! takes a megabyte a second; it shrinks again when the client keeps us waiting.
//!
//! HTTP/2 sends large bodies in frames of 16 KiB, each a write of its own beneath TLS. Who takes them fast
//! gets them in bursts: a large write tells the kernel that more follows, so that it makes packets of up
//! to 64 KiB of several, and what it holds back for that is pushed out by the flush at the end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::clock;

/// Bytes that the kernel may hold unsent for a client of unknown speed.
const SMALL_HOLD: u32 = 32 * 1024;
/// Bytes that it may hold unsent for a fast one.
const LARGE_HOLD: u32 = 256 * 1024;
/// A client that takes `LARGE_HOLD` bytes within this time is fast.
const FAST: Duration = Duration::from_millis(250);
/// Bytes from which on a write is part of a burst: most of a full frame.
const LARGE_WRITE: usize = 12 * 1024;
/// A client that keeps us waiting this long is not.
const SLOW: Duration = Duration::from_secs(1);

/// How many bytes the kernel has taken from us for a client, counted beneath TLS.
///
/// TLS takes up to 64 KiB more than it has written. Whoever judges a client by what TLS took
/// sees no progress while those trickle out.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicU64,
    bursts: AtomicBool,
}

impl Taken {
    /// Counts `bytes` more.
    pub(super) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// From now on whoever writes flushes when nothing more follows, and only then; so large writes may be
    /// held back until then.
    pub(super) fn in_bursts(&self) {
        self.0.bursts.store(true, Ordering::Relaxed);
    }
}

/// A look at [`Taken`] from time to time.
#[derive(Debug)]
pub(super) struct Progress {
    taken: Taken,
    seen: u64,
}

impl Progress {
    pub(super) fn of(taken: Taken) -> Self {
        Self { seen: taken.bytes(), taken }
    }

    /// Bytes taken since the last look.
    pub(super) fn look(&mut self) -> usize {
        let bytes = self.taken.bytes();
        let new = bytes - self.seen;
        self.seen = bytes;
        usize::try_from(new).unwrap_or(usize::MAX)
    }
}

/// A client's socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    taken: Taken,
    fast: bool,
    /// Bytes written since `since`.
    moved: usize,
    /// Beginning of the measurement on the boot clock.
    since: Duration,
    /// When a write had to wait, on the boot clock.
    waiting: Option<Duration>,
    /// Whether the kernel holds back something of a burst.
    held: bool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        hold(&stream, SMALL_HOLD);
        let taken = Taken::default();
        Self {
            stream,
            taken,
            fast: false,
            moved: 0,
            since: clock::now().boot,
            waiting: None,
            held: false,
        }
    }

    /// What the kernel takes from now on is counted here.
    pub(super) fn taken(&self) -> Taken {
        self.taken.clone()
    }

    /// Ends the connection with RST when it is dropped.
    pub(super) fn reset(&self) {
        // If this fails the connection ends with FIN, and there is no other way to tell.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Whether to tell the kernel that more follows.
    fn is_burst(&self, parts: &[IoSlice<'_>]) -> bool {
        self.fast
            && self.taken.0.bursts.load(Ordering::Relaxed)
            && parts.iter().map(|part| part.len()).sum::<usize>() >= LARGE_WRITE
    }

    fn poll_burst(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = loop {
            match self.stream.poll_write_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let mut none = SendAncillaryBuffer::default();
                let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
                Ok(sendmsg(&self.stream, parts, &mut none, flags)?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => break Poll::Ready(sent),
            }
        };
        self.wrote(&outcome, true);
        outcome
    }

    /// Has the kernel send what it holds back.
    fn push(&mut self) {
        if std::mem::take(&mut self.held) {
            let _ = SockRef::from(&self.stream).set_tcp_nodelay(true);
        }
    }

    fn wrote(&mut self, outcome: &Poll<io::Result<usize>>, held: bool) {
        match outcome {
            // It might wait for what it holds back itself.
            Poll::Pending => self.push(),
            Poll::Ready(_) => self.held = held,
        }
        match outcome {
            Poll::Pending => {
                self.waiting.get_or_insert_with(|| clock::now().boot);
            }
            Poll::Ready(Ok(bytes)) => {
                self.taken.add(*bytes);
                if let Some(began) = self.waiting.take()
                    && self.fast
                    && clock::now().boot.saturating_sub(began) > SLOW
                {
                    self.fast = false;
                    self.moved = 0;
                    hold(&self.stream, SMALL_HOLD);
                }
                if !self.fast {
                    self.measure(*bytes);
                }
            }
            Poll::Ready(Err(_)) => {}
        }
    }

    fn measure(&mut self, bytes: usize) {
        self.moved += bytes;
        if self.moved < LARGE_HOLD as usize {
            return;
        }
        let now = clock::now().boot;
        if now.saturating_sub(self.since) <= FAST {
            self.fast = true;
            hold(&self.stream, LARGE_HOLD);
        }
        self.moved = 0;
        self.since = now;
    }
}

fn hold(stream: &TcpStream, bytes: u32) {
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(bytes);
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let parts = [IoSlice::new(bytes)];
        if this.is_burst(&parts) {
            return this.poll_burst(context, &parts);
        }
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(&outcome, false);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_burst(parts) {
            return this.poll_burst(context, parts);
        }
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.wrote(&outcome, false);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.push();
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.push();
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_the_kernel_takes_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Socket::new(client);
        let mut progress = Progress::of(socket.taken());
        assert_eq!(progress.look(), 0);
        socket.write_all(b"hello").await.unwrap();
        let parts = [io::IoSlice::new(b"to "), io::IoSlice::new(b"you")];
        assert_eq!(socket.write_vectored(&parts).await.unwrap(), 6);
        assert_eq!(progress.look(), 11);
        assert_eq!(progress.look(), 0);
    }

    #[tokio::test]
    async fn a_burst_is_held_back_until_somebody_flushes_or_writes_little() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(client);
        let piece = vec![7; LARGE_WRITE];
        socket.fast = true;
        socket.write_all(&piece).await.unwrap();
        assert!(!socket.held, "nobody said that he would flush");
        socket.taken().in_bursts();
        let mut sent = piece.len();
        for little in [false, true, false] {
            for _ in 0..3 {
                socket.write_all(&piece).await.unwrap();
                assert!(socket.held);
            }
            sent += 3 * piece.len();
            if little {
                socket.write_all(b"x").await.unwrap();
                sent += 1;
            } else {
                socket.flush().await.unwrap();
            }
            assert!(!socket.held);
            let mut bytes = vec![0; sent];
            peer.read_exact(&mut bytes).await.unwrap();
            sent = 0;
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_is_not_waited_for_with_something_held_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(client);
        socket.taken().in_bursts();
        socket.fast = true;
        let all = vec![7; 32 << 20];
        let write = async {
            socket.write_all(&all).await.unwrap();
            socket.flush().await.unwrap();
        };
        let read = async {
            let mut bytes = vec![0; all.len()];
            peer.read_exact(&mut bytes).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(write, read) })
            .await
            .unwrap();
    }
}
