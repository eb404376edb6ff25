//! `POST /v1/reload`: the configuration is read anew and put in force, or refused as a whole.

use std::pin::Pin;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json as value};

use super::auth::whole_node;
use super::problem::Problem;
use super::{Admin, Call, Work, json, reply, reset, unwritten};
use crate::audit::{Act, Written};
use crate::config::{Change, ToldProblem};

/// What came of it, once that is known.
pub type Reloading = Pin<Box<dyn Future<Output = Result<Reloaded, NotReloaded>> + Send>>;

/// A configuration that is in force since.
#[derive(Clone, Debug, Serialize)]
pub struct Reloaded {
    /// What it is known by.
    pub config: String,
    /// Keys that changed, in the order of their names.
    pub changes: Vec<Change>,
    /// What is doubtful about it.
    pub warnings: Vec<ToldProblem>,
    /// Time from the first look at the file until it was in force.
    pub took_ms: f64,
}

/// Why the configuration before is still in force.
#[derive(Clone, Debug)]
pub struct NotReloaded {
    /// Word for programs: `no-file`, `draining`, `configuration` or `internal`.
    pub code: &'static str,
    /// All that is wrong with the new one.
    pub problems: Vec<ToldProblem>,
    /// The same for people, with the lines of the file.
    pub text: String,
}

/// `POST /v1/reload`
pub(super) fn reload(admin: &Admin, call: &Call<'_>) -> Result<Work, Problem> {
    whole_node(call.token)?;
    reset::no_body(call)?;
    let act = call.act("reload");
    let reloading = admin.control.reload(&call.token.name);
    Ok(Work::Later(Box::pin(async move {
        match reloading.await {
            Ok(done) => {
                let act = act.with("config", &*done.config).with("changes", names(&done.changes));
                Work::Acted(act, Box::new(move |written| answer(&done, written)))
            }
            Err(why) => {
                let act: Act = act.outcome("refused").with("why", why.code);
                Work::Acted(act, Box::new(move |_written| refusal(&why)))
            }
        }
    })))
}

/// Keys without their values, for the audit log.
fn names(changes: &[Change]) -> Vec<Value> {
    changes.iter().map(|change| Value::from(&*change.key)).collect()
}

fn answer(done: &Reloaded, written: Written) -> super::Reply {
    #[derive(Serialize)]
    struct Done<'a> {
        reloaded: bool,
        #[serde(flatten)]
        done: &'a Reloaded,
        #[serde(skip_serializing_if = "Option::is_none")]
        audit: Option<bool>,
    }
    json(StatusCode::OK, &Done { reloaded: true, done, audit: unwritten(written) })
}

/// Problem details (RFC 9457) with the list of what is wrong.
fn refusal(why: &NotReloaded) -> super::Reply {
    let status = match why.code {
        "configuration" => StatusCode::UNPROCESSABLE_ENTITY,
        "draining" => StatusCode::SERVICE_UNAVAILABLE,
        "no-file" => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let first = why.problems.first().map_or(why.text.as_str(), |problem| &problem.message);
    let detail = match why.code {
        "configuration" => format!("the configuration before stays in force: {first}"),
        _ => first.to_owned(),
    };
    let mut body = Map::new();
    body.insert("type".into(), "about:blank".into());
    body.insert("title".into(), status.canonical_reason().unwrap_or("Error").into());
    body.insert("status".into(), status.as_u16().into());
    body.insert("code".into(), why.code.into());
    body.insert("detail".into(), detail.into());
    body.insert("problems".into(), value!(why.problems));
    body.insert("text".into(), why.text.as_str().into());
    reply(status, "application/problem+json", Value::Object(body).to_string() + "\n")
}
