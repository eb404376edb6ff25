//! A failing seed with as few faults as still make it fail.

use super::observer::Broken;
use super::plan::{Plan, SECOND};
use super::world::{Planted, World};

/// Runs a plan; what broke, if something did.
pub(crate) fn run(plan: &Plan, planted: Planted) -> (Option<Broken>, super::tally::Tally) {
    let mut world = World::new(plan.clone(), planted);
    world.run();
    (world.observer.broken, world.tally)
}

/// The plan without the faults that are not needed, and with shorter ones.
pub(crate) fn shrink(plan: &Plan, planted: Planted) -> Plan {
    let fails = |plan: &Plan| run(plan, planted).0.is_some();
    let mut least = plan.clone();
    let mut again = true;
    while again {
        again = false;
        for fault in (0..least.faults.len()).rev() {
            let mut without = least.clone();
            without.faults.remove(fault);
            if fails(&without) {
                (least, again) = (without, true);
            }
        }
    }
    for fault in 0..least.faults.len() {
        let mut shorter = least.clone();
        while shorter.faults[fault].lasts > SECOND {
            shorter.faults[fault].lasts /= 2;
            if fails(&shorter) {
                least = shorter.clone();
            }
        }
    }
    least
}

/// The schedule of a failing seed, for a person.
pub(crate) fn tell(plan: &Plan, planted: Planted) -> String {
    let least = shrink(plan, planted);
    let broken = run(&least, planted).0;
    let faults: String = least.faults.iter().map(|fault| format!("\n  {fault:?}")).collect();
    let (seed, cluster) = (plan.seed, &least.cluster);
    format!("seed {seed}, {planted:?}: {broken:?}\n  {cluster:?}{faults}")
}
