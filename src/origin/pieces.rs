//! Bytes that wait for a socket, in order. Large pieces are kept as they are; small ones are
//! gathered, so that the work per byte is bounded however finely a sender cuts its body.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

/// Pieces below this are copied: that is cheaper than to keep count of them.
const SMALL: usize = 1024;

/// Slices handed to one vectored write.
const SLICES: usize = 16;

/// Bytes in the order in which they are written.
#[derive(Debug)]
pub(super) struct Pieces {
    whole: VecDeque<Bytes>,
    /// What comes after all of `whole`.
    gathered: BytesMut,
    length: usize,
}

impl Pieces {
    /// Begins with these bytes; small pieces are gathered behind them.
    pub(super) fn new(first: BytesMut) -> Self {
        Self { whole: VecDeque::new(), length: first.len(), gathered: first }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.len() < SMALL {
            return self.gather(|gathered| gathered.extend_from_slice(&piece));
        }
        self.length += piece.len();
        if !self.gathered.is_empty() {
            self.whole.push_back(self.gathered.split().freeze());
        }
        self.whole.push_back(piece);
    }

    /// Adds what `write` appends.
    pub(super) fn gather(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.gathered.len();
        write(&mut self.gathered);
        self.length += self.gathered.len().saturating_sub(before);
    }

    /// Slices from the front, for one vectored write.
    pub(super) fn slices(&self) -> SmallVec<[IoSlice<'_>; SLICES]> {
        let whole = self.whole.iter().map(|piece| &**piece);
        let last = (!self.gathered.is_empty()).then_some(&*self.gathered);
        whole.chain(last).take(SLICES).map(IoSlice::new).collect()
    }

    /// Lets go of bytes at the front.
    pub(super) fn advance(&mut self, bytes: usize) {
        let mut left = bytes.min(self.length);
        self.length -= left;
        while let Some(piece) = self.whole.front_mut() {
            if left < piece.len() {
                return piece.advance(left);
            }
            left -= piece.len();
            self.whole.pop_front();
        }
        self.gathered.advance(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_however_they_are_cut() {
        for step in [1, 7, 1000, 1024, 5000, 100_000] {
            let mut pieces = Pieces::new(BytesMut::from("head"));
            let mut expected = b"head".to_vec();
            for (size, letter) in [
                (1, b'a'),
                (2000, b'b'),
                (1, b'c'),
                (1, b'd'),
                (1024, b'e'),
                (3000, b'f'),
                (9, b'g'),
            ] {
                pieces.push(Bytes::from(vec![letter; size]));
                expected.extend(vec![letter; size]);
            }
            let mut written = Vec::new();
            while !pieces.is_empty() {
                assert_eq!(pieces.len(), expected.len() - written.len());
                let taken: Vec<u8> =
                    pieces.slices().iter().flat_map(|slice| slice.to_vec()).take(step).collect();
                pieces.advance(taken.len());
                written.extend(taken);
            }
            assert_eq!(written, expected, "steps of {step}");
            assert!(pieces.slices().is_empty());
        }
    }

    #[test]
    fn single_bytes_become_one_slice() {
        let mut pieces = Pieces::new(BytesMut::new());
        for _ in 0..50_000 {
            pieces.push(Bytes::from_static(b"a"));
        }
        let slices = pieces.slices();
        assert_eq!((slices.len(), slices[0].len()), (1, 50_000));
    }
}
