//! What of a configuration differs from another, as its author sees it: keys, and what was written.
//!
//! The texts are compared, not what they mean: a default that is written out shows as a change, and
//! that is what was done. Tables in a row are told apart by their names, so that one that moved is not
//! one that changed. Of files that are named, the contents count too. Secrets are compared and never
//! shown.
//!
//! Some keys cannot change while the process lives: memory is divided and sockets are bound once.
//! [`Config::within`] has the rest of a new configuration put in force, and [`WAITS`] says which keys
//! wait for a restart.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Serialize;
use toml::{Table, Value};

use super::certificates::read_file;
use super::{Config, Listener, Mesh, Problem, Problems, Severity};

/// Longest value that is shown, in characters.
const SHOWN: usize = 120;
/// Changes that are told; more are only counted, in one more row.
const TOLD: usize = 1000;
/// Largest file whose content is looked at, in bytes.
const LARGEST: u64 = 1 << 20;

/// Keys, and beginnings of keys that end in a dot, that wait for a restart. Names of tables in a row
/// are left out.
pub(super) const WAITS: [&str; 41] = [
    "node.name",
    "node.pop",
    "node.workers",
    "node.seed",
    "memory.",
    "mesh.",
    "log.",
    "watch.",
    "listener.address",
    "listener.tls",
    "admin.address",
    "admin.audit_log",
    "admin.audit_log_bytes",
    "admin.audit_log_files",
    "admin.events",
    "admin.purge_history",
    "limits.accepts_per_client",
    "limits.coding_jobs",
    "limits.connections",
    "limits.connections_per_client",
    "limits.connections_share_percent",
    "limits.connections_thin_percent",
    "limits.descriptors_reserve",
    "limits.exempt_networks",
    "limits.fills",
    "limits.handshakes_per_client",
    "limits.http2_streams_per_client",
    "limits.memory_bodies_percent",
    "limits.memory_evict_percent",
    "limits.memory_hysteresis_percent",
    "limits.memory_refuse_percent",
    "limits.memory_shed_percent",
    "limits.memory_slow_readers_percent",
    "limits.purge_globs",
    "limits.purge_rows",
    "limits.stored_bytes",
    "limits.uncacheable_keys",
    "limits.uncacheable_memory",
    "limits.variants",
    "limits.watchdog",
    "limits.watchdog_abort",
];

/// Keys among those that change at once nevertheless.
const CHANGES: [&str; 2] = ["mesh.witnesses", "mesh.node.issues"];

/// Last names of keys whose values are secret, or next to it.
const SECRET: [&str; 4] = ["hash", "secret", "token", "password"];

/// Keys that name files which are read when the configuration is.
const FILES: [&str; 6] = ["ca", "certificate", "chain", "key", "secret_file", "token_file"];

/// Members that tell tables in a row apart, the first that there is.
const NAMES: [&str; 6] = ["name", "id", "path", "address", "chain", "status"];

/// What was written, key by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written(BTreeMap<String, String>);

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The key, with the names of the tables that it stands in: `site[shop].lifetime`.
    pub key: String,
    /// What was written before; `None`: nothing.
    pub old: Option<String>,
    /// What is written now; `None`: nothing.
    pub new: Option<String>,
    /// It takes a new process to put it in force.
    pub waits_for_restart: bool,
}

/// One problem of a configuration, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldProblem {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What is wrong, with the key in it.
    pub message: String,
    /// The file.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<usize>,
    /// Column in the line, from 1.
    pub column: Option<usize>,
    /// What would be right.
    pub help: Vec<String>,
}

impl ToldProblem {
    /// A problem that no line is to blame for.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        let message = message.into();
        let (file, line, column, help) = (None, None, None, Vec::new());
        Self { severity: "error", message, file, line, column, help }
    }
}

impl Problems {
    /// All of them, for programs.
    #[must_use]
    pub fn told(&self) -> Vec<ToldProblem> {
        let told = |problem: &Problem| {
            let place = problem.span.as_ref().map(|span| self.place_of(span));
            ToldProblem {
                severity: match problem.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                message: problem.message.clone(),
                file: Some(self.name().to_owned()),
                line: place.map(|(line, _)| line),
                column: place.map(|(_, column)| column),
                help: problem.help.clone(),
            }
        };
        self.list().iter().map(told).collect()
    }
}

impl Written {
    /// What stands in a text that has been read as a configuration. Files are meant from `folder`.
    pub(super) fn of(text: &str, folder: &Path) -> Self {
        let mut rows = BTreeMap::new();
        if let Ok(table) = text.parse::<Table>() {
            flatten(&table, "", folder, &mut rows);
        }
        Self(rows)
    }

