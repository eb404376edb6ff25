//! Mixed abuse: all that strangers may send at once, for minutes, and visitors who must not notice.
//!
//! The real program runs with its defaults, but for its memory. Phases of abuse and phases of as much
//! well-formed load take turns; visitors ask all the while, and look at every byte. What must hold:
//!
//! - the process never has more memory than its budget and a tenth;
//! - of a hundred visitors' answers ninety-nine come within twice the time that they take beside the
//!   well-formed load (four times in short runs);
//! - no answer is wrong: not another page, not somebody else's, not what was purged, not made from a
//!   stranger's words; and one of a hundred at most is refused or missing;
//! - in the end all is as it was: descriptors, connections, fills, the step of memory, readiness; nothing
//!   has panicked.
//!
//! ```text
//! cargo test --test abuse                                   20 seconds; two minutes with CI=true
//! cargo test --test abuse -- --ignored --nocapture          ten minutes
//! SEED=1 cargo test --test abuse                            the same acts again
//! ```

#![allow(clippy::unwrap_used, reason = "a test ends where something unforeseen happens")]
#![allow(clippy::indexing_slicing, clippy::panic, reason = "as above")]
#![allow(clippy::cast_possible_truncation, reason = "numbers are small")]
#![expect(clippy::disallowed_methods, reason = "tests measure real time")]

mod acts;
#[path = "../hostile/data.rs"]
#[allow(dead_code, reason = "the judgement of single cases is not asked for here")]
mod data;
#[path = "../hostile/dice.rs"]
mod dice;
mod edge;
#[path = "../hostile/frames.rs"]
#[allow(dead_code, reason = "as above")]
mod frames;
#[path = "../hostile/mutate.rs"]
mod mutate;
mod origin;
mod pages;
mod polite;
mod strangers;
#[path = "../hostile/wire.rs"]
#[allow(dead_code, reason = "as above")]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use acts::{Act, Cases, KINDS};
use edge::{BUDGET, Edge, Metrics};
use origin::Origin;
use pages::{FILMS, HOST, HOT, Versions};
use polite::{Tally, Way};
use wire::{PATIENCE, Wire};

/// Threads of strangers, and what all of them do in a second: as much as leaves a machine of two cores
/// something to spare, for what is measured is the edge and not the want of a processor.
const STRANGERS: usize = 8;
const ACTS_A_SECOND: u32 = if cfg!(debug_assertions) { 60 } else { 120 };

/// Below that an answer counts as quick, however quick it is otherwise: the noise of a busy machine, and what
/// others must wait for a worker that reads a flood without any optimisation.
const QUICK: Duration = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 25 });

/// One of so many visitors may be told to come again: a machine that is busy otherwise makes somebody wait
/// too long for a place at the origin.
const UNANSWERED: usize = 100;

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing but visitors.
    Rest,
    /// As much load as in the phase before, well-formed.
    Good,
    Abuse,
    Over,
}

/// What all threads share.
struct Abuse {
    edge: Edge,
    versions: Arc<Versions>,
    cases: Cases,
    tally: Tally,
    seed: u64,
    /// Of a phase.
    length: Duration,
    phase: AtomicU8,
    done: [AtomicUsize; KINDS],
    behaved: AtomicUsize,
    sampled: AtomicBool,
    most: AtomicU64,
    samples: AtomicUsize,
}

