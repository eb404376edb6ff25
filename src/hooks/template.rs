//! Texts with JSON pointers in them: `article:{/entry/id}`.
//!
//! A value never changes the meaning of the text around it. In a URL it is percent-encoded but for
//! the unreserved characters of RFC 3986; `{+/path}` leaves its slashes, too, and neither may make
//! a segment `.` or `..`. In a tag it has no blanks, commas and control characters. A template that
//! is one pointer and nothing else takes the value as it is: it is the whole selector then, and is
//! judged as one.
//!
//! ```text
//! https://www.example.org/{/entry/lang}/{/entry/slug}     a/b -> a%2Fb
//! https://www.example.org/{+/commits/*/modified/*}        a/b -> a/b, once for each file
//! {/post_permalink}                                       as it is
//! ```
//!
//! All pointers with a `*` in one template go through the same list, together: one text for each of
//! its elements, never one for each pair.

use std::fmt;

use serde_json::Value;

use super::pointer::{Pointer, text_of};

/// Pointers in one template.
const MOST_POINTERS: usize = 16;
/// Longest template in bytes.
const TEMPLATE_BYTES: usize = 2048;
/// Longest text that one may come to, in bytes.
pub(super) const TEXT_BYTES: usize = 8192;

/// What the text is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tag.
    Tag,
    /// An absolute URL.
    Url,
    /// A host with the beginning of a path.
    Prefix,
    /// A host.
    Host,
}

/// A text with pointers in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    kind: Kind,
    parts: Vec<Part>,
    /// The list that pointers with a `*` go through.
    each: Option<Pointer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value {
        /// From the document, or from the element of the list.
        pointer: Pointer,
        of_element: bool,
        slashes: bool,
    },
}

/// Why an event is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It comes to more selectors than a purge may have.
    TooMany,
    /// One of its texts is too long.
    TooLong,
    /// A value would change the meaning of the text around it, or cannot stand in it.
    Unfit(Kind),
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooMany => "the event comes to more selectors than one purge takes",
            Self::TooLong => "a value of the event makes a selector that is too long",
            Self::Unfit(Kind::Tag) => {
                "a value of the event has a blank, a comma or a control character, which no tag has"
            }
            Self::Unfit(Kind::Host) => "a value of the event has a character that no host name has",
            Self::Unfit(Kind::Url | Kind::Prefix) => {
                "a value of the event would make a path with \".\" or \"..\" in it"
            }
        })
    }
}

impl Template {
    /// Reads one.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, String> {
        if text.is_empty() || text.len() > TEMPLATE_BYTES {
            return Err(format!("a template has 1 to {TEMPLATE_BYTES} bytes"));
        }
        let mut template = Self { kind, parts: Vec::new(), each: None };
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (inside, after) = after
                .split_once('}')
                .ok_or("a \"{\" without its \"}\": \"article:{/entry/id}\"")?;
            template.text(before)?;
            template.value(inside)?;
            rest = after;
        }
        template.text(rest)?;
        if kind == Kind::Url && !template.is_bare() && !starts_as_url(text) {
            return Err("a URL begins with \"https://\" or \"http://\", or is one pointer and \
                        nothing else"
                .to_owned());
        }
        Ok(template)
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        if text.contains('}') {
            return Err("a \"}\" without its \"{\": \"article:{/entry/id}\"".to_owned());
        }
        if !text.is_empty() {
            self.parts.push(Part::Text(text.to_owned()));
        }
        Ok(())
    }

    fn value(&mut self, inside: &str) -> Result<(), String> {
        let (text, slashes) = match inside.strip_prefix('+') {
            Some(text) => (text, true),
            None => (inside, false),
        };
        if slashes && matches!(self.kind, Kind::Tag | Kind::Host) {
            return Err("\"{+/...}\" leaves slashes alone and is for paths only".to_owned());
        }
        let mut pointer = Pointer::parse(text)?;
        let of_element = pointer.branches();
        if of_element {
            let (each, below) = pointer.split();
            if self.each.as_ref().is_some_and(|known| *known != each) {
                return Err(
                    "all pointers with a \"*\" in one template go through the same list".to_owned()
                );
            }
            self.each = Some(each);
            pointer = below;
        }
        self.parts.push(Part::Value { pointer, of_element, slashes });
        if self.parts.len() > 2 * MOST_POINTERS {
            return Err(format!("a template has at most {MOST_POINTERS} pointers"));
        }
        Ok(())
    }

    /// Whether it is one pointer and nothing else.
    fn is_bare(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Value { .. }])
    }

    /// Adds the texts that it comes to for an event, so that `out` has no more than `most`. A value
    /// that is not there, empty, or no scalar leaves its text out.
    ///
    /// # Errors
    /// Why the event is not carried out.
    pub fn expand(&self, event: &Value, most: usize, out: &mut Vec<String>) -> Result<(), Refusal> {
        let elements = self.each.as_ref().map_or_else(|| vec![event], |each| each.find(event));
        for element in elements {
            let Some(text) = self.write(event, element)? else { continue };
            if out.len() >= most {
                return Err(Refusal::TooMany);
            }
            out.push(text);
        }
        Ok(())
    }

    fn write(&self, event: &Value, element: &Value) -> Result<Option<String>, Refusal> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value { pointer, of_element, slashes } => {
                    let from = if *of_element { element } else { event };
                    let found = pointer.find(from).first().copied().and_then(text_of);
                    let Some(value) = found else { return Ok(None) };
                    if value.len() > TEXT_BYTES {
                        return Err(Refusal::TooLong);
                    }
                    self.put(&value, *slashes, &mut out)?;
                }
            }
            if out.len() > TEXT_BYTES {
                return Err(Refusal::TooLong);
            }
        }
        let dotted = matches!(self.kind, Kind::Url | Kind::Prefix) && !self.is_bare();
        if dotted && has_dot_segments(&out) {
            return Err(Refusal::Unfit(self.kind));
        }
        Ok(Some(out))
    }

    /// Writes a value so that it stays one.
    fn put(&self, value: &str, slashes: bool, out: &mut String) -> Result<(), Refusal> {
        match self.kind {
            Kind::Tag => {
                let unfit = |c: char| c.is_whitespace() || c.is_control() || c == ',';
                if value.contains(unfit) {
                    return Err(Refusal::Unfit(Kind::Tag));
                }
                out.push_str(value);
            }
            Kind::Host => {
                let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                if !value.chars().all(fine) {
                    return Err(Refusal::Unfit(Kind::Host));
                }
                out.push_str(value);
            }
            Kind::Url | Kind::Prefix if self.is_bare() => out.push_str(value),
            Kind::Url | Kind::Prefix => encode(value, slashes, out),
        }
        Ok(())
    }
}

fn starts_as_url(text: &str) -> bool {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3), and slashes where they
/// are to stay.
fn encode(value: &str, slashes: bool, out: &mut String) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Whether a segment is `.` or `..`, encoded or not.
fn has_dot_segments(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.split('/').any(|segment| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
}

#[cfg(test)]
mod tests;
