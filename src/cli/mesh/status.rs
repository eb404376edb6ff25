//! `atoll mesh status`.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use crate::cli::DONE;
use crate::cli::remote::{Remote, required_token};
use crate::cli::table::{amount, member, number, rows, size, table};

/// Time for the whole exchange.
const MOST: Duration = Duration::from_secs(10);

const ABOUT: &str = "Shows the nodes, their links, this node's lease and what it has applied";

const MORE: &str = "\
LAG is how many purges of that node are known to be missing here, MEMBER what the failure detector
believes; no promise depends on that. A * stands at the node that was asked, a W at the witnesses.

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read, for all sites)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  done
  1  refused
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Status {
    #[command(flatten)]
    remote: Remote,
}

impl Status {
    pub(super) fn run(&self) -> u8 {
        show(&self.remote)
    }
}

/// Asks a node and prints what it tells.
pub(super) fn show(remote: &Remote) -> u8 {
    ask(remote).unwrap_or_else(|code| code)
}

fn ask(remote: &Remote) -> Result<u8, u8> {
    let token = required_token(remote)?;
    let answer = remote.ask(&Method::GET, "/v1/mesh", Some(&token), None, MOST)?;
    if !answer.status.is_success() {
        return Ok(remote.refused(&answer));
    }
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(value) if !remote.json => print!("{}", told(&value)),
        _ => remote.print_raw(&answer),
    }
    Ok(DONE)
}

/// The mesh: lines about the node that was asked, the other nodes, what was applied of each.
fn told(mesh: &Value) -> String {
    let mut out = about(mesh);
    out.push('\n');
    out.push_str(&nodes(mesh));
    let sources = rows(mesh, "vector");
    if !sources.is_empty() {
        let row = |source: &Value| {
            ["node", "incarnation", "sequence"].map(|name| member(source, name)).to_vec()
        };
        out.push('\n');
        out.push_str(&table(&["APPLIED OF", "INCARNATION", "UP TO"], sources.iter().map(row)));
    }
    out
}

/// A line for each thing that concerns the node itself.
fn about(mesh: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| out.push_str(&format!("{name:<16}{text}\n"));
    line("node", &format!("{} in {}", member(mesh, "me"), member(mesh, "pop")));
    line("lease", &lease(mesh));
    line("witnesses", &witnesses(mesh));
    line("nodes", &links(mesh));
    line(
        "log",
        &format!(
            "{} records, {}; {} waiting, {} missing",
            amount(number(mesh, "log_records")),
            size(number(mesh, "log_bytes")),
            member(mesh, "waiting"),
            member(mesh, "missing"),
        ),
    );
    if let Some(disk) = mesh.get("disk").filter(|disk| !disk.is_null()) {
        let well = disk.get("healthy").and_then(Value::as_bool) == Some(true);
        let well = if well { "well" } else { "FAILED: this witness acknowledges nothing more" };
        line("disk", &format!("{}, {well}", size(number(disk, "bytes"))));
    }
    if let Some(canary) = mesh.get("canary").filter(|canary| !canary.is_null()) {
        line("canary", &canary_told(canary));
    }
    line("epoch", &member(mesh, "epoch"));
    out
}

/// The last round of the canary in words.
fn canary_told(canary: &Value) -> String {
    let mut out = format!(
        "{} {:.0} s ago; {} rounds, {} broken promises",
        member(canary, "outcome"),
        number(canary, "ended_ms_ago") / 1e3,
        amount(number(canary, "rounds")),
        amount(number(canary, "broken")),
    );
    for node in rows(canary, "nodes").iter().filter(|node| member(node, "state") != "kept") {
        let why = match member(node, "state").as_str() {
            "broken" => format!(
                "showed what was purged, {:.0} ms after the acknowledgement",
                number(node, "old_ms")
            ),
            _ => member(node, "why"),
        };
        out.push_str(&format!("\n{:<16}{}: {why}", "", member(node, "name")));
    }
    out
}

/// The lease in words; `mesh` is an answer of `/v1/mesh`.
fn lease(mesh: &Value) -> String {
    let none = Value::Null;
    let lease = mesh.get("lease").unwrap_or(&none);
    let held = lease.get("held").and_then(Value::as_bool) == Some(true);
    let lost = match lease.get("lost").and_then(Value::as_u64).unwrap_or(0) {
        0 => String::new(),
        1 => "; lost once".to_owned(),
        times => format!("; lost {times} times"),
    };
    let alone = rows(mesh, "nodes").len() < 2;
    match (held, alone) {
        (false, _) => format!("NONE: what is stored is checked with the origin{lost}"),
        (true, true) => "held, as by a node that is alone".to_owned(),
        (true, false) => format!("held, {:.0} ms left{lost}", number(lease, "left_ms")),
    }
}

fn witnesses(mesh: &Value) -> String {
    let none = Value::Null;
    let of = mesh.get("witnesses").unwrap_or(&none);
    let names = |name: &str| {
        let names: Vec<String> = rows(of, name)
            .iter()
            .filter_map(Value::as_str)
            .map(crate::cli::remote::plain)
            .collect();
        names.join(", ")
    };
    let joining = names("joining");
    let joining =
        if joining.is_empty() { String::new() } else { format!("; taking over: {joining}") };
    let serving = of.get("serving").and_then(Value::as_bool) == Some(true);
    let serving = if serving { "; this node counts as one" } else { "" };
    format!("set {}: {}{joining}{serving}", member(of, "set"), names("members"))
}

