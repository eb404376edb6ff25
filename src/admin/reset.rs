//! What concerns the whole node: emptying its store, and taking it out of service.

use http::StatusCode;
use serde::Serialize;

use super::auth::whole_node;
use super::problem::Problem;
use super::{Admin, Call, Work, json, milliseconds, unwritten};
use crate::clock;

/// `POST /v1/reset`
pub(super) fn reset(admin: &Admin, call: &Call<'_>) -> Result<Work, Problem> {
    #[derive(Serialize)]
    struct Done {
        epoch: u64,
        took_ms: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        audit: Option<bool>,
    }
    whole_node(call.token)?;
    no_body(call)?;
    let epoch = admin.control.reset(call.now);
    tracing::info!(token = %call.token.name, epoch, "the store was emptied");
    let took_ms = milliseconds(clock::now().since(call.now));
    let act = call.act("reset").with("epoch", epoch);
    Ok(Work::Acted(
        act,
        Box::new(move |written| {
            json(StatusCode::OK, &Done { epoch, took_ms, audit: unwritten(written) })
        }),
    ))
}

/// `POST /v1/drain`
pub(super) fn drain(admin: &Admin, call: &Call<'_>) -> Result<Work, Problem> {
    #[derive(Serialize)]
    struct Draining {
        draining: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        audit: Option<bool>,
    }
    whole_node(call.token)?;
    no_body(call)?;
    tracing::info!(token = %call.token.name, "told to drain");
    admin.control.drain(call.now);
    let reply = |written| {
        json(StatusCode::ACCEPTED, &Draining { draining: true, audit: unwritten(written) })
    };
    Ok(Work::Acted(call.act("drain").outcome("begun"), Box::new(reply)))
}

/// A body means that the sender expects something that this does not do.
pub(super) fn no_body(call: &Call<'_>) -> Result<(), Problem> {
    if call.body.trim_ascii().is_empty() || call.body.trim_ascii() == b"{}" {
        return Ok(());
    }
    Err(Problem::bad("body", "this takes no body"))
}
