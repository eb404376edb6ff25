//! Fields that are added to those at rest: what speaks of one exchange alone.

use http::{HeaderName, HeaderValue};

/// Lines of fields, ready to be written; no map is made for them where none is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    lines: String,
}

impl Added {
    /// None yet, with room for so many bytes of lines.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { lines: String::with_capacity(bytes) }
    }

    /// Adds a line. What `value` appends is what a field value may hold: visible ASCII, space and tab.
    pub fn add(&mut self, name: &HeaderName, value: impl FnOnce(&mut String)) {
        self.lines.push_str(name.as_str());
        self.lines.push_str(": ");
        let start = self.lines.len();
        value(&mut self.lines);
        debug_assert!(
            self.lines.bytes().skip(start).all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
        );
        self.lines.push_str("\r\n");
    }

    /// The lines, each with its end.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.lines.as_bytes()
    }

    /// One after the other, for a map.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.lines.split_terminator("\r\n").filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use http::header::{AGE, VIA};

    use super::*;

    #[test]
    fn lines_are_the_fields_in_their_order() {
        let mut added = Added::with_capacity(64);
        added.add(&VIA, |out| out.push_str("1.1 a: b"));
        added.add(&AGE, |out| out.push('5'));
        added.add(&HeaderName::from_static("x-empty"), |_| ());
        assert_eq!(added.as_bytes(), b"via: 1.1 a: b\r\nage: 5\r\nx-empty: \r\n");
        let fields: Vec<_> = added.fields().collect();
        let text = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        assert_eq!(fields, [text("via", "1.1 a: b"), text("age", "5"), text("x-empty", "")]);
    }
}
