//! The bytes beneath h2: passes them on, shows them to the frame watch, and tells whether the
//! client takes what we send.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frames::{Breach, FrameWatch};
use crate::config::Limits;

/// What the connection's task learns of its wire. Shared within that one task, since h2 keeps the
/// wire to itself.
#[derive(Clone, Debug)]
pub(super) struct WireState(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) frames: FrameWatch,
    /// Set once; from then on nothing more is read.
    pub(super) breach: Option<Breach>,
    /// Whether bytes of ours wait for the client.
    pub(super) stalled: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
    ended: bool,
}

impl WireState {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            frames: FrameWatch::new(limits),
            breach: None,
            stalled: false,
            received: 0,
            sent: 0,
            ended: false,
        })))
    }

    /// Notes a request that was refused for the size of its fields. The connection's task looks
    /// for the breach.
    pub(super) fn fields_refused(&self) {
        let mut state = self.lock();
        if let Err(breach) = state.frames.fields_refused() {
            state.breach.get_or_insert(breach);
        }
    }

    /// Notes a stream that was given up because the client stood still.
    pub(super) fn gave_up(&self) {
        let mut state = self.lock();
        if let Err(breach) = state.frames.gave_up() {
            state.breach.get_or_insert(breach);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's bytes, watched.
#[derive(Debug)]
pub(super) struct Wire<IO> {
    io: IO,
    /// Bytes that were read before h2 took over.
    first: BytesMut,
    state: WireState,
    linger: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<IO> Wire<IO> {
    pub(super) fn new(io: IO, first: BytesMut, state: WireState, linger: Duration) -> Self {
        Self { io, first, state, linger, lingering: None }
    }
}

fn boot() -> Duration {
    crate::clock::now().boot
}

impl<IO: AsyncRead + Unpin> Wire<IO> {
    /// Reads from what came first, then from the wire.
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let take = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..take).unwrap_or_default());
        self.first.advance(take);
        Poll::Ready(Ok(()))
    }

    /// Reads and drops what the client still sends, until it has closed or the time is over: a
    /// socket closed over unread bytes would reset the connection and take our last words with it.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger;
        let timer = self.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(linger)));
        let mut bytes = [0; 4096];
        while timer.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.lock().breach.is_some() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(this.poll_bytes(context, buffer))?;
        let mut state = this.state.lock();
        let new = buffer.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            state.ended = true;
        }
        state.received += new.len() as u64;
        if let Err(breach) = state.frames.received(new, boot) {
            // h2 never sees what broke the rule. The task that polls us looks for the breach.
            state.breach = Some(breach);
            drop(state);
            buffer.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO> Wire<IO> {
    /// Notes the outcome of a write of (at most) these bytes.
    fn wrote<'a>(
        &self,
        outcome: Poll<io::Result<usize>>,
        bytes: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        state.stalled = outcome.is_pending();
        if let Poll::Ready(Ok(written)) = outcome {
            state.sent += written as u64;
            let mut left = written;
            for part in bytes {
                let part = part.get(..left.min(part.len())).unwrap_or_default();
                left -= part.len();
                if let Err(breach) = state.frames.sent(part) {
                    state.breach.get_or_insert(breach);
                }
                if left == 0 {
                    break;
                }
            }
        }
        outcome
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write(context, bytes);
        this.wrote(outcome, std::iter::once(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write_vectored(context, parts);
        this.wrote(outcome, parts.iter().map(|part| &**part))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_flush(context);
        this.state.lock().stalled = outcome.is_pending();
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(context))?;
            if this.state.lock().ended {
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_linger(context).map(Ok)
    }
}
