//! A hasher for keys that are keyed hashes already.

use std::hash::Hasher;

/// Takes a 128-bit key's own bits for its hash: strangers cannot choose them.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadyHasher(u64);

impl Hasher for ReadyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        let low = value as u64;
        self.0 = low;
    }
}
