//! The control runtime: admin and watch listeners, DNS and probes; and what the admin API can do
//! to this process.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener as Socket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::{Listening, Shared, StartError, supervise};
use crate::admin::{
    Admin, Control, Desk, Fetch, Identity, ListenerStatus, NodeStatus, Purging, Readiness,
    Reloading, StoreClass, Surface, Upgrading, Waiting, mesh_alone, receipt_alone, serve,
};
use crate::audit::Audit;
use crate::clock::{self, Now};
use crate::config::Config;
use crate::health::Order;
use crate::listener::{self, Context, Inherited, OpenSocket, Purpose};
use crate::mesh::{Busy, Issued, MeshView, ReceiptView, Until};
use crate::message::{Refusal, RequestHead};
use crate::origin::{OriginStatus, UnknownEndpoint};
use crate::proxy::{AskedPurge, PurgeByMethod, Purged};
use crate::purge::{Selector, Strength};
use crate::replication::{Identity as PurgeId, Incarnation, Source};
use crate::semantics::Explanation;
use crate::store::{Author, CLASSES, Events, Past, Tried, What, try_out};
use crate::telemetry::{Hot, Load, Weight};

/// The admin and watch listeners, bound.
pub(super) struct Doors {
    admin: Option<Socket>,
    watch: Option<Socket>,
}

/// Binds the admin and watch listeners, or takes up those that are open.
pub(super) fn bind(
    config: &Config,
    context: &Context,
    inherited: &mut Inherited,
    addresses: &mut Listening,
) -> Result<Doors, StartError> {
    let mut open = |purpose, address: Option<SocketAddr>| {
        let Some(address) = address else { return Ok(None) };
        let fail = |error| StartError::Admin { address, error };
        let socket = match inherited.take(purpose, address).into_iter().next() {
            Some(socket) => socket,
            None => listener::bind_alone(address).map_err(fail)?,
        };
        context.keep(vec![OpenSocket::of(purpose, address, &socket).map_err(fail)?]);
        Ok(Some(socket))
    };
    let admin = open(Purpose::Admin, config.admin.address)?;
    let watch = open(Purpose::Watch, config.watch)?;
    let local = |door: &Option<Socket>| door.as_ref().and_then(|door| door.local_addr().ok());
    addresses.admin = local(&admin);
    addresses.watch = local(&watch);
    Ok(Doors { admin, watch })
}

/// The admin API, which carries out the purges of the workers, too.
pub(super) fn desk(shared: &Arc<Shared>) -> Desk {
    let identity = Identity {
        name: shared.config.node.name.clone(),
        pop: shared.config.node.pop.clone(),
        incarnation: shared.incarnation.clone(),
    };
    let admin = Admin::new(
        &shared.config,
        identity,
        Arc::clone(shared) as Arc<dyn Control>,
        Arc::clone(&shared.metrics),
        shared.started,
    );
    Arc::new(ArcSwap::new(admin))
}

/// Lets those in who ask it.
pub(super) fn open(
    shared: &Arc<Shared>,
    control: &Runtime,
    desk: &Desk,
    doors: Doors,
) -> Result<(), StartError> {
    let _inside = control.enter();
    for (door, surface) in [(doors.admin, Surface::Full), (doors.watch, Surface::Watch)] {
        if let Some(door) = door {
            let door = Arc::new(TcpListener::from_std(door).map_err(StartError::System)?);
            let (desk, state) = (Arc::clone(desk), Arc::clone(shared));
            let served = supervise::task(control.handle(), "admin", &shared.metrics, move || {
                let (door, desk) = (Arc::clone(&door), Arc::clone(&desk));
                serve(door, None, desk, surface, state.succession.doors())
            });
            shared.succession.served_by(served);
        }
    }
    Ok(())
}

impl Shared {
    /// Empties the store, fills under way included; gives the epoch from which that holds.
    pub(super) fn empty(&self, now: Now) -> u64 {
        // The row also reaches fills under way, which the store does not hold yet.
        let applied = self.purges.apply(&[Selector::All], Strength::Hard, now);
        self.store.clear();
        self.events.publish(What::Reset { epoch: applied.epoch }, now.wall);
        applied.epoch
    }
}

