//! What happened of late on this node, for those who follow it.
//!
//! One ring for all followers: each has a position in it and reads on at its own pace. So a follower
//! costs no memory here, whoever comes back soon goes on where it was, and whoever is too slow or was
//! away for too long finds that its position is gone, and is told that something was lost. The ring is
//! bounded by the number of its events and by their bytes.
//!
//! A purge of many selectors is told in parts, so that nothing of it has to be left out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::Applied;
use super::history::{Author, Named};
use crate::purge::{Selector, Strength};
use crate::replication::Identity;

/// Selectors in one part of a purge.
const SELECTORS: usize = 32;
/// Bytes of their texts, unless one alone has more.
const TEXT_BYTES: usize = 4096;
/// Bytes of an event on average, as far as the ring's bound goes.
const EVENT_BYTES: usize = 4096;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number in this life of the node, from 1 without holes.
    pub number: u64,
    /// When, on the wall clock.
    pub at: SystemTime,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A purge is in force, this part of it among the rest.
    Purge(PurgeTold),
    /// The store was emptied.
    Reset {
        /// Epoch from which that holds.
        epoch: u64,
    },
    /// An endpoint of an origin changed.
    Health {
        /// Name of the origin.
        origin: String,
        /// The endpoint.
        address: SocketAddr,
        /// Its state, as the origin's status has it.
        state: &'static str,
        /// Why, where something failed.
        why: Option<String>,
    },
    /// A warm-up began, came further or ended.
    WarmUp(WarmUp),
    /// An origin as a whole changed.
    Origin {
        /// Its name.
        origin: String,
        /// `panic`, `believed`, `circuit-open`, `circuit-recovering` or `circuit-closed`.
        state: &'static str,
        /// Why, where something failed.
        why: Option<String>,
    },
    /// A majority of the witnesses holds a purge that this node took.
    Acknowledged {
        /// Its name.
        identity: Identity,
        /// Time since it was taken.
        after: Duration,
    },
    /// The node lost its lease, or has one again.
    Lease {
        /// Whether it has one.
        held: bool,
        /// Time for which it had none, where it has one again.
        without: Option<Duration>,
    },
    /// A record of another node was refused: its name is known with another content.
    RefusedRecord {
        /// Its name.
        identity: Identity,
    },
    /// The node can't know what it missed: everything stored is checked with the origin.
    Distrust {
        /// Epoch from which that holds.
        epoch: u64,
        /// Why, in a word.
        why: &'static str,
    },
    /// A node showed what a purge had killed, later than it may: the canary saw it.
    BrokenPromise {
        /// Name of the node.
        node: Arc<str>,
        /// Name of the purge.
        purge: Identity,
        /// How long after its acknowledgement the node was asked.
        after: Duration,
    },
    /// The configuration was read anew.
    Reload(Box<ReloadTold>),
    /// Another process was to take over.
    Upgrade(Box<UpgradeTold>),
    /// The node began to drain.
    Drain,
}

/// What came of reading the configuration anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadTold {
    /// `applied` or `refused`.
    pub outcome: &'static str,
    /// Who asked: the name of a token, or of a signal.
    pub by: String,
    /// What the configuration in force is known by.
    pub config: String,
    /// Keys that changed.
    pub changes: usize,
    /// Of those, the ones that wait for a restart.
    pub waiting: usize,
    /// Why it was refused: the first problem.
    pub why: Option<String>,
}

/// What came of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeTold {
    /// `handed-over` or `refused`.
    pub outcome: &'static str,
    /// Who asked: the name of a token, or of a signal.
    pub by: String,
    /// Why the process goes on.
    pub why: Option<String>,
}

/// How far a warm-up has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Its id.
    pub id: String,
    /// Name of the token that asked for it.
    pub token: String,
    /// Id of the purge that it follows.
    pub purge: Option<String>,
    /// How it stands.
    pub state: &'static str,
    /// Requests in all, once that is known.
    pub total: Option<u64>,
    /// Requests that are over.
    pub done: u64,
    /// Of those, without a usable answer.
    pub failed: u64,
    /// Of those, fetched and stored.
    pub stored: u64,
}

