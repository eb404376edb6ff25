//! Bytes that wait to be written to the client, in order: a head, pieces of a body, an end.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Pieces that one system call takes.
const SLICES: usize = 16;

/// Body bytes beyond which no more are gathered before some have been written.
const GATHERED: usize = 256 * 1024;

/// Head buffer that is kept while the connection is idle, in bytes. Pieces of a body for which it has room
/// are copied behind the head: to send one buffer costs less than to send two.
const KEPT: usize = 2048;

/// What is still to be written.
#[derive(Default)]
pub(super) struct Output {
    /// Heads and chunk sizes, and small pieces behind them; goes before `data`.
    pub(super) head: BytesMut,
    /// Body bytes at the end of `head`.
    copied: usize,
    data: VecDeque<Bytes>,
    data_bytes: usize,
    /// Goes after `data`.
    tail: &'static [u8],
}

impl Output {
    /// Whether everything has been handed to the socket.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether another piece may be added without writing first.
    pub(super) fn has_room(&self) -> bool {
        self.tail.is_empty() && self.data_bytes < GATHERED && self.data.len() + 1 < SLICES
    }

    /// Body bytes that have not been written.
    pub(super) fn data_bytes(&self) -> usize {
        self.data_bytes + self.copied
    }

    /// Adds a piece of a body, not empty.
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.data.is_empty() && !self.head.is_empty() && self.head.len() + piece.len() <= KEPT {
            self.copied += piece.len();
            self.head.extend_from_slice(&piece);
            return;
        }
        self.data_bytes += piece.len();
        self.data.push_back(piece);
    }

    /// Sets what follows the pieces added so far.
    pub(super) fn end(&mut self, tail: &'static [u8]) {
        self.tail = tail;
    }

    /// Forgets everything, and big buffers.
    pub(super) fn clear(&mut self) {
        self.data.clear();
        (self.data_bytes, self.copied) = (0, 0);
        self.tail = b"";
        if self.head.capacity() > KEPT {
            self.head = BytesMut::new();
        } else {
            self.head.clear();
        }
    }

    /// The one piece that is left, if it is only one.
    fn alone(&self) -> Option<&[u8]> {
        (self.data.is_empty() && self.tail.is_empty()).then_some(&self.head)
    }

    /// Writes once; gives the number of bytes. Not to be called when empty.
    pub(super) fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        let written = if let Some(piece) = self.alone() {
            ready!(io.poll_write(context, piece))?
        } else if io.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); SLICES + 2];
            let pieces = std::iter::once(&self.head[..])
                .chain(self.data.iter().map(|piece| &piece[..]))
                .chain(std::iter::once(self.tail))
                .filter(|piece| !piece.is_empty());
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let slices = slices.get(..count).unwrap_or_default();
            ready!(io.poll_write_vectored(context, slices))?
        } else {
            ready!(io.poll_write(context, self.first()))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn first(&self) -> &[u8] {
        if self.head.is_empty() {
            self.data.front().map_or(self.tail, |piece| piece)
        } else {
            &self.head
        }
    }

    fn advance(&mut self, mut written: usize) {
        let from_head = written.min(self.head.len());
        self.head.advance(from_head);
        self.copied = self.copied.min(self.head.len());
        written -= from_head;
        while let Some(piece) = self.data.front_mut() {
            let from_piece = written.min(piece.len());
            piece.advance(from_piece);
            self.data_bytes -= from_piece;
            written -= from_piece;
            if !piece.is_empty() {
                return;
            }
            self.data.pop_front();
        }
        self.tail = self.tail.get(written..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most so many bytes per call.
    struct Narrow(Vec<u8>, usize, bool);

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            self.poll_write(context, &all)
        }

        fn is_write_vectored(&self) -> bool {
            self.2
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn bytes_keep_their_order_however_few_are_taken() {
        let mut context = Context::from_waker(std::task::Waker::noop());
        for vectored in [false, true] {
            for most in 1..20 {
                let mut output = Output::default();
                output.head.extend_from_slice(b"head,");
                output.push(Bytes::from("one,"));
                output.push(Bytes::from("two,"));
                output.end(b"end");
                let mut io = Narrow(Vec::new(), most, vectored);
                while !output.is_empty() {
                    assert!(output.poll_write(&mut io, &mut context).is_ready());
                    let body = 8_usize.saturating_sub(io.0.len().saturating_sub(5));
                    assert_eq!(output.data_bytes(), body);
                }
                assert_eq!(io.0, b"head,one,two,end");
            }
        }
    }

    #[test]
    fn small_pieces_go_with_the_head_and_large_ones_do_not() {
        let mut output = Output::default();
        output.head.extend_from_slice(b"head,");
        output.push(Bytes::from("small,"));
        assert_eq!((output.data.len(), output.data_bytes()), (0, 6));
        output.push(Bytes::from(vec![b'x'; KEPT]));
        output.push(Bytes::from("after it"));
        assert_eq!((output.data.len(), output.data_bytes()), (2, 6 + KEPT + 8));
        output.clear();
        assert_eq!(output.data_bytes(), 0);
    }
}
