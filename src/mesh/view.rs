//! How the mesh and its purges look from this node.

use std::collections::BTreeMap;
use std::time::Duration;

use super::core::{Core, Roster};
use super::disk::Disk;
use super::handle::{
    DiskView, LeaseView, LinkState, MeshView, NodeReceipt, NodeView, ReceiptState, ReceiptView,
    SourceView, Until, WitnessView,
};
use super::peers::{LinkState as PeerState, PeerView};
use crate::clock::Now;
use crate::replication::{Event, Identity, Name, NodeState, Receipt, TooFewForChange};

impl Core {
    /// Whether this node issues purges, by the roster. One that is not in it issues none.
    pub(super) fn issues(&self) -> bool {
        self.roster.get(&self.settings.me).is_some_and(|(_, issues)| *issues)
    }

    /// Whether a purge has come so far; `None` where it is not remembered.
    pub(super) fn has_reached(&self, identity: &Identity, until: Until, now: Now) -> Option<bool> {
        let receipt = self.replica.receipt(identity)?;
        let acknowledged = receipt.acknowledged.is_some();
        Some(acknowledged && (until == Until::Acknowledged || self.is_everywhere(receipt, now)))
    }

    fn is_everywhere(&self, receipt: &Receipt, now: Now) -> bool {
        let settled = |name: &Name| receipt.state(name, now) != NodeState::Unknown;
        receipt.acknowledged.is_some() && self.roster.keys().all(settled)
    }

    pub(super) fn receipt(
        &self,
        identity: &Identity,
        peers: &[PeerView],
        now: Now,
    ) -> Option<ReceiptView> {
        let receipt = self.replica.receipt(identity)?;
        let mut nodes: Vec<NodeReceipt> = self
            .roster
            .iter()
            .map(|(name, (pop, _))| node_receipt(receipt, (name, pop), peers, now))
            .collect();
        nodes.sort_by(|one, next| (&one.pop, &one.name).cmp(&(&next.pop, &next.name)));
        let after = |at: Duration| millis(at.saturating_sub(receipt.issued));
        Some(ReceiptView {
            identity: identity.to_string(),
            age_ms: after(now.boot),
            acknowledged_ms: receipt.acknowledged.map(after),
            everywhere: self.is_everywhere(receipt, now),
            nodes,
        })
    }

    pub(super) fn view(&self, peers: &[PeerView], now: Now) -> MeshView {
        let (source, _) = self.replica.issued();
        let (vector, sizes) = (self.replica.vector(), self.replica.sizes());
        let me = &self.settings.me;
        MeshView {
            me: me.to_string(),
            pop: self.roster.get(me).map(|(pop, _)| pop.to_string()).unwrap_or_default(),
            incarnation: hex(source.incarnation.0),
            issues: self.issues(),
            caught_up: self.standing.caught_up,
            lease: self.lease_view(now),
            witnesses: self.witness_view(),
            nodes: self.nodes(peers, now),
            vector: vector
                .marks()
                .map(|(source, mark)| SourceView {
                    node: source.node.to_string(),
                    incarnation: hex(source.incarnation.0),
                    sequence: mark.sequence,
                })
                .collect(),
            digest: format!("{:032x}", vector.digest()),
            retired: vector.retired().count,
            missing: self.replica.missing(),
            waiting: sizes.waiting,
            log_records: sizes.log_records,
            log_bytes: sizes.log_bytes,
            receipts: sizes.receipts,
            epoch: self.around.purges.epoch(),
            disk: self.disk.as_ref().map(disk_view),
            canary: None,
        }
    }

    fn lease_view(&self, now: Now) -> LeaseView {
        let lease = self.standing.lease.filter(|lease| lease.holds(now));
        let left = lease.map_or(Duration::ZERO, |lease| lease.until.saturating_sub(now.boot));
        LeaseView {
            held: lease.is_some(),
            left_ms: millis(left),
            age_ms: lease.map(|lease| millis(now.boot.saturating_sub(lease.asked.boot))),
            lost: self.standing.lost,
        }
    }

    fn witness_view(&self) -> WitnessView {
        let set = self.replica.witnesses();
        let names = |names: &Vec<Name>| names.iter().map(Name::to_string).collect();
        WitnessView {
            set: set.number,
            members: names(&set.members),
            joining: set.joining.as_ref().map(names),
            generation: self.replica.generation().map(hex),
            serving: self.replica.is_serving(),
        }
    }

