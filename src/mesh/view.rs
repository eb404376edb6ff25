//! How the mesh and its purges look from this node.

use std::time::Duration;

use super::core::{Core, Roster};
use super::disk::Disk;
use super::handle::{
    DiskView, LeaseView, LinkView, MeshView, NodeReceipt, NodeView, ReceiptState, ReceiptView, Until,
    WitnessView,
};
use super::peers::{LinkState, PeerView};
use crate::clock::Now;
use crate::replication::{Event, Identity, Name, NodeState, Receipt};

impl Core {
    /// Whether this node issues purges, by the roster. One that is not in it issues none.
    pub(super) fn issues(&self) -> bool {
        self.roster.get(&self.settings.me).is_some_and(|(_, issues)| *issues)
    }

    /// Whether a purge has come so far; `None` where it is not remembered.
    pub(super) fn has_reached(&self, identity: &Identity, until: Until, now: Now) -> Option<bool> {
        let receipt = self.replica.receipt(identity)?;
        let settled = |name: &Name| receipt.state(name, now) != NodeState::Unknown;
        let acknowledged = receipt.acknowledged.is_some();
        let everywhere = || self.roster.keys().all(settled);
        Some(acknowledged && (until == Until::Acknowledged || everywhere()))
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
            .map(|(name, (pop, _))| {
                let (state, why) = self.state_there(receipt, name, peers, now);
                NodeReceipt { name: name.clone(), pop: pop.clone(), state, why }
            })
            .collect();
        nodes.sort_by(|one, next| (&one.pop, &one.name).cmp(&(&next.pop, &next.name)));
        Some(ReceiptView {
            identity: identity.clone(),
            age: now.boot.saturating_sub(receipt.issued),
            acknowledged: receipt.acknowledged.map(|at| at.saturating_sub(receipt.issued)),
            nodes,
        })
    }

    fn state_there(
        &self,
        receipt: &Receipt,
        name: &Name,
        peers: &[PeerView],
        now: Now,
    ) -> (ReceiptState, Option<&'static str>) {
        let link = || peers.iter().find(|peer| peer.name == *name).map(|peer| peer.state);
        let why = || match link() {
            Some(LinkState::Up) => "it has not answered yet",
            Some(LinkState::Connecting) => "its link is being dialled",
            Some(LinkState::Down) | None => "its link is down",
        };
        match receipt.state(name, now) {
            NodeState::Applied(after) => (ReceiptState::Applied(after), None),
            NodeState::Fenced => (ReceiptState::Fenced, Some(why())),
            NodeState::Unknown => (ReceiptState::Unknown, Some(why())),
        }
    }

    pub(super) fn view(&self, peers: &[PeerView], now: Now) -> MeshView {
        let (source, issued) = self.replica.issued();
        let (vector, sizes) = (self.replica.vector(), self.replica.sizes());
        let witnesses = self.replica.witnesses();
        let me = &self.settings.me;
        let pop = self.roster.get(me).map_or_else(|| "".into(), |(pop, _)| pop.clone());
        MeshView {
            me: me.clone(),
            pop,
            incarnation: source.incarnation.0,
            issued,
            caught_up: self.standing.caught_up,
            lease: self.lease_view(now),
            witnesses: WitnessView {
                set: witnesses.number,
                members: witnesses.members.clone(),
                joining: witnesses.joining.clone(),
                generation: self.replica.generation(),
                serving: self.replica.is_serving(),
            },
            nodes: self.nodes(peers, now),
            vector: vector
                .marks()
                .map(|(source, mark)| {
                    let identity = Identity { source: source.clone(), sequence: mark.sequence };
                    (identity, mark.chain)
                })
                .collect(),
            digest: vector.digest(),
            retired: vector.retired().count,
            missing: self.replica.missing(),
            waiting: sizes.waiting,
            log_records: sizes.log_records,
            log_bytes: sizes.log_bytes,
            receipts: sizes.receipts,
            epoch: self.around.purges.epoch(),
            disk: self.disk.as_ref().map(disk_view),
        }
    }

    fn lease_view(&self, now: Now) -> LeaseView {
        let lease = self.standing.lease.filter(|lease| lease.holds(now));
        let ago = |at: Duration| now.boot.saturating_sub(at);
        LeaseView {
            held: lease.is_some(),
            left: lease.map(|lease| lease.until.saturating_sub(now.boot)),
            age: lease.map(|lease| ago(lease.asked.boot)),
            without: match (lease, self.standing.lease) {
                (Some(_), _) => None,
                // It has run out, and the next tick says so.
                (None, Some(over)) => Some(ago(over.until)),
                (None, None) => Some(ago(self.standing.since)),
            },
            lost: self.standing.lost,
        }
    }

    fn nodes(&self, peers: &[PeerView], now: Now) -> Vec<NodeView> {
        let set = self.replica.witnesses();
        let own = self.replica.issued();
        let node = |(name, (pop, issues)): (&Name, &(Name, bool))| {
            let here = *name == self.settings.me;
            let heard = self.peers.get(name);
            let issued = heard.and_then(|heard| heard.issued.as_ref());
            let missing = issued.map(|(source, last)| {
                last.saturating_sub(self.replica.vector().mark(source).sequence)
            });
            NodeView {
                name: name.clone(),
                pop: pop.clone(),
                here,
                issues: *issues,
                witness: set.contains(name),
                link: peers.iter().find(|peer| peer.name == *name).map(|peer| link(peer, now)),
                heard: heard.map(|heard| now.boot.saturating_sub(heard.at)),
                issued: if here { Some(own.1) } else { issued.map(|(_, last)| *last) },
                missing: if here { Some(0) } else { missing },
                lag: if here { Some(0) } else { heard.and_then(|heard| heard.lag) },
            }
        };
        let mut nodes: Vec<NodeView> = self.roster.iter().map(node).collect();
        nodes.sort_by(|one, next| (&one.pop, &one.name).cmp(&(&next.pop, &next.name)));
        nodes
    }

    /// Another roster, and other witnesses.
    pub(super) fn reconfigure(&mut self, roster: Roster, witnesses: Vec<Name>) {
        let changed = self.roster != roster;
        self.roster = roster;
        if changed {
            let pops: std::collections::BTreeMap<Name, Name> =
                self.roster.iter().map(|(name, (pop, _))| (name.clone(), pop.clone())).collect();
            self.settings.roster = pops.clone().into();
            self.peers.retain(|name, _| self.roster.contains_key(name));
            self.handle(Event::Roster(pops.into()));
        }
        if self.configured != witnesses {
            self.configured.clone_from(&witnesses);
            self.handle(Event::Witnesses(witnesses));
        }
        self.dirty = true;
    }
}

fn link(peer: &PeerView, now: Now) -> LinkView {
    LinkView {
        state: peer.state,
        address: peer.address,
        up: peer.up_since.map(|since| now.boot.saturating_sub(since)),
        round_trip: peer.round_trip,
        member: peer.member,
        queued_bytes: peer.queued_bytes,
        dropped: peer.dropped,
    }
}

fn disk_view(disk: &Disk) -> DiskView {
    DiskView { healthy: disk.is_healthy(), bytes: disk.bytes(), queued: disk.queued() }
}
