//! Names of rows, and the rows that a stored response answers to.
//!
//! Only the rows that take a look at the response's tags are kept with it, the URL's and the site's
//! beside them. Those of its host and of its path's prefixes are reckoned from its URL when they
//! are asked for, which is once after each purge and only where such rows are: a row for each
//! segment of a path would make every stored response heavier for the sake of few purges.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::glob::Glob;
use crate::semantics::CacheKey;

/// Slashes of the longest prefix that has a row of its own. A deeper one is written as its ancestor
/// of this depth: that purges more than was asked for, never less, and bounds the work that a
/// stored path of a thousand slashes makes. Doors refuse deeper ones with the reason.
pub const PREFIX_DEPTH: u8 = 32;

/// Secret of the row keys: tags and URLs are chosen by strangers, so their hash must be keyed.
#[derive(Clone, Copy, Debug)]
pub struct Secret(pub u64, pub u64);

impl Secret {
    fn hasher(self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Name of a row: a keyed 128-bit hash over kind, site and text, each with its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey(u128);

impl RowKey {
    /// Row of a whole site. The rows within it are named after this one.
    #[must_use]
    pub fn site(secret: Secret, site: &str) -> Self {
        let mut hasher = secret.hasher();
        hasher.write_u8(b's');
        hasher.write(site.as_bytes());
        Self(hasher.finish128().as_u128())
    }

    /// Row of a URL.
    #[must_use]
    pub fn url(secret: Secret, site: Self, host: &str, target: &str) -> Self {
        Self::within(secret, b'u', site, host, target)
    }

    /// Row of a tag.
    #[must_use]
    pub fn tag(secret: Secret, site: Self, tag: &str) -> Self {
        Self::within(secret, b't', site, tag, "")
    }

    /// Row of a path's prefix with its depth, the number of its slashes; of the whole host where the
    /// prefix is empty.
    #[must_use]
    pub fn prefix(secret: Secret, site: Self, host: &str, path: &str) -> (Self, u8) {
        let mut deepest = (Self(0), 0);
        let wanted = path.bytes().filter(|byte| *byte == b'/').count();
        let wanted = u8::try_from(wanted).unwrap_or(PREFIX_DEPTH).min(PREFIX_DEPTH);
        for (depth, key) in prefixes(secret, site, host, path, 1 << wanted) {
            deepest = (key, depth);
        }
        deepest
    }

    /// The hash that it is.
    #[must_use]
    pub fn bits(self) -> u128 {
        self.0
    }

    fn within(secret: Secret, kind: u8, site: Self, first: &str, second: &str) -> Self {
        let mut hasher = open(secret, kind, site, first);
        hasher.write(second.as_bytes());
        Self(hasher.finish128().as_u128())
    }
}

/// Kind, site and a first text behind its length: what follows can't pretend to be part of them.
fn open(secret: Secret, kind: u8, site: RowKey, first: &str) -> SipHasher13 {
    let mut hasher = secret.hasher();
    hasher.write_u8(kind);
    hasher.write_u128(site.0);
    hasher.write_u64(first.len() as u64);
    hasher.write(first.as_bytes());
    hasher
}

/// Rows of the host (depth 0) and of the prefixes of `path`, of those depths whose bit is set.
/// One pass over the path, whatever their number.
pub(super) fn prefixes(
    secret: Secret,
    site: RowKey,
    host: &str,
    path: &str,
    depths: u64,
) -> impl Iterator<Item = (u8, RowKey)> {
    let mut hasher = open(secret, b'p', site, host);
    let segments = std::iter::once("").chain(path.split_inclusive('/'));
    (0..=PREFIX_DEPTH)
        .zip(segments)
        .take_while(move |(depth, _)| depths >> depth != 0)
        .take_while(|(depth, segment)| *depth == 0 || segment.ends_with('/'))
        .filter_map(move |(depth, segment)| {
            hasher.write(segment.as_bytes());
            let asked = depths & (1 << depth) != 0;
            asked.then(|| (depth, RowKey(hasher.finish128().as_u128())))
        })
}

/// Where in the table a selector is written.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The row of everything.
    All,
    /// The row of a site.
    Site(RowKey),
    /// A row that responses name themselves: a URL's or a tag's.
    Narrow {
        /// The site.
        site: RowKey,
        /// The row.
        key: RowKey,
    },
    /// The row of a host or of a path's prefix.
    Prefix {
        /// The site.
        site: RowKey,
        /// The row.
        key: RowKey,
        /// Slashes in the prefix.
        depth: u8,
    },
    /// A pattern among those of a site.
    Glob {
        /// The site.
        site: RowKey,
        /// The pattern.
        glob: &'a Glob,
    },
}

/// What a response answers to in the purge table, to be kept with it.
#[derive(Clone, Debug)]
pub struct Selectors {
    /// Its tags, its URL, its site.
    rows: Box<[RowKey]>,
    /// Host and target; `None` where the cache key beside it tells the same.
    url: Option<Box<str>>,
}

impl Selectors {
    /// Of a response stored under `host` and `target` of `site`, bearing `tags`.
    #[must_use]
    pub fn new(secret: Secret, site: &str, host: &str, target: &str, tags: &[Box<str>]) -> Self {
        let site = RowKey::site(secret, site);
        let mut rows: Vec<RowKey> = tags.iter().map(|tag| RowKey::tag(secret, site, tag)).collect();
        rows.push(RowKey::url(secret, site, host, target));
        rows.push(site);
        let url = [host, target].concat().into_boxed_str();
        Self { rows: rows.into_boxed_slice(), url: Some(url) }
    }