    /// What is different in `new`.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut keys: Vec<&String> = self.0.keys().chain(new.0.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let differs = |key: &&&String| self.0.get(**key) != new.0.get(**key);
        let all: Vec<&String> = keys.into_iter().filter(|key| differs(&key)).collect();
        let change = |key: &&String| Change {
            key: (*key).clone(),
            old: self.0.get(*key).map(|value| shown(key, value)),
            new: new.0.get(*key).map(|value| shown(key, value)),
            waits_for_restart: self.waits(new, key),
        };
        let mut changes: Vec<Change> = all.iter().take(TOLD).map(change).collect();
        if all.len() > TOLD {
            let waits_for_restart = all.iter().skip(TOLD).any(|key| self.waits(new, key));
            let key = format!("... and {} more", all.len() - TOLD);
            changes.push(Change { key, old: None, new: None, waits_for_restart });
        }
        changes
    }

    /// What this is known by. Secrets do not count: it is shown to everybody.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for (key, value) in self.0.iter().filter(|(key, _)| !is_secret(key)) {
            for part in [key, value] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part.as_bytes());
            }
        }
        let digest = context.finish();
        digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is written of the nodes of a mesh, without what may change.
    fn roster(&self) -> Vec<(&String, &String)> {
        let of_mesh = |(key, _): &(&String, &String)| {
            let plain = without_names(key);
            plain == "mesh.node.name" || plain == "mesh.node.pop"
        };
        self.0.iter().filter(of_mesh).collect()
    }

    fn waits(&self, new: &Self, key: &str) -> bool {
        let plain = without_names(key);
        if key.starts_with("mesh.") && (CHANGES.contains(&&*plain) || plain.ends_with(" (content)"))
        {
            // A mesh or a node of it that came or went.
            return self.roster() != new.roster();
        }
        // A listener that came or went.
        if let Some(name) = key.strip_prefix("listener[").and_then(|rest| rest.split_once(']')) {
            let address = format!("listener[{}].address", name.0);
            if !(self.0.contains_key(&address) && new.0.contains_key(&address)) {
                return true;
            }
        }
        WAITS.iter().any(|waits| match waits.strip_suffix('.') {
            Some(table) => plain == table || plain.starts_with(waits),
            None => plain == *waits,
        })
    }
}

/// Whether two configurations have the same nodes in a mesh, or neither has one.
fn same_nodes(new: Option<&Mesh>, old: Option<&Mesh>) -> bool {
    new.map(Mesh::roster) == old.map(Mesh::roster)
}

/// A key without what stands in brackets.
fn without_names(key: &str) -> String {
    let (mut plain, mut depth) = (String::new(), 0_usize);
    for letter in key.chars() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            other if depth == 0 => plain.push(other),
            _ => {}
        }
    }
    plain
}

fn flatten(table: &Table, prefix: &str, folder: &Path, rows: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(inner, &key, folder, rows),
            Value::Array(list) if list.first().is_some_and(Value::is_table) => {
                let mut seen: HashMap<String, usize> = HashMap::new();
                for (at, inner) in list.iter().enumerate() {
                    let Value::Table(inner) = inner else { continue };
                    let name = NAMES.iter().find_map(|name| inner.get(*name));
                    let name = name.map_or_else(|| at.to_string(), plain);
                    // Two of one name are told apart by their order.
                    let count = seen.entry(name.clone()).or_default();
                    let row = loop {
                        *count += 1;
                        let row = match *count {
                            1 => format!("{key}[{name}]"),
                            again => format!("{key}[{name}#{again}]"),
                        };
                        if !has_table(rows, &row) {
                            break row;
                        }
                    };
                    flatten(inner, &row, folder, rows);
                }
            }
            value => {
                let page = prefix.ends_with(".error_pages");
                if let Some(digest) = content(name, value, folder, page) {
                    rows.insert(format!("{key} (content)"), digest);
                }
                rows.insert(key, value.to_string());
            }
        }
    }
}

/// Whether a table of this name has been written down.
fn has_table(rows: &BTreeMap<String, String>, name: &str) -> bool {
    let inside = format!("{name}.");
    rows.range(inside.clone()..).next().is_some_and(|(key, _)| key.starts_with(&inside))
}

