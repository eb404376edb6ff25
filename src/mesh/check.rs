//! What holds of all bytes that strangers may send, for properties and fuzz targets alike.

use bytes::BytesMut;

use super::frame::{self, Frame, FrameError, FrameReader, Kind};
use super::gossip::sift;
use super::hello;
use crate::replication::Name;

/// Longest body that is taken here.
const MOST: usize = 1000;

/// Frames: no panic, none beyond the bound, and the same ones whether the bytes come at once or in
/// pieces. Greetings within them, and the bytes as a greeting, are checked as well.
pub fn frames(bytes: &[u8]) {
    let whole = read_all(&mut FrameReader::new(MOST), std::iter::once(bytes));
    for size in [1, 3, 7] {
        let pieces = read_all(&mut FrameReader::new(MOST), bytes.chunks(size));
        assert_eq!(pieces, whole, "in pieces of {size}");
    }
    for frame in whole.0 {
        assert!(frame.body.len() <= MOST, "a frame beyond the bound");
        let Some(kind) = frame.kind else { continue };
        let mut again = BytesMut::new();
        frame::write(kind, &frame.body, &mut again);
        let read = read_all(&mut FrameReader::new(MOST), std::iter::once(&*again)).0;
        assert_eq!(read, std::slice::from_ref(&frame), "written again");
        if kind == Kind::Hello {
            hello(&frame.body);
        }
    }
    hello(bytes);
}

/// A greeting: refused, or written the same way again.
pub fn hello(bytes: &[u8]) {
    if let Ok(read) = hello::decode(bytes) {
        let again = hello::encode(&read);
        assert_eq!(hello::decode(&again).as_ref(), Ok(&read), "written again");
        assert!(bytes.first() != Some(&hello::VERSION) || again == bytes, "another spelling");
    }
}

/// A datagram of membership: nothing of it that is not about known nodes, and nothing that grows.
pub fn datagram(bytes: &[u8]) {
    let known = |name: &Name| ["a", "b", "me"].contains(&name.as_str());
    let read = |bytes: &[u8]| sift(bytes, &"a".into(), &"me".into(), known);
    if let Some(sifted) = read(bytes) {
        assert!(sifted.bytes.len() <= bytes.len(), "it grew");
        let again = read(&sifted.bytes).map(|again| again.bytes);
        assert_eq!(again.as_ref(), Some(&sifted.bytes), "sifted again");
    }
}

/// All frames of these pieces, and what ended the reading.
pub(super) fn read_all<'a>(
    reader: &mut FrameReader,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Frame>, Option<FrameError>) {
    let mut frames = Vec::new();
    for piece in pieces {
        reader.room().extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
