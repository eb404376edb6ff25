//! `atoll reload`.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::remote::{Remote, plain, required_token};
use super::table::{member, rows};
use super::{DONE, REFUSED, complain, counted};

/// Time for the whole exchange: certificates are read, and another reload may be under way.
const MOST: Duration = Duration::from_secs(60);

const ABOUT: &str = "Has a node read its configuration anew, and says what changed";

const MORE: &str = "\
All of the new configuration is checked as at a start, certificates included. If anything is wrong
with it, the one before stays in force and every problem is told. Else it is put in force at once:
requests under way end as they began, nothing is cut off, and what is stored stays.

Changes that wait for a restart are marked: they are about memory, sockets and logs.

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope config)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  the configuration is in force
  1  refused: the one before still is
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Reload {
    #[command(flatten)]
    remote: Remote,
}

impl Reload {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let answer =
            self.remote.ask(&Method::POST, "/v1/reload", Some(&token), Some(b"{}"), MOST)?;
        let told: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if !answer.status.is_success() {
            if self.remote.json {
                return Ok(self.remote.refused(&answer));
            }
            let text = told.as_ref().and_then(|told| told.get("text")).and_then(Value::as_str);
            let Some(text) = text else { return Ok(self.remote.refused(&answer)) };
            eprintln!("{}\n", lines(text));
            complain("not reloaded: the configuration before stays in force");
            return Ok(REFUSED);
        }
        match told {
            Some(told) if !self.remote.json => print!("{}", done(&told)),
            _ => self.remote.print_raw(&answer),
        }
        Ok(DONE)
    }
}

/// What changed, for a person.
fn done(told: &Value) -> String {
    let mut out = String::new();
    for warning in rows(told, "warnings") {
        let line = warning.get("line").and_then(Value::as_u64);
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        let (file, message) = (member(warning, "file"), member(warning, "message"));
        out += &format!("warning: {file}{line}: {message}\n");
    }
    let changes = rows(told, "changes");
    let mut waiting = 0;
    for change in changes {
        let value = |name: &str| match change.get(name).and_then(Value::as_str) {
            Some(text) => plain(text),
            None => "(nothing)".to_owned(),
        };
        let waits = change.get("waits_for_restart").and_then(Value::as_bool) == Some(true);
        waiting += usize::from(waits);
        let note = if waits { "  WAITS FOR A RESTART" } else { "" };
        out += &format!("{}: {} -> {}{note}\n", member(change, "key"), value("old"), value("new"));
    }
    let changed = match changes.len() {
        0 => "no key changed".to_owned(),
        count => format!("{} changed", counted(count, "key")),
    };
    let waits = match waiting {
        0 => String::new(),
        waiting => format!(", {waiting} of them after a restart"),
    };
    out + &format!("in force: {changed}{waits} (configuration {})\n", member(told, "config"))
}

/// Lines of a text from elsewhere.
fn lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_told_in_lines() {
        let told = json!({
            "config": "00ff",
            "warnings": [{"file": "a.toml", "line": 3, "message": "odd"}],
            "changes": [
                {"key": "site[a].lifetime", "old": "\"1s\"", "new": null, "waits_for_restart": false},
                {"key": "memory.budget", "old": null, "new": "\"2GiB\"", "waits_for_restart": true},
            ],
        });
        let expected = "\
warning: a.toml:3: odd
site[a].lifetime: \"1s\" -> (nothing)
memory.budget: (nothing) -> \"2GiB\"  WAITS FOR A RESTART
in force: 2 keys changed, 1 of them after a restart (configuration 00ff)
";
        assert_eq!(done(&told), expected);
        let none = json!({"config": "00ff", "changes": []});
        assert_eq!(done(&none), "in force: no key changed (configuration 00ff)\n");
    }
}
