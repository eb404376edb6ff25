//! What a record does on this node.
//!
//! A record carries texts as somebody wrote them. Nodes may store under different keys: while a
//! configuration is rolled out, or the same node before and after a reload. So a text is applied as it
//! came and as this node's configuration has it. What names a site that this node does not know may
//! well be about something stored here under another name; that is asked of its origin.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::core::Core;
use super::payload;
use crate::purge::{Selector, Strength};
use crate::replication::{Identity, Meaning, Mutation, Record, Scope, meaning};
use crate::store::{Author, Batched};

/// Sites unknown here that are told of in the log.
const TOLD: usize = 100;

/// What a selector of another node means on this one.
pub type Localise = Arc<dyn Fn(Selector) -> Local + Send + Sync>;

/// See [`Localise`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Itself, and what this node's configuration makes of the same text.
    pub selectors: Vec<Selector>,
    /// Its site, where this node has none of that name, and finds none by the text.
    pub unknown: Option<Arc<str>>,
}

impl Core {
    /// What records do here: as they are read, or, where they are not, as wide as their frames say.
    pub(super) fn meant(&self, records: &[Arc<Record>], read: bool) -> Vec<Batched> {
        let one = |record: &Arc<Record>| self.here(self.said(record, read));
        records.iter().flat_map(one).collect()
    }

    /// What a record says.
    fn said(&self, record: &Record, read: bool) -> Batched {
        let identity = Some(record.identity.clone());
        let decoded = || payload::decode(&record.payload);
        let selector = match meaning(record, |_| read.then(decoded).flatten(), Mutation::None) {
            Meaning::Exact(payload::Purge { by, strength, selectors, .. }) => {
                return Batched { by, identity, selectors, strength };
            }
            Meaning::Wide(Scope::Site(site)) => Selector::Site { site },
            Meaning::Wide(Scope::All) | Meaning::Skipped => Selector::All,
        };
        let Identity { source, .. } = &record.identity;
        tracing::warn!(
            identity = %record.identity, purged = ?selector,
            "a purge that is not understood: all that it may mean is purged"
        );
        self.around.metrics.mesh.wide.inc();
        let token = format!("(not understood, from {})", source.node).into();
        let by = Some(Author { token, address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) });
        Batched { by, identity, selectors: vec![selector], strength: Strength::Hard }
    }

    /// The same on this node. What comes last is the purge itself: its number is told.
    fn here(&self, said: Batched) -> Vec<Batched> {
        let mut here = Vec::with_capacity(said.selectors.len());
        let mut unknown = BTreeSet::new();
        for selector in said.selectors {
            let local = (self.around.localise)(selector);
            here.extend(local.selectors);
            unknown.extend(local.unknown);
        }
        let doubt = self.doubt(unknown);
        doubt.into_iter().chain([Batched { selectors: here, ..said }]).collect()
    }

    /// What is done where a purge names sites that this node does not know.
    fn doubt(&self, unknown: BTreeSet<Arc<str>>) -> Option<Batched> {
        if unknown.is_empty() {
            return None;
        }
        self.around.metrics.mesh.unknown_site.inc();
        let mut told = self.unknown.borrow_mut();
        for site in unknown {
            if told.len() < TOLD && told.insert(Arc::clone(&site)) {
                tracing::warn!(
                    %site,
                    "another node purged in a site that this one does not know: all that is stored \
                     is to be checked with its origin"
                );
            }
        }
        let (selectors, strength) = (vec![Selector::All], Strength::Check);
        Some(Batched { by: None, identity: None, selectors, strength })
    }
}