/// A purge, or a part of one that has many selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeTold {
    /// Its number and its epoch.
    pub applied: Applied,
    /// Its name in the mesh, where that gave it one.
    pub identity: Option<Box<str>>,
    /// Who asked for it.
    pub by: Author,
    /// Its strength.
    pub strength: Strength,
    /// The selectors of this part.
    pub selectors: Box<[Named]>,
    /// Number of all its selectors.
    pub count: usize,
    /// Sites that all of it is about; `None` where it is about all.
    pub sites: Option<Arc<[Arc<str>]>>,
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            Self::Purge(told) => told.selectors.iter().map(|named| 48 + named.text.len()).sum(),
            Self::Health { origin, why, .. } | Self::Origin { origin, why, .. } => {
                origin.len() + why.as_ref().map_or(0, String::len)
            }
            Self::WarmUp(warm_up) => {
                let purge = warm_up.purge.as_ref().map_or(0, String::len);
                warm_up.id.len() + warm_up.token.len() + purge
            }
            Self::BrokenPromise { node, purge, .. } => {
                node.len() + purge.source.node.as_str().len()
            }
            Self::Acknowledged { identity, .. } | Self::RefusedRecord { identity } => {
                identity.source.node.as_str().len()
            }
            Self::Reload(told) => {
                told.by.len() + told.config.len() + told.why.as_ref().map_or(0, String::len)
            }
            Self::Upgrade(told) => told.by.len() + told.why.as_ref().map_or(0, String::len),
            Self::Reset { .. } | Self::Lease { .. } | Self::Distrust { .. } | Self::Drain => 0,
        }
    }
}

/// The events of a node.
#[derive(Debug)]
pub struct Events {
    most: usize,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Event>>,
    bytes: usize,
    newest: u64,
}

/// What came after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// Something between the position and the first of these is not kept any more, or the position
    /// is not one of this ring.
    pub lost: bool,
    /// The next events that are kept.
    pub events: Vec<Arc<Event>>,
}

impl Events {
    /// Keeps `most` events.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), ring: Mutex::default(), newest: watch::Sender::new(0) })
    }

    /// Tells an event.
    pub fn publish(&self, what: What, at: SystemTime) {
        let mut ring = self.ring();
        ring.newest += 1;
        ring.bytes += what.bytes();
        let number = ring.newest;
        ring.kept.push_back(Arc::new(Event { number, at, what }));
        while ring.kept.len() > self.most || ring.bytes > self.most.saturating_mul(EVENT_BYTES) {
            let Some(oldest) = ring.kept.pop_front() else { break };
            ring.bytes -= oldest.what.bytes();
        }
        drop(ring);
        // Two tellers may come here in the other order.
        self.newest.send_if_modified(|newest| {
            let later = number > *newest;
            *newest = number.max(*newest);
            later
        });
    }

    /// How many it keeps at most.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Counts events that nobody can read any more, since more of them come at once than are kept. Those
    /// before them go.
    pub(super) fn pass_over(&self, count: usize) {
        if count == 0 {
            return;
        }
        let mut ring = self.ring();
        ring.newest += count as u64;
        ring.kept.clear();
        ring.bytes = 0;
    }

    /// Tells a purge in its parts.
    pub(super) fn purged(
        &self,
        applied: Applied,
        by: &Author,
        identity: Option<&str>,
        at: SystemTime,
        strength: Strength,
        parts: Vec<Box<[Named]>>,
    ) {
        let count = parts.iter().map(|part| part.len()).sum();
        let sites = sites(&parts);
        for selectors in parts {
            let (by, sites) = (by.clone(), sites.clone());
            let identity = identity.map(Into::into);
            let told = PurgeTold { applied, identity, by, strength, selectors, count, sites };
            self.publish(What::Purge(told), at);
        }
    }

    /// Number of the newest event; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.ring().newest
    }

    /// The earliest position from which nothing is lost.
    #[must_use]
    pub fn earliest(&self) -> u64 {
        let ring = self.ring();
        ring.kept.front().map_or(ring.newest, |oldest| oldest.number - 1)
    }

    /// What came after a position, `most` events at once.
    #[must_use]
    pub fn since(&self, position: u64, most: usize) -> Since {
        let ring = self.ring();
        let oldest = ring.kept.front().map_or(ring.newest + 1, |oldest| oldest.number);
        let lost = position.saturating_add(1) < oldest || position > ring.newest;
        let skipped = if lost { 0 } else { position.saturating_add(1) - oldest };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let events = ring.kept.iter().skip(skipped).take(most).map(Arc::clone).collect();
        Since { lost, events }
    }

    /// Tells whenever the newest number has grown.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every selector in words, in parts of bounded size.
