//! Tags: labels that an origin gives its responses, by which they are purged together.
//!
//! Five fields carry them, one namespace holds them, compared without ASCII case. A response whose
//! tags cannot all be kept is not stored at all: an untagged copy could not be purged.

use http::header::{HeaderMap, HeaderValue};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::semantics::storable::NotStored;

/// Fields that carry tags, in lower case.
pub const TAG_FIELDS: [&str; 5] =
    ["surrogate-key", "cache-tag", "edge-cache-tag", "xkey", "cache-groups"];

/// Bounds on the tags of a response.
#[derive(Clone, Copy, Debug)]
pub struct TagLimits {
    /// Number of tags.
    pub tags: usize,
    /// Bytes of one tag.
    pub tag_bytes: usize,
    /// Bytes of all tags together.
    pub tags_bytes: usize,
}

/// All tags of a response: in lower case, sorted, each once.
///
/// # Errors
/// [`NotStored::Tags`] where they are beyond the limits or cannot be read.
pub fn tags(headers: &HeaderMap, limits: TagLimits) -> Result<Box<[Box<str>]>, NotStored> {
    let mut found = Found { limits, bytes: 0, tags: Vec::new() };
    found.read(headers)?;
    let mut tags = found.tags;
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.into_boxed_slice())
}

/// Tags of a response up to `limits`, as [`tags`] gives them: where there are more, the first of
/// them as they are written.
#[must_use]
pub fn first_tags(headers: &HeaderMap, limits: TagLimits) -> Vec<Box<str>> {
    let mut found = Found { limits, bytes: 0, tags: Vec::new() };
    // What is beyond the limits ends the reading; what was found until then is what is asked for.
    let _beyond = found.read(headers);
    let mut tags = found.tags;
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// Groups that an answer to an unsafe request invalidates (RFC 9875 section 3).
///
/// # Errors
/// [`NotStored::Tags`] where they are beyond the limits or cannot be read.
pub fn invalidated_groups(
    headers: &HeaderMap,
    limits: TagLimits,
) -> Result<Box<[Box<str>]>, NotStored> {
    let mut found = Found { limits, bytes: 0, tags: Vec::new() };
    for group in groups(headers, "cache-group-invalidation", limits)? {
        found.add(group.as_bytes())?;
    }
    Ok(found.tags.into_boxed_slice())
}

/// Members of a list of strings (RFC 9875 section 2). Tokens count, too: more that can be purged
/// does no harm.
fn groups(headers: &HeaderMap, name: &str, limits: TagLimits) -> Result<Vec<String>, NotStored> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let text = lines.join(&b", "[..]);
    // Quotes and parameters come on top of the tags.
    if text.len() > limits.tags_bytes.saturating_mul(2) {
        return Err(NotStored::Tags);
    }
    let members: List = Parser::new(&text).parse().map_err(|_broken| NotStored::Tags)?;
    let text = |member: ListEntry| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(text) => Some(text.as_str().to_owned()),
            BareItem::Token(token) => Some(token.as_str().to_owned()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    };
    Ok(members.into_iter().filter_map(text).collect())
}

struct Found {
    limits: TagLimits,
    bytes: usize,
    tags: Vec<Box<str>>,
}

impl Found {
    fn read(&mut self, headers: &HeaderMap) -> Result<(), NotStored> {
        for name in TAG_FIELDS {
            for line in headers.get_all(name) {
                match name {
                    "surrogate-key" => self.add_all(line, |byte| byte.is_ascii_whitespace())?,
                    "xkey" => {
                        self.add_all(line, |byte| byte.is_ascii_whitespace() || byte == b',')?;
                    }
                    "cache-groups" => {}
                    _ => self.add_all(line, |byte| byte == b',')?,
                }
            }
        }
        for group in groups(headers, "cache-groups", self.limits)? {
            self.add(group.as_bytes())?;
        }
        Ok(())
    }

