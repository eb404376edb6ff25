//! Whether an event comes from who knows a hook's secret.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use http::HeaderMap;

use crate::config::{Encoding, Proof, ProofKind, hash_token};

/// Whether `headers` bear the proof that who sent `body` knows the secret. Compares in constant time.
#[must_use]
pub fn proves(proof: &Proof, headers: &HeaderMap, body: &[u8]) -> bool {
    let mut lines = headers.get_all(&proof.header).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Some(presented) = line.as_bytes().strip_prefix(proof.prefix.as_bytes()) else {
        return false;
    };
    match proof.kind {
        // By their hashes, so that time does not tell the secret's length either.
        ProofKind::Shared => {
            let expected = hash_token(proof.secret.bytes());
            verify_slices_are_equal(&hash_token(presented), &expected).is_ok()
        }
        ProofKind::HmacSha256(encoding) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, proof.secret.bytes());
            let tag = hmac::sign(&key, body);
            let (presented, expected) = match encoding {
                Encoding::Hex => (presented.to_ascii_lowercase(), hex(tag.as_ref())),
                Encoding::Base64 => (presented.to_vec(), base64(tag.as_ref())),
            };
            verify_slices_are_equal(&presented, expected.as_bytes()).is_ok()
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Base64 with padding (RFC 4648 section 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4_usize {
            let digit = usize::try_from(word >> (18 - 6 * place) & 63).unwrap_or(0);
            let digit = DIGITS.get(digit).copied().filter(|_| place <= chunk.len());
            out.push(digit.map_or('=', char::from));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::config::Secret;

    const FIELD: HeaderName = HeaderName::from_static("x-proof");

    fn check(kind: ProofKind, prefix: &str, secret: &str, lines: &[&str], body: &str) -> bool {
        let secret = Secret::new(secret.as_bytes());
        let proof = Proof { kind, header: FIELD, prefix: prefix.to_owned(), secret };
        let value = |line: &&str| (FIELD, HeaderValue::from_str(line).unwrap());
        proves(&proof, &lines.iter().map(value).collect(), body.as_bytes())
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        // Its second case; the base64 is the same bytes.
        let hex = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let base64 = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
        let body = "what do ya want for nothing?";
        let signed = |encoding, prefix: &str, line: &str, body: &str| {
            check(ProofKind::HmacSha256(encoding), prefix, "Jefe", &[line], body)
        };
        assert!(signed(Encoding::Hex, "", hex, body));
        assert!(signed(Encoding::Hex, "sha256=", &format!("sha256={hex}"), body));
        assert!(signed(Encoding::Hex, "", &hex.to_uppercase(), body));
        assert!(signed(Encoding::Base64, "", base64, body));
        assert!(!signed(Encoding::Hex, "sha256=", hex, body));
        assert!(!signed(Encoding::Hex, "", base64, body));
        assert!(!signed(Encoding::Base64, "", &base64.to_lowercase(), body));
        assert!(!signed(Encoding::Hex, "", hex, "what do ya want for nothing"));
        assert!(!signed(Encoding::Hex, "", hex.split_at(63).0, body));
        assert!(!signed(Encoding::Hex, "", "", body));
    }

    #[test]
    fn a_shared_secret_stands_alone_and_whole() {
        let rows: [(&[&str], bool); 7] = [
            (&["Bearer a-shared-secret-1"], true),
            (&["Bearer a-shared-secret-"], false),
            (&["Bearer a-shared-secret-12"], false),
            (&["a-shared-secret-1"], false),
            (&["Bearer "], false),
            (&["Bearer a-shared-secret-1", "Bearer a-shared-secret-1"], false),
            (&[], false),
        ];
        for (lines, expected) in rows {
            let found = check(ProofKind::Shared, "Bearer ", "a-shared-secret-1", lines, "x");
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }
}
