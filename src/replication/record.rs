//! A purge as it travels: a name, an outer frame that every version can read, and a payload that
//! perhaps not all can.
//!
//! The outer frame says how wide the purge reaches at most. A node that cannot read the payload
//! applies the purge that wide: too much, never nothing. For the vector never passes over a record
//! that had no effect.

use std::hash::Hasher as _;
use std::sync::Arc;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::identity::Identity;
use super::mutation::Mutation;

/// How wide a purge reaches at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Within one site.
    Site(Arc<str>),
    /// Everywhere.
    All,
}

/// Hash over a source's records up to some sequence; 0 before the first. It tells two histories
/// under one name apart. Not keyed: nodes are trusted not to lie, and it must be the same on all.
pub type Chain = u128;

/// One purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub identity: Identity,
    /// Hash over the source's records before this one.
    pub before: Chain,
    /// How wide it reaches at most.
    pub scope: Scope,
    /// Whether its issuer wants to hear from every node that has applied it.
    pub receipt: bool,
    /// What it purges, for those who can read it.
    pub payload: Arc<[u8]>,
}

impl Record {
    /// Hash over the source's records, this one included.
    #[must_use]
    pub fn after(&self) -> Chain {
        let mut hasher = SipHasher13::new();
        hasher.write_u128(self.before);
        hasher.write_u64(self.identity.sequence);
        match &self.scope {
            Scope::All => hasher.write_u8(0),
            Scope::Site(site) => {
                hasher.write_u8(1);
                hasher.write_u64(site.len() as u64);
                hasher.write(site.as_bytes());
            }
        }
        hasher.write(&self.payload);
        hasher.finish128().as_u128()
    }

    /// Bytes that it takes in a message.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        let scope = match &self.scope {
            Scope::All => 0,
            Scope::Site(site) => site.len() + 3,
        };
        // Numbers, marks and lengths, as `wire` writes them.
        40 + self.identity.source.node.as_str().len() + scope + self.payload.len()
    }

    /// Memory that it takes, about.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        size_of::<Self>() + 64 + self.payload.len()
    }
}

/// What a record means to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning<P> {
    /// The purge as it was meant.
    Exact(P),
    /// It could not be read or carried out: everything in its scope is purged, hard.
    Wide(Scope),
    /// Nothing happens. Only a planted bug says so.
    Skipped,
}

/// What `record` means to a node that reads payloads by `read`, which gives `None` where it does not
/// understand.
#[must_use]
pub fn meaning<P>(
    record: &Record,
    read: impl FnOnce(&[u8]) -> Option<P>,
    mutation: Mutation,
) -> Meaning<P> {
    match read(&record.payload) {
        Some(purge) => Meaning::Exact(purge),
        None if mutation == Mutation::UnknownSkipped => Meaning::Skipped,
        None => Meaning::Wide(record.scope.clone()),
    }
}
