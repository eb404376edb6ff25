//! A checksum of what decides about a stored response, in debug builds only: a bit that flips in
//! memory, or a head that is changed behind everybody's back, counts as a miss where tests run.
//!
//! Covered are the key, what `Vary` selected by, status, fields, terms and length, and of a body in
//! one piece its ends. What purges say of a head changes on purpose and is left out.

use super::stored::{Head, StoredBody};
use crate::semantics::KeySecret;

/// Bytes of a body that are looked at, at each end.
const END_BYTES: usize = 2048;

/// Checksum of a response as it is now.
pub(super) fn checksum(head: &Head, body: &StoredBody) -> u128 {
    let terms = &head.terms;
    let times = [
        terms.received.boot,
        terms.initial_age,
        terms.lifetime,
        terms.fresh_for,
        terms.stale_while_revalidate,
        terms.stale_if_error,
    ];
    let flags = [terms.must_revalidate, terms.no_cache, terms.immutable, terms.authorized];
    let mut numbers = Vec::with_capacity(160);
    for time in times {
        numbers.extend_from_slice(&time.as_nanos().to_le_bytes());
    }
    numbers.extend(flags.map(u8::from));
    for number in [head.born, head.fill, u64::from(head.status.as_u16()), body.len()] {
        numbers.extend_from_slice(&number.to_le_bytes());
    }
    let (first, last) = match body {
        StoredBody::One(bytes) => {
            let most = bytes.len().min(END_BYTES);
            (bytes.slice(..most), bytes.slice(bytes.len() - most..))
        }
        _ => Default::default(),
    };
    let mut parts: Vec<&[u8]> = vec![&head.key.parts, head.secondary(), &numbers, &first, &last];
    parts.push(head.fields.as_bytes());
    KeySecret([0, 0]).hash(&parts)
}
