//! The bytes of a connection as they pass: when the origin was last heard, and whether it has
//! sent its first SETTINGS, before which nobody knows how many streams it takes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::Signals;
use crate::clock;
use crate::origin::connect::Io;

/// Length of a frame's head.
const FRAME_HEAD: usize = 9;

/// A connection's bytes.
#[derive(Debug)]
pub(super) struct Wire {
    io: Io,
    signals: Arc<Signals>,
    greeting: Greeting,
}

impl Wire {
    pub(super) fn new(io: Io, signals: Arc<Signals>) -> Self {
        Self { io, signals, greeting: Greeting::default() }
    }
}

/// Waits for the end of the first frame.
#[derive(Debug, Default)]
struct Greeting {
    head: [u8; FRAME_HEAD],
    read: usize,
}

impl Greeting {
    /// Takes what came; true once the first frame is there as a whole.
    fn is_whole(&mut self, bytes: &[u8]) -> bool {
        for (into, byte) in self.head.iter_mut().skip(self.read).zip(bytes) {
            *into = *byte;
        }
        self.read = self.read.saturating_add(bytes.len());
        let [high, middle, low, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.read >= FRAME_HEAD + usize::try_from(length).unwrap_or(usize::MAX - FRAME_HEAD)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            this.signals.heard(clock::now().boot);
            if !this.signals.is_greeted() && this.greeting.is_whole(new) {
                this.signals.greet();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_whole_however_it_is_cut() {
        let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0][..], &[0, 3, 0, 0, 0, 100]].concat();
        for cut in 0..=settings.len() {
            let (first, second) = settings.split_at(cut);
            let mut greeting = Greeting::default();
            assert_eq!(greeting.is_whole(first), cut == settings.len(), "{cut}");
            assert!(greeting.is_whole(second), "{cut}");
        }
    }
}
