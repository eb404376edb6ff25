//! `atoll upgrade`.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::remote::{Remote, plain, required_token};
use super::table::{member, rows};
use super::{DONE, REFUSED, complain};

/// Time for the whole exchange: more than `limits.upgrade` may be.
const MOST: Duration = Duration::from_secs(660);

const ABOUT: &str = "Has a node hand over to a new process of the program that is at its path now";

const MORE: &str = "\
Put the new version in the place of the old one first. The new process starts with the arguments of
the old one, reads its configuration, takes over the listening sockets and answers; then the old one
lets its requests end, and leaves. No connection is lost. If the new process fails, or does not
answer within limits.upgrade, the old one goes on untouched.

What is stored is not handed over: the new process begins with an empty cache and new counts.

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope config)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  the new process answers
  1  refused: the old one goes on
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Upgrade {
    #[command(flatten)]
    remote: Remote,
}

impl Upgrade {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let answer =
            self.remote.ask(&Method::POST, "/v1/upgrade", Some(&token), Some(b"{}"), MOST)?;
        let told: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if !answer.status.is_success() {
            let said = told.as_ref().map(said).unwrap_or_default();
            if self.remote.json || said.is_empty() {
                return Ok(self.remote.refused(&answer));
            }
            eprintln!("{said}");
            complain(&told.as_ref().map(|told| member(told, "detail")).unwrap_or_default());
            return Ok(REFUSED);
        }
        match told {
            Some(told) if !self.remote.json => print!("{}", done(&told)),
            _ => self.remote.print_raw(&answer),
        }
        Ok(DONE)
    }
}

/// What the new process said, for a person.
fn said(told: &Value) -> String {
    let lines = rows(told, "said").iter().filter_map(Value::as_str);
    lines.map(|line| format!("  {}\n", plain(line))).collect()
}

fn done(told: &Value) -> String {
    let number = |name: &str| told.get(name).and_then(Value::as_f64).unwrap_or_default();
    format!(
        "process {} ({}) answers after {:.1} s, with an empty cache; the old one drains\n",
        number("pid"),
        member(told, "program"),
        number("took_ms") / 1e3,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_came_of_it_is_told_in_lines() {
        let told = json!({"pid": 77, "program": "/usr/bin/atoll", "took_ms": 1234.0});
        let line = "process 77 (/usr/bin/atoll) answers after 1.2 s, with an empty cache; \
                    the old one drains\n";
        assert_eq!(done(&told), line);
        let told = json!({"detail": "no", "said": ["one", "tw\u{1b}o"]});
        assert_eq!(said(&told), "  one\n  tw o\n");
        assert_eq!(said(&json!({})), "");
    }
}
