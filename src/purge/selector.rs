//! What a purge names, and the rows that a stored response answers to.

use std::hash::Hasher as _;
use std::sync::Arc;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// What a purge names. Texts are in canonical form: hosts in lower case, percent-encoding in
/// upper case, tags in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Every variant, range and coding of one URL of a site, whatever its scheme and port.
    Url {
        /// Site that it belongs to.
        site: Arc<str>,
        /// Host without port.
        host: String,
        /// Path and query as in the canonical request target.
        target: String,
    },
    /// Everything of a site that bears the tag.
    Tag {
        /// Site that the tag belongs to.
        site: Arc<str>,
        /// The tag.
        tag: String,
    },
    /// Everything of a site.
    Site {
        /// The site.
        site: Arc<str>,
    },
    /// Everything.
    All,
}

impl Selector {
    /// Word for logs and metric labels.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Url { .. } => "url",
            Self::Tag { .. } => "tag",
            Self::Site { .. } => "site",
            Self::All => "all",
        }
    }

    /// What it names, as a person would write it; empty where the kind says all.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Url { host, target, .. } => format!("{host}{target}"),
            Self::Tag { tag, .. } => tag.clone(),
            Self::Site { site } => site.to_string(),
            Self::All => String::new(),
        }
    }

    /// Every selector that reaches a response stored under `host` and `target` of `site`, bearing
    /// `tags`: what [`Selectors`] holds, by name.
    #[must_use]
    pub fn reaching(site: &Arc<str>, host: &str, target: &str, tags: &[Box<str>]) -> Vec<Self> {
        let tag = |tag: &Box<str>| Self::Tag { site: Arc::clone(site), tag: tag.to_string() };
        let mut all: Vec<Self> = tags.iter().map(tag).collect();
        let (host, target) = (host.to_owned(), target.to_owned());
        all.push(Self::Url { site: Arc::clone(site), host, target });
        all.push(Self::Site { site: Arc::clone(site) });
        all.push(Self::All);
        all
    }

    /// Row that this selector writes.
    #[must_use]
    pub fn row(&self, secret: Secret) -> RowKey {
        match self {
            Self::Url { site, host, target } => RowKey::url(secret, site, host, target),
            Self::Tag { site, tag } => RowKey::tag(secret, site, tag),
            Self::Site { site } => RowKey::site(secret, site),
            Self::All => RowKey::all(secret),
        }
    }

    /// Row of the site that this selector stays within; `None` for the widest.
    #[must_use]
    pub fn site_row(&self, secret: Secret) -> Option<RowKey> {
        match self {
            Self::Url { site, .. } | Self::Tag { site, .. } | Self::Site { site } => {
                Some(RowKey::site(secret, site))
            }
            Self::All => None,
        }
    }
}

/// How much a purge does to what it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strength {
    /// Dead: as if it had never been stored.
    Hard,
    /// May be used only after the origin has confirmed it, never from a stale window.
    Check,
    /// Stale since the purge's moment; the stale windows run from there.
    Soft,
}

impl Strength {
    /// Word for logs and metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Check => "check",
            Self::Soft => "soft",
        }
    }
}

/// Secret of the row keys: tags and URLs are chosen by strangers, so their hash must be keyed.
#[derive(Clone, Copy, Debug)]
pub struct Secret(pub u64, pub u64);

/// Name of a row: a keyed 128-bit hash over kind, site and text, each with its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey(u128);

impl RowKey {
    /// Row of a URL.
    #[must_use]
    pub fn url(secret: Secret, site: &str, host: &str, target: &str) -> Self {
        Self::of(secret, b'u', &[site, host, target])
    }

    /// Row of a tag within a site.
    #[must_use]
    pub fn tag(secret: Secret, site: &str, tag: &str) -> Self {
        Self::of(secret, b't', &[site, tag])
    }

    /// Row of a whole site.
    #[must_use]
    pub fn site(secret: Secret, site: &str) -> Self {
        Self::of(secret, b's', &[site])
    }

    /// Row of everything.
    #[must_use]
    pub fn all(secret: Secret) -> Self {
        Self::of(secret, b'a', &[])
    }

    fn of(secret: Secret, kind: u8, parts: &[&str]) -> Self {
        let mut hasher = SipHasher13::new_with_keys(secret.0, secret.1);
        hasher.write_u8(kind);
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part.as_bytes());
        }
        Self(hasher.finish128().as_u128())
    }
}

/// The rows that one stored response answers to, from narrow to wide.
#[derive(Clone, Debug)]
pub struct Selectors {
    rows: Box<[RowKey]>,
}

impl Selectors {
    /// Rows of a response stored under `host` and `target` of `site`, bearing `tags`.
    #[must_use]
    pub fn new(secret: Secret, site: &str, host: &str, target: &str, tags: &[Box<str>]) -> Self {
        let mut rows: Vec<RowKey> = tags.iter().map(|tag| RowKey::tag(secret, site, tag)).collect();
        rows.push(RowKey::url(secret, site, host, target));
        rows.push(RowKey::site(secret, site));
        rows.push(RowKey::all(secret));
        Self { rows: rows.into_boxed_slice() }
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[RowKey] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_by_name_are_those_by_hash() {
        let (secret, site) = (Secret(1, 2), Arc::from("s"));
        let tags: Vec<Box<str>> = vec!["a".into(), "b".into()];
        let mut named: Vec<RowKey> = Selector::reaching(&site, "h", "/a/b/c?d", &tags)
            .iter()
            .map(|selector| selector.row(secret))
            .collect();
        let mut hashed = Selectors::new(secret, "s", "h", "/a/b/c?d", &tags).rows().to_vec();
        named.sort_unstable();
        hashed.sort_unstable();
        assert_eq!(named, hashed);
    }

    #[test]
    fn rows_differ_by_kind_site_and_cut() {
        let secret = Secret(1, 2);
        let rows = [
            RowKey::tag(secret, "a", "bc"),
            RowKey::tag(secret, "ab", "c"),
            RowKey::url(secret, "a", "b", "c"),
            RowKey::url(secret, "a", "bc", ""),
            RowKey::site(secret, "a"),
            RowKey::site(secret, "abc"),
            RowKey::all(secret),
            RowKey::tag(Secret(2, 1), "a", "bc"),
        ];
        let distinct: std::collections::BTreeSet<_> = rows.iter().collect();
        assert_eq!(distinct.len(), rows.len());
    }
}