/// A `PURGE` over a listener for clients is a purge like those over the admin listener.
impl PurgeByMethod for Admin {
    fn purge<'a>(&'a self, asked: &'a AskedPurge<'a>) -> Purged<'a> {
        let AskedPurge { token, client, site, host, target, headers, now } = *asked;
        Box::pin(async move {
            let asked = Purging { token, client, site, host, target, headers, now };
            self.purge_by_method(&asked).await
        })
    }
}

impl Shared {
    /// Name of a purge that this node numbered.
    fn own_purge(&self, sequence: u64) -> PurgeId {
        let node = self.config.node.name.as_str().into();
        // Our own text of sixteen digits.
        let incarnation = u64::from_str_radix(&self.incarnation, 16).unwrap_or_default();
        PurgeId { source: Source { incarnation: Incarnation(incarnation), node }, sequence }
    }
}

impl Control for Shared {
    fn purge(
        &self,
        by: Author,
        selectors: &[Selector],
        strength: Strength,
        now: Now,
    ) -> Result<Issued, Busy> {
        let issued = match &self.mesh {
            Some(mesh) => mesh.purge(&by, selectors, strength, now)?,
            None => {
                let applied = self.purges.apply_for(by, &self.localised(selectors), strength, now);
                Issued { identity: self.own_purge(applied.sequence), applied }
            }
        };
        let applied = issued.applied;
        for selector in selectors {
            self.metrics.store.purges(selector.kind());
        }
        tracing::info!(
            sequence = applied.sequence,
            epoch = applied.epoch,
            selectors = selectors.len(),
            strength = strength.label(),
            "purge"
        );
        // No answer may say that it is gone while a process beside this one still has it.
        self.succession.forget_elsewhere();
        Ok(issued)
    }

    fn receipt(&self, id: &PurgeId, now: Now) -> Option<ReceiptView> {
        if let Some(mesh) = &self.mesh {
            return mesh.receipt(id, now);
        }
        let own = *id == self.own_purge(id.sequence) && id.sequence <= self.purges.epoch();
        own.then(|| receipt_alone(id, &self.config.node.pop))
    }

    fn wait(&self, id: &PurgeId, until: Until, most: Duration) -> Waiting {
        // A node that is alone is everywhere at once.
        let Some(mesh) = self.mesh.clone() else { return Box::pin(std::future::ready(())) };
        let id = id.clone();
        Box::pin(async move {
            mesh.wait(&id, until, most).await;
        })
    }

    fn mesh(&self, now: Now) -> MeshView {
        if let Some(mesh) = &self.mesh {
            let canary = self.canary.as_ref().and_then(|canary| canary.last(now));
            return MeshView { canary, ..mesh.view(now) };
        }
        let epoch = self.purges.epoch();
        let last = self.past(1, &|_| true).first().map_or(0, |past| past.applied.sequence);
        mesh_alone(&self.own_purge(last), &self.config.node.pop, epoch)
    }

    fn try_purge(&self, selectors: &[Selector], hottest: usize, now: Now) -> Tried {
        try_out(&self.store, &self.purges, &self.localised(selectors), hottest, now)
    }

    fn past(&self, most: usize, pass: &dyn Fn(&Past) -> bool) -> Vec<Past> {
        self.purges.past(most, pass)
    }

    fn past_one(&self, sequence: u64) -> Option<Past> {
        self.purges.past_one(sequence)
    }

    fn past_of(&self, id: &PurgeId) -> Option<Past> {
        let own = self.mesh.is_none() && *id == self.own_purge(id.sequence);
        let named = || self.purges.past_named(&id.to_string());
        if own { self.purges.past_one(id.sequence).or_else(named) } else { named() }
    }

    fn reset(&self, now: Now) -> u64 {
        let epoch = self.empty(now);
        self.succession.forget_elsewhere();
        epoch
    }

