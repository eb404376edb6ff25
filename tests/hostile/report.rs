//! Counts for `docs/robustness.md`, and what other servers make of the same probes.

use std::collections::BTreeMap;

use crate::data::{self, Case};
use crate::dice::Dice;
use crate::http1::{self, Bench, Observed, Probe};
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

/// What another server did with a probe.
fn verdict(case: &Case, observed: &Observed) -> &'static str {
    let (requests, unfinished) = http1::seen(observed);
    let wanted = case.expect.starts_with("REJ") || case.expect.starts_with("BODY");
    match () {
        () if http1::harmless(observed).is_err() => "harmful",
        () if wanted && !requests.is_empty() => "forwarded",
        () if wanted && unfinished => "begun",
        () => "refused or sound",
    }
}

/// Sends the HTTP/1 cases that are to be refused through another server, one write each, and
/// prints a line of counts; see `peers`.
#[test]
fn peers() {
    if std::env::var_os("PEER").is_none() {
        return;
    }
    let cases = data::load();
    let mut bench = Bench::start();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut dice = Dice(1);
    for (group, case) in grouped(&cases) {
        for message in case.messages() {
            let cut = http1::Cut::Whole;
            let probe = Probe { case, message, cut, over: http1::Over::Plain };
            let observed = bench.observe(&probe, &mut dice);
            let verdict = verdict(case, &observed);
            *counts.entry((group, verdict)).or_default() += 1;
            if std::env::var_os("VERBOSE").is_some() {
                println!("{verdict}: {}", probe.name());
            }
        }
    }
    for group in ["framing", "chunks", "lines", "fields"] {
        let count = |verdict| counts.get(&(group, verdict)).copied().unwrap_or(0);
        println!(
            "peer: {group} {} refused, {} begun, {} forwarded, {} harmful",
            count("refused or sound"),
            count("begun"),
            count("forwarded"),
            count("harmful"),
        );
    }
}

/// The cases that are to be refused, by the file that they stand in.
fn grouped(cases: &[Case]) -> Vec<(&'static str, &Case)> {
    let refused = |case: &&Case| {
        (case.expect.starts_with("REJ") || case.expect.starts_with("BODY")) && case.over.is_none()
    };
    cases.iter().filter(refused).map(|case| (case.file, case)).collect()
}