/// How many nodes and PoPs there are, and how many links are up.
fn links(mesh: &Value) -> String {
    let nodes = rows(mesh, "nodes");
    let mut pops: Vec<&str> =
        nodes.iter().filter_map(|node| node.get("pop").and_then(Value::as_str)).collect();
    pops.sort_unstable();
    pops.dedup();
    let is = |link: &'static str| {
        move |node: &&Value| node.get("link").and_then(Value::as_str) == Some(link)
    };
    let others = nodes.len() - nodes.iter().filter(is("own")).count();
    let up = nodes.iter().filter(is("up")).count();
    format!("{} in {} PoPs, {up} of {others} links up", nodes.len(), pops.len())
}

/// The nodes by PoP, as they come.
fn nodes(mesh: &Value) -> String {
    const HEAD: [&str; 9] = ["POP", "NODE", "", "LINK", "FOR", "RTT", "LAG", "MEMBER", "QUEUED"];
    let me = mesh.get("me");
    let mut before = String::new();
    let row = |node: &Value| {
        let is = |name: &str| node.get(name).and_then(Value::as_bool) == Some(true);
        let own = node.get("name") == me;
        let pop = member(node, "pop");
        let shown = if pop == before { String::new() } else { pop.clone() };
        before = pop;
        let marks =
            format!("{}{}", if own { "*" } else { "" }, if is("witness") { "W" } else { "" });
        let link = match node.get("link").and_then(Value::as_str) {
            Some("own") | None => "-".to_owned(),
            Some("down") => "DOWN".to_owned(),
            Some(link) => crate::cli::remote::plain(link),
        };
        let time = |name: &str| node.get(name).and_then(Value::as_f64);
        let queued = match (number(node, "queued"), number(node, "dropped")) {
            (queued, 0.0) => amount(queued),
            (queued, dropped) => format!("{}, {} dropped", amount(queued), amount(dropped)),
        };
        vec![
            shown,
            member(node, "name"),
            marks,
            link,
            time("up_ms").map_or_else(|| "-".to_owned(), span),
            time("rtt_ms").map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
            member(node, "lag"),
            member(node, "member"),
            queued,
        ]
    };
    let rows: Vec<Vec<String>> = rows(mesh, "nodes").iter().map(row).collect();
    table(&HEAD, rows)
}

/// Milliseconds as a person reads a longer time.
fn span(ms: f64) -> String {
    crate::cli::table::seconds(ms / 1e3)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, pop: &str, link: &str) -> Value {
        json!({"name": name, "pop": pop, "witness": name.ends_with('1'), "link": link, "address": null,
               "up_ms": (link == "up").then_some(75_000.0), "rtt_ms": (link == "up").then_some(12.34),
               "member": if link == "down" { "down" } else { "alive" }, "queued": 0,
               "dropped": if link == "down" { 3 } else { 0 }, "lag": (link == "up").then_some(2)})
    }

    fn mesh() -> Value {
        json!({"me": "a1", "pop": "ams", "epoch": 17,
               "lease": {"held": true, "left_ms": 1234.5, "age_ms": 20.0, "lost": 1},
               "witnesses": {"set": 1, "members": ["a1", "f1", "z1"], "joining": null,
                             "generation": "00ab", "serving": true},
               "nodes": [node("a1", "ams", "own"), node("a2", "ams", "up"),
                         node("f1", "fra", "down"), node("z1", "zrh", "connecting")],
               "vector": [{"node": "a1", "incarnation": "00000000000000ab", "sequence": 12}],
               "log_records": 1200, "log_bytes": 2048, "waiting": 0, "missing": 2,
               "disk": {"healthy": true, "bytes": 4096, "queued": 0},
               "canary": {"outcome": "broken", "ended_ms_ago": 12_300.0, "rounds": 7, "broken": 1,
                          "nodes": [{"name": "a1", "state": "kept", "old_ms": null, "why": null},
                                    {"name": "f1", "state": "unknown", "old_ms": null, "why": "it is gone"},
                                    {"name": "z1", "state": "broken", "old_ms": 2011.0, "why": null}]}})
    }

    #[test]
    fn a_mesh_becomes_tables() {
        let expected = "\
node            a1 in ams
lease           held, 1234 ms left; lost once
witnesses       set 1: a1, f1, z1; this node counts as one
nodes           4 in 3 PoPs, 1 of 3 links up
log             1.2 k records, 2.0 KiB; 0 waiting, 2 missing
disk            4.0 KiB, well
canary          broken 12 s ago; 7 rounds, 1 broken promises
                f1: it is gone
                z1: showed what was purged, 2011 ms after the acknowledgement
epoch           17

POP  NODE      LINK        FOR       RTT      LAG  MEMBER  QUEUED
ams  a1    *W  -           -         -        -    alive   0
     a2        up          1 m 15 s  12.3 ms  2    alive   0
fra  f1    W   DOWN        -         -        -    down    0, 3 dropped
zrh  z1    W   connecting  -         -        -    alive   0

APPLIED OF  INCARNATION       UP TO
a1          00000000000000ab  12
";
        assert_eq!(told(&mesh()), expected);
    }

    #[test]
    fn a_lease_that_is_gone_stands_out() {
        let mut without = mesh();
        without["lease"] = json!({"held": false, "left_ms": 0.0, "age_ms": null, "lost": 3});
        let expected = "NONE: what is stored is checked with the origin; lost 3 times";
        assert_eq!(lease(&without), expected);
        let alone =
            json!({"nodes": [node("a1", "ams", "own")], "lease": {"held": true, "lost": 0}});
        assert_eq!(lease(&alone), "held, as by a node that is alone");
        assert_eq!(links(&alone), "1 in 1 PoPs, 0 of 0 links up");
    }
}
