//! Slow and restless clients: who is given up and who is not.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::Sleep;

use super::support::{Edge, PATIENCE, quick};
use crate::clock;
use crate::config::Limits;
use crate::listener::socket::Taken;

const STEP: Duration = Duration::from_millis(5);
const GAP: Duration = Duration::from_millis(80);

/// A way to a slow client.
struct Slow {
    io: DuplexStream,
    taken: Taken,
    pause: Pin<Box<Sleep>>,
    paused: bool,
    /// Bytes that a write has taken and a flush has not got rid of.
    held: usize,
    /// Bytes that a flush gets rid of after each pause; 0: every write waits for a pause instead
    /// and then takes everything.
    per_pause: usize,
}

impl Slow {
    fn new(io: DuplexStream, taken: Taken, per_pause: usize) -> Self {
        let pause = Box::pin(tokio::time::sleep(STEP));
        Self { io, taken, pause, paused: false, held: 0, per_pause }
    }

    /// Pending for a pause, then ready once.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.paused {
            self.pause.as_mut().reset(tokio::time::Instant::now() + STEP);
            self.paused = true;
        }
        std::task::ready!(self.pause.as_mut().poll(context));
        self.paused = false;
        Poll::Ready(())
    }
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.per_pause == 0 {
            std::task::ready!(self.poll_pause(context));
        }
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        if self.per_pause == 0 {
            self.taken.add(written);
        } else {
            self.held += written;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        self.poll_write(context, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held > 0 {
            std::task::ready!(self.poll_pause(context));
            let some = self.held.min(self.per_pause);
            self.held -= some;
            self.taken.add(some);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_client_that_takes_what_there_is_after_every_wait_is_not_given_up() {
    let rows = [
        // Each write waits a little and then takes all: nothing is ever left over.
        ("beneath no TLS", "/flood", 0, "0\r\n\r\n"),
        // All is written at once and leaves bit by bit: no write ever waits.
        ("beneath TLS", "/flood", 20, "0\r\n\r\n"),
    ];
    for (case, path, per_pause, end) in rows {
        let (client, server) = tokio::io::duplex(1 << 20);
        let taken = Taken::default();
        let limits = Limits { send_gap: GAP, ..quick() };
        let server = Slow::new(server, taken.clone(), per_pause);
        let mut edge = Edge::over(limits, client, server, taken);
        let begun = clock::now();
        edge.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        edge.until(end).await;
        edge.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
        edge.until("/next").await;
        assert!(clock::now().since(begun) > GAP, "{case}: too quick to tell");
        assert_eq!(edge.metrics.doors.timeouts.get(), 0, "{case}");
    }
}

#[tokio::test]
async fn an_event_stream_may_be_quiet_on_either_side() {
    let limits = Limits { send_gap: STEP, rate_window: STEP, ..quick() };
    // Nothing lies ready.
    let mut edge = Edge::new(limits.clone());
    edge.send("GET /quiet-events HTTP/1.1\r\nHost: h\r\n\r\n").await;
    edge.until("event\r\n").await;
    tokio::time::sleep(10 * STEP).await;
    edge.player.gate.add_permits(1);
    edge.until("event\r\n0\r\n\r\n").await;
    // The client takes nothing for a while.
    let mut edge = Edge::with_pipe(limits, 100);
    edge.send("GET /events HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(edge.first().await, "HTTP/1.1");
    tokio::time::sleep(10 * STEP).await;
    edge.until(&"x".repeat(4000)).await;
    assert_eq!(edge.metrics.doors.timeouts.get(), 0);
}

/// Sends without end, faster than it can be read, for as long as a test can wait.
struct Restless {
    first: &'static [u8],
    begun: clock::Now,
}

impl AsyncRead for Restless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            buffer.put_slice(std::mem::take(&mut self.first));
        } else if clock::now().since(self.begun) < PATIENCE / 4 {
            buffer.put_slice(&[b'x'; 100]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Restless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_client_that_never_stops_sending_is_not_read_for_longer_than_lingering_takes() {
    let begun = clock::now();
    let (client, _) = tokio::io::duplex(1);
    let server = Restless { first: b"no request\r\n\r\n", begun };
    let mut edge = Edge::over(quick(), client, server, Taken::default());
    tokio::time::timeout(PATIENCE, &mut edge.task).await.unwrap().unwrap();
    assert!(clock::now().since(begun) < PATIENCE / 8);
}
