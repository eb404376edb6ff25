//! What waits for one peer: bounded by bytes and number, the urgent before the bulky.
//!
//! Records as they are issued, acknowledgements, questions and answers are small and decide how long a
//! purge takes; they go first, always. What repairs (batches of records, vectors) is large, goes
//! in parts, and takes half of the room at most, so that a peer that is slow to take a batch still
//! hears what is urgent. What finds no room is dropped and counted: the protocol repairs.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::frame::{self, HEAD_BYTES, Kind};

/// Bytes of a large message that go in one frame.
const PART_BYTES: usize = 16 << 10;

/// How soon something is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// At once, and a purge waits for it.
    Eager,
    /// At once.
    Urgent,
    /// When nothing else waits.
    Bulk,
}

/// What fits into a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of bodies.
    pub(super) bytes: usize,
    /// Number of them.
    pub(super) frames: usize,
}

/// It did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What waits for one peer.
#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    urgent: VecDeque<(Kind, Class, Bytes)>,
    bulk: VecDeque<Bytes>,
    /// Bytes of the first bulky message that are on their way already.
    cut: usize,
    bytes: usize,
}

/// What was taken out of a queue to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Whether a purge waits for some of it.
    pub(super) eager: bool,
}

impl Queue {
    /// Empty.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, urgent: VecDeque::new(), bulk: VecDeque::new(), cut: 0, bytes: 0 }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.bulk.is_empty()
    }

    /// Adds one.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn push(&mut self, kind: Kind, class: Class, body: Bytes) -> Result<(), Full> {
        let part = if class == Class::Bulk { 2 } else { 1 };
        let frames = self.urgent.len() + self.bulk.len();
        if self.bytes + body.len() > self.bounds.bytes / part || frames >= self.bounds.frames / part
        {
            return Err(Full);
        }
        self.bytes += body.len();
        match class {
            Class::Bulk => self.bulk.push_back(body),
            Class::Eager | Class::Urgent => self.urgent.push_back((kind, class, body)),
        }
        Ok(())
    }

    /// Writes frames to `out` until it holds about `most` bytes or nothing waits.
    pub(super) fn take(&mut self, out: &mut BytesMut, most: usize) -> Taken {
        let mut taken = Taken::default();
        while out.len() < most {
            if let Some((kind, class, body)) = self.urgent.pop_front() {
                self.bytes -= body.len();
                taken.eager |= class == Class::Eager;
                frame::write(kind, &body, out);
            } else if !self.take_part(out) {
                break;
            }
        }
        taken
    }

    /// Writes the next part of the first bulky message, if there is one.
    fn take_part(&mut self, out: &mut BytesMut) -> bool {
        let Some(body) = self.bulk.front() else { return false };
        let rest = body.get(self.cut..).unwrap_or_default();
        if let Some((part, _)) =
            rest.split_at_checked(PART_BYTES).filter(|(_, rest)| !rest.is_empty())
        {
            frame::write(Kind::Part, part, out);
            self.cut += PART_BYTES;
            return true;
        }
        frame::write(Kind::LastPart, rest, out);
        self.bytes -= body.len();
        self.bulk.pop_front();
        self.cut = 0;
        true
    }

    /// A new connection: what was sent in part on another begins anew.
    pub(super) fn rewind(&mut self) {
        self.cut = 0;
    }

    /// Drops everything; tells how many those were.
    pub(super) fn clear(&mut self) -> usize {
        let count = self.urgent.len() + self.bulk.len();
        *self = Self::new(self.bounds);
        count
    }
}

