//! This node's place in the mesh, where it has one.
//!
//! The mesh has threads of its own, one that carries the links and one that keeps the protocol's
//! time: whatever the control runtime is busy with, peers are answered and the lease is renewed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{Shared, StartError};
use crate::config::Config;
use crate::mesh::{Localise, Mesh, Surroundings};
use crate::proxy::Edge;
use crate::purge::Selector;
use crate::store::{Events, Purges};
use crate::telemetry::Metrics;

/// The mesh with the runtime that carries its links.
pub(super) struct Place {
    pub(super) mesh: Arc<Mesh>,
    links: Runtime,
}

/// Takes the place in the mesh that the configuration names. From here on no lease is in force until
/// the node holds one.
pub(super) fn join(
    config: &Config,
    edge: &Arc<Edge>,
    purges: &Arc<Purges>,
    events: &Arc<Events>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Place>, StartError> {
    let Some(settings) = &config.mesh else { return Ok(None) };
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
    };
    let mesh = Mesh::open(settings, &config.node, around, &links).map_err(StartError::Mesh)?;
    Ok(Some(Place { mesh, links }))
}

/// What a selector of another node means here: what it says, and what the configurations of these
/// edges make of the same text, where that differs.
fn localise(edges: Vec<Arc<Edge>>) -> Localise {
    Arc::new(move |selector| {
        let mut all = vec![selector];
        for edge in &edges {
            let here = all.first().and_then(|said| here(edge, said));
            all.extend(here.filter(|here| !all.contains(here)));
        }
        all
    })
}

/// What this configuration makes of a selector's text.
fn here(edge: &Edge, said: &Selector) -> Option<Selector> {
    match said {
        Selector::Url { site, host, target } => {
            let site = edge.answering_site(host).unwrap_or_else(|| Arc::clone(site));
            let target = edge.stored_target(host, target.clone());
            Some(Selector::Url { site, host: host.clone(), target })
        }
        Selector::Prefix { host, path, .. } => edge
            .answering_site(host)
            .map(|site| Selector::Prefix { site, host: host.clone(), path: path.clone() }),
        Selector::Host { host, .. } => {
            edge.answering_site(host).map(|site| Selector::Host { site, host: host.clone() })
        }
        Selector::Tag { .. } | Selector::Glob { .. } | Selector::Site { .. } | Selector::All => {
            None
        }
    }
}

impl Shared {
    /// Has purges of other nodes reach what these edges store.
    pub(super) fn localise_by(&self, edges: &[&Arc<Edge>]) {
        if let Some(mesh) = &self.mesh {
            mesh.localise_by(localise(edges.iter().map(|edge| Arc::clone(edge)).collect()));
        }
    }

    /// Tells the mesh what a configuration says of it that may change while it runs.
    pub(super) fn reconfigure_mesh(&self, config: &Config) {
        let (Some(mesh), Some(settings)) = (&self.mesh, &config.mesh) else { return };
        mesh.reconfigure(settings);
        let Some(Err(error)) = mesh.links().map(|links| links.reload_identity()) else { return };
        tracing::error!(%error, "the mesh goes on with the certificate that it has");
    }
}

impl Place {
    /// Where peers connect.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.mesh.links().map(|links| links.local_address())
    }

    /// Leaves the mesh.
    pub(super) fn leave(self) {
        self.mesh.close();
        self.links.shutdown_timeout(Duration::from_millis(100));
    }
}
