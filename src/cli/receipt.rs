//! How a purge stands on the nodes, as a table by PoP, and following it while it comes further.
//!
//! What follows it sends the same purge again, with the same `Idempotency-Key`: it is carried out once,
//! and each answer tells how it stands by then. So nothing but the right to purge is needed.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::client::Answer;
use super::remote::{Remote, plain};
use super::table::{member, rows, table};
use crate::clock;
use crate::config::format_duration;

/// The field that a purge is known again by.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The node answers at least so often, however long is waited.
const SLICE: Duration = Duration::from_millis(400);

/// Pause where the node answers at once that it is not there yet.
const PAUSE: Duration = Duration::from_millis(100);

/// Time for an exchange beside the time that the node waits.
const EXCHANGE: Duration = Duration::from_secs(5);

/// The nodes of a receipt by PoP; nothing where it tells of none.
pub(super) fn nodes(receipt: &Value) -> String {
    const HEAD: [&str; 6] = ["POP", "NODE", "STATE", "AFTER", "MATCHED", "WHY"];
    let all = rows(receipt, "nodes");
    if all.is_empty() {
        return String::new();
    }
    let mut before = String::new();
    let row = |node: &Value| {
        let pop = member(node, "pop");
        let shown = if pop == before { String::new() } else { pop.clone() };
        before = pop;
        let why = node.get("why").and_then(Value::as_str).map(plain).unwrap_or_default();
        let (name, state) = (member(node, "name"), member(node, "state"));
        vec![shown, name, state, after(node, "applied_ms"), member(node, "matched"), why]
    };
    let drawn: Vec<Vec<String>> = all.iter().map(row).collect();
    table(&HEAD, drawn) + &summary(receipt)
}

/// How far it has come, in one line.
fn summary(receipt: &Value) -> String {
    let count = |name: &str| receipt.get(name).and_then(Value::as_u64).unwrap_or(0);
    let acknowledged = match receipt.get("acknowledged_ms").and_then(Value::as_f64) {
        Some(_) => format!("acknowledged after {}", after(receipt, "acknowledged_ms")),
        None => "not acknowledged".to_owned(),
    };
    format!(
        "{acknowledged}; {} applied, {} fenced, {} unknown\n",
        count("applied"),
        count("fenced"),
        count("unknown")
    )
}

fn after(value: &Value, name: &str) -> String {
    let time = value.get(name).and_then(Value::as_f64);
    time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
}

/// Sends a purge until it has come as far as its `wait` says, or for `most`, and draws how it
/// stands. Gives the last answer.
pub(super) fn follow(
    remote: &Remote,
    token: &str,
    key: Option<HeaderValue>,
    mut body: Value,
    most: Duration,
) -> Result<Answer, u8> {
    let field = (KEY, key.unwrap_or_else(new_key));
    let slice = most.min(SLICE);
    if let Some(members) = body.as_object_mut() {
        members.insert("timeout".to_owned(), json!(format_duration(slice)));
    }
    let body = body.to_string();
    let deadline = clock::now().boot + most;
    let (mut drawing, mut first) = (Drawing::new(), None);
    loop {
        let sent = clock::now().boot;
        let field = Some(field.clone());
        let most = slice + EXCHANGE;
        let answer = remote.send_with("/v1/purge", token, field, body.as_bytes(), most)?;
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        drawing.show(&told);
        let id = told.get("id").cloned();
        // A node that remembers no keys would purge again each time.
        let again = first.get_or_insert_with(|| id.clone()) == &id;
        let late = answer.status == StatusCode::SERVICE_UNAVAILABLE && id.is_some();
        let now = clock::now().boot;
        if !late || !again || now >= deadline {
            return Ok(answer);
        }
        thread::sleep(PAUSE.saturating_sub(now.saturating_sub(sent)));
    }
}

/// A text that no other purge bears.
fn new_key() -> HeaderValue {
    let mut bytes = [0; 8];
    // Without random bytes the clock has to tell two purges of one process apart.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    let number = u64::from_le_bytes(bytes);
    let nanos = clock::now().boot.subsec_nanos();
    let text = format!("atoll-purge-{number:016x}-{:x}-{nanos:x}", std::process::id());
    HeaderValue::try_from(text).unwrap_or_else(|_never| HeaderValue::from_static("atoll-purge"))
}

/// What has been drawn so far: on a terminal one table in its place, elsewhere a line for each thing
/// that changed.
struct Drawing {
    terminal: bool,
    /// Lines on the terminal.
    lines: usize,
    /// State of each node that was told.
    told: BTreeMap<String, String>,
    acknowledged: bool,
}

