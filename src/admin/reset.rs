//! What concerns the whole node: emptying its store, and taking it out of service.

use http::StatusCode;
use serde::Serialize;

use super::auth::whole_node;
use super::problem::Problem;
use super::{Admin, Call, Reply, json, milliseconds};
use crate::clock;

/// `POST /v1/reset`
pub(super) fn reset(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Done {
        epoch: u64,
        took_ms: f64,
    }
    whole_node(call.token)?;
    no_body(call)?;
    let epoch = admin.control.reset(call.now);
    tracing::info!(token = %call.token.name, epoch, "the store was emptied");
    let took_ms = milliseconds(clock::now().since(call.now));
    Ok(json(StatusCode::OK, &Done { epoch, took_ms }))
}

/// `POST /v1/drain`
pub(super) fn drain(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Draining {
        draining: bool,
    }
    whole_node(call.token)?;
    no_body(call)?;
    tracing::info!(token = %call.token.name, "told to drain");
    admin.control.drain(call.now);
    Ok(json(StatusCode::ACCEPTED, &Draining { draining: true }))
}

/// A body means that the sender expects something that this does not do.
fn no_body(call: &Call<'_>) -> Result<(), Problem> {
    if call.body.trim_ascii().is_empty() || call.body.trim_ascii() == b"{}" {
        return Ok(());
    }
    Err(Problem::bad("body", "this takes no body"))
}
