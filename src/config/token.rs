//! Tokens of the admin listener. The configuration holds their hashes only.

use std::fmt::Write;

use aws_lc_rs::{digest, rand};

/// How a written hash begins.
const PREFIX: &str = "sha256:";

/// Shortest token that is taken from a file or the environment.
const SHORTEST_TOKEN_BYTES: usize = 16;

/// A new token: 256 random bits, with a beginning that scanners for leaked secrets can know.
///
/// # Errors
/// Where the system has no randomness.
pub fn new_token() -> Result<String, String> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(format!("atoll_{}", hex(&bytes)))
}

/// The SHA-256 of a token.
#[must_use]
pub fn hash_token(token: impl AsRef<[u8]>) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, token.as_ref());
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    out
}

/// The form in which a configuration holds a hash: `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn format_hash(hash: &[u8; 32]) -> String {
    format!("{PREFIX}{}", hex(hash))
}

/// Whether a token can serve as one.
///
/// # Errors
/// Says what would be right.
pub fn check_token(token: &str) -> Result<(), String> {
    if token.len() < SHORTEST_TOKEN_BYTES {
        return Err(format!(
            "a token has at least {SHORTEST_TOKEN_BYTES} characters; `atoll token new` makes one"
        ));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a token has no blanks and only ASCII characters".to_owned());
    }
    Ok(())
}

/// Reads a hash in the form of [`format_hash`].
pub(super) fn parse_hash(text: &str) -> Result<[u8; 32], String> {
    const FORM: &str = "expected \"sha256:\" and 64 hexadecimal digits; `atoll token new` makes a token and prints its hash";
    let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 64).ok_or(FORM)?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
        let mut values = pair.iter().map(value);
        match (values.next().flatten(), values.next().flatten()) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err(FORM.to_owned()),
        }
    }
    Ok(hash)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_back() {
        let hash = hash_token("abc");
        let text = format_hash(&hash);
        assert_eq!(text, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(parse_hash(&text), Ok(hash));
        for wrong in ["", "sha256:", "sha256:zz", &text.replace('b', "g"), &text.replace(':', "")] {
            assert!(parse_hash(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn new_tokens_differ_and_can_serve() {
        let (one, other) = (new_token().expect("random"), new_token().expect("random"));
        assert_ne!(one, other);
        assert_eq!(check_token(&one), Ok(()));
        assert!(check_token("short").is_err());
        assert!(check_token("sixteen chars and a blank").is_err());
    }
}
