//! The mesh from a seed: the production core in a simulated world, watched from outside.
//!
//! ```text
//! SIM_HOURS=50 cargo test --release --test sim     so many simulated cluster-hours; faster to compile
//!                                                 with --manifest-path tests/sim/optimised/Cargo.toml
//! SIM_FROM=17 SIM_SEEDS=1 cargo test --test sim    one seed
//! SIM_PLANTED=1                                    every planted bug anew, within 2,000 seeds
//! SIM_PLANTED=SoftReset                            one of them
//! ```
//!
//! A seed is a cluster of three to seven nodes, a minute of faults, and half a minute to heal. What
//! fails is printed with the faults that are needed for it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "all of this is a test; a panic is its way to fail"
)]

mod clients;
mod dice;
mod disks;
mod edge;
mod ending;
mod faults;
mod garbage;
mod known;
mod machine;
mod network;
mod observer;
mod origin;
mod plan;
mod planted;
mod rows;
mod shrink;
mod stories;
mod tally;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use atoll::replication::Mutation;

use plan::{HEALING, Plan, SECOND, TROUBLE};
use tally::{DEMANDED, Tally, Thing};
use world::Planted;

const SOUND: Planted = Planted::Core(Mutation::None);

/// Seeds that once found something.
const REGRESSIONS: [u64; 19] = [
    1, 3, 23, 45, 125, 202, 226, 264, 356, 516, 791, 11_970, 12_021, 26_860, 37_287, 51_013,
    59_675, 66_068, 74_571,
];

/// Enough seeds that every fault must have happened.
const MANY: u64 = 1_000;

/// Seeds in a plain `cargo test`, unoptimised.
const FEW: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Seeds, as many as wanted.
fn seeds() -> std::ops::Range<u64> {
    let from = number("SIM_FROM").unwrap_or(0);
    let run = (TROUBLE + HEALING) / SECOND;
    let count = number("SIM_HOURS").map(|hours| (hours * 3_600).div_ceil(run));
    from..from + number("SIM_SEEDS").or(count).unwrap_or(FEW)
}

/// Runs seeds on all cores; the failing ones, at most a few, and what happened in all.
fn run_all(seeds: std::ops::Range<u64>, planted: Planted) -> (Vec<u64>, Tally) {
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new((Vec::new(), Tally::default()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let (broken, tally) = shrink::run(&Plan::of(seed), planted);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.1.add(&tally);
                    if broken.is_some() {
                        results.0.push(seed);
                    }
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn no_seed_breaks_a_promise() {
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let (mut bad, tally) = run_all(seeds, SOUND);
    let hours = count * ((TROUBLE + HEALING) / SECOND) / 3_600;
    println!("{count} seeds, {hours} cluster-hours\n{}", tally.told());
    bad.sort_unstable();
    if let Some(first) = bad.first() {
        panic!("{} of {count}: {bad:?}\n{}", bad.len(), shrink::tell(&Plan::of(*first), SOUND));
    }
    assert!(tally.of(Thing::Acknowledged) > count && tally.of(Thing::Hit) > count);
    if count >= MANY {
        let missing: Vec<&str> = (0..DEMANDED)
            .filter(|thing| tally.0[*thing] == 0)
            .map(|thing| tally::NAMES[thing])
            .collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

#[test]
fn what_once_failed_holds() {
    for seed in REGRESSIONS {
        let (broken, _) = shrink::run(&Plan::of(seed), SOUND);
        assert!(broken.is_none(), "{}", shrink::tell(&Plan::of(seed), SOUND));
    }
}

#[test]
fn a_seed_is_one_run() {
    for seed in [5, 11] {
        let (first, second) =
            (shrink::run(&Plan::of(seed), SOUND), shrink::run(&Plan::of(seed), SOUND));
        assert_eq!((first.0, first.1.0), (second.0, second.1.0));
    }
}
