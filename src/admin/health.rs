//! What watches over a node asks: is it alive, does it take traffic, what are its numbers.

use http::StatusCode;
use serde::Serialize;

use super::control::Readiness;
use super::{Admin, Reply, json, reply};

/// All metrics in the text format of Prometheus.
pub(super) fn metrics(admin: &Admin) -> Reply {
    let readiness = admin.control.readiness();
    admin.metrics.node.ready.set(readiness.ready().into());
    admin.metrics.node.draining.set(readiness.draining.into());
    admin.control.observe();
    reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", admin.metrics.render())
}

/// 200 as long as the process answers at all.
pub(super) fn alive(_admin: &Admin) -> Reply {
    #[derive(Serialize)]
    struct Alive {
        alive: bool,
    }
    json(StatusCode::OK, &Alive { alive: true })
}

/// 200 or 503 with the reasons. Origins are shown and do not count: a node whose origin is down
/// still answers from memory, and taking it out would move the load to its fellows, who ask the
/// same origin.
pub(super) fn ready(admin: &Admin) -> Reply {
    #[derive(Serialize)]
    struct Ready {
        ready: bool,
        #[serde(flatten)]
        readiness: Readiness,
        origins: Vec<Origin>,
    }
    #[derive(Serialize)]
    struct Origin {
        name: String,
        healthy: bool,
    }
    let readiness = admin.control.readiness();
    let ready = readiness.ready();
    let origins = admin.control.origins().into_iter();
    let body = Ready {
        ready,
        readiness,
        origins: origins
            .map(|origin| Origin { name: origin.name, healthy: origin.healthy })
            .collect(),
    };
    json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}