impl Abuse {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Rest,
            1 => Phase::Good,
            2 => Phase::Abuse,
            _ => Phase::Over,
        }
    }

    fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Rest => 0,
            Phase::Good => 1,
            Phase::Abuse => 2,
            Phase::Over => 3,
        };
        self.phase.store(number, Ordering::SeqCst);
    }

    fn over(&self) -> bool {
        self.phase() == Phase::Over
    }

    fn count(&self, act: Act) {
        self.done[act as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn behaved(&self) {
        self.behaved.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at memory ten times a second until told otherwise.
    fn watch(&self) {
        let place = self.edge.place();
        while !self.sampled.load(Ordering::SeqCst) {
            if let Some(bytes) = place.resident() {
                self.most.fetch_max(bytes, Ordering::SeqCst);
                self.samples.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// How long it goes on, and how much slower visitors may be served.
struct Plan {
    rounds: u32,
    length: Duration,
    slower: u32,
}

#[test]
fn mixed_abuse_is_not_noticed() {
    let long = std::env::var("CI").is_ok_and(|text| text == "true");
    let (rounds, seconds) = if long { (6, 10) } else { (2, 4) };
    run(&Plan { rounds, length: Duration::from_secs(seconds), slower: 4 });
}

#[test]
#[ignore = "ten minutes: run by .ci/long"]
fn ten_minutes_of_mixed_abuse_are_not_noticed() {
    run(&Plan { rounds: 15, length: Duration::from_secs(20), slower: 2 });
}

fn run(plan: &Plan) {
    let versions = Arc::<Versions>::default();
    let origin = Origin::start(Arc::clone(&versions));
    let edge = Edge::start(&origin);
    let seed = dice::seed();
    println!("SEED={seed}");
    let abuse = Abuse {
        edge,
        versions,
        cases: Cases::load(),
        tally: Tally::default(),
        seed,
        length: plan.length,
        phase: AtomicU8::new(0),
        done: Default::default(),
        behaved: AtomicUsize::new(0),
        sampled: AtomicBool::new(false),
        most: AtomicU64::new(0),
        samples: AtomicUsize::new(0),
    };
    let mut findings = std::thread::scope(|scope| {
        scope.spawn(|| abuse.watch());
        warm(&abuse);
        let before = Rest::of(&abuse);
        std::thread::scope(|scope| {
            begin(scope, &abuse);
            phases(plan, &abuse);
            abuse.enter(Phase::Over);
        });
        let findings = after(&abuse, &before);
        abuse.sampled.store(true, Ordering::SeqCst);
        findings
    });
    tell(&abuse, &origin);
    findings.extend(judge(plan, &abuse, &origin));
    assert!(findings.is_empty(), "SEED={seed}\n{}", findings.join("\n"));
    let Abuse { mut edge, .. } = abuse;
    assert!(edge.lives(), "the process is gone:\n{}", edge.said());
}

/// What everybody asks for is there, and the store is full: nothing is cheap by being new.
fn warm(abuse: &Abuse) {
    let mut wire = Wire::plain(abuse.edge.plain).unwrap();
    let hot = (0..2 * HOT).map(|turn| format!("/hot/{}", turn % HOT));
    let films = (0..FILMS).map(|film| format!("/film/{film}"));
    for target in hot.chain(films).chain(pages::filling(BUDGET as usize / 10 * 7)) {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        wire.send(head.as_bytes()).unwrap();
        let answer = wire.answer("GET", PATIENCE).unwrap();
        assert_eq!(answer.status, 200, "{target}");
        if answer.field("connection") == Some("close") {
            wire = Wire::plain(abuse.edge.plain).unwrap();
        }
    }
}

/// Visitors and strangers.
fn begin<'scope>(scope: &'scope std::thread::Scope<'scope, '_>, abuse: &'scope Abuse) {
    let period = Duration::from_millis(100);
    let mut number = 0;
    for (tls, keeps, count) in
        [(false, true, 5), (true, true, 2), (false, false, 1), (true, false, 1)]
    {
        for _ in 0..count {
            number += 1;
            let own = number;
            scope.spawn(move || polite::http1(own, Way { tls, keeps }, period, abuse));
        }
    }
    for _ in 0..3 {
        number += 1;
        let own = number;
        scope.spawn(move || polite::http2(own, period, abuse));
    }
    scope.spawn(move || polite::publisher(abuse));
    let period = Duration::from_secs(1) * STRANGERS as u32 / ACTS_A_SECOND;
    for number in 0..STRANGERS {
        scope.spawn(move || strangers::run(number, period, abuse));
    }
}

/// Abuse and well-formed load take turns, so that what else this machine does meets both alike.
fn phases(plan: &Plan, abuse: &Abuse) {
    for round in 0..plan.rounds {
        for phase in [Phase::Abuse, Phase::Good] {
            let computed = abuse.edge.place().computed();
            abuse.enter(phase);
            std::thread::sleep(plan.length);
            abuse.enter(Phase::Rest);
            let computed = (abuse.edge.place().computed() - computed).as_secs_f64();
            let resident = abuse.edge.place().resident().unwrap_or(0) >> 20;
            let share = computed / plan.length.as_secs_f64() * 100.0;
            let metrics = abuse.edge.metrics();
            println!(
                "round {round}, {phase:?}: {resident} MiB, {share:.0} % of a processor, \
                 {} connections, step {}",
                metrics.sum("atoll_connections_open"),
                metrics.sum("atoll_memory_pressure"),
            );
            // What one phase leaves behind is not held against the next.
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// What is held while nothing goes on.
#[derive(Debug)]
struct Rest {
    /// Descriptors, but for those of the pool of connections to origins and of clients.
    descriptors: f64,
    clients: f64,
    streams: f64,
    fills: f64,
    asked: f64,
    pressure: f64,
}

impl Rest {
    fn of(abuse: &Abuse) -> Self {
        let metrics = abuse.edge.metrics();
        let sum = |name| metrics.sum(name);
        let clients = sum("atoll_connections_open");
        let open = abuse.edge.place().descriptors() as f64;
        Self {
            descriptors: open - sum("atoll_origin_connections_open") - clients,
            clients,
            streams: sum("atoll_http2_streams_open"),
            fills: sum("atoll_fills_open"),
            asked: sum("atoll_origin_in_flight") + sum("atoll_origin_queued"),
            pressure: sum("atoll_memory_pressure"),
        }
    }

    /// Whether all that was taken has been given back.
    fn as_before(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors + 4.0
            && self.clients <= before.clients + 2.0
            && self.streams + self.fills + self.asked == 0.0
            && self.pressure <= before.pressure
    }
}

/// Waits until all is as it was before; what is not.
fn after(abuse: &Abuse, before: &Rest) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let now = Rest::of(abuse);
        if now.as_before(before) {
            println!("all is as before after {:.1?}: {now:?}", begun.elapsed());
            return Vec::new();
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return vec![format!("not as before: {now:?} instead of {before:?}")];
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn tell(abuse: &Abuse, origin: &Origin) {
    let done = |act: &AtomicUsize| act.load(Ordering::SeqCst);
    let Tally { answers, again, purged, .. } = &abuse.tally;
    let metrics = abuse.edge.metrics();
    println!(
        "{} acts of abuse, {} of the well-formed; {} answers looked at, {} of them refusals, {} \
         missing; {} asked again; {} purges; {} requests at origins, {} of them unreadable",
        abuse.done.iter().map(done).sum::<usize>(),
        done(&abuse.behaved),
        done(answers),
        abuse.tally.refused().len(),
        abuse.tally.failed().len(),
        done(again),
        done(purged),
        origin.requests(),
        origin.unreadable(),
    );
    println!(
        "{} connections, {} refused, {} idle ones closed, {} requests, {} refusals, {} glitches, \
         {} connections closed for those, {} evictions",
        metrics.sum("atoll_connections_total"),
        metrics.sum("atoll_connections_refused_total"),
        metrics.sum("atoll_connections_idle_closed_total"),
        metrics.sum("atoll_client_requests_total"),
        metrics.sum("atoll_refusals_total"),
        metrics.sum("atoll_glitches_total"),
        metrics.sum("atoll_glitch_closes_total"),
        metrics.sum("atoll_evictions_total"),
    );
    let (good, abused) = (abuse.tally.p99(Phase::Good), abuse.tally.p99(Phase::Abuse));
    println!(
        "99 of 100 within {:.1?} beside the well-formed ({} answers), within {:.1?} beside abuse ({})",
        good.0, good.1, abused.0, abused.1
    );
    println!(
        "{} MiB at most in {} looks ({} MiB as the system remembers) of {} MiB",
        done_bytes(&abuse.most) >> 20,
        done(&abuse.samples),
        abuse.edge.place().most_resident().unwrap_or(0) >> 20,
        BUDGET >> 20
    );
}

fn done_bytes(bytes: &AtomicU64) -> u64 {
    bytes.load(Ordering::SeqCst)
}

/// What does not hold of all that must.
fn judge(plan: &Plan, abuse: &Abuse, origin: &Origin) -> Vec<String> {
    let mut findings = Vec::new();
    let most = done_bytes(&abuse.most).max(abuse.edge.place().most_resident().unwrap_or(0));
    if most > BUDGET / 10 * 11 {
        findings.push(format!("{} MiB of memory", most >> 20));
    }
    let ((good, _), (abused, _)) = (abuse.tally.p99(Phase::Good), abuse.tally.p99(Phase::Abuse));
    if abused > good.max(QUICK) * plan.slower {
        findings.push(format!("99 of 100 within {abused:.1?} instead of {good:.1?}"));
    }
    let (wrong, failed) = (abuse.tally.wrong(), abuse.tally.failed());
    if !wrong.is_empty() {
        findings.push(format!("{} wrong answers:\n{}", wrong.len(), few(&wrong)));
    }
    let none: Vec<String> = failed.into_iter().chain(abuse.tally.refused()).collect();
    let all = abuse.tally.answers.load(Ordering::SeqCst);
    if none.len() * UNANSWERED > all {
        findings.push(format!("{} of {all} had no page:\n{}", none.len(), few(&none)));
    }
    if origin.unreadable() > 0 {
        findings.push(format!("{} unreadable requests at an origin", origin.unreadable()));
    }
    let idle = abuse.done.iter().any(|done| done.load(Ordering::SeqCst) == 0);
    if idle {
        findings.push("some kind of act was never done".to_owned());
    }
    findings.extend(health(&abuse.edge.metrics(), &abuse.edge));
    findings
}

fn few(all: &[String]) -> String {
    all.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
}

fn health(metrics: &Metrics, edge: &Edge) -> Vec<String> {
    let mut findings = Vec::new();
    let never = ["atoll_panics_total", "atoll_background_panics_total", "atoll_workers_stuck"];
    for name in never {
        if metrics.sum(name) > 0.0 {
            findings.push(format!("{name} is {}", metrics.sum(name)));
        }
    }
    let said = edge.said();
    if let Some(line) = said.lines().find(|line| line.contains("panicked")) {
        findings.push(line.to_owned());
    }
    let ready = edge.manage("GET", "/readyz", "").map(|answer| answer.status);
    if ready != Some(200) {
        findings.push(format!("readiness is {ready:?}"));
    }
    findings
}
