//! Who issued a record, and the how-manieth of his it is.
//!
//! A purge is known by (node, incarnation, sequence). The incarnation is drawn at random when a
//! process starts, never from a clock: a node that restarts behind its former self must not number
//! its records again. Sequences begin at 1 and have no holes, so a missing record shows with the
//! next one.

use std::fmt;
use std::sync::Arc;

/// A node's name: the one its certificate bears.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a node's process, as a random number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Whose sequence it is: one life of one node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Drawn at the start of the process; first, since it tells sources apart at one look.
    pub incarnation: Incarnation,
    /// The node.
    pub node: Name,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.node, self.incarnation.0)
    }
}

/// Name of a record, written `node/incarnation/sequence`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Whose it is.
    pub source: Source,
    /// Its number among the source's, from 1.
    pub sequence: u64,
}

impl Identity {
    /// Reads what [`fmt::Display`] writes, and the same with dots for the slashes, as it stands where
    /// a slash would be a step of a path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::parted(text, '/').or_else(|| Self::parted(text, '.'))
    }

    /// The name as one step of a path: `node.incarnation.sequence`.
    #[must_use]
    pub fn dotted(&self) -> String {
        let Source { incarnation, node } = &self.source;
        format!("{node}.{:016x}.{}", incarnation.0, self.sequence)
    }

    fn parted(text: &str, at: char) -> Option<Self> {
        let (rest, sequence) = text.rsplit_once(at)?;
        let (node, incarnation) = rest.rsplit_once(at)?;
        let plain = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if node.is_empty() || incarnation.len() != 16 || !plain(incarnation) || !plain(sequence) {
            return None;
        }
        let incarnation = Incarnation(u64::from_str_radix(incarnation, 16).ok()?);
        let sequence = sequence.parse().ok().filter(|sequence| *sequence > 0)?;
        Some(Self { source: Source { incarnation, node: node.into() }, sequence })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.source, self.sequence)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        let source = Source { incarnation: Incarnation(0xab), node: "fra/1".into() };
        let identity = Identity { source, sequence: 7 };
        assert_eq!(identity.to_string(), "fra/1/00000000000000ab/7");
        assert_eq!(identity.dotted(), "fra/1.00000000000000ab.7");
        for text in [identity.to_string(), identity.dotted(), "fra.1.00000000000000ab.7".into()] {
            let read = Identity::parse(&text).expect("a name");
            assert_eq!((read.source.incarnation, read.sequence), (Incarnation(0xab), 7));
        }
        assert_eq!(Identity::parse(&identity.dotted()), Some(identity));
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for text in ["", "a", "a/b/c", "a/00000000000000ab/0", "a/00000000000000ab/-1", "a/ab/1"] {
            assert_eq!(Identity::parse(text), None, "{text}");
        }
        assert_eq!(Identity::parse("/00000000000000ab/1"), None);
        assert_eq!(Identity::parse("a/+0000000000000ab/1"), None);
    }
}
