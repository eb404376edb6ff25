//! From bytes to the heads of HTTP/2 frames.

use super::{CONTINUATION, HEADERS};

/// One frame, as far as it is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// The first four bytes of the payload, zero where it is shorter.
    pub(super) payload: [u8; 4],
}

impl Frame {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Cuts a stream of bytes into frames, however the bytes are cut.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Bytes to pass over: the preface, or the rest of a payload.
    skip: u32,
    head: [u8; 9],
    head_bytes: u8,
    payload: [u8; 4],
    payload_bytes: u8,
    /// Whether what is passed over belongs to HEADERS or CONTINUATION.
    skipping_block: bool,
}

impl Splitter {
    /// One that first passes over so many bytes.
    pub(super) fn behind(skip: u32) -> Self {
        Self { skip, ..Self::default() }
    }

    /// The next frame of which head and up to four bytes of payload are there.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        if self.skip > 0 {
            let passed = bytes.len().min(self.skip as usize);
            *bytes = bytes.get(passed..)?;
            self.skip -= u32::try_from(passed).unwrap_or(self.skip);
            if self.skip > 0 {
                return None;
            }
            self.skipping_block = false;
        }
        fill(&mut self.head, &mut self.head_bytes, 9, bytes);
        if self.head_bytes < 9 {
            return None;
        }
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        let wanted = u8::try_from(length.min(4)).unwrap_or(4);
        fill(&mut self.payload, &mut self.payload_bytes, wanted, bytes);
        if self.payload_bytes < wanted {
            return None;
        }
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        let frame = Frame { length, kind, flags, stream, payload: self.payload };
        self.skip = length - u32::from(wanted);
        self.skipping_block = self.skip > 0 && matches!(kind, HEADERS | CONTINUATION);
        self.head_bytes = 0;
        self.payload_bytes = 0;
        self.payload = [0; 4];
        Some(frame)
    }

    /// Whether the last bytes broke off within a field block, or within any frame's head.
    pub(super) fn within_head_block(&self) -> bool {
        self.skipping_block || self.head_bytes > 0
    }
}

/// Moves bytes into `target` until it holds `wanted` of them.
fn fill(target: &mut [u8], have: &mut u8, wanted: u8, bytes: &mut &[u8]) {
    let start = usize::from(*have);
    let take = usize::from(wanted).saturating_sub(start).min(bytes.len());
    let (taken, rest) = bytes.split_at(take);
    if let Some(place) = target.get_mut(start..start + take) {
        place.copy_from_slice(taken);
        *have += u8::try_from(take).unwrap_or(0);
        *bytes = rest;
    }
}
