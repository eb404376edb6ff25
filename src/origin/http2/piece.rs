//! Bytes on their way to an origin, counted for as long as they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};

/// Bytes of one stream that its connection has taken and the socket has not.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A part of a request's body that waits for the socket.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    waiting: Waiting,
}

impl Piece {
    pub(super) fn new(bytes: Bytes, waiting: &Waiting) -> Self {
        waiting.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, waiting: waiting.clone() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        let before = self.bytes.len();
        self.bytes.advance(count);
        self.waiting.0.fetch_sub(before - self.bytes.len(), Ordering::Relaxed);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.waiting.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_or_given_up_waits_no_more() {
        let waiting = Waiting::default();
        let mut first = Piece::new(Bytes::from_static(b"hello"), &waiting);
        let second = Piece::new(Bytes::from_static(b"you"), &waiting);
        assert_eq!(waiting.bytes(), 8);
        first.advance(2);
        assert_eq!((waiting.bytes(), first.chunk()), (6, &b"llo"[..]));
        drop(second);
        assert_eq!(waiting.bytes(), 3);
        drop(first);
        assert_eq!(waiting.bytes(), 0);
    }
}
