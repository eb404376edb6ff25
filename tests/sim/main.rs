//! The mesh from a seed: the production core in a simulated world, watched from outside.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "all of this is a test; a panic is its way to fail"
)]

mod dice;
mod edge;
mod ending;
mod faults;
mod garbage;
mod machine;
mod network;
mod observer;
mod origin;
mod plan;
mod rows;
mod tally;
mod world;

use atoll::replication::Mutation;
use plan::Plan;
use world::{Planted, World};

#[test]
fn seeds() {
    let from: u64 = std::env::var("SIM_FROM").map_or(0, |text| text.parse().unwrap());
    let count: u64 = std::env::var("SIM_SEEDS").map_or(50, |text| text.parse().unwrap());
    let begun = std::time::Instant::now();
    let mut tally = tally::Tally::default();
    let mut bad = 0;
    for seed in from..from + count {
        let mut world = World::new(Plan::of(seed), Planted::Core(Mutation::None));
        world.run();
        tally.add(&world.tally);
        if let Some(broken) = &world.observer.broken {
            bad += 1;
            if bad <= 5 {
                let text = format!("{broken:?}");
                println!("seed {seed}: {}", &text[..text.len().min(1500)]);
                println!("   {:?}", world.plan.faults);
            }
        }
    }
    println!("{bad} bad of {count} in {:?}; {tally:?}", begun.elapsed());
    assert_eq!(bad, 0);
}
