//! Counts for `docs/robustness.md`.

use std::collections::BTreeMap;

use crate::data;
use crate::http1;
use crate::http2;

/// Cases beside the data: the mutants, the second client of every probe, and a test of protocols.
const BESIDE: [&str; 3] = ["A101", "A102", "B43"];

/// The table between the marks in the documentation.
fn table() -> String {
    let mut rows: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for case in data::load() {
        let name = match (case.group(), case.says.is_some()) {
            ('A', _) => "HTTP/1, of the catalogue",
            (_, false) => "HTTP/1, relatives of those",
            (_, true) => "HTTP/1, answers of origins",
        };
        let row = rows.entry(name).or_default();
        row[0] += 1;
        row[1] += http1::probes(&case).len();
    }
    for case in http2::load() {
        let own = case.id.starts_with('B');
        let name = if own { "HTTP/2, of the catalogue" } else { "HTTP/2, relatives of those" };
        let row = rows.entry(name).or_default();
        row[usize::from(case.otherwise.is_some()) * 2] += 1;
        row[1] += case.probes.len();
    }
    let mut out =
        String::from("| group | cases held | probes | otherwise |\n|---|---:|---:|---:|\n");
    for (name, [held, probes, otherwise]) in &rows {
        out.push_str(&format!("| {name} | {held} | {probes} | {otherwise} |\n"));
    }
    out.push_str(&format!("| HTTP/1, mutants of all of them | 1 | {} | 0 |\n", crate::MUTANTS));
    out
}

#[test]
fn the_published_counts_are_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/robustness.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once("<!-- counts -->\n").unwrap();
    let (own, after) = rest.split_once("<!-- end of counts -->").unwrap();
    if std::env::var_os("UPDATE").is_some() {
        let table = table();
        let text = format!("{before}<!-- counts -->\n{table}<!-- end of counts -->{after}");
        std::fs::write(path, text).unwrap();
    } else {
        assert_eq!(own, table(), "UPDATE=1 cargo test --test hostile writes it anew");
    }
}

#[test]
fn every_case_of_the_catalogue_is_here() {
    let mut ids: Vec<String> = data::load().into_iter().map(|case| case.id).collect();
    ids.extend(http2::load().into_iter().map(|case| case.id));
    ids.extend(BESIDE.map(str::to_owned));
    for id in include_str!("cases/catalogue.txt").split_whitespace() {
        assert!(ids.iter().any(|own| own == id), "{id} is missing");
    }
    let mut once = ids.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "a number stands for one case");
}
