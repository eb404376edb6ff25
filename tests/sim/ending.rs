//! What must be true in the end, thirty seconds after the last fault.

use atoll::replication::Identity;

use super::machine::Process;
use super::observer::Broken;
use super::origin::Strength;
use super::plan::{SECOND, TROUBLE};
use super::tally::Thing;
use super::world::World;

pub(crate) fn judge(world: &mut World) {
    super::faults::count_drift(world);
    let hits: u64 = world.processes.iter().map(|process| process.edge.hits).sum();
    (0..hits).for_each(|_| world.tally.count(Thing::Hit));
    if let Some(what) = disagreement(world) {
        world.observer.fail(Broken::Unconverged { what });
    }
    if let Some((node, identity)) = lost(world) {
        world.observer.fail(Broken::Lost { node, identity });
    }
}

/// How long after the last fault receipts must be whole.
pub(crate) const AUDITED_AFTER: u64 = 6 * SECOND;

/// Receipts of late name everybody who has applied their purges.
pub(crate) fn audit(world: &mut World) {
    if let Some((node, identity)) = unheard(world) {
        let at = world.at;
        world.observer.fail(Broken::Receipt { at, node, identity });
    }
}

fn unheard(world: &World) -> Option<(usize, Identity)> {
    let alive = || world.processes.iter().filter(|process| process.alive);
    let lately = TROUBLE - 15 * SECOND..TROUBLE;
    for (identity, issued) in &world.observer.issued {
        let own = |process: &&Process| *process.replica.issued().0 == identity.source;
        let issuer = alive().find(own).map(|process| &process.replica);
        let Some(receipt) = issuer.and_then(|issuer| issuer.receipt(identity)) else { continue };
        if !receipt.wanted {
            continue;
        }
        for process in alive().filter(|_| lately.contains(&issued.at)) {
            let name = &world.machines[process.machine].name;
            let alone = world.machines[process.machine].processes.len() == 1;
            let could = alone && process.started < TROUBLE && process.applied.contains(identity);
            if could && !receipt.applied.contains_key(name) {
                return Some((process.machine, identity.clone()));
            }
        }
    }
    None
}

fn disagreement(world: &World) -> Option<String> {
    let alive = || world.processes.iter().filter(|process| process.alive);
    let first = alive().next()?;
    for process in alive() {
        let name = &world.machines[process.machine].name;
        let now = world.now(process.machine);
        if process.replica.vector() != first.replica.vector() {
            let (own, other) = (process.replica.vector(), first.replica.vector());
            let _ = (own, other);
            return Some(format!("{name} differs{}", states(world)));
        }
        if !process.replica.lease().is_some_and(|lease| lease.holds(now)) {
            return Some(format!("{name} has no lease{}", states(world)));
        }
    }
    None
}

/// Where each node stands as a witness, for whoever has to find out.
fn states(world: &World) -> String {
    let alive = world.processes.iter().filter(|process| process.alive);
    let state = |process: &super::machine::Process| {
        let text = format!("{:?}", process.replica);
        let from = text.find("witness: ").unwrap_or(0);
        let to = text.find(", leasing: ").unwrap_or(text.len());
        let (replica, name) = (&process.replica, &world.machines[process.machine].name);
        let (generation, set) = (replica.generation(), replica.witnesses());
        let vector = replica.vector();
        let (retired, marks) = (vector.retired(), vector.marks().collect::<Vec<_>>());
        format!("\n  {name}: {generation:?} {set:?} {}\n    {retired:?} {marks:?}", &text[from..to])
    };
    alive.map(state).collect()
}

/// An acknowledged purge that had no effect on a node: neither applied there, nor covered by a reset
/// or a start since.
fn lost(world: &World) -> Option<(usize, Identity)> {
    for (identity, issued) in &world.observer.issued {
        if issued.acknowledged.is_none() || issued.purge.strength != Strength::Hard {
            continue;
        }
        for process in world.processes.iter().filter(|process| process.alive) {
            let covered = process.reset_at.max(process.started) > issued.at;
            if !covered && !process.applied.contains(identity) {
                return Some((process.machine, identity.clone()));
            }
        }
    }
    None
}
