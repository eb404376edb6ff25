//! Frames: how messages lie one behind the other on a link.
//!
//! ```text
//! length 4 bytes, big-endian | kind 1 byte | body, length - 1 bytes
//! ```
//!
//! A length is checked before anything is kept for it, and memory grows with the bytes that came, not
//! with those announced. A kind that is not known is passed over, so that a later version may say more;
//! a frame that is empty or too long ends the link, since what follows can't be found any more.
//!
//! A large message goes in parts, so that what is urgent need not wait behind it. Parts of one
//! message follow one another; other frames may stand between them.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Bytes before a body.
pub(super) const HEAD_BYTES: usize = 5;

/// Longest body of a frame that is no message: greetings, membership, numbers.
pub(super) const SMALL_BYTES: usize = 4096;

/// What a frame bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The greeting, first on each side and only there.
    Hello,
    /// A whole message of the replication protocol.
    Message,
    /// A part of one, and not its last.
    Part,
    /// The last part of one.
    LastPart,
    /// A datagram of membership.
    Datagram,
    /// A number that wants to come back.
    Ping,
    /// That number.
    Pong,
    /// The sender writes nothing more, with a reason.
    Bye,
    /// Nothing. It follows what is urgent, so that the system notices sooner that a segment is lost.
    Nudge,
    /// Keys of session tickets.
    Keys,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Hello,
        Self::Message,
        Self::Part,
        Self::LastPart,
        Self::Datagram,
        Self::Ping,
        Self::Pong,
        Self::Bye,
        Self::Nudge,
        Self::Keys,
    ];

    /// Its byte.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Message => 2,
            Self::Part => 3,
            Self::LastPart => 4,
            Self::Datagram => 5,
            Self::Ping => 6,
            Self::Pong => 7,
            Self::Bye => 8,
            Self::Nudge => 9,
            Self::Keys => 10,
        }
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What it bears; `None` for a kind that this version does not know.
    pub(super) kind: Option<Kind>,
    /// Its bytes.
    pub(super) body: Bytes,
}

/// Why bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    /// A frame without a kind.
    Empty,
    /// A frame longer than is taken, by its own word.
    TooLong {
        /// The length it claims.
        length: usize,
    },
}

/// Writes a frame.
pub(super) fn write(kind: Kind, body: &[u8], to: &mut BytesMut) {
    let length = u32::try_from(body.len() + 1).unwrap_or(u32::MAX);
    to.reserve(HEAD_BYTES + body.len());
    to.put_u32(length);
    to.put_u8(kind.code());
    to.put_slice(body);
}

/// Takes frames out of bytes as they come.
#[derive(Debug)]
pub(super) struct FrameReader {
    buffer: BytesMut,
    most: usize,
}

impl FrameReader {
    /// Takes bodies of up to `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { buffer: BytesMut::new(), most }
    }

    /// Takes longer or shorter bodies from here on.
    pub(super) fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// Where bytes are to be put, with room for some.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        const ROOM: usize = 16 << 10;
        self.buffer.reserve(ROOM);
        &mut self.buffer
    }

    /// The next frame, once all of it is there.
    ///
    /// # Errors
    /// When the bytes are no frames. Nothing can be read from there on.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length - 1 > self.most {
            return Err(FrameError::TooLong { length });
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let code = self.buffer.get_u8();
        let body = self.buffer.split_to(length - 1).freeze();
        Ok(Some(Frame { kind: Kind::of(code), body }))
    }
}

/// Puts the parts of large messages together again.
#[derive(Debug)]
pub(super) struct Parts {
    parts: BytesMut,
    most: usize,
}

impl Parts {
    /// For messages of up to `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { parts: BytesMut::new(), most }
    }

    /// Takes a part; gives the message with the last one.
    ///
    /// # Errors
    /// When the message grows too long.
    pub(super) fn take(&mut self, part: &[u8], last: bool) -> Result<Option<BytesMut>, FrameError> {
        let length = self.parts.len() + part.len();
        if length > self.most {
            return Err(FrameError::TooLong { length });
        }
        self.parts.put_slice(part);
        Ok(last.then(|| std::mem::take(&mut self.parts)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{frames as check, read_all};
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        let mut bytes = BytesMut::new();
        for kind in Kind::ALL {
            write(kind, b"abc", &mut bytes);
        }
        let (frames, error) = read_all(&mut FrameReader::new(3), [&*bytes].into_iter());
        assert_eq!(error, None);
        let kinds: Vec<Kind> = frames.iter().filter_map(|frame| frame.kind).collect();
        assert_eq!(kinds, Kind::ALL);
        assert!(frames.iter().all(|frame| *frame.body == *b"abc"));
    }

    #[test]
    fn what_is_too_long_or_empty_ends_the_reading() {
        for (bytes, expected) in [
            (&[0, 0, 0, 0][..], FrameError::Empty),
            (&[0, 0, 0, 12, 2], FrameError::TooLong { length: 12 }),
            (&[255, 255, 255, 255], FrameError::TooLong { length: u32::MAX as usize }),
        ] {
            let got = read_all(&mut FrameReader::new(10), [bytes].into_iter());
            assert_eq!(got, (Vec::new(), Some(expected)), "{bytes:?}");
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory_before_its_bytes_are_there() {
        let mut reader = FrameReader::new(1 << 30);
        reader.room().extend_from_slice(&[0x20, 0, 0, 0, 2, 1, 2, 3]);
        assert_eq!(reader.next(), Ok(None));
        assert!(reader.room().capacity() < 64 << 10);
    }

    #[test]
    fn an_unknown_kind_is_handed_on_as_such() {
        let got = read_all(&mut FrameReader::new(10), [&[0, 0, 0, 2, 77, 1][..]].into_iter());
        assert_eq!(got, (vec![Frame { kind: None, body: Bytes::from_static(&[1]) }], None));
    }

    #[test]
    fn parts_make_the_message_again_and_no_longer_one() {
        let mut parts = Parts::new(5);
        assert_eq!(parts.take(b"ab", false), Ok(None));
        assert_eq!(parts.take(b"cde", true), Ok(Some(BytesMut::from(&b"abcde"[..]))));
        assert_eq!(parts.take(b"abc", false), Ok(None));
        assert_eq!(parts.take(b"def", true), Err(FrameError::TooLong { length: 6 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check(&bytes);
        }

        #[test]
        fn short_frames_of_any_kind_are_read(frames in prop::collection::vec((0_u8..12, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut bytes = Vec::new();
            for (kind, body) in &frames {
                bytes.extend_from_slice(&u32::try_from(body.len() + 1).unwrap().to_be_bytes());
                bytes.push(*kind);
                bytes.extend_from_slice(body);
            }
            let (read, error) = read_all(&mut FrameReader::new(1000), [&*bytes].into_iter());
            prop_assert_eq!(error, None);
            prop_assert_eq!(read.len(), frames.len());
            check(&bytes);
        }
    }
}