/// Bytes that a body takes on the link, parts counted.
pub(super) fn weight(class: Class, body: usize) -> usize {
    let frames = if class == Class::Bulk { body.div_ceil(PART_BYTES).max(1) } else { 1 };
    body + frames * HEAD_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{FrameReader, Parts};
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 200_000, frames: 40 };

    /// Everything that a peer would read, urgent and bulky ones in the order they came whole.
    fn read(out: &[u8]) -> Vec<Vec<u8>> {
        let (mut reader, mut parts) = (FrameReader::new(1 << 20), Parts::new(1 << 20));
        reader.room().extend_from_slice(out);
        let mut all = Vec::new();
        while let Ok(Some(frame)) = reader.next() {
            match frame.kind {
                Some(Kind::Part) => assert_eq!(parts.take(&frame.body, false), Ok(None)),
                Some(Kind::LastPart) => {
                    all.push(parts.take(&frame.body, true).unwrap().unwrap().to_vec());
                }
                _ => all.push(frame.body.to_vec()),
            }
        }
        all
    }

    #[test]
    fn what_is_urgent_overtakes_a_batch_that_is_on_its_way() {
        let mut queue = Queue::new(BOUNDS);
        let batch = Bytes::from(vec![7; 60_000]);
        queue.push(Kind::Message, Class::Bulk, batch.clone()).unwrap();
        let mut out = BytesMut::new();
        assert_eq!(queue.take(&mut out, 1), Taken { eager: false });
        queue.push(Kind::Message, Class::Eager, Bytes::from_static(b"record")).unwrap();
        let mut next = BytesMut::new();
        assert_eq!(queue.take(&mut next, 1), Taken { eager: true });
        assert_eq!(read(&next), [b"record".to_vec()]);
        out.extend_from_slice(&next);
        queue.take(&mut out, usize::MAX);
        assert_eq!(read(&out), [b"record".to_vec(), batch.to_vec()]);
        assert!(queue.is_empty());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn batches_leave_room_for_what_is_urgent() {
        let mut queue = Queue::new(BOUNDS);
        let piece = Bytes::from(vec![0; 30_000]);
        let taken =
            (0..20).filter(|_| queue.push(Kind::Message, Class::Bulk, piece.clone()).is_ok());
        assert_eq!(taken.count(), 3);
        for _ in 0..3 {
            assert_eq!(queue.push(Kind::Message, Class::Urgent, piece.clone()), Ok(()));
        }
        assert_eq!(queue.push(Kind::Message, Class::Urgent, piece), Err(Full));
    }

    #[test]
    fn a_batch_that_was_cut_off_begins_anew() {
        let mut queue = Queue::new(BOUNDS);
        queue.push(Kind::Message, Class::Bulk, Bytes::from(vec![9; 50_000])).unwrap();
        queue.take(&mut BytesMut::new(), 1);
        queue.rewind();
        let mut out = BytesMut::new();
        queue.take(&mut out, usize::MAX);
        assert_eq!(read(&out), [vec![9; 50_000]]);
    }

    proptest! {
        #[test]
        fn all_that_was_taken_comes_out_once_and_no_more_waits_than_may(
            steps in prop::collection::vec((0_u8..5, 0_usize..40_000), 0..120),
        ) {
            let mut queue = Queue::new(BOUNDS);
            let (mut out, mut sent) = (BytesMut::new(), [Vec::new(), Vec::new()]);
            for (step, (what, size)) in steps.into_iter().enumerate() {
                let class = match what {
                    0 => { queue.take(&mut out, size); continue }
                    1 => Class::Eager,
                    2 => Class::Urgent,
                    _ => Class::Bulk,
                };
                let mut body = vec![u8::from(class == Class::Bulk); size + 9];
                body[1..9].copy_from_slice(&step.to_be_bytes());
                if queue.push(Kind::Message, class, body.clone().into()).is_ok() {
                    sent[usize::from(class == Class::Bulk)].push(body);
                }
                prop_assert!(queue.bytes() <= BOUNDS.bytes);
            }
            queue.take(&mut out, usize::MAX);
            prop_assert_eq!(queue.bytes(), 0);
            let (urgent, bulk): (Vec<_>, Vec<_>) = read(&out).into_iter().partition(|body| body[0] == 0);
            prop_assert_eq!([urgent, bulk], sent);
        }
    }
}