pub(super) fn parts(selectors: &[Selector]) -> Vec<Box<[Named]>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for named in selectors.iter().map(Named::whole) {
        let full = part.len() >= SELECTORS || bytes + named.text.len() > TEXT_BYTES;
        if full && !part.is_empty() {
            parts.push(std::mem::take(&mut part).into_boxed_slice());
            bytes = 0;
        }
        bytes += named.text.len();
        part.push(named);
    }
    if !part.is_empty() {
        parts.push(part.into_boxed_slice());
    }
    parts
}

fn sites(parts: &[Box<[Named]>]) -> Option<Arc<[Arc<str>]>> {
    let mut sites: Vec<&Arc<str>> = Vec::new();
    for named in parts.iter().flat_map(|part| part.iter()) {
        sites.push(named.site.as_ref()?);
    }
    sites.sort_unstable();
    sites.dedup();
    Some(sites.into_iter().map(Arc::clone).collect())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn tell(events: &Events, times: u64) {
        (0..times).for_each(|epoch| events.publish(What::Reset { epoch }, SystemTime::UNIX_EPOCH));
    }

    fn numbers(since: &Since) -> Vec<u64> {
        since.events.iter().map(|event| event.number).collect()
    }

    fn tag(site: &str, tag: &str) -> Selector {
        Selector::Tag { site: site.into(), tag: tag.into() }
    }

    #[test]
    fn who_was_away_shortly_goes_on_and_who_was_away_long_is_told() {
        let events = Events::new(4);
        let since = events.since(0, 9);
        assert_eq!((since.lost, numbers(&since)), (false, vec![]));
        tell(&events, 10);
        for (position, lost, expected) in [
            (10, false, vec![]),
            (9, false, vec![10]),
            (6, false, vec![7, 8]),
            (5, true, vec![7, 8]),
            (0, true, vec![7, 8]),
            (11, true, vec![7, 8]),
            (u64::MAX, true, vec![7, 8]),
        ] {
            let since = events.since(position, 2);
            assert_eq!((since.lost, numbers(&since)), (lost, expected), "{position}");
        }
        assert_eq!((events.earliest(), events.newest()), (6, 10));
        assert!(!events.since(events.earliest(), 9).lost);
    }

    #[test]
    fn the_ring_is_bounded_in_bytes() {
        let events = Events::new(16);
        let long = "x".repeat(60_000);
        for _ in 0..100 {
            let by = Author { token: "t".into(), address: IpAddr::from([127, 0, 0, 1]) };
            let applied = Applied { sequence: 1, epoch: 1 };
            let all = parts(&[tag("s", &long)]);
            events.purged(applied, &by, None, SystemTime::UNIX_EPOCH, Strength::Hard, all);
        }
        assert!(events.ring().bytes <= 16 * EVENT_BYTES);
        assert_eq!(events.newest() - events.earliest(), 1);
    }

    #[test]
    fn a_purge_of_many_selectors_is_told_whole() {
        let many: Vec<Selector> = (0..1000).map(|at| tag("s", &at.to_string())).collect();
        let told = parts(&many);
        let texts: Vec<&str> =
            told.iter().flat_map(|part| part.iter()).map(|named| &*named.text).collect();
        assert_eq!(texts.len(), 1000);
        assert_eq!(texts.last(), Some(&"999"));
        assert!(told.iter().all(|part| (1..=SELECTORS).contains(&part.len())));
        let long: Vec<Selector> = (0..9).map(|at| tag("s", &at.to_string().repeat(3000))).collect();
        assert_eq!(parts(&long).len(), 9);
        assert_eq!(
            sites(&parts(&[tag("b", "x"), tag("a", "x")])).map(|sites| sites.len()),
            Some(2)
        );
        assert_eq!(sites(&parts(&[tag("b", "x"), Selector::All])), None);
    }

    #[tokio::test]
    async fn a_follower_is_woken() {
        let events = Events::new(4);
        let mut watch = events.watch();
        tell(&events, 1);
        watch.changed().await.unwrap();
        assert_eq!(*watch.borrow_and_update(), 1);
    }
}
