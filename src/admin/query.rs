//! Reads the query of a request: names and values, each once decoded (URL Standard, section
//! "application/x-www-form-urlencoded parsing"), except that a `+` is itself: values here are
//! URLs and words, and a blank in them is written `%20`.

use super::problem::Problem;

/// Names and values of a query, in order. A name that nobody knows is for the caller to refuse.
pub(super) fn pairs(query: Option<&str>) -> Result<Vec<(&str, String)>, Problem> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| {
                Problem::bad("query", format!("the value of {name:?} is not percent-encoded text"))
            })?;
            Ok((name, value))
        })
        .collect()
}

/// That a query has a name that means nothing.
pub(super) fn unknown(name: &str, known: &str) -> Problem {
    Problem::bad("query", format!("the query knows {known}, and not {name:?}"))
}

/// The text that a value encodes; `None` where that is none.
pub(super) fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_once() {
        for (query, expected) in [
            ("", Some(vec![])),
            ("a", Some(vec![("a", "")])),
            ("a=b+c&&d=%2541%20=", Some(vec![("a", "b+c"), ("d", "%41 =")])),
            ("u=https%3A%2F%2Fa%2Fb%3Fc%26d", Some(vec![("u", "https://a/b?c&d")])),
            ("a=%", None),
            ("a=%4", None),
            ("a=%zz", None),
            ("a=%ff", None),
        ] {
            let read = pairs(Some(query)).ok();
            let expected: Option<Vec<(&str, String)>> = expected.map(|pairs| {
                pairs.into_iter().map(|(n, v): (&str, &str)| (n, v.to_owned())).collect()
            });
            assert_eq!(read, expected, "{query}");
        }
    }
}
