//! Bugs that are planted on purpose: whoever watches must find each.

use atoll::replication::Mutation;

use super::edge::EdgeBug;
use super::plan::Plan;
use super::shrink;
use super::world::Planted;
use super::{number, run_all};

/// A bug is found within so many seeds.
const SEEDS: u64 = 2_000;

/// Seeds that are looked at together.
const BLOCK: u64 = 40;

/// Every planted bug, with a seed that finds it. A change of the protocol or the simulation moves
/// these; `SIM_PLANTED=1` searches anew.
const BUGS: [(Planted, u64); 30] = [
    (Planted::Core(Mutation::AcknowledgedBeforeMajority), 0),
    (Planted::Core(Mutation::AcknowledgedOverHole), 113),
    (Planted::Core(Mutation::DeadReplyCounted), 38),
    (Planted::Core(Mutation::OnePeerTrusted), 56),
    (Planted::Core(Mutation::TwoProcessesTwoVotes), 38),
    (Planted::Core(Mutation::SetChangedInOneStep), 29),
    (Planted::Core(Mutation::LeaseFromAnswer), 60),
    (Planted::Core(Mutation::LeaseBeforeCatchUp), 0),
    (Planted::Core(Mutation::MaximumAcrossIncarnations), 29),
    (Planted::Core(Mutation::UnknownSkipped), 4),
    (Planted::Core(Mutation::JumpWithoutReset), 7),
    (Planted::Core(Mutation::SoftReset), 34),
    (Planted::Core(Mutation::RetiredForgotten), 150),
    (Planted::Core(Mutation::GenerationsMixed), 11),
    (Planted::Core(Mutation::GenerationWithoutReset), 13),
    (Planted::Core(Mutation::AcknowledgedBeforeDisk), 137),
    (Planted::Core(Mutation::RelayAgeForgotten), 27),
    (Planted::Core(Mutation::WallClockIgnored), 32),
    (Planted::Core(Mutation::RestartNotNoted), 0),
    (Planted::Core(Mutation::QuestionNumberIgnored), 0),
    (Planted::Edge(EdgeBug::InsertUnchecked), 0),
    (Planted::Edge(EdgeBug::LeaseAfterLookup), 0),
    (Planted::Edge(EdgeBug::CoarseClock), 0),
    (Planted::Edge(EdgeBug::ClockStopsInSuspend), 0),
    (Planted::Edge(EdgeBug::JoinWithoutLease), 0),
    (Planted::Edge(EdgeBug::FloorAfterRows), 0),
    (Planted::Edge(EdgeBug::NarrowFirst), 0),
    (Planted::Edge(EdgeBug::RevivingNotModified), 0),
    (Planted::Edge(EdgeBug::BornAtArrival), 0),
    (Planted::Edge(EdgeBug::LeaseBeforeEpoch), 0),
];

/// The first seed that finds the bug.
fn search(planted: Planted) -> Option<u64> {
    let mut blocks = (0..SEEDS).step_by(BLOCK as usize);
    blocks.find_map(|from| run_all(from..from + BLOCK, planted).0.into_iter().min())
}

#[test]
fn every_planted_bug_is_found() {
    let anew = number("SIM_PLANTED").is_some();
    let mut missed = Vec::new();
    for (planted, seed) in BUGS {
        let found = if anew { search(planted) } else { Some(seed) };
        let what = found.and_then(|seed| shrink::run(&Plan::of(seed), planted).0);
        let found = found.filter(|_| what.is_some());
        let what: String = format!("{what:?}").chars().take(120).collect();
        println!("{planted:?}: {found:?} {what}");
        if found.is_none() {
            missed.push(planted);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?} (SIM_PLANTED=1 searches {SEEDS} seeds)");
}
