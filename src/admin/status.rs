//! What a node is doing, for people and for `atoll status`.

use std::collections::BTreeSet;

use http::StatusCode;
use serde::Serialize;

use super::control::{Identity, NodeStatus, Readiness};
use super::problem::Problem;
use super::{Admin, Call, Reply, json};
use crate::mesh::{LinkState, MeshView};
use crate::origin::OriginStatus;

/// `GET /v1/status`
pub(super) fn status(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Status<'a> {
        node: &'a Identity,
        version: &'static str,
        uptime_seconds: f64,
        workers: usize,
        ready: bool,
        #[serde(flatten)]
        readiness: Readiness,
        #[serde(flatten)]
        doing: NodeStatus,
        mesh: Summary,
        sites: Vec<&'a str>,
        origins: Vec<OriginStatus>,
    }
    let readiness = admin.control.readiness();
    let sites = admin.sites.iter().map(|site| &*site.name);
    Ok(json(
        StatusCode::OK,
        &Status {
            node: &admin.identity,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: (call.now.since(admin.started).as_secs_f64() * 1e3).round() / 1e3,
            workers: admin.workers,
            ready: readiness.ready(),
            readiness,
            doing: admin.control.status(),
            mesh: Summary::of(&admin.control.mesh(call.now)),
            sites: sites.filter(|site| call.token.covers_site(site)).collect(),
            origins: seen(admin, call),
        },
    ))
}

/// The mesh in a line.
#[derive(Serialize)]
struct Summary {
    nodes: usize,
    pops: usize,
    links_up: usize,
    /// Time that is left of the lease; `None` where it does not end or is not held.
    lease_left_ms: Option<f64>,
    /// Purges that are known to be missing here.
    missing: u64,
}

impl Summary {
    fn of(mesh: &MeshView) -> Self {
        let pops: BTreeSet<&str> = mesh.nodes.iter().map(|node| node.pop.as_str()).collect();
        let lease = &mesh.lease;
        Self {
            nodes: mesh.nodes.len(),
            pops: pops.len(),
            links_up: mesh.nodes.iter().filter(|node| node.link == LinkState::Up).count(),
            lease_left_ms: (lease.held && lease.left_ms > 0.0).then_some(lease.left_ms),
            missing: mesh.missing,
        }
    }
}

/// `GET /v1/origins`
pub(super) fn origins(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Origins {
        origins: Vec<OriginStatus>,
    }
    Ok(json(StatusCode::OK, &Origins { origins: seen(admin, call) }))
}

/// The origins of the sites that the token covers.
fn seen(admin: &Admin, call: &Call<'_>) -> Vec<OriginStatus> {
    let mut origins = admin.control.origins();
    origins.retain(|origin| {
        call.token.sites.is_empty()
            || admin
                .sites
                .iter()
                .any(|site| site.origin == origin.name && call.token.covers_site(&site.name))
    });
    origins
}
