//! Request ids and W3C trace context: what a stranger sent is kept only where it is well-formed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest request id that is taken from a client, in bytes.
const ID_BYTES: usize = 128;

/// Identity of one request, in logs and in `X-Request-Id`.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(Id);

#[derive(Clone, PartialEq, Eq)]
enum Id {
    Made([u8; 32]),
    Given(Box<str>),
}

impl RequestId {
    /// A client's `X-Request-Id`, where it is 1 to 128 token characters (RFC 9110 section 5.6.2).
    #[must_use]
    pub fn given(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let fits = (1..=ID_BYTES).contains(&value.len()) && value.iter().all(|b| is_token(*b));
        fits.then(|| Self(Id::Given(text.into())))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Id::Made(hex) => std::str::from_utf8(hex).unwrap_or_default(),
            Id::Given(text) => text,
        }
    }
}

impl Default for RequestId {
    /// All zeros: an id that was never given out.
    fn default() -> Self {
        Self(Id::Made([b'0'; 32]))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RequestId({self})")
    }
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Makes request ids: 16 bytes in hexadecimal, unique but not secret. One value for each worker,
/// so that the counter is never contended.
///
/// Two SplitMix64 sequences (Steele, Lea, Flood, 2014) run side by side from 128 random bits; the
/// first alone does not repeat before 2^64 ids, the second tells workers and processes apart.
#[derive(Debug)]
pub struct RequestIds {
    seed: [u64; 2],
    next: AtomicU64,
}

impl RequestIds {
    /// A maker that starts at `seed`; give every worker other random bytes.
    #[must_use]
    pub fn new(seed: [u8; 16]) -> Self {
        let half = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (first, second) = seed.split_at(8);
        Self { seed: [half(first), half(second)], next: AtomicU64::new(0) }
    }

    /// The next id.
    pub fn make(&self) -> RequestId {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let steps = self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(STEP);
        let mut hex = [0; 32];
        let bytes = self.seed.iter().flat_map(|seed| mix(seed.wrapping_add(steps)).to_be_bytes());
        for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        RequestId(Id::Made(hex))
    }

    /// The client's id where it is well-formed, else a new one.
    pub fn choose(&self, given: Option<&http::HeaderValue>) -> RequestId {
        given.and_then(|value| RequestId::given(value.as_bytes())).unwrap_or_else(|| self.make())
    }
}

/// The finaliser of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A hexadecimal digit of a number below 16.
fn digit(number: u8) -> u8 {
    if number < 10 { b'0' + number } else { b'a' + number - 10 }
}

/// A well-formed `traceparent` (W3C Trace Context, level 1, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Trace id, 32 lower-case hexadecimal digits.
    pub trace: [u8; 32],
    /// Whether the caller records this trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a field value: `00-TRACE-PARENT-FLAGS`. A later version may carry more behind another
    /// dash; version `ff`, upper case and ids of zeros only are invalid.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(55)?;
        let mut parts = head.split(|byte| *byte == b'-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = [version.len(), trace.len(), parent.len(), flags.len()];
        let known = version == b"00";
        let sound = lengths == [2, 32, 16, 2]
            && [version, trace, parent, flags].iter().all(|part| part.iter().all(|b| is_hex(*b)))
            && version != b"ff"
            && (rest.is_empty() || (!known && rest.first() == Some(&b'-')))
            && [trace, parent].iter().all(|part| part.iter().any(|byte| *byte != b'0'));
        if !sound {
            return None;
        }
        let last = *flags.last()?;
        let sampled = matches!(last, b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f');
        Some(Self { trace: trace.try_into().ok()?, sampled })
    }

    /// The trace id as text.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        std::str::from_utf8(&self.trace).unwrap_or_default()
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_clients_are_kept_only_as_short_tokens() {
        let long = "a".repeat(129);
        let rows = [
            ("abc-123", true),
            (&long[1..], true),
            (&*long, false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            ("a\r\nb", false),
            ("\u{e9}", false),
        ];
        for (text, kept) in rows {
            let id = RequestId::given(text.as_bytes());
            assert_eq!(id.as_ref().map(RequestId::as_str), kept.then_some(text), "{text:?}");
        }
    }

    #[test]
    fn made_ids_differ_and_are_32_hex_digits() {
        let ids = RequestIds::new([7; 16]);
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let id = ids.make();
            assert!(id.as_str().len() == 32 && id.as_str().bytes().all(is_hex), "{id}");
            assert!(seen.insert(id.as_str().to_owned()));
        }
        assert_ne!(RequestIds::new([8; 16]).make(), RequestIds::new([7; 16]).make());
    }

    #[test]
    fn a_malformed_id_is_replaced() {
        let ids = RequestIds::new([1; 16]);
        let good = http::HeaderValue::from_static("mine");
        let bad = http::HeaderValue::from_static("not mine");
        assert_eq!(ids.choose(Some(&good)).as_str(), "mine");
        assert_eq!(ids.choose(Some(&bad)).as_str().len(), 32);
        assert_eq!(ids.choose(None).as_str().len(), 32);
    }

    #[test]
    fn traceparent_is_judged_as_the_recommendation_says() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let good = format!("00-{trace}-b7ad6b7169203331-01");
        let rows = [
            (good.clone(), Some(true)),
            (good.replace("-01", "-00"), Some(false)),
            (good.replacen("00", "cc", 1), Some(true)),
            (format!("{}-what", good.replacen("00", "cc", 1)), Some(true)),
            (format!("{}.what", good.replacen("00", "cc", 1)), None),
            (format!("{good}-what"), None),
            (good.replacen("00", "ff", 1), None),
            (good.to_uppercase(), None),
            (good.replace(trace, &"0".repeat(32)), None),
            (good.replace("b7ad6b7169203331", &"0".repeat(16)), None),
            (good.replace('-', "_"), None),
            (String::new(), None),
            ("-".repeat(55), None),
        ];
        for (text, sampled) in rows {
            let found = TraceParent::parse(text.as_bytes());
            assert_eq!(found.map(|parent| parent.sampled), sampled, "{text}");
            assert!(found.is_none_or(|parent| parent.trace_id() == trace));
        }
    }
}
