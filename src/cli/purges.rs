//! `atoll purges`.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::DONE;
use super::receipt::nodes;
use super::remote::{Remote, cell, plain, required_token};
use super::table::table;
use crate::replication::Identity;

/// Time for the whole exchange.
const MOST: Duration = Duration::from_secs(10);

/// Selectors that are written out in a row of the list.
const WRITTEN_OUT: usize = 3;

const ABOUT: &str = "Lists what was purged of late: when, by whom, and what it came to";

const MORE: &str = "\
Newest first. MATCHED and FREED are known once a sweep has walked the store, and are lower bounds.
A node remembers as many as admin.purge_history says. One of them is shown with how it stands on each
node of the mesh, where the node that is asked is the one that took it.

Examples:
  atoll purges
  atoll purges --limit 1000 --json
  atoll purges edge-1.5c0ffee5c0ffee00.42       one of them, with more of its selectors
  atoll purges 42                               by its number on the node that is asked

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  done
  1  refused, or no such purge
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Purges {
    /// Id of one purge, as its receipt and the list have it.
    #[arg(value_name = "ID", value_parser = id, conflicts_with = "limit")]
    id: Option<String>,
    /// How many at most [default: 100].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: Option<u32>,
    #[command(flatten)]
    remote: Remote,
}

/// An id goes into a path as it is.
pub(super) fn id(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if let Some(identity) = Identity::parse(text).filter(|_| text.contains('/')) {
        return id(&identity.dotted());
    }
    if text.is_empty() || !text.bytes().all(plain) {
        return Err("an id looks like edge-1.5c0ffee5c0ffee00.42".to_owned());
    }
    Ok(text.to_owned())
}

impl Purges {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let answer = self.remote.ask(&Method::GET, &self.path(), Some(&token), None, MOST)?;
        if !answer.status.is_success() {
            return Ok(self.remote.refused(&answer));
        }
        match serde_json::from_slice::<Value>(&answer.body) {
            Ok(value) if !self.remote.json => {
                let text = match self.id {
                    Some(_) => one(&value) + &nodes(&value),
                    None => list(&value),
                };
                print!("{text}");
            }
            _ => self.remote.print_raw(&answer),
        }
        Ok(DONE)
    }

    fn path(&self) -> String {
        match (&self.id, self.limit) {
            (Some(id), _) => format!("/v1/purges/{id}"),
            (None, Some(limit)) => format!("/v1/purges?limit={limit}"),
            (None, None) => "/v1/purges".to_owned(),
        }
    }
}

/// A row for each purge, in columns as wide as what stands in them.
fn list(value: &Value) -> String {
    const HEAD: [&str; 8] =
        ["TIME", "ID", "TOKEN", "FROM", "MODE", "MATCHED", "FREED", "SELECTORS"];
    let none = Vec::new();
    let purges = value.get("purges").and_then(Value::as_array).unwrap_or(&none);
    if purges.is_empty() {
        return "nothing was purged of late\n".to_owned();
    }
    let row = |purge: &Value| {
        let text = |name: &str| purge.get(name).map_or_else(String::new, shown);
        let names = ["at", "id", "token", "from", "mode", "matched", "freed"];
        let mut row: Vec<String> = names.into_iter().map(text).collect();
        row.push(selectors(purge, WRITTEN_OUT).join(", "));
        row
    };
    table(&HEAD, purges.iter().map(row))
}

/// A line for each member of one purge.
fn one(purge: &Value) -> String {
    const MEMBERS: [(&str, &str); 13] = [
        ("id", "purge"),
        ("at", "time"),
        ("token", "token"),
        ("from", "from"),
        ("mode", "mode"),
        ("epoch", "epoch"),
        ("state", "state"),
        ("matched", "matched"),
        ("freed", "freed (bytes)"),
        ("/refetch/warm_up", "refetch"),
        ("/refetch/state", "  state"),
        ("/refetch/stored", "  stored"),
        ("/refetch/remaining", "  remaining"),
    ];
    let mut out = String::new();
    for (member, name) in MEMBERS {
        let found = if member.starts_with('/') { purge.pointer(member) } else { purge.get(member) };
        if let Some(value) = found {
            out.push_str(&format!("{name:<16}{}\n", cell(value)));
        }
    }
    for selector in selectors(purge, usize::MAX) {
        out.push_str(&format!("{:<16}{selector}\n", "selector"));
    }
    out
}

/// The first selectors in words, and how many more there are.
pub(super) fn selectors(purge: &Value, most: usize) -> Vec<String> {
    let text = |selector: &Value, name: &str| {
        selector.get(name).and_then(Value::as_str).map(plain).unwrap_or_default()
    };
    let none = Vec::new();
    let listed = purge.get("selectors").and_then(Value::as_array).unwrap_or(&none);
    let mut out: Vec<String> = listed
        .iter()
        .take(most)
        .map(|selector| {
            let (kind, value) = (text(selector, "kind"), text(selector, "value"));
            format!("{kind} {value}").trim_end().to_owned()
        })
        .collect();
    let count = purge.get("count").and_then(Value::as_u64).unwrap_or(0);
    let more = count.saturating_sub(out.len() as u64);
    if more > 0 {
        out.push(format!("and {more} more"));
    }
    out
}

/// One value; what is not known yet is a dash.
fn shown(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { cell(value) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn purges() -> Value {
        json!({"purges": [
            {"id": "n.1.12", "epoch": 13, "at": "2026-01-02T03:04:05.678Z", "token": "deploy",
             "from": "127.0.0.1", "mode": "soft", "matched": null, "freed": null, "count": 5,
             "selectors": [{"kind": "tag", "site": "s", "value": "a"}, {"kind": "all"},
                           {"kind": "url", "value": "h/\u{1b}x"}, {"kind": "tag", "value": "d"}]},
            {"id": "n.1.2", "at": "2026-01-02T03:04:04.000Z", "token": "ci", "from": "::1",
             "mode": "hard", "matched": 1200, "freed": 5, "count": 1,
             "selectors": [{"kind": "site", "value": "shop"}]},
        ]})
    }

    #[test]
    fn purges_become_a_table() {
        let expected = "\
TIME                      ID      TOKEN   FROM       MODE  MATCHED  FREED  SELECTORS
2026-01-02T03:04:05.678Z  n.1.12  deploy  127.0.0.1  soft  -        -      tag a, all, url h/ x, and 2 more
2026-01-02T03:04:04.000Z  n.1.2   ci      ::1        hard  1200     5      site shop
";
        assert_eq!(list(&purges()), expected);
        assert_eq!(list(&json!({"purges": []})), "nothing was purged of late\n");
    }

    #[test]
    fn one_purge_becomes_lines() {
        let expected = "\
purge           n.1.12
time            2026-01-02T03:04:05.678Z
token           deploy
from            127.0.0.1
mode            soft
epoch           13
matched         not known yet
freed (bytes)   not known yet
selector        tag a
selector        all
selector        url h/ x
selector        tag d
selector        and 1 more
";
        assert_eq!(one(&purges()["purges"][0]), expected);
    }

    #[test]
    fn an_id_cannot_leave_its_path() {
        for text in ["", "a/b", "a?b", "a b", "a\r\nb"] {
            assert!(id(text).is_err(), "{text:?}");
        }
        assert!(id("edge-1.5c0ffee5c0ffee00.42").is_ok() && id("42").is_ok());
        assert_eq!(id("edge-1/5c0ffee5c0ffee00/42").as_deref(), Ok("edge-1.5c0ffee5c0ffee00.42"));
        assert!(id("a?b/5c0ffee5c0ffee00/42").is_err());
    }
}
