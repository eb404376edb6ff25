//! The values by which `Vary` selected a stored response, as a person reads them.
//!
//! They are kept in a normalised form made for comparison. What may be a user's secret is shown by
//! its length only: whoever may look at a node need not be anybody's stand-in.

use crate::semantics::key::take;

/// Bytes of one value that are shown.
const MOST_BYTES: usize = 200;

/// The text `accept-encoding: br, gzip; x-kind: a` for what
/// [`crate::semantics::VaryFields::secondary`] made. Where it can't be read any further it ends.
#[must_use]
pub fn selecting_values(secondary: &[u8]) -> String {
    let (mut rest, mut out) = (secondary, String::new());
    while let Some(name) = take(&mut rest) {
        let name = String::from_utf8_lossy(name);
        let Some((kind, after)) = rest.split_first() else { break };
        rest = after;
        let value = match kind {
            0 => "(absent)".to_owned(),
            _ => match take(&mut rest) {
                Some(value) => readable(&name, value),
                None => break,
            },
        };
        if !out.is_empty() {
            out.push_str("; ");
        }
        out.push_str(&name);
        out.push_str(": ");
        out.push_str(&value);
    }
    out
}

/// The value of a field as it may be shown.
#[must_use]
pub fn readable(name: &str, value: &[u8]) -> String {
    if may_be_secret(name) {
        return format!("({} bytes, not shown)", value.len());
    }
    let listed = match name {
        "accept-encoding" => codings(value),
        "accept-language" | "accept-charset" => weighted(value),
        _ => None,
    };
    let text = listed.unwrap_or_else(|| String::from_utf8_lossy(value).into_owned());
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match shown.char_indices().nth(MOST_BYTES) {
        Some((at, _)) => format!("{}...", shown.get(..at).unwrap_or_default()),
        None => shown,
    }
}

/// Whether a field is of the kind that says who somebody is.
fn may_be_secret(name: &str) -> bool {
    ["auth", "cookie", "token", "secret", "session", "key", "passw", "credential", "signature"]
        .iter()
        .any(|part| name.contains(part))
}

/// Names, each with a byte that says whether it is accepted.
fn codings(value: &[u8]) -> Option<String> {
    let (mut rest, mut names) = (value, Vec::new());
    while !rest.is_empty() {
        let name = String::from_utf8_lossy(take(&mut rest)?).into_owned();
        let (accepted, after) = rest.split_first()?;
        rest = after;
        names.push(if *accepted == 0 { format!("{name};q=0") } else { name });
    }
    Some(if names.is_empty() { "(none)".to_owned() } else { names.join(", ") })
}

/// Names, each with its weight in thousandths.
fn weighted(value: &[u8]) -> Option<String> {
    let (mut rest, mut names) = (value, Vec::new());
    while !rest.is_empty() {
        let name = String::from_utf8_lossy(take(&mut rest)?).into_owned();
        let (weight, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        names.push(match u16::from_le_bytes(*weight) {
            1000 => name,
            weight => format!("{name};q={}", f64::from(weight) / 1000.0),
        });
    }
    Some(names.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::{Fields, fields};
    use crate::semantics::{Policy, VaryFields};

    #[test]
    fn values_are_read_back_and_secrets_are_not_shown() {
        let vary = [("vary", "Accept-Encoding, Accept-Language, Authorization, X-Kind, X-None")];
        let vary = VaryFields::of(&fields(&vary), 8, &Policy::default()).unwrap().unwrap();
        let request: Fields<'_> = &[
            ("accept-encoding", "gzip, br;q=0.5, zstd;q=0"),
            ("accept-language", "de, en;q=0.8"),
            ("authorization", "Bearer abc"),
            ("x-kind", "a ,  b"),
        ];
        let expected = "accept-encoding: br, gzip, zstd;q=0; accept-language: de, en;q=0.8; \
                        authorization: (10 bytes, not shown); x-kind: a,b; x-none: (absent)";
        assert_eq!(selecting_values(&vary.secondary(&fields(request))), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, name in "[a-z-]{0,16}") {
            let _ = selecting_values(&bytes);
            prop_assert!(!readable(&name, &bytes).contains('\n'));
        }
    }
}