/// A text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// SHA-256 of the file that a value names, in words.
fn content(name: &str, value: &Value, folder: &Path, page: bool) -> Option<String> {
    let named = FILES.contains(&name) || page;
    let file = value.as_str().filter(|_| named)?;
    let bytes = read_file(&folder.join(file), LARGEST).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    Some(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_secret(key: &str) -> bool {
    let key = key.strip_suffix(" (content)").unwrap_or(key);
    let last = key.rsplit('.').next().unwrap_or(key);
    SECRET.contains(&last) || key.ends_with("_file")
}

fn shown(key: &str, value: &str) -> String {
    if key.ends_with(" (content)") {
        return "(the content of the file)".to_owned();
    }
    if is_secret(key) && !key.ends_with("_file") {
        return "(not shown)".to_owned();
    }
    let mut letters = value.chars();
    let short: String = letters.by_ref().take(SHOWN).collect();
    if letters.next().is_some() { short + "..." } else { short }
}

impl Config {
    /// This configuration as far as it can be put in force in a process that runs `old`: what waits
    /// for a restart is as before.
    #[must_use]
    pub fn within(mut self, old: &Self) -> Self {
        let node = &old.node;
        self.node.name.clone_from(&node.name);
        self.node.pop.clone_from(&node.pop);
        self.node.workers = node.workers;
        self.node.seed = node.seed;
        self.memory = old.memory.clone();
        self.log = old.log.clone();
        self.watch = old.watch;
        self.admin.address = old.admin.address;
        self.admin.audit.clone_from(&old.admin.audit);
        self.admin.events = old.admin.events;
        self.admin.purge_history = old.admin.purge_history;
        self.within_mesh(old.mesh.as_ref());
        self.within_listeners(old);
        self.within_limits(old);
        self
    }

    /// Links are made with the nodes of the start. Among those, others may become witnesses, and purges
    /// may be asked for at others.
    fn within_mesh(&mut self, old: Option<&Mesh>) {
        let new = self.mesh.take();
        let same = same_nodes(new.as_ref(), old);
        self.mesh = old.cloned();
        if let (true, Some(now), Some(new)) = (same, &mut self.mesh, new) {
            now.nodes = new.nodes;
            now.witnesses = new.witnesses;
        }
    }

    /// The sockets stay; what is asked of those who connect may change.
    fn within_listeners(&mut self, old: &Self) {
        let new = std::mem::take(&mut self.listeners);
        let as_now = |(at, before): (usize, &Listener)| {
            // Several may leave the port to the system, and have one address for that.
            let same = |other: &&Listener| other.address == before.address;
            let earlier = old.listeners.iter().take(at).filter(same).count();
            let now = new.iter().filter(same).nth(earlier).unwrap_or(before);
            Listener { address: before.address, tls: before.tls, ..now.clone() }
        };
        self.listeners = old.listeners.iter().enumerate().map(as_now).collect();
    }

    fn within_limits(&mut self, old: &Self) {
        let (new, old) = (&mut self.limits, &old.limits);
        new.accepts_per_client = old.accepts_per_client;
        new.coding_jobs = old.coding_jobs;
        new.connections = old.connections;
        new.connections_per_client = old.connections_per_client;
        new.connections_share_percent = old.connections_share_percent;
        new.connections_thin_percent = old.connections_thin_percent;
        new.descriptors_reserve = old.descriptors_reserve;
        new.exempt_networks.clone_from(&old.exempt_networks);
        new.fills = old.fills;
        new.handshakes_per_client = old.handshakes_per_client;
        new.http2_streams_per_client = old.http2_streams_per_client;
        new.memory_bodies_percent = old.memory_bodies_percent;
        new.memory_evict_percent = old.memory_evict_percent;
        new.memory_hysteresis_percent = old.memory_hysteresis_percent;
        new.memory_refuse_percent = old.memory_refuse_percent;
        new.memory_shed_percent = old.memory_shed_percent;
        new.memory_slow_readers_percent = old.memory_slow_readers_percent;
        new.purge_globs = old.purge_globs;
        new.purge_rows = old.purge_rows;
        new.stored_bytes = old.stored_bytes;
        new.uncacheable_keys = old.uncacheable_keys;
        new.uncacheable_memory = old.uncacheable_memory;
        new.variants = old.variants;
        new.watchdog = old.watchdog;
        new.watchdog_abort = old.watchdog_abort;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &str, new: &str) -> Vec<(String, Option<String>, Option<String>, bool)> {
        let folder = Path::new("");
        let all = Written::of(old, folder).changes(&Written::of(new, folder));
        let row = |c: Change| (c.key, c.old, c.new, c.waits_for_restart);
        all.into_iter().map(row).collect()
    }

    #[test]
    fn keys_are_told_by_the_names_of_their_tables() {
        let site = |name: &str, keys: &str| format!("[[site]]\nname = \"{name}\"\n{keys}\n");
        let (a, b) = (site("a", "lifetime = \"1s\""), site("b", ""));
        let moved = format!("{b}{a}");
        assert_eq!(changes(&format!("{a}{b}"), &moved), []);
        let text = |text: &str| Some(text.to_owned());
        for (old, new, expected) in [
            (
                a.clone(),
                site("a", "lifetime = \"2s\""),
                vec![("site[a].lifetime", text("\"1s\""), text("\"2s\""), false)],
            ),
            (
                a.clone(),
                String::new(),
                vec![
                    ("site[a].lifetime", text("\"1s\""), None, false),
                    ("site[a].name", text("\"a\""), None, false),
                ],
            ),
            (
                "[[admin.token]]\nname = \"t\"\nhash = \"sha256:00\"".to_owned(),
                "[[admin.token]]\nname = \"t\"\nhash = \"sha256:11\"".to_owned(),
                vec![("admin.token[t].hash", text("(not shown)"), text("(not shown)"), false)],
            ),
            (
                "memory.budget = \"1GiB\"".to_owned(),
                "memory.budget = \"2GiB\"".to_owned(),
                vec![("memory.budget", text("\"1GiB\""), text("\"2GiB\""), true)],
            ),
            (
                "[[listener]]\naddress = \"a:1\"\nhttp2 = true".to_owned(),
                "[[listener]]\naddress = \"a:1\"".to_owned(),
                vec![("listener[a:1].http2", text("true"), None, false)],
            ),
            (
                "[[listener]]\naddress = \"a:1\"\nhttp2 = true".to_owned(),
                String::new(),
                vec![
                    ("listener[a:1].address", text("\"a:1\""), None, true),
                    ("listener[a:1].http2", text("true"), None, true),
                ],
            ),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|row| (row.0.to_owned(), row.1, row.2, row.3)).collect();
            assert_eq!(changes(&old, &new), expected);
        }
    }

    #[test]
    fn tables_of_one_name_are_told_apart_by_their_order() {
        let rule = |lifetime: u32| format!("[[rule]]\npath = \"/a\"\nlifetime = \"{lifetime}s\"\n");
        let (one, two) =
            ([rule(1), rule(2), rule(3)].concat(), [rule(1), rule(2), rule(4)].concat());
        let told = |number: u32| Some(format!("\"{number}s\""));
        assert_eq!(
            changes(&one, &two),
            [("rule[/a#3].lifetime".to_owned(), told(3), told(4), false)]
        );
    }

    #[test]
    fn other_witnesses_of_the_same_nodes_need_no_restart() {
        let mesh = |witnesses: &str, nodes: &[(&str, bool)]| {
            let rows = nodes.iter().map(|(name, issues)| {
                format!("[[mesh.node]]\nname = \"{name}\"\npop = \"p\"\nissues = {issues}\n")
            });
            let rows: String = rows.collect();
            format!("[mesh]\nwitnesses = [\"{witnesses}\"]\nlease = \"1s\"\n{rows}")
        };
        let told = |old: &str, new: &str| -> Vec<(String, bool)> {
            changes(old, new).into_iter().map(|(key, _, _, waits)| (key, waits)).collect()
        };
        let row = |key: &str, waits| (key.to_owned(), waits);
        let (one, two) = ([("a", true)], [("a", true), ("b", true)]);
        let old = mesh("a", &two);
        let other = told(&old, &mesh("b", &[("a", true), ("b", false)]));
        assert_eq!(other, [row("mesh.node[b].issues", false), row("mesh.witnesses", false)]);
        let more = told(&mesh("a", &one), &mesh("b", &two));
        assert!(more.contains(&row("mesh.witnesses", true)), "{more:?}");
        assert!(more.iter().all(|(_, waits)| *waits), "{more:?}");
        let paces = told(&old, &old.replace("1s", "2s"));
        assert_eq!(paces, [row("mesh.lease", true)]);
        assert!(told(&old, "").iter().all(|(_, waits)| *waits), "the mesh goes with a restart");
    }

    #[test]
    fn the_digest_tells_configurations_apart_and_nothing_of_secrets() {
        let digest = |text: &str| Written::of(text, Path::new("")).digest();
        let hook = |secret: &str| format!("[[hook]]\nname = \"a\"\nsecret = \"{secret}\"");
        assert_eq!(digest(&hook("one")), digest(&hook("two")));
        assert_ne!(digest(&hook("one")), digest(&hook("one").replace("\"a\"", "\"b\"")));
        assert_eq!(digest("").len(), 16);
    }

    #[test]
    fn what_waits_is_a_key_of_the_reference_and_the_rest_of_them_change_at_once() {
        let reference = include_str!("../../config/reference.toml");
        let names: Vec<&str> = reference
            .lines()
            .filter_map(|line| line.trim_start_matches('#').trim_start().split_once('='))
            .map(|(name, _)| name.trim())
            .collect();
        for waits in WAITS.iter().filter(|waits| !waits.ends_with('.')) {
            let last = waits.rsplit('.').next().unwrap();
            assert!(names.contains(&last), "{waits}");
        }
    }
}
