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
mod stories;
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

const CORE: [Mutation; 20] = [
    Mutation::AcknowledgedBeforeMajority,
    Mutation::AcknowledgedOverHole,
    Mutation::DeadReplyCounted,
    Mutation::OnePeerTrusted,
    Mutation::TwoProcessesTwoVotes,
    Mutation::SetChangedInOneStep,
    Mutation::LeaseFromAnswer,
    Mutation::LeaseBeforeCatchUp,
    Mutation::MaximumAcrossIncarnations,
    Mutation::UnknownSkipped,
    Mutation::JumpWithoutReset,
    Mutation::SoftReset,
    Mutation::RetiredForgotten,
    Mutation::GenerationsMixed,
    Mutation::GenerationWithoutReset,
    Mutation::AcknowledgedBeforeDisk,
    Mutation::RelayAgeForgotten,
    Mutation::WallClockIgnored,
    Mutation::RestartNotNoted,
    Mutation::QuestionNumberIgnored,
];

const EDGE: [edge::EdgeBug; 10] = [
    edge::EdgeBug::InsertUnchecked,
    edge::EdgeBug::LeaseAfterLookup,
    edge::EdgeBug::CoarseClock,
    edge::EdgeBug::ClockStopsInSuspend,
    edge::EdgeBug::JoinWithoutLease,
    edge::EdgeBug::FloorAfterRows,
    edge::EdgeBug::NarrowFirst,
    edge::EdgeBug::RevivingNotModified,
    edge::EdgeBug::BornAtArrival,
    edge::EdgeBug::LeaseBeforeEpoch,
];

#[test]
fn planted() {
    let most: u64 = std::env::var("SIM_SEEDS").map_or(100, |text| text.parse().unwrap());
    let core = CORE.into_iter().map(Planted::Core);
    for planted in core.chain(EDGE.into_iter().map(Planted::Edge)) {
        let begun = std::time::Instant::now();
        let found = (0..most).find_map(|seed| {
            let mut world = World::new(Plan::of(seed), planted);
            world.run();
            world.observer.broken.map(|broken| (seed, broken))
        });
        println!("{planted:?} {:?}: {}", begun.elapsed(), format!("{found:?}").chars().take(150).collect::<String>());
    }
}