    fn nodes(&self, peers: &[PeerView], now: Now) -> Vec<NodeView> {
        let mut nodes: Vec<NodeView> = self
            .roster
            .iter()
            .map(|(name, (pop, _))| {
                let peer = peers.iter().find(|peer| peer.name == *name);
                self.node(name, pop, peer, now)
            })
            .collect();
        nodes.sort_by(|one, next| (&one.pop, &one.name).cmp(&(&next.pop, &next.name)));
        nodes
    }

    fn node(&self, name: &Name, pop: &Name, peer: Option<&PeerView>, now: Now) -> NodeView {
        let here = *name == self.settings.me;
        let (source, last) = self.replica.issued();
        let heard = self.peers.get(name);
        let issued = match heard.and_then(|heard| heard.issued.as_ref()) {
            _ if here => Some((source, last)),
            issued => issued.map(|(source, last)| (source, *last)),
        };
        let missing = |(source, last): (&_, u64)| {
            last.saturating_sub(self.replica.vector().mark(source).sequence)
        };
        let link = match peer.map(|peer| peer.state) {
            _ if here => LinkState::Own,
            Some(PeerState::Up) => LinkState::Up,
            Some(PeerState::Connecting) => LinkState::Connecting,
            Some(PeerState::Down) | None => LinkState::Down,
        };
        let member =
            peer.map_or(if here { "alive" } else { "unknown" }, |peer| peer.member.label());
        let since = |at: Duration| millis(now.boot.saturating_sub(at));
        NodeView {
            name: name.to_string(),
            pop: pop.to_string(),
            witness: self.replica.witnesses().contains(name),
            link,
            address: peer.and_then(|peer| peer.address).map(|address| address.to_string()),
            up_ms: peer.and_then(|peer| peer.up_since).map(since),
            rtt_ms: peer.and_then(|peer| peer.round_trip).map(millis),
            member: member.to_owned(),
            queued: peer.map_or(0, |peer| peer.queued_bytes),
            dropped: peer.map_or(0, |peer| peer.dropped),
            heard_ms_ago: heard.map(|heard| since(heard.at)),
            issued: issued.map(|(_, last)| last),
            lag: issued.map(missing),
        }
    }

    /// Whether a configuration that names these witnesses can be put in force.
    pub(super) fn may_reconfigure(&self, witnesses: &[Name]) -> Result<(), TooFewForChange> {
        if self.configured == witnesses {
            return Ok(());
        }
        self.replica.may_change_to(witnesses)
    }

    /// Another roster, and other witnesses.
    pub(super) fn reconfigure(&mut self, roster: Roster, witnesses: Vec<Name>) {
        if self.roster != roster {
            let pops: BTreeMap<Name, Name> =
                roster.iter().map(|(name, (pop, _))| (name.clone(), pop.clone())).collect();
            self.roster = roster;
            self.settings.roster = pops.clone().into();
            self.peers.retain(|name, _| self.roster.contains_key(name));
            self.handle(Event::Roster(pops.into()));
        }
        if self.configured != witnesses {
            self.handle(Event::Witnesses(witnesses.clone()));
            // What was refused can be asked for again.
            if self.replica.may_change_to(&witnesses).is_ok() {
                self.configured = witnesses;
            }
        }
        self.dirty = true;
    }
}

fn node_receipt(
    receipt: &Receipt,
    (name, pop): (&Name, &Name),
    peers: &[PeerView],
    now: Now,
) -> NodeReceipt {
    let link = peers.iter().find(|peer| peer.name == *name).map(|peer| peer.state);
    let why = match link {
        Some(PeerState::Up) => "it has not answered yet",
        Some(PeerState::Connecting) => "its link is being made",
        Some(PeerState::Down) | None => "its link is down",
    };
    let (state, applied, why) = match receipt.state(name, now) {
        NodeState::Applied(after) => (ReceiptState::Applied, Some(after), None),
        NodeState::Fenced => (ReceiptState::Fenced, None, Some(why)),
        NodeState::Unknown => (ReceiptState::Unknown, None, Some(why)),
    };
    let (name, pop) = (name.to_string(), pop.to_string());
    NodeReceipt { name, pop, state, applied_ms: applied.map(millis), why }
}

fn disk_view(disk: &Disk) -> DiskView {
    DiskView { healthy: disk.is_healthy(), bytes: disk.bytes(), queued: disk.queued() }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}
