//! One endpoint ten times slower than its fellows, under each policy: what visitors get of it.
//!
//! A simulation of discrete events from a fixed seed, no clock and no threads. Requests come at
//! random moments (Poisson), two thousand a second. Each of five endpoints works on 64 at once and
//! lets the others wait. It takes ten milliseconds on average (exponential), the slow one a hundred.
//! Policies see what they see in life: requests under way, and latencies once answers are there. One
//! request in twenty is for the same URL, for hashing to have something uneven to hash.
//!
//! The table in docs/balancing.md is written by `UPDATE=1 cargo test --lib balance` and held against
//! what comes out now.

use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::balance::laws::{Dice, candidate};
use crate::balance::{Balance, Call, Candidate, PeakEwma, Turn};

const ENDPOINTS: usize = 5;
const AT_ONCE: usize = 64;
/// Requests per second.
const RATE: f64 = 2000.0;
const FAST: f64 = 0.010;
const SLOW: f64 = 0.100;
const REQUESTS: usize = 200_000;
/// Not counted: until then nobody can know that one is slow.
const WARM_UP: usize = 10_000;

/// An endpoint and the requests at it, as the moments of their arrival.
struct Server {
    mean: f64,
    latency: PeakEwma,
    working: usize,
    waiting: VecDeque<f64>,
    turn: u64,
    ring: u64,
    taken: usize,
}

/// An answer that will be there, the earliest the greatest.
#[derive(PartialEq)]
struct Done {
    at: f64,
    server: usize,
    arrived: f64,
}

impl Eq for Done {}

impl PartialOrd for Done {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Done {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.total_cmp(&self.at)
    }
}

/// What came of a run.
struct Outcome {
    /// Latencies in seconds, sorted.
    latencies: Vec<f64>,
    /// Share of requests that the first endpoint took.
    first: f64,
}

impl Outcome {
    fn quantile(&self, percent: usize) -> f64 {
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)]
    }
}

struct World {
    servers: Vec<Server>,
    events: BinaryHeap<Done>,
    dice: Dice,
    turn: u64,
    latencies: Vec<f64>,
}

impl World {
    fn new(first: f64) -> Self {
        let server = |index: usize| Server {
            mean: if index == 0 { first } else { FAST },
            latency: PeakEwma::default(),
            working: 0,
            waiting: VecDeque::new(),
            turn: 0,
            ring: Dice(index as u64 + 100).bits(),
            taken: 0,
        };
        Self {
            servers: (0..ENDPOINTS).map(server).collect(),
            events: BinaryHeap::new(),
            dice: Dice(20_260_101),
            turn: 0,
            latencies: Vec::new(),
        }
    }

    fn run(mut self, policy: Balance) -> Outcome {
        let mut now = 0.0;
        for number in 0..REQUESTS {
            now += self.exponential(1.0 / RATE);
            while self.events.peek().is_some_and(|done| done.at <= now) {
                self.finish();
            }
            if number == WARM_UP {
                self.latencies.clear();
                self.servers.iter_mut().for_each(|server| server.taken = 0);
            }
            let server = self.choose(policy, now);
            self.servers[server].taken += 1;
            self.servers[server].waiting.push_back(now);
            self.work(server, now);
        }
        while !self.events.is_empty() {
            self.finish();
        }
        self.latencies.sort_by(f64::total_cmp);
        let all: usize = self.servers.iter().map(|server| server.taken).sum();
        let first = self.servers[0].taken as f64 / all as f64;
        Outcome { latencies: self.latencies, first }
    }

    fn choose(&mut self, policy: Balance, now: f64) -> usize {
        let boot = Duration::from_secs_f64(now);
        let known = |server: &Server| Candidate {
            latency: server.latency.seconds(boot),
            in_flight: u32::try_from(server.working + server.waiting.len()).unwrap(),
            turn: server.turn,
            ring: server.ring,
            ..candidate()
        };
        let candidates: Vec<Candidate> = self.servers.iter().map(known).collect();
        let popular = self.dice.roll() < 0.05;
        let affinity = if popular { 7 } else { self.dice.bits() };
        let call = Call { draws: self.dice.draws(), turn: self.turn, affinity };
        let chosen = policy.pick(&candidates, &call).unwrap();
        let turn = Turn::after(1, 1.0, candidates[chosen].turn, self.turn);
        self.servers[chosen].turn = turn.endpoint;
        self.turn = turn.set;
        chosen
    }

    /// Begins with the next request that waits, if there is a place.
    fn work(&mut self, server: usize, now: f64) {
        let its = &mut self.servers[server];
        if its.working >= AT_ONCE {
            return;
        }
        let Some(arrived) = its.waiting.pop_front() else { return };
        its.working += 1;
        let mean = its.mean;
        let at = now + self.exponential(mean);
        self.events.push(Done { at, server, arrived });
    }

    fn finish(&mut self) {
        let Done { at, server, arrived } = self.events.pop().unwrap();
        let its = &mut self.servers[server];
        its.working -= 1;
        its.latency.observe(Duration::from_secs_f64(at - arrived), Duration::from_secs_f64(at));
        self.latencies.push(at - arrived);
        self.work(server, at);
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.dice.roll()).ln()
    }
}

const POLICIES: [(&str, Balance); 4] = [
    ("latency", Balance::Latency),
    ("least-requests", Balance::LeastRequests),
    ("hash", Balance::Hash { bound: 1.25 }),
    ("round-robin", Balance::RoundRobin),
];

fn table() -> String {
    let mut text = String::from(
        "| `balance` | median | p99 | p99 with all well | of the requests, the slow one took |\n\
         |---|---|---|---|---|\n",
    );
    for (name, policy) in POLICIES {
        let (well, slow) = (World::new(FAST).run(policy), World::new(SLOW).run(policy));
        let [median, high, high_well] =
            [slow.quantile(50), slow.quantile(99), well.quantile(99)].map(|time| time * 1000.0);
        writeln!(
            text,
            "| {name} | {median:.0} ms | {high:.0} ms | {high_well:.0} ms | {:.1} % |",
            slow.first * 100.0
        )
        .unwrap();
    }
    text
}

#[test]
fn by_latency_a_slow_one_is_hardly_felt() {
    let well = World::new(FAST).run(Balance::Latency);
    let slow = World::new(SLOW).run(Balance::Latency);
    assert!(slow.quantile(99) <= 2.0 * well.quantile(99), "{}", slow.quantile(99));
    assert!(slow.first < 0.02, "{}", slow.first);
    let turns = World::new(SLOW).run(Balance::RoundRobin);
    assert!(turns.quantile(99) > 5.0 * slow.quantile(99), "{}", turns.quantile(99));
}

#[test]
fn the_table_in_the_documents_is_what_comes_out() {
    const BEGIN: &str = "<!-- simulation: written by `UPDATE=1 cargo test --lib balance` -->\n";
    const END: &str = "<!-- end of the simulation -->";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/balancing.md");
    let document = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the table's beginning");
    let (old, after) = rest.split_once(END).expect("the table's end");
    let new = table();
    println!("{new}");
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(&file, format!("{before}{BEGIN}{new}{END}{after}")).unwrap();
    } else {
        assert_eq!(old, new, "write it anew: UPDATE=1 cargo test --lib balance");
    }
}
