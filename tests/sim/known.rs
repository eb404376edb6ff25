//! What is assumed of the nodes' memory of witness sets, and so which faults are not thrown.
//!
//! Once a joint set was left for the next one, so many nodes know of it that every majority of all has
//! one of them, and stay as many, whichever witnesses of the former set forget it, as long as the new
//! ones have a majority that does not. A fault that would leave fewer is left out. Whether the protocol
//! lets a joint set go while too few know of it is for the promise to show: a fault that takes
//! nothing away from what is assumed is thrown however few there are. A joint set that so many know of that it
//! may be left at any moment counts as left: who forgets it then may have been counted a moment before.
//!
//! Who says that it holds a joint set and forgets it at once is counted for some seconds more. Whether the set is
//! left in that time cannot be foreseen when the fault is thrown; where it is, and too few know of it, more has been
//! forgotten than is assumed, and the run ends there unjudged.

use super::plan::SECOND;
use super::world::{World, node_name};

/// How long what is said of a joint set counts, by a clock that loses some percent.
const COUNTS: u64 = 6 * SECOND;

/// The operator has asked for other witnesses.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Number of the joint set.
    joint: u64,
    old: Vec<usize>,
    new: Vec<usize>,
}

impl Change {
    pub(crate) fn new(joint: u64, old: Vec<usize>, new: Vec<usize>) -> Self {
        Self { joint, old, new }
    }

    /// Of those who know, so many do whichever former witnesses forget.
    fn spared(&self, knowing: &[usize]) -> usize {
        let knows = |node: &usize| knowing.contains(node);
        let stays: Vec<usize> =
            self.old.iter().copied().filter(|node| self.new.contains(node)).collect();
        let staying = stays.iter().filter(|node| knows(node)).count();
        let without = self.new.len() - (self.new.len() / 2 + 1);
        let forget = without.saturating_sub(stays.len() - staying);
        let others = knowing.iter().filter(|node| !self.old.contains(node)).count();
        others + staying.saturating_sub(forget)
    }
}

/// What a node would go by if all its processes began again with what their disk has, or go by now.
fn number(world: &World, node: usize, of_disk: bool) -> Option<u64> {
    let machine = &world.machines[node];
    let running = machine.processes.iter();
    let running = running.map(|process| world.processes[*process].replica.witnesses().number);
    let on_disk = || machine.disk.as_ref().and_then(|disk| Some(disk.set()?.number));
    if of_disk { on_disk() } else { running.min().or_else(on_disk) }
}

/// The number of the newest set that was in force, or is about to be.
fn newest(world: &World) -> Option<u64> {
    let alive = world.processes.iter().filter(|process| process.alive);
    let running = alive.map(|process| {
        let set = process.replica.witnesses();
        if set.joining.is_some() { set.number - 1 } else { set.number }
    });
    let disks = world.machines.iter().filter_map(|machine| machine.disk.as_ref()?.set());
    let disks = disks.map(|set| if set.joining.is_some() { set.number - 1 } else { set.number });
    running.chain(disks).max()
}

/// The last change whose joint set was left for the next one.
fn left(world: &World) -> Option<&Change> {
    let newest = newest(world)?;
    world.changes.iter().rev().find(|change| change.joint + 1 == newest)
}

/// The witnesses that were asked for last, where they never came into force.
pub(crate) fn lost(world: &World) -> Option<&[usize]> {
    let last = world.changes.last()?;
    (newest(world) <= Some(last.joint)).then_some(last.new.as_slice())
}

/// The last change, while its joint set is in force.
fn under_way(world: &World) -> Option<&Change> {
    let newest = newest(world)?;
    world.changes.last().filter(|change| change.joint == newest + 1)
}

/// Whether what is assumed stays true if these nodes forget, and the mesh has these members then.
pub(crate) fn stays_known(world: &World, forgetting: &[usize], members: &[usize]) -> bool {
    let met = members.len() + 1 - (members.len() / 2 + 1);
    let of_left = left(world).is_none_or(|change| {
        let (before, after) = known_of(world, change, forgetting, members);
        after >= met || after >= before && members.len() <= world.roster.len()
    });
    let of_next = under_way(world).is_none_or(|change| {
        let (before, after) = known_of(world, change, forgetting, members);
        after >= met || before < met
    });
    of_left && of_next
}

/// How many know of a change whichever former witnesses forget it, before and after this.
fn known_of(
    world: &World,
    change: &Change,
    forgetting: &[usize],
    members: &[usize],
) -> (usize, usize) {
    let knows = |node: &usize| number(world, *node, false) >= Some(change.joint);
    let is_member = |node: &usize| world.machines[*node].is_member;
    let before: Vec<usize> =
        (0..world.machines.len()).filter(|node| is_member(node) && knows(node)).collect();
    let after: Vec<usize> = before
        .iter()
        .copied()
        .filter(|node| members.contains(node) && !forgetting.contains(node))
        .collect();
    (change.spared(&before), change.spared(&after))
}

/// The members, as they are.
pub(crate) fn members(world: &World) -> Vec<usize> {
    (0..world.machines.len()).filter(|node| world.machines[*node].is_member).collect()
}

/// Whether a node may begin again with what its disk has, or without that.
pub(crate) fn may_end(world: &mut World, node: usize, forget: bool) -> bool {
    world.flush_disks();
    let known = if forget { None } else { number(world, node, true) };
    let mut changes = left(world).into_iter().chain(under_way(world));
    let forgets = changes.any(|change| known < Some(change.joint));
    !forgets || stays_known(world, &[node], &members(world))
}

/// Number of the joint set that is in force, if a node knows of it.
pub(crate) fn joint_known_to(world: &World, node: usize) -> Option<u64> {
    let joint = under_way(world)?.joint;
    (number(world, node, false) >= Some(joint)).then_some(joint)
}

/// Notes that a node knows no more of a joint set that it knew of, where that is so.
pub(crate) fn note_forgotten(world: &mut World, node: usize, joint: Option<u64>) {
    if let Some(joint) = joint
        && number(world, node, false) < Some(joint)
    {
        world.forgotten.push((joint, node, world.at));
    }
}

/// Whether the set before this one was left though too few knew of it, because nodes forgot it that had said
/// a moment before that they hold it.
pub(crate) fn was_left_on_old_word(world: &World, after: u64) -> bool {
    let Some(change) = world.changes.iter().find(|change| change.joint + 1 == after) else {
        return false;
    };
    let members = members(world);
    let met = members.len() + 1 - (members.len() / 2 + 1);
    let lately = |node: &usize| {
        let mut forgotten = world.forgotten.iter();
        forgotten.any(|(joint, who, at)| {
            (*joint, who) == (change.joint, node) && world.at - at <= COUNTS
        })
    };
    let knows = |node: &usize| number(world, *node, false) >= Some(change.joint);
    let now: Vec<usize> = members.iter().copied().filter(|node| knows(node)).collect();
    let said: Vec<usize> =
        members.iter().copied().filter(|node| knows(node) || lately(node)).collect();
    change.spared(&now) < met && change.spared(&said) >= met
}

/// Whether a node that was a witness by its configuration is none any more.
pub(crate) fn is_former(world: &World, node: usize) -> bool {
    let listed = world.plan.cluster.witnesses.contains(&node);
    let mut alive = world.processes.iter().filter(|process| process.alive);
    listed && !alive.any(|process| process.replica.witnesses().contains(&node_name(node)))
}
