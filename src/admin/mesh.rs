//! `GET /v1/mesh`: how the mesh looks from this node.

use http::StatusCode;

use super::auth::whole_node;
use super::problem::Problem;
use super::{Admin, Call, Reply, json};

/// `GET /v1/mesh`
pub(super) fn view(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    if call.query.is_some() {
        return Err(Problem::bad("query", "this takes no query"));
    }
    whole_node(call.token)?;
    Ok(json(StatusCode::OK, &admin.control.mesh(call.now)))
}
