//! This node's place in the mesh, where it has one.
//!
//! The mesh has threads of its own, one that carries the links and one that keeps the protocol's
//! time: whatever the control runtime is busy with, peers are answered and the lease is renewed.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{Shared, StartError};
use crate::clock;
use crate::config::Config;
use crate::listener::{Context, Inherited, OpenSocket, Purpose};
use crate::mesh::{Local, Localise, Mesh, MeshError, Surroundings, listen};
use crate::proxy::Edge;
use crate::purge::Selector;
use crate::store::{Events, Purges};
use crate::telemetry::Metrics;
use crate::tickets::Tickets;

/// Time for the first lease of a process that takes over: there are none where the witnesses are away,
/// and the process before had none either then.
const FIRST_LEASE: Duration = Duration::from_secs(5);
/// Time between two looks at whether it is there.
const LOOK: Duration = Duration::from_millis(10);
/// Time between two tries to take part again.
const AGAIN: Duration = Duration::from_secs(1);

/// The mesh with the runtime that carries its links.
pub(super) struct Place {
    pub(super) mesh: Arc<Mesh>,
    links: Runtime,
}

/// Makes ready for the place in the mesh that the configuration names. From here on no lease is in
/// force until the node takes it and holds one.
pub(super) fn prepare(
    config: &Config,
    (context, inherited): (&Context, &mut Inherited),
    edge: &Arc<Edge>,
    (purges, events, metrics): (&Arc<Purges>, &Arc<Events>, &Arc<Metrics>),
    tickets: Option<Arc<Tickets>>,
) -> Result<Option<Place>, StartError> {
    let (Some(settings), Some(tickets)) = (&config.mesh, tickets) else { return Ok(None) };
    let links = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("mesh-links")
        .enable_all()
        .build()
        .map_err(StartError::System)?;
    let around = Surroundings {
        purges: Arc::clone(purges),
        events: Arc::clone(events),
        metrics: Arc::clone(metrics),
        localise: localise(vec![Arc::clone(edge)]),
        tickets,
    };
    let address = settings.listen;
    let fail = |error| StartError::Mesh(MeshError::Listen { address, error });
    let socket = match inherited.take(Purpose::Mesh, address).into_iter().next() {
        Some(socket) => socket,
        None => listen(address).map_err(fail)?,
    };
    context.keep(vec![OpenSocket::of(Purpose::Mesh, address, &socket).map_err(fail)?]);
    let seat = (socket, links.handle().clone());
    let mesh = Mesh::prepare(settings, &config.node, around, seat).map_err(StartError::Mesh)?;
    Ok(Some(Place { mesh, links }))
}

/// What selectors of other nodes mean to these edges.
fn localise(edges: Vec<Arc<Edge>>) -> Localise {
    let names = |edge: &Arc<Edge>| edge.site_names().map(Arc::clone).collect::<HashSet<_>>();
    let known: Vec<_> = edges.iter().map(names).collect();
    Arc::new(move |selector| {
        let unknown = by_name_alone(&selector)
            .filter(|site| known.iter().any(|known| !known.contains(*site)))
            .map(Arc::clone);
        Local { selectors: localised(&edges, selector), unknown }
    })
}

/// The site of a selector in which nothing but its name leads to it.
fn by_name_alone(said: &Selector) -> Option<&Arc<str>> {
    match said {
        Selector::Tag { site, .. } | Selector::Glob { site, .. } | Selector::Site { site } => {
            Some(site)
        }
        Selector::Url { .. } | Selector::Prefix { .. } | Selector::Host { .. } | Selector::All => {
            None
        }
    }
}

