//! `POST /v1/upgrade`: another process takes over, or this one goes on.

use std::pin::Pin;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json as value};

use super::auth::whole_node;
use super::problem::Problem;
use super::{Admin, Call, Work, json, reply, reset, unwritten};
use crate::audit::{Act, Written};

/// What came of it, once that is known.
pub type Upgrading = Pin<Box<dyn Future<Output = Result<Upgraded, NotUpgraded>> + Send>>;

/// Another process has taken over.
#[derive(Clone, Debug, Serialize)]
pub struct Upgraded {
    /// Its number.
    pub pid: u32,
    /// The program that it runs.
    pub program: String,
    /// Time until it answered.
    pub took_ms: f64,
}

/// Why this process goes on.
#[derive(Clone, Debug)]
pub struct NotUpgraded {
    /// Word for programs: `ended`, `silent`, `busy`, `draining`, `no-program`, `first-process` or
    /// `internal`.
    pub code: &'static str,
    /// The same for people.
    pub detail: String,
    /// What the new process said last on its standard error.
    pub said: Vec<String>,
}

impl NotUpgraded {
    /// Before the new process said anything.
    #[must_use]
    pub fn new(code: &'static str, detail: &str) -> Self {
        Self { code, detail: detail.to_owned(), said: Vec::new() }
    }

    /// All of it in lines.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.said.iter().map(|line| format!("\n  {line}"));
        lines.fold(self.detail.clone(), |text, line| text + &line)
    }
}

/// `POST /v1/upgrade`
pub(super) fn upgrade(admin: &Admin, call: &Call<'_>) -> Result<Work, Problem> {
    whole_node(call.token)?;
    reset::no_body(call)?;
    let act = call.act("upgrade");
    let upgrading = admin.control.upgrade(&call.token.name);
    Ok(Work::Later(Box::pin(async move {
        match upgrading.await {
            Ok(done) => {
                let act = act.with("pid", done.pid).with("program", &*done.program);
                Work::Acted(act, Box::new(move |written| answer(&done, written)))
            }
            Err(why) => {
                let act: Act = act.outcome("refused").with("why", why.code);
                Work::Acted(act, Box::new(move |_written| refusal(&why)))
            }
        }
    })))
}

fn answer(done: &Upgraded, written: Written) -> super::Reply {
    #[derive(Serialize)]
    struct Done<'a> {
        upgraded: bool,
        #[serde(flatten)]
        done: &'a Upgraded,
        #[serde(skip_serializing_if = "Option::is_none")]
        audit: Option<bool>,
    }
    json(StatusCode::OK, &Done { upgraded: true, done, audit: unwritten(written) })
}

/// Problem details (RFC 9457) with what the new process said.
fn refusal(why: &NotUpgraded) -> super::Reply {
    let status = match why.code {
        "busy" | "no-program" | "first-process" => StatusCode::CONFLICT,
        "ended" => StatusCode::BAD_GATEWAY,
        "silent" => StatusCode::GATEWAY_TIMEOUT,
        "draining" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut body = Map::new();
    body.insert("type".into(), "about:blank".into());
    body.insert("title".into(), status.canonical_reason().unwrap_or("Error").into());
    body.insert("status".into(), status.as_u16().into());
    body.insert("code".into(), why.code.into());
    body.insert("detail".into(), why.detail.as_str().into());
    body.insert("said".into(), value!(why.said));
    reply(status, "application/problem+json", Value::Object(body).to_string() + "\n")
}
