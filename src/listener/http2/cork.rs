//! Gathers the frames of many answers into few writes.
//!
//! h2 flushes after each frame. A client with sixteen small questions at once would get sixteen
//! TLS records in sixteen system calls. Here a flush only means "as soon as the connection has
//! nothing more to do": the connection's task calls [`Cork::poll_out`] before it sleeps.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered at most: the content of one TLS record.
const GATHERED: usize = 16 * 1024;

/// A connection's bytes behind a cork. Clones are the same connection; they stay within one task.
#[derive(Debug)]
pub(super) struct Cork<IO>(Arc<Mutex<Inner<IO>>>);

#[derive(Debug)]
struct Inner<IO> {
    io: IO,
    waiting: BytesMut,
    /// Whether something has been written that has not been flushed: TLS may still hold it.
    unflushed: bool,
    /// Whether somebody calls [`Cork::poll_out`].
    held: bool,
}

impl<IO> Clone for Cork<IO> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<IO> Cork<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            io,
            waiting: BytesMut::new(),
            unflushed: false,
            held: false,
        })))
    }

    /// From now on the caller sees to it that what waits goes out.
    pub(super) fn hold(&self) {
        self.lock().held = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner<IO>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: AsyncWrite + Unpin> Cork<IO> {
    /// Writes and flushes all that waits.
    pub(super) fn poll_out(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        ready!(inner.poll_write_waiting(context))?;
        if inner.unflushed {
            ready!(Pin::new(&mut inner.io).poll_flush(context))?;
            inner.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> Inner<IO> {
    fn poll_write_waiting(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.unflushed = true;
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        // An idle connection holds no buffer.
        self.waiting = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Cork<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Cork<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        let size = parts.iter().map(|part| part.len()).sum();
        if inner.waiting.len() + size > GATHERED {
            ready!(inner.poll_write_waiting(context))?;
        }
        if size > GATHERED || !inner.held {
            inner.unflushed = true;
            return Pin::new(&mut inner.io).poll_write_vectored(context, parts);
        }
        for part in parts {
            inner.waiting.extend_from_slice(part);
        }
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if inner.held {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut inner.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        ready!(inner.poll_write_waiting(context))?;
        Pin::new(&mut inner.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything, as TLS does, and needs some flushes to get rid of it.
    struct Holds {
        flushes: usize,
    }

    impl AsyncWrite for Holds {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes = self.flushes.saturating_sub(1);
            if self.flushes == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_held_beneath_is_flushed_until_it_is_out() {
        let mut context = Context::from_waker(std::task::Waker::noop());
        for size in [10, GATHERED + 1] {
            let mut cork = Cork::new(Holds { flushes: 3 });
            cork.hold();
            let bytes = vec![b'x'; size];
            assert!(Pin::new(&mut cork).poll_write(&mut context, &bytes).is_ready());
            assert!(Pin::new(&mut cork).poll_flush(&mut context).is_ready());
            assert!(cork.poll_out(&mut context).is_pending());
            assert!(cork.poll_out(&mut context).is_pending());
            assert!(cork.poll_out(&mut context).is_ready());
            assert_eq!(cork.lock().io.flushes, 0);
        }
    }
}
