//! `atoll status` and `atoll drain`.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::client::Answer;
use super::remote::{Remote, cell, required_token};
use super::{DONE, REFUSED, USAGE, complain};

/// Time for the whole exchange: a health check must not hang.
const MOST: Duration = Duration::from_secs(5);

const STATUS_ABOUT: &str = "Says whether a node is ready, and with a token how it is";

const STATUS_MORE: &str = "\
Without a token only readiness is asked, so that a container's health check needs none.

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read) for more than readiness
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  ready
  1  not ready, or refused
  2  wrong flags
  3  no answer in time
  4  nobody answers";

const DRAIN_ABOUT: &str =
    "Tells a node to stop: it becomes unready, ends what is under way, and leaves";

const DRAIN_MORE: &str = "\
Environment:
  ATOLL_ADMIN_TOKEN   the token (scope drain)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  it drains
  1  refused
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = STATUS_ABOUT, after_help = STATUS_MORE)]
pub(super) struct Status {
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args, Debug)]
#[command(about = DRAIN_ABOUT, after_help = DRAIN_MORE)]
pub(super) struct Drain {
    #[command(flatten)]
    remote: Remote,
}

impl Status {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = self.remote.token().map_err(|error| {
            complain(&error);
            USAGE
        })?;
        let readiness = self.remote.ask(&Method::GET, "/readyz", None, None, MOST)?;
        let code = if readiness.status.is_success() { DONE } else { REFUSED };
        let Some(token) = token else {
            self.print(&readiness);
            return Ok(code);
        };
        let answer = self.remote.ask(&Method::GET, "/v1/status", Some(&token), None, MOST)?;
        if !answer.status.is_success() {
            return Ok(self.remote.refused(&answer));
        }
        self.print(&answer);
        Ok(code)
    }

    fn print(&self, answer: &Answer) {
        match serde_json::from_slice::<Value>(&answer.body) {
            Ok(value) if !self.remote.json => print!("{}", table(&in_lines(value))),
            _ => self.remote.print_raw(answer),
        }
    }
}

/// The same with lease and mesh in a line each.
fn in_lines(mut status: Value) -> Value {
    let Some(mesh) = status.get("mesh").filter(|mesh| mesh.is_object()).cloned() else {
        return status;
    };
    let count = |name: &str| mesh.get(name).and_then(Value::as_u64).unwrap_or(0);
    let held = status.get("lease").and_then(Value::as_bool) == Some(true);
    let lease = match (held, mesh.get("lease_left_ms").and_then(Value::as_f64)) {
        (true, Some(left)) => format!("held, {left:.0} ms left"),
        (true, None) => "held".to_owned(),
        (false, _) => "NONE: what is stored is checked with the origin".to_owned(),
    };
    let others = count("nodes").saturating_sub(1);
    let told = match others {
        0 => "alone".to_owned(),
        _ => format!(
            "{} nodes in {} PoPs, {} of {others} links up, {} purges missing",
            count("nodes"),
            count("pops"),
            count("links_up"),
            count("missing"),
        ),
    };
    if let Some(members) = status.as_object_mut() {
        members.insert("lease".to_owned(), lease.into());
        members.insert("mesh".to_owned(), told.into());
    }
    status
}

impl Drain {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let answer =
            self.remote.ask(&Method::POST, "/v1/drain", Some(&token), Some(b"{}"), MOST)?;
        if !answer.status.is_success() {
            return Ok(self.remote.refused(&answer));
        }
        if self.remote.json {
            self.remote.print_raw(&answer);
        } else {
            println!("draining: {} ends what is under way and leaves", self.remote.admin);
        }
        Ok(DONE)
    }
}

/// A JSON object as lines of name and value; what is nested is indented.
fn table(value: &Value) -> String {
    let mut out = String::new();
    rows(value, 0, &mut out);
    out
}

fn rows(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    let mut row = |name: &str, value: &Value| {
        if value.is_object() || value.is_array() {
            out.push_str(&format!("{indent}{name}\n"));
            rows(value, depth + 1, out);
        } else {
            out.push_str(&format!("{indent}{name:<22}{}\n", shown(value)));
        }
    };
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| row(&super::remote::plain(name), value));
        }
        Value::Array(items) => items.iter().for_each(|item| row("-", item)),
        other => out.push_str(&format!("{indent}{}\n", shown(other))),
    }
}

/// One value; nothing to say is a dash.
fn shown(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { cell(value) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lease_and_mesh_are_a_line_each() {
        let mesh = |nodes, left: Option<f64>| {
            json!({"nodes": nodes, "pops": 3, "links_up": 4,
                                                     "lease_left_ms": left, "missing": 2})
        };
        for (lease, mesh, expected) in [
            (true, mesh(1, None), ("held", "alone")),
            (
                true,
                mesh(6, Some(1200.4)),
                ("held, 1200 ms left", "6 nodes in 3 PoPs, 4 of 5 links up, 2 purges missing"),
            ),
            (
                false,
                mesh(6, None),
                (
                    "NONE: what is stored is checked with the origin",
                    "6 nodes in 3 PoPs, 4 of 5 links up, 2 purges missing",
                ),
            ),
        ] {
            let told = in_lines(json!({"lease": lease, "mesh": mesh}));
            assert_eq!(told, json!({"lease": expected.0, "mesh": expected.1}));
        }
        assert_eq!(in_lines(json!({"ready": true})), json!({"ready": true}));
    }

    #[test]
    fn an_answer_becomes_a_table() {
        let value =
            json!({"node": "n1", "ready": true, "origins": [{"name": "a", "up": 2}], "x": null});
        let expected = "\
node                  n1
origins
  -
    name                  a
    up                    2
ready                 true
x                     -
";
        assert_eq!(table(&value), expected);
    }
}
