//! Keys as they are told on a link of the mesh.
//!
//! ```text
//! version 1 | number 1 | number times: name 16 | age, ms 8 | secret 32
//! ```
//!
//! Reading is strict. What a later version tells is passed over as a whole: its keys are not for this one.

use std::time::Duration;

use super::set::{Key, MOST};

/// The version that is spoken.
const VERSION: u8 = 1;
/// Bytes of one key.
const KEY_BYTES: usize = 16 + 8 + 32;

/// Why bytes are no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireError {
    /// They are of a later version.
    Later,
    /// Too few bytes or too many, or too many keys.
    Malformed,
}

pub(super) fn encode(keys: &[Key]) -> Vec<u8> {
    let number = keys.len().min(MOST);
    let mut to = Vec::with_capacity(2 + number * KEY_BYTES);
    to.extend([VERSION, u8::try_from(number).unwrap_or(u8::MAX)]);
    for key in keys.iter().take(number) {
        to.extend(key.name);
        to.extend(u64::try_from(key.age.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        to.extend(key.secret);
    }
    to
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Key>, WireError> {
    let Some(([version, number], rest)) = bytes.split_first_chunk() else {
        return Err(WireError::Malformed);
    };
    match *version {
        0 => return Err(WireError::Malformed),
        VERSION => {}
        _later => return Err(WireError::Later),
    }
    let (keys, left) = rest.as_chunks::<KEY_BYTES>();
    if usize::from(*number) > MOST || keys.len() != usize::from(*number) || !left.is_empty() {
        return Err(WireError::Malformed);
    }
    keys.iter().map(|key| one(key).ok_or(WireError::Malformed)).collect()
}

fn one(bytes: &[u8; KEY_BYTES]) -> Option<Key> {
    let (name, rest) = bytes.split_first_chunk::<16>()?;
    let (age, secret) = rest.split_first_chunk::<8>()?;
    let age = Duration::from_millis(u64::from_be_bytes(*age));
    Some(Key { name: *name, secret: secret.try_into().ok()?, age })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check;
    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        (any::<[u8; 16]>(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(name, secret, age)| Key {
            name,
            secret,
            age: Duration::from_millis(age),
        })
    }

    proptest! {
        #[test]
        fn keys_are_read_as_they_are_written_and_nothing_else_is(
            keys in prop::collection::vec(key(), 0..=MOST),
            cut in any::<usize>(),
        ) {
            let mut bytes = encode(&keys);
            prop_assert!(decode(&bytes) == Ok(keys));
            prop_assert!(decode(&bytes[..cut % bytes.len()]) == Err(WireError::Malformed));
            bytes.push(0);
            prop_assert!(decode(&bytes) == Err(WireError::Malformed));
            bytes[0] = 2;
            prop_assert!(decode(&bytes) == Err(WireError::Later));
        }

        #[test]
        fn any_bytes_are_keys_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            check::told(&bytes);
        }

        #[test]
        fn keys_that_are_told_keep_to_the_properties(
            keys in prop::collection::vec((0_u8..6, 0_u8..3, 0_u64..4_000_000), 0..=MOST),
        ) {
            let key = |(name, secret, age): (u8, u8, u64)| Key {
                name: [name; 16],
                secret: [secret; 32],
                age: Duration::from_millis(age),
            };
            check::told(&encode(&keys.into_iter().map(key).collect::<Vec<_>>()));
        }
    }

    #[test]
    fn more_keys_than_are_held_are_refused() {
        let mut bytes = vec![VERSION, 17];
        bytes.extend([0; 17 * KEY_BYTES]);
        assert!(decode(&bytes) == Err(WireError::Malformed));
    }
}
