//! An operator's word about one address of an origin.

use std::net::SocketAddr;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::auth::whole_node;
use super::problem::Problem;
use super::query::decoded;
use super::{Admin, Call, Work, json, unwritten};
use crate::health::Order;
use crate::origin::{OriginStatus, UnknownEndpoint};

/// `PUT /v1/origins/{origin}/endpoints/{address}`
///
/// It concerns every site that the origin serves, and the load of its other endpoints: not for a
/// token that is bound to sites.
pub(super) fn order(admin: &Admin, call: &Call<'_>) -> Result<Work, Problem> {
    #[derive(Serialize)]
    struct Done {
        #[serde(flatten)]
        origin: OriginStatus,
        #[serde(skip_serializing_if = "Option::is_none")]
        audit: Option<bool>,
    }
    whole_node(call.token)?;
    if call.query.is_some() {
        return Err(Problem::bad("query", "this takes no query"));
    }
    let order = asked(call.body)?;
    let (name, address) = place(call.path)?;
    let status = admin.control.order(&name, address, order).map_err(|unknown| match unknown {
        UnknownEndpoint::Origin => {
            let detail = "there is no origin of this name";
            Problem::new(StatusCode::NOT_FOUND, "unknown-origin", detail)
        }
        UnknownEndpoint::Address => {
            let detail = "the origin has no such address, and has not had it lately";
            Problem::new(StatusCode::NOT_FOUND, "unknown-endpoint", detail)
        }
    })?;
    let state = order.label();
    tracing::warn!(token = %call.token.name, origin = name, %address, state, "operator's order");
    let act = call.act("endpoint");
    let act = act.with("origin", name).with("address", address.to_string()).with("state", state);
    let reply =
        move |written| json(StatusCode::OK, &Done { origin: status, audit: unwritten(written) });
    Ok(Work::Acted(act, Box::new(reply)))
}

fn asked(body: &[u8]) -> Result<Order, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        state: String,
    }
    const DETAIL: &str = r#"the body is {"state": "drain"}, with drain, down or auto"#;
    let asked: Asked =
        serde_json::from_slice(body).map_err(|_unreadable| Problem::bad("body", DETAIL))?;
    Order::parse(&asked.state).ok_or_else(|| Problem::field("state", "state", DETAIL))
}

/// Name of the origin and address, as the path has them.
fn place(path: &str) -> Result<(String, SocketAddr), Problem> {
    let mut segments = path.split('/').skip(3);
    let (name, _, address) = (segments.next(), segments.next(), segments.next());
    let text = |segment: Option<&str>| segment.and_then(decoded).unwrap_or_default();
    let address = text(address).parse().map_err(|_no_address| {
        let detail = "an endpoint is an address with its port: 192.0.2.1:443 or [2001:db8::1]:443";
        Problem::bad("address", detail)
    })?;
    Ok((text(name), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_an_origin_and_an_address() {
        let read = |path: &str| place(path).ok().map(|(name, address)| format!("{name} {address}"));
        for (path, expected) in [
            ("/v1/origins/main/endpoints/192.0.2.1:443", Some("main 192.0.2.1:443")),
            ("/v1/origins/a.b/endpoints/[2001:db8::1]:80", Some("a.b [2001:db8::1]:80")),
            ("/v1/origins/a/endpoints/%5B::1%5D%3A80", Some("a [::1]:80")),
            ("/v1/origins/a/endpoints/192.0.2.1", None),
            ("/v1/origins/a/endpoints/localhost:80", None),
        ] {
            assert_eq!(read(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_body_says_what_is_wanted_and_nothing_else() {
        for (body, expected) in [
            (r#"{"state":"drain"}"#, Ok(Order::Drain)),
            (r#"{"state":"auto"}"#, Ok(Order::Auto)),
            (r#"{"state":"up"}"#, Err("state")),
            (r#"{"state":"down","for":"1h"}"#, Err("body")),
            ("", Err("body")),
        ] {
            let got = asked(body.as_bytes());
            assert_eq!(got.as_ref().map_err(Problem::code).copied(), expected, "{body}");
        }
    }
}
