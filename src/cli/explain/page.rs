//! An explanation as a page: the verdict first, then what it rests on.
//!
//! What the page does not know by name it prints all the same, by the unit that a name ends in: a
//! node that is newer than this program has more to tell.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::remote::plain;
use crate::config::format_duration;

type Members = Map<String, Value>;

/// Width of the names.
const NAMES: usize = 30;

/// The whole page.
pub(super) fn page(told: &Value) -> String {
    let mut out = String::new();
    let Some(sections) = told.as_object() else { return format!("{}\n", value_text("", told)) };
    let section = |name: &str| sections.get(name).and_then(Value::as_object);
    if let Some(request) = section("request") {
        let _ = writeln!(out, "{} {}\n", word(request, "method"), word(request, "url"));
    }
    if let Some(decision) = section("decision") {
        verdict(decision, &mut out);
    }
    for (name, content) in sections {
        match content {
            _ if matches!(name.as_str(), "decision" | "request") => {}
            Value::Array(rows) => list(name, rows, &mut out),
            Value::Object(facts) => {
                let _ = writeln!(out, "\n{}", title(name));
                facts_below(facts, &mut out);
            }
            other => {
                let _ = writeln!(out, "\n{}: {}", title(name), value_text(name, other));
            }
        }
    }
    out
}

fn verdict(decision: &Members, out: &mut String) {
    let word_of = word(decision, "decision");
    let _ = writeln!(out, "  {} ({})", word_of.to_uppercase(), word(decision, "reason"));
    let text = word(decision, "text");
    if !text.is_empty() {
        let _ = writeln!(out, "  {text}.");
    }
    let status = word(decision, "cache_status");
    if !status.is_empty() {
        let _ = writeln!(out, "  Cache-Status: {status}");
    }
    let told = ["decision", "reason", "text", "cache_status", "forward", "detail"];
    let rest = decision.iter().filter(|(name, _)| !told.contains(&name.as_str()));
    for (name, value) in rest {
        let _ = writeln!(out, "  {}: {}", title(name), value_text(name, value));
    }
}

fn list(name: &str, rows: &[Value], out: &mut String) {
    let nothing = match name {
        "stored" => "nothing is stored under this key",
        "purges" => "no purge concerns it",
        _ => "none",
    };
    let _ = writeln!(out, "\n{}", title(name));
    if rows.is_empty() {
        let _ = writeln!(out, "  {nothing}");
    }
    for row in rows {
        match row.as_object() {
            Some(row) if name == "purges" => {
                let _ = writeln!(out, "  {}", purge(row.clone()));
            }
            Some(row) => {
                let selected = row.get("selected") == Some(&Value::Bool(true));
                let mark = if selected { "->" } else { " -" };
                let facts = row.iter().filter(|(name, _)| *name != "selected");
                let _ = writeln!(out, "  {mark} {}", joined(facts));
            }
            None => {
                let _ = writeln!(out, "  {}", value_text(name, row));
            }
        }
    }
}

/// `hard by tag article-17 at epoch 42: applies`.
fn purge(mut row: Members) -> String {
    let mut taken = |name: &str| row.remove(name).map(|value| value_text(name, &value));
    let (selector, strength) = (taken("selector"), taken("strength"));
    let (names, epoch) = (taken("names"), taken("epoch"));
    let applies = row.remove("applies");
    let mut out = format!("{} by {}", strength.unwrap_or_default(), selector.unwrap_or_default());
    if let Some(names) = names {
        let _ = write!(out, " {names}");
    }
    if let Some(epoch) = epoch {
        let _ = write!(out, " at epoch {epoch}");
    }
    match applies {
        Some(Value::Bool(true)) => out.push_str(": applies"),
        Some(Value::Bool(false)) => out.push_str(": older than what is stored"),
        _ => {}
    }
    if !row.is_empty() {
        let _ = write!(out, " ({})", joined(row.iter()));
    }
    out
}

