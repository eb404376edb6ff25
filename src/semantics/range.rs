//! Ranges of a complete stored response (RFC 9110 section 14).
//!
//! A range request is a wish: where it is broken, too many or pointless, the whole is a right
//! answer. 416 is said only when no range asked for exists. Ranges that overlap or touch are
//! merged, so that no request makes the answer longer than the response it is cut from.

use std::fmt::Write as _;

use bytes::Bytes;

/// Ranges that one request may ask for; more get the whole.
const MOST_RANGES: usize = 16;

/// What a `Range` field asks of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    /// Nothing that we answer: send the whole.
    Whole,
    /// No range asked for exists.
    Unsatisfiable,
    /// First byte and length of each, in the order asked for unless some were merged.
    Some(Vec<(u64, u64)>),
}

/// Reads `Range` for a body of `length` bytes.
pub(super) fn ranges(field: &[u8], length: u64) -> Ranges {
    let Some((unit, set)) = field.iter().position(|byte| *byte == b'=').map(|at| {
        let (unit, set) = field.split_at(at);
        (unit, set.get(1..).unwrap_or_default())
    }) else {
        return Ranges::Whole;
    };
    // No byte of an empty body can be asked for; there is nothing but the whole to send.
    if !unit.eq_ignore_ascii_case(b"bytes") || length == 0 {
        return Ranges::Whole;
    }
    let (mut found, mut asked) = (Vec::new(), 0);
    for spec in set.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if spec.is_empty() {
            continue;
        }
        asked += 1;
        match range(spec, length) {
            _ if asked > MOST_RANGES => return Ranges::Whole,
            Err(Broken) => return Ranges::Whole,
            Ok(Some(range)) => found.push(range),
            Ok(None) => {}
        }
    }
    match (asked, found.is_empty()) {
        (0, _) => Ranges::Whole,
        (_, true) => Ranges::Unsatisfiable,
        _ => Ranges::Some(merged(found)),
    }
}

/// Whether a `Range` field asks for more ranges than one request may. Nobody here answers it in
/// parts, and no stranger shall have an origin do so.
pub(super) fn too_many(field: &[u8]) -> bool {
    let specs = field.split(|byte| *byte == b',').filter(|spec| !spec.trim_ascii().is_empty());
    specs.take(MOST_RANGES + 1).count() > MOST_RANGES
}

struct Broken;

/// First byte and length of one range; `None` where it lies beyond the end.
fn range(spec: &[u8], length: u64) -> Result<Option<(u64, u64)>, Broken> {
    let at = spec.iter().position(|byte| *byte == b'-').ok_or(Broken)?;
    let (first, last) = spec.split_at(at);
    let last = last.get(1..).unwrap_or_default();
    match (number(first)?, number(last)?) {
        (None, None) => Err(Broken),
        (None, Some(0)) => Ok(None),
        (None, Some(suffix)) => {
            let size = suffix.min(length);
            Ok(Some((length - size, size)))
        }
        (Some(first), Some(last)) if last < first => Err(Broken),
        (Some(first), last) if first < length => {
            let last = last.unwrap_or(u64::MAX).min(length - 1);
            Ok(Some((first, last - first + 1)))
        }
        (Some(_), _) => Ok(None),
    }
}

/// A decimal number, saturating; `None` where there is none.
fn number(digits: &[u8]) -> Result<Option<u64>, Broken> {
    if digits.is_empty() {
        return Ok(None);
    }
    let mut sum = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Broken);
        }
        sum = sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    }
    Ok(Some(sum))
}

/// Merges ranges that overlap or touch; leaves the order alone where none do.
fn merged(ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut sorted = ranges.clone();
    sorted.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
    for (start, size) in sorted {
        match out.last_mut() {
            Some((before, known)) if start <= *before + *known => {
                *known = (*known).max(start + size - *before);
            }
            _ => out.push((start, size)),
        }
    }
    if out.len() == ranges.len() { ranges } else { out }
}

/// `Content-Range` of one range.
pub(super) fn content_range(start: u64, size: u64, length: u64) -> String {
    format!("bytes {start}-{}/{length}", start + size - 1)
}