    fn reload(&self, by: &str) -> Reloading {
        self.ask_to_reload(by)
    }

    fn upgrade(&self, by: &str) -> Upgrading {
        self.ask_to_upgrade(by)
    }

    fn drain(&self, _now: Now) {
        self.begin_drain();
    }

    fn readiness(&self) -> Readiness {
        readiness(self)
    }

    fn status(&self) -> NodeStatus {
        let bound = self.addresses.tls.iter().map(|address| (address, true));
        let bound = self.addresses.plain.iter().map(|address| (address, false)).chain(bound);
        let in_force = self.in_force();
        let listeners = &in_force.config.listeners;
        let http2 = |tls: bool| listeners.iter().any(|l| l.tls == tls && l.http2);
        NodeStatus {
            epoch: self.purges.epoch(),
            purge_rows: self.purges.rows() as u64,
            lease: self.purges.lease_holds(clock::now()),
            store_budget_bytes: self.store.budget_bytes(),
            store: (0..CLASSES)
                .map(|size_class| {
                    let (entries, bytes) = self.store.class(size_class);
                    StoreClass { size_class, entries, bytes }
                })
                .collect(),
            fills: self.fills.open() as u64,
            connections: u64::try_from(self.metrics.doors.connections_open.get()).unwrap_or(0),
            listeners: bound
                .map(|(address, tls)| ListenerStatus { address: *address, tls, http2: http2(tls) })
                .collect(),
        }
    }

    fn origins(&self) -> Vec<OriginStatus> {
        self.in_force().origins.status()
    }

    fn order(
        &self,
        origin: &str,
        address: SocketAddr,
        order: Order,
    ) -> Result<OriginStatus, UnknownEndpoint> {
        self.in_force().origins.order(origin, address, order)
    }

    fn site_of(&self, host: &str) -> Option<Arc<str>> {
        let in_force = self.in_force();
        let site = in_force.edge.site_of(host)?;
        in_force.config.sites.get(site).map(|site| Arc::clone(&site.name))
    }

    fn explain(&self, request: RequestHead, now: Now) -> Explanation {
        self.in_force().edge.explain(request, now)
    }

    fn events(&self) -> Arc<Events> {
        Arc::clone(&self.events)
    }

    fn audit(&self) -> &Audit {
        &self.audit
    }

    fn entry(&self, request: RequestHead, now: Now) -> Result<Explanation, Refusal> {
        self.in_force().edge.entry(request, now)
    }

    fn fetch(&self, request: RequestHead, keep_bytes: usize) -> Fetch {
        Box::pin(super::warm::fetch(self.own.clone(), request, keep_bytes))
    }

    fn hottest(&self, by: Weight, most: usize, pass: &dyn Fn(&str) -> bool, now: Now) -> Vec<Hot> {
        self.log.hottest().urls(by, most, pass, now)
    }

    fn hottest_tags(
        &self,
        by: Weight,
        most: usize,
        pass: &dyn Fn(&str) -> bool,
        now: Now,
    ) -> Vec<Hot> {
        self.log.hottest().tags(by, most, pass, now)
    }

    fn loads(&self, now: Now) -> HashMap<Arc<str>, Load> {
        self.log.hottest().sites(now)
    }

    fn observe(&self) {
        super::upkeep::measure(self);
        self.tell_ready();
    }
}

/// Whether the node takes traffic. It has caught up once it has held a lease: where it loses one
/// later, its sites do as their policies say, and taking every node of a mesh that lost its
/// witnesses away from its clients would help nobody.
pub(super) fn readiness(shared: &Shared) -> Readiness {
    Readiness {
        listening: shared.listening.load(Ordering::Acquire),
        caught_up: match &shared.mesh {
            Some(mesh) => mesh.is_caught_up(),
            // It always holds, unless who embeds the edge speaks of leases.
            None => shared.purges.lease_holds(clock::now()),
        },
        draining: shared.draining(),
        stuck: shared.metrics.strain.workers_stuck.get() > 0,
    }
}