impl Drawing {
    fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, lines: 0, told: BTreeMap::new(), acknowledged: false }
    }

    fn show(&mut self, receipt: &Value) {
        let text = if self.terminal { self.redrawn(receipt) } else { self.changes(receipt) };
        print!("{text}");
        // Whoever reads it may be gone; the exit code still tells.
        let _ = std::io::stdout().flush();
    }

    /// The table over the one that was there.
    fn redrawn(&mut self, receipt: &Value) -> String {
        let table = nodes(receipt);
        let up = match self.lines {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A\u{1b}[J"),
        };
        self.lines = table.lines().count();
        up + &table
    }

    /// A line for each node whose state is another than before.
    fn changes(&mut self, receipt: &Value) -> String {
        let mut out = String::new();
        for node in rows(receipt, "nodes") {
            let (name, state) = (member(node, "name"), member(node, "state"));
            if self.told.insert(name.clone(), state.clone()).as_ref() == Some(&state) {
                continue;
            }
            let pop = member(node, "pop");
            let why = node.get("why").and_then(Value::as_str).map(plain);
            let more = match (state.as_str(), why) {
                ("applied", _) => format!(" after {}", after(node, "applied_ms")),
                (_, Some(why)) => format!(": {why}"),
                (_, None) => String::new(),
            };
            out.push_str(&format!("{pop} {name} {state}{more}\n"));
        }
        if !self.acknowledged && receipt.get("acknowledged_ms").is_some_and(|ms| !ms.is_null()) {
            self.acknowledged = true;
            out.push_str(&format!("acknowledged after {}\n", after(receipt, "acknowledged_ms")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(pop: &str, name: &str, state: &str) -> Value {
        json!({"pop": pop, "name": name, "state": state, "matched": null,
               "applied_ms": (state == "applied").then_some(12.34),
               "why": (state == "unknown").then_some("link\u{1b}down")})
    }

    fn receipt(states: [&str; 3], acknowledged: Option<f64>) -> Value {
        let [a1, a2, z1] = states;
        let nodes = [node("ams", "a1", a1), node("ams", "a2", a2), node("zrh", "z1", z1)];
        let count = |state: &str| states.iter().filter(|one| **one == state).count();
        json!({"acknowledged_ms": acknowledged, "nodes": nodes, "applied": count("applied"),
               "fenced": count("fenced"), "unknown": count("unknown")})
    }

    #[test]
    fn a_receipt_is_drawn_by_pop() {
        let expected = "\
POP  NODE  STATE    AFTER    MATCHED  WHY
ams  a1    applied  12.3 ms  -
     a2    fenced   -        -
zrh  z1    unknown  -        -        link down
acknowledged after 20.0 ms; 1 applied, 1 fenced, 1 unknown
";
        assert_eq!(nodes(&receipt(["applied", "fenced", "unknown"], Some(20.0))), expected);
        assert!(nodes(&json!({"id": "n.1.2"})).is_empty());
    }

    #[test]
    fn on_a_terminal_the_table_stays_in_its_place() {
        let mut drawing = Drawing { terminal: true, ..Drawing::new() };
        assert!(drawing.redrawn(&receipt(["unknown"; 3], None)).starts_with("POP"));
        let again = drawing.redrawn(&receipt(["applied"; 3], Some(1.0)));
        assert!(again.starts_with("\u{1b}[5A\u{1b}[JPOP"), "{again:?}");
    }

    #[test]
    fn elsewhere_only_what_changed_is_printed() {
        let mut drawing = Drawing { terminal: false, ..Drawing::new() };
        let first = drawing.changes(&receipt(["applied", "unknown", "unknown"], None));
        assert_eq!(
            first,
            "ams a1 applied after 12.3 ms\nams a2 unknown: link down\nzrh z1 unknown: link down\n"
        );
        let second = drawing.changes(&receipt(["applied", "applied", "unknown"], Some(20.0)));
        assert_eq!(second, "ams a2 applied after 12.3 ms\nacknowledged after 20.0 ms\n");
        assert_eq!(
            drawing.changes(&receipt(["applied", "applied", "fenced"], Some(20.0))),
            "zrh z1 fenced\n"
        );
        assert_eq!(drawing.changes(&receipt(["applied", "applied", "fenced"], Some(20.0))), "");
    }

    #[test]
    fn two_purges_have_two_keys() {
        assert_ne!(new_key(), new_key());
    }
}
