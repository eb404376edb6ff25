//! Keeps the picture of the house true: imports go down only, the ground stays pure, time is read in
//! one place, and no file grows past what one reads in a sitting.
//!
//! `docs/architecture.md` draws the floors that are checked here.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of this file is a test; a panic is its way to fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor, from the ground up.
const FLOORS: [&[&str]; 6] = [
    &[
        "message",
        "http1",
        "semantics",
        "purge",
        "replication",
        "route",
        "balance",
        "health",
        "hooks",
    ],
    &["config", "telemetry", "clock"],
    &["store", "guard", "audit", "tickets"],
    &["listener", "origin", "mesh"],
    &["proxy", "admin", "canary"],
    &["cli", "app", "main"],
];

/// Neighbours on one floor that know each other: (who imports, whom).
const NEIGHBOURS: [(&str, &str); 8] = [
    ("semantics", "http1"),
    ("purge", "semantics"),
    ("replication", "purge"),
    ("route", "semantics"),
    // An event names how strong its purge is.
    ("hooks", "purge"),
    // What is measured has a row per site and origin of the configuration.
    ("telemetry", "config"),
    // The roof wires everything, itself included.
    ("cli", "app"),
    ("main", "cli"),
];

/// What the ground may not name: runtimes, sockets, locks, dice, registries.
const IMPURE: [&str; 14] = [
    "tokio::",
    "hyper::",
    "hyper_util::",
    "moka::",
    "prometheus::",
    "rustls::",
    "arc_swap::",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::fs::",
    "std::thread",
    "Mutex<",
    "RwLock<",
    "rand::",
];

/// A file is read in one sitting.
const LINES: usize = 600;

/// One source file: where it is and what it says, comments and tests taken out.
struct Source {
    path: PathBuf,
    room: String,
    lines: usize,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 20, "the sources are elsewhere");
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let inside = path.strip_prefix(root).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            found.push(Source {
                room: first.trim_end_matches(".rs").to_owned(),
                lines: text.lines().count(),
                code: if is_test(inside) { String::new() } else { code(&text) },
                path: inside.to_owned(),
            });
        }
    }
}

/// Whether the whole file is tests.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "laws.rs")
}

/// `text` without line comments and without what follows the tests' attribute, which stands at the
/// foot of a file.
fn code(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let foot = lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod "))
        .unwrap_or(lines.len());
    lines[..foot]
        .iter()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| line.split(" // ").next().unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every `crate::a::b` that the code names, as ("a", "b"); grouped imports are taken apart.
fn imports(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        if code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[start + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(members(group).iter().map(|member| pair(member))),
            None => found.push(pair(rest)),
        }
    }
    found
}

/// The members of a group whose opening brace has been read, at its own depth.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut all) = (0_usize, String::new(), Vec::new());
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => all.push(std::mem::take(&mut member)),
            _ => {
                depth = match letter {
                    '{' => depth + 1,
                    '}' => depth - 1,
                    _ => depth,
                };
                member.push(letter);
            }
        }
    }
    all.push(member);
    all.iter().map(|member| member.trim().to_owned()).filter(|member| !member.is_empty()).collect()
}

/// The first name of a path, and what follows it.
fn pair(path: &str) -> (String, String) {
    let first: String =
        path.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    let rest = path[first.len()..].strip_prefix("::").unwrap_or("");
    (first, rest.chars().take(40).collect())
}

fn floors() -> BTreeMap<&'static str, usize> {
    FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor)))
        .collect()
}

/// Whether `room` may name `crate::other::rest`.
fn allowed(room: &str, other: &str, rest: &str) -> bool {
    let floors = floors();
    let (Some(&from), Some(&to)) = (floors.get(room), floors.get(other)) else {
        return false;
    };
    match other {
        _ if room == other => true,
        "message" => true,
        // The ground is handed the time; only the type is known there.
        "clock" if from == 0 => rest.starts_with("Now"),
        "clock" => true,
        _ => to < from || NEIGHBOURS.contains(&(room, other)),
    }
}