    /// The same without its URL, where that stands in the key word by word. From then on it is
    /// looked up with that key.
    #[must_use]
    pub fn beside(mut self, key: &CacheKey) -> Self {
        let Some(url) = &self.url else { return self };
        let own = Bearer::split(&self.rows, url);
        if Bearer::beside(&self.rows, key).is_some_and(|other| other == own) {
            self.url = None;
        }
        self
    }

    /// Of what is put together from two responses under one key: it answers to the rows of both.
    /// `None` where they would be more than `most`.
    #[must_use]
    pub fn joined(&self, other: &Self, most: usize) -> Option<Self> {
        let more = other.rows.iter().filter(|row| !self.rows.contains(row));
        let rows: Box<[RowKey]> = more.chain(self.rows.iter()).copied().collect();
        (rows.len() <= most).then(|| Self { rows, url: self.url.clone() })
    }

    /// What it says to the table; `key` is the one that it was put beside, if any.
    #[must_use]
    pub fn bearer<'a>(&'a self, key: Option<&'a CacheKey>) -> Bearer<'a> {
        match (&self.url, key) {
            (Some(url), _) => Bearer::split(&self.rows, url),
            (None, key) => key
                .and_then(|key| Bearer::beside(&self.rows, key))
                .unwrap_or(Bearer { rows: &self.rows, url: None }),
        }
    }

    /// The rows that it names: of its tags, its URL and its site.
    #[must_use]
    pub fn keys(&self) -> &[RowKey] {
        &self.rows
    }

    /// Whether it names rows of tags, beside those of its URL and its site.
    #[must_use]
    pub fn has_tags(&self) -> bool {
        self.rows.len() > 2
    }

    /// Whether a row is among its own. Rows of hosts, prefixes and patterns are not kept and count
    /// as such: who asks about those of its URL gets them all.
    #[must_use]
    pub fn answers_to(&self, place: &Place<'_>) -> bool {
        match place {
            Place::Narrow { key, .. } => self.rows.contains(key),
            Place::Site(site) => self.rows.last() == Some(site),
            Place::All | Place::Prefix { .. } | Place::Glob { .. } => true,
        }
    }

    /// Bytes of the rows, and of the URL where it is kept.
    #[must_use]
    pub fn sizes(&self) -> [usize; 2] {
        [size_of_val(&*self.rows), self.url.as_ref().map_or(0, |url| url.len())]
    }
}

/// A response as the table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearer<'a> {
    rows: &'a [RowKey],
    /// `None` where it is not known: then whatever could match does.
    url: Option<Url<'a>>,
}

