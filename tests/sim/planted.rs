//! Bugs that are planted on purpose: whoever watches must find each.

use atoll::replication::Mutation;

use super::edge::EdgeBug;
use super::plan::Plan;
use super::run_all;
use super::shrink;
use super::world::Planted;

/// A bug is found within so many seeds.
const SEEDS: u64 = 2_000;

/// Seeds that are looked at together.
const BLOCK: u64 = 40;

/// Every planted bug, with a seed that finds it. A change of the protocol or the simulation moves
/// these; `SIM_PLANTED=1` searches anew.
const BUGS: [(Planted, u64); 39] = [
    (Planted::Core(Mutation::AcknowledgedBeforeMajority), 0),
    (Planted::Core(Mutation::AcknowledgedOverHole), 50),
    (Planted::Core(Mutation::DeadReplyCounted), 488),
    (Planted::Core(Mutation::OnePeerTrusted), 10),
    (Planted::Core(Mutation::TwoProcessesTwoVotes), 156),
    (Planted::Core(Mutation::SetChangedInOneStep), 62),
    (Planted::Core(Mutation::LeaseFromAnswer), 96),
    (Planted::Core(Mutation::LeaseBeforeCatchUp), 1),
    (Planted::Core(Mutation::MaximumAcrossIncarnations), 31),
    (Planted::Core(Mutation::UnknownSkipped), 4),
    (Planted::Core(Mutation::JumpWithoutReset), 0),
    (Planted::Core(Mutation::SoftReset), 34),
    (Planted::Core(Mutation::RetiredForgotten), 244),
    (Planted::Core(Mutation::GenerationsMixed), 137),
    (Planted::Core(Mutation::GenerationWithoutReset), 29),
    (Planted::Core(Mutation::AcknowledgedBeforeDisk), 694),
    (Planted::Core(Mutation::RelayAgeForgotten), 47),
    (Planted::Core(Mutation::WallClockIgnored), 28),
    (Planted::Core(Mutation::RestartNotNoted), 27),
    (Planted::Core(Mutation::QuestionNumberIgnored), 1),
    (Planted::Core(Mutation::SetKnownByNumber), 5),
    (Planted::Core(Mutation::StateBeforeVector), 65),
    (Planted::Core(Mutation::AppliedOnce), 41),
    (Planted::Core(Mutation::NewerSetNotAskedFor), 200),
    (Planted::Core(Mutation::ServiceHeardBefore), 462),
    (Planted::Core(Mutation::JoinsUnasked), 239),
    (Planted::Core(Mutation::SetSpreadTooThin), 122),
    (Planted::Core(Mutation::SetLeftForTooFew), 38),
    (Planted::Core(Mutation::HoldersCountForever), 62),
    (Planted::Edge(EdgeBug::InsertUnchecked), 0),
    (Planted::Edge(EdgeBug::LeaseAfterLookup), 40),
    (Planted::Edge(EdgeBug::CoarseClock), 0),
    (Planted::Edge(EdgeBug::ClockStopsInSuspend), 0),
    (Planted::Edge(EdgeBug::JoinWithoutLease), 0),
    (Planted::Edge(EdgeBug::FloorAfterRows), 0),
    (Planted::Edge(EdgeBug::NarrowFirst), 115),
    (Planted::Edge(EdgeBug::RevivingNotModified), 4),
    (Planted::Edge(EdgeBug::BornAtArrival), 0),
    (Planted::Edge(EdgeBug::LeaseBeforeEpoch), 49),
];

/// The first seed that finds the bug.
fn search(planted: Planted) -> Option<u64> {
    let mut blocks = (0..SEEDS).step_by(BLOCK as usize);
    blocks.find_map(|from| run_all(from..from + BLOCK, planted).0.into_iter().min())
}

#[test]
fn every_planted_bug_is_found() {
    let wanted = std::env::var("SIM_PLANTED").ok();
    let anew = wanted.is_some();
    let wanted = wanted.filter(|wanted| wanted != "1");
    let mut missed = Vec::new();
    let skipped = |planted: &Planted| {
        wanted.as_ref().is_some_and(|wanted| !format!("{planted:?}").contains(wanted))
    };
    for (planted, seed) in BUGS {
        if skipped(&planted) {
            continue;
        }
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
