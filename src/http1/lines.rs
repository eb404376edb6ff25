//! Lines end in CRLF and in nothing else (RFC 9112 section 2.2 allows a lone LF; we do not).

use memchr::memchr2;

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// A LF without its CR, or a CR without its LF.
    Bare,
    /// More than `limit` bytes before the CRLF.
    TooLong,
}

/// Length of the first line of `bytes` without its CRLF; `None` while it is incomplete. `seen`
/// bytes are known from an earlier call to hold neither CR nor LF.
///
/// Depends only on the bytes up to the first CR, the first LF or the limit, so that it says the
/// same however the line arrived.
pub(super) fn line(bytes: &[u8], limit: usize, seen: usize) -> Result<Option<usize>, LineError> {
    let window = bytes.get(..limit.saturating_add(2)).unwrap_or(bytes);
    let seen = seen.min(window.len());
    let (_, unseen) = window.split_at(seen);
    let Some(end) = memchr2(b'\r', b'\n', unseen).map(|at| at + seen) else {
        return if window.len() > limit { Err(LineError::TooLong) } else { Ok(None) };
    };
    if end > limit {
        return Err(LineError::TooLong);
    }
    match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => Ok(Some(end)),
        _ => Err(LineError::Bare),
    }
}

/// How many of `bytes` need not be looked at again when more arrive after [`line`] gave `None`.
pub(super) fn seen(bytes: &[u8]) -> usize {
    match bytes.split_last() {
        Some((b'\r', before)) => before.len(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        type Outcome = Result<Option<usize>, LineError>;
        let rows: [(&[u8], Outcome); 11] = [
            (b"", Ok(None)),
            (b"abc", Ok(None)),
            (b"abc\r", Ok(None)),
            (b"abc\r\n", Ok(Some(3))),
            (b"\r\n", Ok(Some(0))),
            (b"abc\n", Err(LineError::Bare)),
            (b"abc\rd", Err(LineError::Bare)),
            (b"abc\r\r\n", Err(LineError::Bare)),
            (b"abcd\r\n", Ok(Some(4))),
            (b"abcde", Err(LineError::TooLong)),
            (b"abcde\n", Err(LineError::TooLong)),
        ];
        for (bytes, expected) in rows {
            assert_eq!(line(bytes, 4, 0), expected, "{bytes:?}");
            for cut in 0..bytes.len() {
                match line(&bytes[..cut], 4, 0) {
                    Ok(None) => {
                        assert_eq!(line(bytes, 4, seen(&bytes[..cut])), expected, "{bytes:?}");
                    }
                    early => assert_eq!(early, expected, "{bytes:?} cut at {cut}"),
                }
            }
        }
    }
}