fn facts_below(facts: &Members, out: &mut String) {
    if facts.is_empty() {
        out.push_str("  nothing but defaults\n");
    }
    for (name, value) in facts {
        let _ = writeln!(out, "  {:<NAMES$}{}", title(name), value_text(name, value));
    }
}

fn joined<'a>(facts: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let texts: Vec<String> =
        facts.map(|(name, value)| format!("{} {}", title(name), value_text(name, value))).collect();
    texts.join(", ")
}

/// A name as a person reads it: without its unit, which the value shows.
fn title(name: &str) -> String {
    let units = ["_seconds", "_bytes", "_percent"];
    let bare = units.iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name);
    plain(&bare.replace('_', " "))
}

fn word(facts: &Members, name: &str) -> String {
    facts.get(name).and_then(Value::as_str).map(plain).unwrap_or_default()
}

/// A value with the unit that its name ends in.
fn value_text(name: &str, value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text),
        Value::Number(number) => match number.as_f64() {
            Some(number) if name.ends_with("seconds") => time(number),
            Some(number) if name.ends_with("_bytes") => size(number),
            Some(number) if name.ends_with("_chance") => format!("{} %", decimal(number * 100.0)),
            Some(_) if name.ends_with("_percent") => format!("{number} %"),
            _ => number.to_string(),
        },
        Value::Array(_) | Value::Object(_) => plain(&value.to_string()),
    }
}

/// Seconds; long times by days, hours and minutes, too.
fn time(seconds: f64) -> String {
    let short = format!("{} s", decimal(seconds));
    match Duration::try_from_secs_f64(seconds.abs().round()) {
        Ok(long) if long >= Duration::from_secs(120) => {
            let sign = if seconds < 0.0 { "-" } else { "" };
            format!("{short} ({sign}{})", format_duration(long))
        }
        _ => short,
    }
}

fn size(bytes: f64) -> String {
    for (unit, size) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let size = f64::from(1_u32 << size);
        if bytes >= size {
            return format!("{:.1} {unit}", bytes / size);
        }
    }
    format!("{bytes} bytes")
}

/// Up to three digits behind the point.
fn decimal(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_explanation_becomes_a_page() {
        let told = json!({
            "decision": {
                "decision": "hit", "reason": "fresh", "text": "answered from memory: it is fresh",
                "outcome": "hit", "cache_status": "atoll; hit; ttl=54",
            },
            "request": {"method": "GET", "url": "https://a/b"},
            "site": {"name": "main", "rule": "/"},
            "policy": {},
            "stored": [
                {"selected": true, "purged": "alive", "vary": "accept-encoding: br",
                 "body_bytes": 2048, "age_seconds": 3.25},
                {"selected": false, "purged": "dead"},
            ],
            "freshness": {"ttl_seconds": -3, "lifetime_seconds": 86400.0, "early_refresh_chance": 0.5},
            "purges": [
                {"selector": "tag", "names": "t", "strength": "hard", "epoch": 4, "applies": true},
                {"selector": "all", "strength": "soft", "epoch": 1, "applies": false, "new": 7},
            ],
            "later": [],
        });
        let expected = "\
GET https://a/b

  HIT (fresh)
  answered from memory: it is fresh.
  Cache-Status: atoll; hit; ttl=54
  outcome: hit

site
  name                          main
  rule                          /

policy
  nothing but defaults

stored
  -> purged alive, vary accept-encoding: br, body 2.0 KiB, age 3.25 s
   - purged dead

freshness
  ttl                           -3 s
  lifetime                      86400 s (1d)
  early refresh chance          50 %

purges
  hard by tag t at epoch 4: applies
  soft by all at epoch 1: older than what is stored (new 7)

later
  none
";
        assert_eq!(page(&told), expected);
    }

    #[test]
    fn nothing_moves_the_cursor_and_nothing_is_taken_for_granted() {
        let told = json!({"request": {"url": "a\u{1b}[2Jb"}, "stored": ["x\ny"], "odd": 3});
        let page = page(&told);
        assert!(!page.contains('\u{1b}') && page.contains("x y") && page.contains("odd: 3"));
        assert_eq!(super::page(&json!("a")), "a\n");
    }
}
