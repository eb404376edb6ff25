//! The origin: objects with versions; and what a purge can name.

use std::sync::Arc;

use atoll::replication::Scope;

pub(crate) type Site = u8;
pub(crate) type Version = u64;

pub(crate) const SITES: u8 = 2;
pub(crate) const PER_SITE: u8 = 3;
pub(crate) const OBJECTS: usize = SITES as usize * PER_SITE as usize;

/// One URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Object(pub(crate) u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Selector {
    Url(Object),
    Tag(Site, u8),
    Site(Site),
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strength {
    Hard,
    Check,
    Soft,
}

/// A purge as a payload can carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Purge {
    pub(crate) selector: Selector,
    pub(crate) strength: Strength,
    /// Written in a way that old versions can't read.
    pub(crate) newer: bool,
}

impl Object {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..SITES * PER_SITE).map(Self)
    }

    pub(crate) fn site(self) -> Site {
        self.0 / PER_SITE
    }

    fn tag(self) -> u8 {
        self.0 % 2
    }

    pub(crate) fn selectors(self) -> [Selector; 4] {
        let site = self.site();
        [Selector::Url(self), Selector::Tag(site, self.tag()), Selector::Site(site), Selector::All]
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Selector {
    pub(crate) fn hits(self, object: Object) -> bool {
        object.selectors().contains(&self)
    }

    /// The site of one that can fold.
    pub(crate) fn narrow_site(self) -> Option<Site> {
        match self {
            Self::Url(object) => Some(object.site()),
            Self::Tag(site, _) => Some(site),
            Self::Site(_) | Self::All => None,
        }
    }

    pub(crate) fn scope(self) -> Scope {
        match self {
            Self::Site(site) => Scope::Site(name(site)),
            Self::All => Scope::All,
            narrow => narrow.narrow_site().map_or(Scope::All, |site| Scope::Site(name(site))),
        }
    }
}

pub(crate) fn name(site: Site) -> Arc<str> {
    format!("site-{site}").into()
}

/// The selector of everything in a scope.
pub(crate) fn widest(scope: &Scope) -> Selector {
    match scope {
        Scope::All => Selector::All,
        Scope::Site(site) => {
            (0..SITES).find(|own| *name(*own) == **site).map_or(Selector::All, Selector::Site)
        }
    }
}

impl Purge {
    pub(crate) fn encode(self) -> Arc<[u8]> {
        let (kind, first, second) = match self.selector {
            Selector::Url(object) => (0, object.0, 0),
            Selector::Tag(site, tag) => (1, site, tag),
            Selector::Site(site) => (2, site, 0),
            Selector::All => (3, 0, 0),
        };
        Arc::from([u8::from(self.newer), kind, first, second, self.strength as u8])
    }

    /// Reads a payload; `None` where it is of a newer version than the reader.
    pub(crate) fn decode(payload: &[u8], old: bool) -> Option<Self> {
        let [newer, kind, first, second, strength] = *payload else { return None };
        if newer == 1 && old {
            return None;
        }
        let selector = match kind {
            0 => Selector::Url(Object(first)),
            1 => Selector::Tag(first, second),
            2 => Selector::Site(first),
            _ => Selector::All,
        };
        let strength = match strength {
            0 => Strength::Hard,
            1 => Strength::Check,
            _ => Strength::Soft,
        };
        Some(Self { selector, strength, newer: newer == 1 })
    }
}