#[test]
fn every_room_has_a_floor() {
    let floors = floors();
    for source in sources() {
        let known = source.room == "lib" || floors.contains_key(source.room.as_str());
        assert!(known, "{} stands on no floor", source.path.display());
    }
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.room != "lib") {
        for (other, rest) in imports(&source.code) {
            if !allowed(&source.room, &other, &rest) {
                wrong.push(format!("{}: crate::{other}", source.path.display()));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "imports that do not go down:\n{}", wrong.join("\n"));
}

#[test]
fn the_ground_is_pure() {
    let mut wrong = Vec::new();
    for source in sources() {
        if FLOORS[0].contains(&source.room.as_str()) {
            for word in IMPURE.iter().filter(|word| source.code.contains(**word)) {
                wrong.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "the ground names what does or waits:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_clock_reads_time() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.room != "clock") {
        // A runtime's instant is a deadline for its timers, not a time; doors wait by it.
        let timers = source.code.contains("tokio::time");
        for word in ["SystemTime::now", "std::time::Instant", "clock_gettime"] {
            if source.code.contains(word) {
                wrong.push(format!("{}: {word}", source.path.display()));
            }
        }
        if source.code.contains("Instant::now") && !timers {
            wrong.push(format!("{}: Instant::now", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "time is read outside clock.rs:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_outgrows_a_sitting() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.lines > LINES)
        .map(|source| format!("{}: {} lines", source.path.display(), source.lines))
        .collect();
    assert!(long.is_empty(), "over {LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn main_is_short() {
    let sources = sources();
    let main = sources.iter().find(|source| source.room == "main").unwrap();
    assert!(main.lines <= 40);
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths() {
    let code = code(
        "use crate::message::{Body, Refusal};\n\
         // use crate::nothing;\n\
         use crate::{clock::Now, store::{a, b}, route};\n\
         let x = crate::config::Limits::default(); // crate::comment\n\
         use my_crate::other;\n\
         #[cfg(test)]\n\
         mod tests { use crate::proxy; }",
    );
    let rooms: Vec<String> = imports(&code).into_iter().map(|(room, _)| room).collect();
    assert_eq!(rooms, ["message", "clock", "store", "route", "config"]);
    assert!(allowed("store", "purge", ""));
    assert!(allowed("purge", "clock", "Now"));
    assert!(!allowed("purge", "clock", "now()"));
    assert!(!allowed("purge", "store", ""));
    assert!(!allowed("listener", "origin", ""));
}

/// Quoted words of the code that begin with `prefix`.
fn quoted(code: &str, prefix: &str) -> Vec<String> {
    code.split('"')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with(prefix))
        .filter(|word| {
            word.chars().all(|letter| letter.is_ascii_lowercase() || "_0123456789".contains(letter))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_metric_is_in_the_operators_book_and_the_other_way_round() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let book = fs::read_to_string(book).unwrap();
    let mut measured: Vec<String> = sources()
        .iter()
        .filter(|source| source.room == "telemetry")
        .flat_map(|source| {
            [quoted(&source.code, "atoll_"), quoted(&source.code, "process_")].concat()
        })
        .collect();
    measured.sort();
    assert!(measured.len() > 30, "the metrics are elsewhere");
    for name in &measured {
        assert!(book.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
    }
    let section = book.split("## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    for name in section.split('`').skip(1).step_by(2).filter(|name| name.starts_with("atoll_")) {
        let name = name.split(' ').next().unwrap().to_owned();
        assert!(
            measured.contains(&name),
            "docs/operations.md names {name}, which nothing measures"
        );
    }
}

/// Names of metrics in a text, those of histograms without what a scrape adds to them.
fn metrics_in(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let ours = |word: &&str| word.starts_with("atoll_") || word.starts_with("process_");
    let bare = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word);
        base.to_owned()
    };
    words.filter(ours).map(bare).collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_that_are_in_the_operators_book() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let book = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let section = book.split("## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    for (file, least) in [("config/alerts.yaml", 15), ("config/grafana.json", 25)] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let mut names = metrics_in(&text);
        names.sort();
        names.dedup();
        assert!(names.len() >= least, "{file} names {} metrics only", names.len());
        for name in &names {
            assert!(section.contains(&format!("`{name}`")), "{file} names {name}");
        }
    }
    let dashboard = fs::read_to_string(root.join("config/grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids: Vec<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
}

/// Bugs can be planted in the protocol core to prove that its simulation finds them. Whoever builds
/// the core for service plants none.
#[test]
fn only_the_simulation_plants_bugs() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.room != "replication") {
        for (at, name) in source.code.match_indices("Mutation::") {
            if !source.code[at + name.len()..].starts_with("None") {
                wrong.push(source.path.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "a bug is planted in {wrong:?}");
}

/// Names and versions of packages in a lock file.
fn locked(file: &str) -> BTreeSet<(String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let packages = text.split("[[package]]").skip(1);
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        line.unwrap().trim_matches('"').to_owned()
    };
    packages.map(|package| (value(package, "name"), value(package, "version"))).collect()
}

/// Another version would be compiled once more for fuzzing alone.
#[test]
fn fuzzing_rests_on_the_versions_that_are_shipped() {
    let (own, shipped) = (locked("fuzz/Cargo.lock"), locked("Cargo.lock"));
    assert!(own.len() > 100, "the lock file is read");
    for package in &own {
        let known = shipped.iter().any(|(name, _)| *name == package.0);
        let same = !known || shipped.contains(package);
        assert!(same, "{package:?}: take Cargo.lock for fuzz/Cargo.lock, and build there");
    }
}

#[test]
fn every_fuzz_target_is_built_and_has_seeds() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(place.join("Cargo.toml")).unwrap();
    let files = fs::read_dir(place.join("fuzz_targets")).unwrap();
    let names: Vec<String> = files
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(names.len() >= 18, "the targets are elsewhere");
    for name in &names {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not built");
        let seeds = fs::read_dir(place.join("corpus").join(name));
        assert!(seeds.is_ok_and(|mut seeds| seeds.next().is_some()), "{name} has no seeds");
    }
}
