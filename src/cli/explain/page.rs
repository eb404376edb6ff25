//! An explanation as a page: the verdict first, then what it rests on.
//!
//! What the page does not know by name it prints all the same, by the unit that a name ends in: a
//! node that is newer than this program has more to tell.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::remote::plain;
use super::ordered::{Json, Object};
use crate::config::format_duration;

/// Width of the names.
const NAMES: usize = 30;

/// The whole page.
pub(super) fn page(told: &Json) -> String {
    let mut out = String::new();
    let Some(sections) = told.object() else { return format!("{}\n", value_text("", told)) };
    let section = |name: &str| sections.get(name).and_then(Json::object);
    if let Some(request) = section("request") {
        let _ = writeln!(out, "{} {}\n", word(request, "method"), word(request, "url"));
    }
    if let Some(decision) = section("decision") {
        verdict(decision, &mut out);
    }
    for (name, content) in &sections.0 {
        match content {
            _ if matches!(name.as_str(), "decision" | "request") => {}
            Json::List(rows) => list(name, rows, &mut out),
            Json::Object(facts) => {
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

fn verdict(decision: &Object, out: &mut String) {
    let decided = word(decision, "decision").to_uppercase();
    let _ = writeln!(out, "  {decided} ({})", word(decision, "reason"));
    let text = word(decision, "text");
    if !text.is_empty() {
        let _ = writeln!(out, "  {text}.");
    }
    let status = word(decision, "cache_status");
    if !status.is_empty() {
        let _ = writeln!(out, "  Cache-Status: {status}");
    }
    let told = ["decision", "reason", "text", "cache_status", "forward", "detail"];
    for (name, value) in decision.0.iter().filter(|(name, _)| !told.contains(&name.as_str())) {
        let _ = writeln!(out, "  {}: {}", title(name), value_text(name, value));
    }
}

fn list(name: &str, rows: &[Json], out: &mut String) {
    let _ = writeln!(out, "\n{}", title(name));
    if rows.is_empty() {
        out.push_str(match name {
            "stored" => "  nothing is stored under this key\n",
            "purges" => "  no purge concerns it\n",
            _ => "  none\n",
        });
    }
    for row in rows {
        let line = match row.object() {
            Some(row) if name == "purges" => purge(row),
            Some(row) => {
                let selected = row.get("selected") == Some(&Json::Flag(true));
                let mark = if selected { "->" } else { " -" };
                format!("{mark} {}", joined(row, &["selected"]))
            }
            None => value_text(name, row),
        };
        let _ = writeln!(out, "  {line}");
    }
}

/// `hard by tag article-17 at epoch 42: applies`.
fn purge(row: &Object) -> String {
    let mut out = format!("{} by {}", word(row, "strength"), word(row, "selector"));
    let names = word(row, "names");
    if !names.is_empty() {
        let _ = write!(out, " {names}");
    }
    if let Some(epoch) = row.get("epoch") {
        let _ = write!(out, " at epoch {}", value_text("epoch", epoch));
    }
    match row.get("applies") {
        Some(Json::Flag(true)) => out.push_str(": applies"),
        Some(Json::Flag(false)) => out.push_str(": older than what is stored"),
        _ => {}
    }
    let rest = joined(row, &["selector", "strength", "names", "epoch", "applies"]);
    if !rest.is_empty() {
        let _ = write!(out, " ({rest})");
    }
    out
}

fn facts_below(facts: &Object, out: &mut String) {
    for (name, value) in &facts.0 {
        let _ = writeln!(out, "  {:<NAMES$}{}", title(name), value_text(name, value));
    }
}

/// Names and values in a line, but for those told already.
fn joined(facts: &Object, told: &[&str]) -> String {
    let rest = facts.0.iter().filter(|(name, _)| !told.contains(&name.as_str()));
    let texts: Vec<String> =
        rest.map(|(name, value)| format!("{} {}", title(name), value_text(name, value))).collect();
    texts.join(", ")
}

/// A name as a person reads it: without its unit, which the value shows.
fn title(name: &str) -> String {
    let units = ["_seconds", "_bytes", "_percent"];
    let bare = units.iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name);
    plain(&bare.replace('_', " "))
}

fn word(facts: &Object, name: &str) -> String {
    plain(facts.text(name))
}

/// A value with the unit that its name ends in.
fn value_text(name: &str, value: &Json) -> String {
    match value {
        Json::Flag(true) => "yes".to_owned(),
        Json::Flag(false) => "no".to_owned(),
        Json::Null => "-".to_owned(),
        Json::Text(text) => plain(text),
        Json::Number(number) if name.ends_with("seconds") => time(*number),
        Json::Number(number) if name.ends_with("_bytes") => size(*number),
        Json::Number(number) if name.ends_with("_chance") => {
            format!("{} %", decimal(number * 100.0))
        }
        Json::Number(number) if name.ends_with("_percent") => format!("{} %", decimal(*number)),
        Json::Number(number) => decimal(*number),
        Json::List(list) => {
            list.iter().map(|value| value_text(name, value)).collect::<Vec<_>>().join("; ")
        }
        Json::Object(object) => joined(object, &[]),
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
    for (unit, power) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let size = f64::from(1_u32 << power);
        if bytes >= size {
            return format!("{:.1} {unit}", bytes / size);
        }
    }
    format!("{bytes} bytes")
}

/// Up to three digits behind the point.
fn decimal(number: f64) -> String {
    let text = format!("{number:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        page(&serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn an_explanation_becomes_a_page() {
        let told = r#"{
            "decision": {
                "decision": "hit", "reason": "fresh", "text": "answered from memory: it is fresh",
                "outcome": "hit", "cache_status": "atoll; hit; ttl=54"
            },
            "request": {"method": "GET", "url": "https://a/b"},
            "site": {"rule": "/", "name": "main"},
            "stored": [
                {"selected": true, "purged": "alive", "vary": "accept-encoding: br",
                 "body_bytes": 2048, "age_seconds": 3.25},
                {"selected": false, "purged": "dead"}
            ],
            "freshness": {"ttl_seconds": -3, "lifetime_seconds": 86400.0, "early_refresh_chance": 0.5},
            "purges": [
                {"selector": "tag", "names": "t", "strength": "hard", "epoch": 4, "applies": true},
                {"selector": "all", "strength": "soft", "epoch": 1, "applies": false, "new": 7}
            ],
            "later": []
        }"#;
        let expected = "\
GET https://a/b

  HIT (fresh)
  answered from memory: it is fresh.
  Cache-Status: atoll; hit; ttl=54
  outcome: hit

site
  rule                          /
  name                          main

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
        assert_eq!(shown(told), expected);
    }

    #[test]
    fn nothing_moves_the_cursor_and_nothing_is_taken_for_granted() {
        let page = shown(
            r#"{"request": {"url": "a\u001b[2Jb"}, "stored": ["x\ny"], "odd": 3, "a\u001b": null,
                "deep": {"a": {"b": [1, {"c_bytes": 2}]}}}"#,
        );
        assert!(!page.contains('\u{1b}') && page.contains("x y") && page.contains("odd: 3"));
        assert!(page.contains("b 1; c 2 bytes"), "{page}");
        assert_eq!(shown("\"a\""), "a\n");
    }
}