/// What a selector means to these edges: what it says, and what their configurations make of the
/// same text, where that differs.
fn localised(edges: &[Arc<Edge>], selector: Selector) -> Vec<Selector> {
    let mut all = vec![selector];
    for edge in edges {
        let here = all.first().map(|said| here(edge, said)).unwrap_or_default();
        for one in here {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

/// What this configuration makes of a selector's text. A URL is also taken as it is, in the site that
/// is its host's here: so it was stored where nothing of it was dropped from the key.
fn here(edge: &Edge, said: &Selector) -> Vec<Selector> {
    let (Selector::Url { host, .. } | Selector::Prefix { host, .. } | Selector::Host { host, .. }) =
        said
    else {
        return Vec::new();
    };
    let Some(site) = edge.answering_site(host) else { return Vec::new() };
    match said {
        Selector::Url { target, .. } => {
            let stored = edge.stored_target(host, target.clone());
            let elsewhere = said.site() != Some(&site);
            let targets =
                [elsewhere.then(|| target.clone()), (stored != *target).then_some(stored)];
            let url = |target| {
                let (site, host) = (Arc::clone(&site), host.clone());
                Selector::Url { site, host, target }
            };
            targets.into_iter().flatten().map(url).collect()
        }
        Selector::Prefix { path, .. } => {
            vec![Selector::Prefix { site, host: host.clone(), path: path.clone() }]
        }
        Selector::Host { .. } => vec![Selector::Host { site, host: host.clone() }],
        Selector::Tag { .. } | Selector::Glob { .. } | Selector::Site { .. } | Selector::All => {
            Vec::new()
        }
    }
}

impl Shared {
    /// Has purges reach what these edges store, those of other nodes, too.
    pub(super) fn localise_by(&self, edges: &[&Arc<Edge>]) {
        let edges: Vec<_> = edges.iter().map(|edge| Arc::clone(edge)).collect();
        if let Some(mesh) = &self.mesh {
            mesh.localise_by(localise(edges.clone()));
        }
        self.storing.store(Arc::new(edges));
    }

    /// What the selectors of a purge mean here: each as it came, and as it is stored.
    pub(super) fn localised(&self, selectors: &[Selector]) -> Vec<Selector> {
        let edges = self.storing.load();
        let local = |selector: &Selector| localised(&edges, selector.clone());
        let mut seen = HashSet::new();
        let all = selectors.iter().flat_map(local);
        all.filter(|selector| seen.insert(selector.clone())).collect()
    }

    /// Other witnesses that the mesh cannot go over to are told before anything has changed.
    pub(super) fn check_witnesses(&self, config: &Config) -> Result<(), StartError> {
        let (Some(mesh), Some(settings)) = (&self.mesh, &config.mesh) else { return Ok(()) };
        mesh.may_reconfigure(settings).map_err(StartError::Witnesses)
    }

    /// Tells the mesh what a configuration says of it that may change while it runs.
    pub(super) fn reconfigure_mesh(&self, config: &Config) {
        let (Some(mesh), Some(settings)) = (&self.mesh, &config.mesh) else { return };
        mesh.reconfigure(settings);
        let Some(Err(error)) = mesh.links().map(|links| links.reload_identity()) else { return };
        tracing::error!(%error, "the mesh goes on with the certificate that it has");
    }
}

impl Shared {
    /// Leaves the place in the mesh to another process: what is answered here from now on is
    /// answered without a lease.
    pub(super) fn leave_mesh(&self) {
        if let Some(mesh) = &self.mesh {
            tracing::info!("the place in the mesh is left to the process that takes over");
            mesh.leave();
        }
    }

    /// Takes it again, since nobody else does.
    pub(super) fn return_to_mesh(&self) {
        let Some(mesh) = &self.mesh else { return };
        while let Err(error) = mesh.take_part() {
            tracing::error!(%error, "the mesh cannot be joined again yet");
            if *self.stop.borrow() {
                return;
            }
            std::thread::sleep(AGAIN);
        }
    }
}

impl Place {
    /// Where peers connect.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.mesh.address()
    }

    /// Takes the place. Where another process had it, this returns when all that it may have known is
    /// known here, so that clients are not sent from one who knows to one who does not.
    pub(super) fn take(&self, after_another: bool) -> Result<(), StartError> {
        self.mesh.take_part().map_err(StartError::Mesh)?;
        let until = clock::now().boot + FIRST_LEASE;
        while after_another && !self.mesh.is_caught_up() {
            if clock::now().boot > until {
                tracing::warn!("no lease yet: this node begins without");
                break;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Leaves the mesh.
    pub(super) fn leave(self) {
        self.mesh.close();
        self.links.shutdown_timeout(Duration::from_millis(100));
    }
}
