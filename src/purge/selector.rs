//! What a purge names.

use std::sync::Arc;

use super::glob::Glob;
use super::rows::{PREFIX_DEPTH, Place, RowKey, Secret};

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
    /// Every URL of a host whose path begins so.
    Prefix {
        /// Site that it belongs to.
        site: Arc<str>,
        /// Host without port.
        host: String,
        /// Beginning of the path, with the `/` that it ends at.
        path: String,
    },
    /// Everything of a host, whatever the port.
    Host {
        /// Site that it belongs to.
        site: Arc<str>,
        /// Host without port.
        host: String,
    },
    /// Everything of a site whose host, path and query match a pattern.
    Glob {
        /// The site.
        site: Arc<str>,
        /// The pattern.
        glob: Glob,
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
            Self::Prefix { .. } => "prefix",
            Self::Host { .. } => "host",
            Self::Glob { .. } => "glob",
            Self::Site { .. } => "site",
            Self::All => "all",
        }
    }

    /// Site that it stays within; `None` for the widest.
    #[must_use]
    pub fn site(&self) -> Option<&Arc<str>> {
        match self {
            Self::Url { site, .. }
            | Self::Tag { site, .. }
            | Self::Prefix { site, .. }
            | Self::Host { site, .. }
            | Self::Glob { site, .. }
            | Self::Site { site } => Some(site),
            Self::All => None,
        }
    }

    /// What it names, as a person would write it; empty where the kind says all.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Url { host, target, .. } => format!("{host}{target}"),
            Self::Tag { tag, .. } => tag.clone(),
            Self::Prefix { host, path, .. } => format!("{host}{path}"),
            Self::Host { host, .. } => host.clone(),
            Self::Glob { glob, .. } => glob.as_str().to_owned(),
            Self::Site { site } => site.to_string(),
            Self::All => String::new(),
        }
    }

    /// Every selector that reaches a response stored under `host` and `target` of `site`, bearing
    /// `tags`, patterns aside: what [`super::Selectors`] stands for, by name.
    #[must_use]
    pub fn reaching(site: &Arc<str>, host: &str, target: &str, tags: &[Box<str>]) -> Vec<Self> {
        let site = || Arc::clone(site);
        let own = |host: &str| host.to_owned();
        let mut all: Vec<Self> =
            tags.iter().map(|tag| Self::Tag { site: site(), tag: tag.to_string() }).collect();
        all.push(Self::Url { site: site(), host: own(host), target: own(target) });
        let path = target.split('?').next().unwrap_or_default();
        let slashes = path.match_indices('/').take(usize::from(PREFIX_DEPTH));
        let beginnings: Vec<&str> = slashes.filter_map(|(at, _)| path.get(..=at)).collect();
        all.extend(beginnings.into_iter().rev().map(|path| Self::Prefix {
            site: site(),
            host: own(host),
            path: own(path),
        }));
        all.push(Self::Host { site: site(), host: own(host) });
        all.push(Self::Site { site: site() });
        all.push(Self::All);
        all
    }

    /// Where in the table it is written.
    #[must_use]
    pub fn place(&self, secret: Secret) -> Place<'_> {
        let Some(site) = self.site() else { return Place::All };
        let site = RowKey::site(secret, site);
        match self {
            Self::Url { host, target, .. } => {
                Place::Narrow { site, key: RowKey::url(secret, site, host, target) }
            }
            Self::Tag { tag, .. } => Place::Narrow { site, key: RowKey::tag(secret, site, tag) },
            Self::Prefix { host, path, .. } => {
                let (key, depth) = RowKey::prefix(secret, site, host, path);
                Place::Prefix { site, key, depth }
            }
            Self::Host { host, .. } => {
                let (key, depth) = RowKey::prefix(secret, site, host, "");
                Place::Prefix { site, key, depth }
            }
            Self::Glob { glob, .. } => Place::Glob { site, glob },
            Self::Site { .. } | Self::All => Place::Site(site),
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
