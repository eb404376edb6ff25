//! Drives the public HTTP cache tests (cache-tests.fyi) through the real binary.
//!
//! `open.json` is the open part of that suite, unchanged; its licence stands beside it. The table
//! in `docs/conformance.md` is written by `UPDATE=1 cargo test --test conformance`, and is held
//! against the outcome otherwise.

#![allow(clippy::unwrap_used, reason = "a test ends where something unforeseen happens")]
#![expect(clippy::disallowed_methods, reason = "tests measure real time")]

mod data;
mod edge;
mod http2;
mod origin;
mod report;
mod run;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use data::{Category, Kind, Test};
use origin::Origin;
use run::Failure;

/// Tests under way at once; most of their time is waiting.
const SIDE_BY_SIDE: usize = 64;

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    Yes,
    No,
    Setup,
    Dependency,
    Timeout,
}

impl Verdict {
    fn succeeded(self) -> bool {
        matches!(self, Self::Pass | Self::Yes)
    }
}

/// Verdicts by test, with what was seen.
type Verdicts = BTreeMap<String, (Verdict, String)>;

fn load() -> Vec<Category> {
    serde_json::from_str(include_str!("open.json")).unwrap()
}

/// Runs every test, side by side.
fn run_all(categories: &[Category], edge: &impl edge::Reach, origin: &Origin) -> Verdicts {
    let only = std::env::var("ONLY").ok();
    let tests: VecDeque<&Test> = categories
        .iter()
        .flat_map(|category| &category.tests)
        .filter(|test| only.as_ref().is_none_or(|only| test.id.contains(only.as_str())))
        .collect();
    let queue = Mutex::new(tests);
    let outcomes = Mutex::new(BTreeMap::new());
    let salt = format!("{:04x}{:x}", std::process::id() & 0xffff, edge.number());
    std::thread::scope(|scope| {
        for worker in 0..SIDE_BY_SIDE {
            let (queue, outcomes, salt) = (&queue, &outcomes, &salt);
            scope.spawn(move || {
                let mut count = 0;
                loop {
                    let Some(test) = queue.lock().unwrap().pop_front() else { return };
                    let mut outcome = Ok(());
                    // Times are real: a slow moment of the machine deserves another try.
                    for _ in 0..3 {
                        count += 1;
                        let uuid = format!("{salt:0>8}-{worker:04x}-4000-8000-{count:012x}");
                        outcome = run::run(test, edge, origin, &uuid);
                        if outcome.is_ok() {
                            break;
                        }
                    }
                    outcomes.lock().unwrap().insert(test.id.clone(), outcome);
                }
            });
        }
    });
    judge(categories, &outcomes.into_inner().unwrap())
}

fn judge(categories: &[Category], outcomes: &BTreeMap<String, Result<(), Failure>>) -> Verdicts {
    let tests: BTreeMap<&str, &Test> =
        categories.iter().flat_map(|c| &c.tests).map(|test| (test.id.as_str(), test)).collect();
    let mut verdicts = Verdicts::new();
    for id in outcomes.keys() {
        verdict(id, &tests, outcomes, &mut verdicts);
    }
    verdicts
}

fn verdict(
    id: &str,
    tests: &BTreeMap<&str, &Test>,
    outcomes: &BTreeMap<String, Result<(), Failure>>,
    verdicts: &mut Verdicts,
) -> Verdict {
    if let Some((verdict, _)) = verdicts.get(id) {
        return *verdict;
    }
    let (Some(test), Some(outcome)) = (tests.get(id), outcomes.get(id)) else {
        return Verdict::Pass;
    };
    let met = test.depends_on.iter().all(|id| verdict(id, tests, outcomes, verdicts).succeeded());
    let check = test.kind == Kind::Check;
    let judged = match outcome {
        _ if !met => (Verdict::Dependency, String::new()),
        Ok(()) => (if check { Verdict::Yes } else { Verdict::Pass }, String::new()),
        Err(Failure::Setup(why)) => (Verdict::Setup, why.clone()),
        Err(Failure::Timeout) => (Verdict::Timeout, String::new()),
        Err(Failure::Assertion(why)) => {
            (if check { Verdict::No } else { Verdict::Fail }, why.clone())
        }
    };
    verdicts.insert(id.to_owned(), judged.clone());
    judged.0
}

#[test]
fn the_published_table_is_true() {
    let categories = load();
    let (origin, address) = Origin::start().unwrap();
    if let Ok(peer) = std::env::var("PEER") {
        // Another cache, which its user has started before this origin (see `peers`).
        let peer = edge::Peer(peer.parse().expect("PEER is an address"));
        report::print("peer", &categories, &run_all(&categories, &peer, &origin));
        return;
    }
    let profiles = [edge::Profile::Conformance, edge::Profile::Http2, edge::Profile::Default];
    let run = |profile| {
        let edge = edge::Edge::start(profile, address);
        (profile, run_all(&categories, &edge, &origin))
    };
    let columns = std::thread::scope(|scope| {
        let running = profiles.map(|profile| {
            scope.spawn({
                let run = &run;
                move || run(profile)
            })
        });
        running.map(|column| column.join().unwrap())
    });
    report::hold(&categories, &columns);
}
