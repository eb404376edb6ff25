//! A client's socket that lets the kernel hold more for who takes more.
//!
//! What the kernel holds unsent looks sent to us, so a small hold is needed to tell a slow client
//! from a fast one, and to keep memory small. But with a small hold every few kilobytes of a large
//! body cost a wake-up. So the hold is small at first and grows once the client has shown that it
//! takes a megabyte a second; it shrinks again when the client keeps us waiting.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock;

/// Bytes that the kernel may hold unsent for a client of unknown speed.
const SMALL_HOLD: u32 = 32 * 1024;
/// Bytes that it may hold unsent for a fast one.
const LARGE_HOLD: u32 = 256 * 1024;
/// A client that takes `LARGE_HOLD` bytes within this time is fast.
const FAST: Duration = Duration::from_millis(250);
/// A client that keeps us waiting this long is not.
const SLOW: Duration = Duration::from_secs(1);

/// How many bytes the kernel has taken from us for a client, counted beneath TLS.
///
/// TLS takes up to 64 KiB more than it has written. Whoever judges a client by what TLS took
/// sees no progress while those trickle out.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken(Arc<AtomicU64>);

impl Taken {
    /// Counts `bytes` more.
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        hold(&stream, SMALL_HOLD);
        let taken = Taken::default();
        Self { stream, taken, fast: false, moved: 0, since: clock::now().boot, waiting: None }
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

    fn wrote(&mut self, outcome: &Poll<io::Result<usize>>) {
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
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
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
}