    fn add_all(
        &mut self,
        line: &HeaderValue,
        separator: impl Fn(u8) -> bool,
    ) -> Result<(), NotStored> {
        for tag in line.as_bytes().split(|byte| separator(*byte)) {
            self.add(tag.trim_ascii())?;
        }
        Ok(())
    }

    fn add(&mut self, tag: &[u8]) -> Result<(), NotStored> {
        if tag.is_empty() {
            return Ok(());
        }
        self.bytes += tag.len();
        if self.tags.len() == self.limits.tags
            || tag.len() > self.limits.tag_bytes
            || self.bytes > self.limits.tags_bytes
            || tag.iter().any(u8::is_ascii_control)
        {
            return Err(NotStored::Tags);
        }
        let tag = std::str::from_utf8(tag).map_err(|_not_text| NotStored::Tags)?;
        self.tags.push(tag.to_ascii_lowercase().into_boxed_str());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::{Fields, fields};

    const LIMITS: TagLimits = TagLimits { tags: 4, tag_bytes: 8, tags_bytes: 20 };

    #[test]
    fn five_fields_fill_one_namespace() {
        let rows: [(Fields<'_>, Option<&[&str]>); 13] = [
            (&[], Some(&[])),
            (&[("surrogate-key", "B a  b")], Some(&["a", "b"])),
            (&[("surrogate-key", "a,b")], Some(&["a,b"])),
            (&[("cache-tag", "a, b ,,c d")], Some(&["a", "b", "c d"])),
            (&[("edge-cache-tag", "x"), ("xkey", "y, z")], Some(&["x", "y", "z"])),
            (&[("cache-groups", "\"a\", \"B c\";x=1, d, 1")], Some(&["a", "b c", "d"])),
            (&[("cache-tag", "a"), ("surrogate-key", "A")], Some(&["a"])),
            (&[("cache-groups", "\"a")], None),
            (&[("cache-tag", "a,b,c,d,e")], None),
            (&[("cache-tag", "123456789")], None),
            (&[("cache-tag", "1234567,1234567,1234567")], None),
            (&[("cache-tag", "a\tb")], None),
            (&[("surrogate-key", "a\tb")], Some(&["a", "b"])),
        ];
        for (headers, expected) in rows {
            let found = tags(&fields(headers), LIMITS).ok();
            let found = found.as_deref().map(|tags| tags.iter().map(|tag| &**tag).collect());
            assert_eq!(found, expected.map(<[&str]>::to_vec), "{headers:?}");
        }
    }

    #[test]
    fn the_first_tags_are_those_within_the_limits() {
        let rows: [(Fields<'_>, &[&str]); 5] = [
            (&[], &[]),
            (&[("surrogate-key", "B a  b")], &["a", "b"]),
            (&[("cache-tag", "e,d,c,b,a")], &["b", "c", "d", "e"]),
            (&[("cache-tag", "a,123456789,b")], &["a"]),
            (&[("xkey", "x"), ("cache-groups", "\"y\"")], &["x", "y"]),
        ];
        for (headers, expected) in rows {
            let found = first_tags(&fields(headers), LIMITS);
            assert_eq!(found.iter().map(|tag| &**tag).collect::<Vec<_>>(), expected, "{headers:?}");
        }
    }

    #[test]
    fn invalidated_groups_are_read() {
        let headers = fields(&[("cache-group-invalidation", "\"A\", \"b\"")]);
        let found = invalidated_groups(&headers, LIMITS).unwrap();
        assert_eq!(found.iter().map(|tag| &**tag).collect::<Vec<_>>(), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in "[ -~\t]{0,60}", field in 0..5_usize) {
            let headers = fields(&[(TAG_FIELDS[field], line.as_str())]);
            let first = first_tags(&headers, LIMITS);
            match tags(&headers, LIMITS) {
                Ok(all) => prop_assert_eq!(&*all, &*first),
                Err(_) => prop_assert!(first.len() <= LIMITS.tags),
            }
        }
    }
}