/// The bytes of `multipart/byteranges` (RFC 9110 section 14.6) that are not body: the head of each
/// part with its range, what follows the last, and the length of it all.
pub(super) fn multipart(
    ranges: &[(u64, u64)],
    length: u64,
    content_type: Option<&[u8]>,
    boundary: &str,
) -> (Vec<(Bytes, u64, u64)>, Bytes, u64) {
    let mut total = 0;
    let mut pieces = Vec::with_capacity(ranges.len());
    for (start, size) in ranges {
        let mut head = Vec::with_capacity(160);
        if !pieces.is_empty() {
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"--");
        head.extend_from_slice(boundary.as_bytes());
        if let Some(content_type) = content_type {
            head.extend_from_slice(b"\r\nContent-Type: ");
            head.extend_from_slice(content_type);
        }
        head.extend_from_slice(b"\r\nContent-Range: ");
        head.extend_from_slice(content_range(*start, *size, length).as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        total += head.len() as u64 + size;
        pieces.push((Bytes::from(head), *start, *size));
    }
    let mut tail = String::with_capacity(boundary.len() + 8);
    let _ = write!(tail, "\r\n--{boundary}--\r\n");
    total += tail.len() as u64;
    (pieces, Bytes::from(tail), total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_against_the_length() {
        use Ranges::{Some, Unsatisfiable, Whole};
        let rows = [
            ("bytes=0-0", 10, Some(vec![(0, 1)])),
            ("bytes=2-", 10, Some(vec![(2, 8)])),
            ("bytes=-3", 10, Some(vec![(7, 3)])),
            ("bytes=-30", 10, Some(vec![(0, 10)])),
            ("bytes=0-999999999999999999999999", 10, Some(vec![(0, 10)])),
            ("Bytes=0-1", 10, Some(vec![(0, 2)])),
            ("bytes=0-1, 4-5", 10, Some(vec![(0, 2), (4, 2)])),
            ("bytes=4-5,0-1", 10, Some(vec![(4, 2), (0, 2)])),
            ("bytes=0-4,3-6", 10, Some(vec![(0, 7)])),
            ("bytes=5-6,0-4,9-9", 10, Some(vec![(0, 7), (9, 1)])),
            ("bytes=0-1,20-30", 10, Some(vec![(0, 2)])),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=20-30, 40-", 10, Unsatisfiable),
            ("bytes=5-4", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=0-1,x", 10, Whole),
            ("bytes 0-1", 10, Whole),
            ("items=0-1", 10, Whole),
            ("bytes=0-", 0, Whole),
            ("bytes=-5", 0, Whole),
        ];
        for (field, length, expected) in rows {
            assert_eq!(ranges(field.as_bytes(), length), expected, "{field}");
        }
    }

    #[test]
    fn more_than_sixteen_ranges_get_the_whole() {
        let asked = |count: usize| {
            let specs: Vec<_> = (0..count).map(|at| format!("{}-{}", at * 4, at * 4)).collect();
            ranges(format!("bytes={}", specs.join(",")).as_bytes(), 1 << 20)
        };
        assert!(matches!(asked(16), Ranges::Some(found) if found.len() == 16));
        assert_eq!(asked(17), Ranges::Whole);
    }

    #[test]
    fn multipart_announces_its_length() {
        let (pieces, tail, length) = multipart(&[(0, 2), (5, 3)], 10, Option::Some(b"a/b"), "X");
        let text: String = pieces
            .iter()
            .map(|(head, _, size)| {
                String::from_utf8(head.to_vec()).unwrap()
                    + &"#".repeat(usize::try_from(*size).unwrap())
            })
            .collect();
        let whole = text + std::str::from_utf8(&tail).unwrap();
        assert_eq!(
            whole,
            "--X\r\nContent-Type: a/b\r\nContent-Range: bytes 0-1/10\r\n\r\n##\r\n\
             --X\r\nContent-Type: a/b\r\nContent-Range: bytes 5-7/10\r\n\r\n###\r\n--X--\r\n"
        );
        assert_eq!(whole.len() as u64, length);
    }

    proptest! {
        #[test]
        fn ranges_lie_within_the_body_and_never_exceed_it(
            field in "bytes=[0-9,\\- ]{0,40}", length in 0_u64..200,
        ) {
            if let Ranges::Some(found) = ranges(field.as_bytes(), length) {
                prop_assert!(!found.is_empty());
                let mut total = 0;
                for (start, size) in found {
                    prop_assert!(size > 0 && start + size <= length);
                    total += size;
                }
                prop_assert!(total <= length);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(field: Vec<u8>, length: u64) {
            let _ = ranges(&field, length);
        }
    }
}
