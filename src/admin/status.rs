//! What a node is doing, for people and for `atoll status`.

use http::StatusCode;
use serde::Serialize;

use super::control::{Identity, NodeStatus, Readiness};
use super::problem::Problem;
use super::{Admin, Call, Reply, json};
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
            sites: sites.filter(|site| call.token.covers_site(site)).collect(),
            origins: seen(admin, call),
        },
    ))
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
