//! What strangers may send, driven from data files, against the real binary as it is shipped.
//!
//! `cases/*.toml` hold the HTTP/1 cases, `cases/http2.toml` those of HTTP/2. Each is judged by its
//! harm: at the origin, which records every byte, and at a second client, which shares the
//! origin's connections with the attacker. `docs/robustness.md` counts them.

#![allow(clippy::unwrap_used, reason = "a test ends where something unforeseen happens")]
#![allow(clippy::indexing_slicing, clippy::panic, reason = "as above")]
#![allow(clippy::cast_possible_truncation, reason = "numbers of cases are small")]
#![expect(clippy::disallowed_methods, reason = "tests measure real time")]

mod data;
mod dice;
mod edge;
mod frames;
mod http1;
mod http2;
mod mutants;
mod mutate;
mod origin;
mod peers;
mod reader;
mod report;
mod wire;

use std::collections::VecDeque;
use std::sync::Mutex;

use dice::Dice;
use http1::{Bench, Probe};

/// Edges at work at once.
const BENCHES: usize = 4;

#[test]
fn http1_cases_do_no_harm() {
    let cases = data::load();
    let only = std::env::var("ONLY").unwrap_or_default();
    let probes: VecDeque<Probe<'_>> =
        cases.iter().filter(|case| case.id.starts_with(&only)).flat_map(http1::probes).collect();
    let count = probes.len();
    let seed = dice::seed();
    println!("{} cases, {count} probes, SEED={seed}", cases.len());
    let queue = Mutex::new(probes);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..BENCHES {
            let (queue, failures) = (&queue, &failures);
            scope.spawn(move || {
                let mut bench = Bench::start();
                let mut dice = Dice(seed ^ worker as u64);
                loop {
                    let Some(probe) = queue.lock().unwrap().pop_front() else { break };
                    if let Err(why) = http1::judge(&mut bench, &probe, &mut dice) {
                        failures.lock().unwrap().push(format!("{}\n    {why}", probe.name()));
                    }
                }
                if let Err(why) = bench.origin.agree() {
                    failures.lock().unwrap().push(why);
                }
                println!("slowest control request: {:?}", bench.slowest);
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn http2_cases_do_no_harm() {
    let cases = http2::load();
    let only = std::env::var("ONLY").unwrap_or_default();
    let chosen = cases.iter().filter(|case| case.id.starts_with(&only));
    let queue: Mutex<VecDeque<&http2::Case>> = Mutex::new(chosen.collect());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..BENCHES {
            let (queue, failures) = (&queue, &failures);
            scope.spawn(move || {
                let mut shared = http2::Bench::start(None);
                loop {
                    let Some(case) = queue.lock().unwrap().pop_front() else { break };
                    let begun = std::time::Instant::now();
                    let mut own = case.config().map(|keys| http2::Bench::start(Some(keys)));
                    let bench = own.as_mut().unwrap_or(&mut shared);
                    let found = http2::judge(bench, case);
                    println!("{} {} probes in {:?}", case.id, case.probes.len(), begun.elapsed());
                    let mut failures = failures.lock().unwrap();
                    failures.extend(found);
                    failures.extend(bench.origin.agree().err());
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

/// How many there are unless `MUTANTS` says otherwise.
const MUTANTS: usize = 800;

#[test]
fn mutants_do_no_harm() {
    let cases = data::load();
    let count = std::env::var("MUTANTS").ok().and_then(|text| text.parse().ok());
    let count = count.unwrap_or(MUTANTS);
    let seed = dice::seed();
    println!("{count} mutants, SEED={seed}");
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..BENCHES {
            let (cases, failures) = (&cases, &failures);
            scope.spawn(move || {
                let mut bench = Bench::start();
                let mut dice = Dice(seed ^ (worker as u64 + 100));
                for _ in 0..count / BENCHES {
                    if let Err(why) = mutants::one(&mut bench, cases, &mut dice) {
                        failures.lock().unwrap().push(why);
                    }
                }
                if let Err(why) = bench.origin.agree() {
                    failures.lock().unwrap().push(why);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

/// TLS 1.2 carries HTTP/2, and without ALPN there is HTTP/1: what begins like HTTP/2 is refused.
#[test]
fn b43_protocols_are_those_that_were_agreed_on() {
    let bench = http2::Bench::start(None);
    assert_eq!(bench.status(wire::config(&[b"h2"], &[&rustls::version::TLS12])), Some(200));
    for (bytes, status) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], 505),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 200),
    ] {
        let mut wire = bench.without_protocol();
        wire.send(bytes).unwrap();
        assert_eq!(wire.answer("GET", wire::PATIENCE).unwrap().status, status);
        assert_eq!(wire.end(wire::PATIENCE).1, wire::End::Fin);
    }
}