/// Host, path and query of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Bearer<'a> {
    /// A target begins with the first `/`, which no host has.
    fn split(rows: &'a [RowKey], url: &'a str) -> Self {
        let (host, target) = url.split_at(url.find('/').unwrap_or(url.len()));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Self { rows, url: Some(Url { host, path, query }) }
    }

    fn beside(rows: &'a [RowKey], key: &'a CacheKey) -> Option<Self> {
        let (host, path, query) = key.url()?;
        Some(Self { rows, url: Some(Url { host, path, query }) })
    }

    /// Row of its site.
    pub(super) fn site(&self) -> Option<RowKey> {
        self.rows.last().copied()
    }

    /// Rows of its tags and its URL.
    pub(super) fn narrow(&self) -> &'a [RowKey] {
        self.rows.split_last().map_or(&[], |(_, narrow)| narrow)
    }

    pub(super) fn url(&self) -> Option<Url<'a>> {
        self.url
    }

    /// As one whose URL nobody knows.
    #[cfg(test)]
    pub(super) fn without_url(self) -> Self {
        Self { url: None, ..self }
    }
}

impl Url<'_> {
    /// As patterns see it, in lower case.
    pub(super) fn text(&self) -> String {
        let query = self.query.map_or(0, |query| query.len() + 1);
        let mut text = String::with_capacity(self.host.len() + self.path.len() + query);
        text.push_str(self.host);
        text.push_str(self.path);
        if let Some(query) = self.query {
            text.push('?');
            text.push_str(query);
        }
        text.make_ascii_lowercase();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = Secret(1, 2);

    #[test]
    fn rows_differ_by_kind_site_and_cut() {
        let (a, ab) = (RowKey::site(SECRET, "a"), RowKey::site(SECRET, "ab"));
        let prefix = |host: &str, path: &str| RowKey::prefix(SECRET, a, host, path).0;
        let rows = [
            RowKey::tag(SECRET, a, "bc"),
            RowKey::tag(SECRET, ab, "c"),
            RowKey::url(SECRET, a, "b", "c"),
            RowKey::url(SECRET, a, "bc", ""),
            prefix("b", ""),
            prefix("b", "/"),
            prefix("b", "/c/"),
            prefix("bc", ""),
            a,
            ab,
            RowKey::site(SECRET, "abc"),
            RowKey::tag(Secret(2, 1), a, "bc"),
        ];
        let distinct: std::collections::BTreeSet<_> = rows.iter().collect();
        assert_eq!(distinct.len(), rows.len());
    }

    #[test]
    fn a_path_has_the_rows_of_its_prefixes_and_no_others() {
        let site = RowKey::site(SECRET, "s");
        let of = |path: &str| -> Vec<u8> {
            let asked = ["", "/", "/a/", "/a//", "/a/b/", "/ab/"];
            let rows: Vec<RowKey> =
                prefixes(SECRET, site, "h", path, u64::MAX).map(|(_, key)| key).collect();
            let has = |asked: &&str| rows.contains(&RowKey::prefix(SECRET, site, "h", asked).0);
            asked.iter().map(|asked| u8::from(has(asked))).collect()
        };
        assert_eq!(of("/"), [1, 1, 0, 0, 0, 0]);
        assert_eq!(of("/a"), [1, 1, 0, 0, 0, 0]);
        assert_eq!(of("/a/"), [1, 1, 1, 0, 0, 0]);
        assert_eq!(of("/a/b"), [1, 1, 1, 0, 0, 0]);
        assert_eq!(of("/a//b"), [1, 1, 1, 1, 0, 0]);
        assert_eq!(of("/a/b/c"), [1, 1, 1, 0, 1, 0]);
        assert_eq!(of("/ab/c"), [1, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn only_depths_that_are_asked_for_are_reckoned() {
        let site = RowKey::site(SECRET, "s");
        let depths = |mask| -> Vec<u8> {
            prefixes(SECRET, site, "h", "/a/b/c/d", mask).map(|(depth, _)| depth).collect()
        };
        assert_eq!(depths(0), [0; 0]);
        assert_eq!(depths(0b1001), [0, 3]);
        assert_eq!(depths(1 << 20), [0; 0]);
        let deep = "/".repeat(8192);
        let all = prefixes(SECRET, site, "h", &deep, u64::MAX).count();
        assert_eq!(all, usize::from(PREFIX_DEPTH) + 1);
    }

    #[test]
    fn a_prefix_too_deep_for_a_row_is_written_as_its_ancestor() {
        let site = RowKey::site(SECRET, "s");
        let at = |depth: usize| RowKey::prefix(SECRET, site, "h", &"/x".repeat(depth));
        assert_eq!(at(300), at(usize::from(PREFIX_DEPTH)));
        assert_eq!(at(300).1, PREFIX_DEPTH);
        assert_ne!(at(31), at(32));
    }
}
