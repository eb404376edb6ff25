//! This node's place in the mesh, where it has one.
//!
//! The mesh has threads of its own, one that carries the links and one that keeps the protocol's
//! time: whatever the control runtime is busy with, peers are answered and the lease is renewed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::StartError;
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
        localise: localise(edge),
    };
    let mesh = Mesh::open(settings, &config.node, around, &links).map_err(StartError::Mesh)?;
    Ok(Some(Place { mesh, links }))
}

/// What a selector of another node means here: what it says, and what this node's configuration makes
/// of the same text, where that differs.
pub(super) fn localise(edge: &Arc<Edge>) -> Localise {
    let edge = Arc::clone(edge);
    Arc::new(move |selector| {
        let here = match &selector {
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
            Selector::Tag { .. }
            | Selector::Glob { .. }
            | Selector::Site { .. }
            | Selector::All => None,
        };
        let here = here.filter(|here| *here != selector);
        [selector].into_iter().chain(here).collect()
    })
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
