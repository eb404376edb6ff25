//! A path as another reader may understand it: who decodes and tidies it up before it looks.
//!
//! Rules are found by the path in canonical form, in which `/%61dmin` and `//admin` are paths of their
//! own. Most origins take both for `/admin`. What closes a path must hold for these, too; so who may
//! ask, and how often, is judged by both readings. Nothing else is: this one is never sent on, and
//! stands in no key.

/// `path`, which is canonical, with each escape decoded that need not be one, as one name for all
/// slashes in a row, without parameters of segments (`;`), and with its dot segments resolved. `None`:
/// it is what it seems to be.
#[must_use]
pub fn plain_reading(path: &str) -> Option<String> {
    let odd = path.bytes().any(|byte| matches!(byte, b'%' | b';')) || path.contains("//");
    if !odd {
        return None;
    }
    let decoded = decoded(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in decoded.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        open = matches!(name, "" | "." | "..");
        match name {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let mut plain: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
    if open || plain.is_empty() {
        plain.push('/');
    }
    (plain != path).then_some(plain)
}

/// Decodes the escapes of what may stand in a path as it is; `%5C` is a slash to some.
fn decoded(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let escape = piece.split_at_checked(2);
        let byte = escape.and_then(|(digits, _)| u8::from_str_radix(digits, 16).ok());
        match (byte, escape) {
            (Some(b'\\'), Some((_, rest))) => {
                out.push('/');
                out.push_str(rest);
            }
            (Some(byte @ 0x21..=0x7e), Some((_, rest))) if !b"%?#\"<>".contains(&byte) => {
                out.push(char::from(byte));
                out.push_str(rest);
            }
            _ => {
                out.push('%');
                out.push_str(piece);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::normalise::canonical_target;

    #[test]
    fn paths_are_read_as_by_who_decodes_them() {
        let rows = [
            ("/admin", None),
            ("/", None),
            ("*", None),
            ("/a%20b/%C3%A4", None),
            ("/a%3Fb%25", None),
            ("/%61dmin", Some("/admin")),
            ("//admin", Some("/admin")),
            ("/admin//x", Some("/admin/x")),
            ("/admin;v=1/x", Some("/admin/x")),
            ("/admin%3Bv", Some("/admin")),
            ("/a%2Fb", Some("/a/b")),
            ("/a%5Cb", Some("/a/b")),
            ("/open/..%2Fadmin", Some("/admin")),
            ("/open/..%2F..%2F..%2Fadmin/", Some("/admin/")),
            ("/admin/;x", Some("/admin/")),
            ("/%61%20b", Some("/a%20b")),
            ("/%2561", None),
            ("//", Some("/")),
        ];
        for (path, expected) in rows {
            assert_eq!(plain_reading(path).as_deref(), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_path_reads_as_itself(path in "(/([a.;]|%61|%2E|%2F|%5C|%3B|%20){0,4}){1,4}") {
            let Ok(target) = canonical_target(path) else { return Ok(()) };
            let Some(plain) = plain_reading(&target.path) else { return Ok(()) };
            prop_assert_eq!(plain_reading(&plain), None);
            prop_assert!(canonical_target(plain.clone()).is_ok_and(|same| same.path == plain));
        }
    }
}
