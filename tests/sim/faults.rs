//! What a fault does when it begins and when it ends.

use atoll::replication::{Event as Input, Name};

use super::known::{self, Change};
use super::plan::{Kind, MILLI};
use super::tally::Thing;
use super::world::{Event, World, node_name, pop_name};

/// A lease, as a fault sees it.
const LEASE: u64 = 1_800 * MILLI;

pub(crate) fn begin(world: &mut World, number: usize) {
    let fault = world.plan.faults[number].clone();
    let ends = world.at + fault.lasts;
    world.running.insert(number);
    world.network.active.push((number, fault.kind.clone()));
    match fault.kind {
        Kind::Pause { node } => {
            if pause(world, node, ends) && fault.lasts > LEASE {
                world.tally.count(Thing::PausedOverLease);
            }
        }
        Kind::Suspend { node } | Kind::Freeze { node } if is_asleep(world, node) => {}
        Kind::Suspend { node } => suspend(world, node, fault.lasts),
        Kind::Freeze { node } => freeze(world, node, fault.lasts),
        Kind::Restart { node } => {
            if known::may_end(world, node, false) {
                stop(world, node, false);
            }
        }
        Kind::Misread { node, members } => misread(world, node, members),
        Kind::Forget { node } => {
            let one = !are_two(world) || !is_witness(world, node);
            if one && known::may_end(world, node, true) {
                if known::is_former(world, node) {
                    world.tally.count(Thing::FormerForgot);
                }
                stop(world, node, true);
                world.tally.count(Thing::Forgot);
            }
        }
        Kind::ForgetAll => forget_some(world, usize::MAX, Thing::ForgotAll),
        Kind::ForgetMost => {
            let most = world.plan.cluster.witnesses.len() / 2 + 1;
            forget_some(world, most, Thing::ForgotMost);
        }
        Kind::Twice { node, mask } => twice(world, node, mask, ends),
        Kind::WallJump { node, millis } if millis < 0 && is_asleep(world, node) => {}
        Kind::WallJump { node, millis } => {
            world.tally.count(if millis > 0 { Thing::WallForward } else { Thing::WallBack });
            world.machines[node].clock.wall_offset += millis * 1_000;
        }
        Kind::Add => add(world),
        Kind::Remove { node } => remove(world, node),
        Kind::ChangeWitnesses { members } => change_witnesses(world, &members),
        Kind::Burst { by } => {
            world.tally.count(Thing::Burst);
            (0..30).for_each(|_| world.purge_once(by));
        }
        Kind::Loss { .. }
        | Kind::Duplicate { .. }
        | Kind::Reorder { .. }
        | Kind::Delay { .. }
        | Kind::OneWay { .. }
        | Kind::Isolate { .. }
        | Kind::Split { .. }
        | Kind::Bridge { .. }
        | Kind::Flap { .. }
        | Kind::Replay { .. }
        | Kind::Garbage { .. }
        | Kind::SlowDisk { .. } => {}
    }
    world.push(ends, Event::End { fault: number });
}

pub(crate) fn end(world: &mut World, number: usize) {
    world.running.remove(&number);
    world.network.active.retain(|(active, _)| *active != number);
    match world.plan.faults[number].kind {
        Kind::Restart { node } | Kind::Forget { node } => start_again(world, node),
        Kind::Misread { node, .. } => {
            world.machines[node].misread = None;
            if known::may_end(world, node, false) {
                stop(world, node, false);
                start_again(world, node);
            }
        }
        Kind::ForgetAll | Kind::ForgetMost => {
            (0..world.machines.len()).for_each(|node| start_again(world, node));
        }
        Kind::Twice { node, .. } => {
            // The old process ends, or the new one does and the old one is all there is.
            let processes = world.machines[node].processes.clone();
            if let [old, .., _] = processes[..] {
                world.kill(old);
            }
        }
        _ => {}
    }
}

/// Whether another fault than the one that begins has stopped the machine: a boot clock that lost
/// time and a wall clock that was set back at once are beyond what can be known.
fn is_asleep(world: &World, node: usize) -> bool {
    let stops = world.network.active.iter().filter(|(_, kind)| {
        matches!(kind, Kind::Suspend { node: other } | Kind::Freeze { node: other } if *other == node)
    });
    let begun = world.network.active.last();
    let own = begun.is_some_and(|(_, kind)| !matches!(kind, Kind::WallJump { .. }));
    stops.count() > usize::from(own)
}

fn start_again(world: &mut World, node: usize) {
    let machine = &world.machines[node];
    if machine.is_member && machine.processes.is_empty() {
        world.start(node);
    }
}

fn is_witness(world: &World, node: usize) -> bool {
    let name = node_name(node);
    let mut processes = world.processes.iter().filter(|process| process.alive);
    processes.any(|process| process.replica.witnesses().contains(&name))
}

/// Whether two processes of one node run. It is assumed that they do not while witnesses forget: a
/// former process that goes on while a new generation begins is beyond what can be known.
fn are_two(world: &World) -> bool {
    world.machines.iter().any(|machine| machine.processes.len() > 1)
}

fn pause(world: &mut World, node: usize, until: u64) -> bool {
    let processes = world.machines[node].processes.clone();
    for process in &processes {
        let state = &mut world.processes[*process];
        state.paused_until = state.paused_until.max(until);
        let until = state.paused_until;
        world.push(until, Event::Resume { process: *process });
    }
    !processes.is_empty()
}

/// The machine sleeps. Its wall clock comes back late by as much, now and then.
fn suspend(world: &mut World, node: usize, lasts: u64) {
    if pause(world, node, world.at + lasts) {
        world.tally.count(Thing::Suspended);
        world.machines[node].clock.suspended += lasts;
        if world.dice.percent(70) {
            world.machines[node].clock.wall_offset -= lasts as i64;
        }
    }
}

/// The machine is stopped from outside: its boot clock does not know, its wall clock is set right.
fn freeze(world: &mut World, node: usize, lasts: u64) {
    if pause(world, node, world.at + lasts) {
        world.tally.count(Thing::Frozen);
        world.machines[node].clock.frozen += lasts;
    }
}

fn stop(world: &mut World, node: usize, forget: bool) {
    let joint = known::joint_known_to(world, node);
    for process in world.machines[node].processes.clone() {
        world.kill(process);
    }
    if forget {
        world.machines[node].disk = None;
    }
    known::note_forgotten(world, node, joint);
}

/// A node that is no witness starts anew with a configuration that names others.
fn misread(world: &mut World, node: usize, members: Vec<usize>) {
    let free = world.machines[node].is_member && !is_witness(world, node);
    if free && known::may_end(world, node, false) {
        stop(world, node, false);
        world.machines[node].misread = Some(members);
        world.start(node);
        world.tally.count(Thing::Misread);
    }
}

fn forget_some(world: &mut World, most: usize, thing: Thing) {
    if are_two(world) {
        return;
    }
    let nodes: Vec<usize> =
        (0..world.machines.len()).filter(|node| is_witness(world, *node)).take(most).collect();
    if known::stays_known(world, &nodes, &known::members(world)) {
        nodes.into_iter().for_each(|node| stop(world, node, true));
        world.tally.count(thing);
    }
}

/// A second process of a node starts while the first one, which may be paused, still runs. It has no
/// log: that is locked, or on another machine.
fn twice(world: &mut World, node: usize, mask: u64, ends: u64) {
    let forgotten = world.machines.iter().any(|machine| {
        machine.is_member
            && machine
                .processes
                .iter()
                .all(|process| !world.processes[*process].replica.is_serving())
            && is_witness(world, by(world, machine))
    });
    let alone = world.plan.cluster.witnesses.len() == 1;
    if alone || are_two(world) || forgotten || world.machines[node].processes.is_empty() {
        return;
    }
    if !known::may_end(world, node, true) {
        return;
    }
    if world.dice.percent(70) {
        let until = world.at + world.dice.between(100 * MILLI, ends - world.at);
        pause(world, node, until);
    }
    if world.machines[node].locked_by.is_none() {
        world.machines[node].disk = None;
    }
    let turns = world.dice.between(world.at, 2 * ends - world.at);
    world.machines[node].links = (mask, turns);
    let joint = known::joint_known_to(world, node);
    world.start(node);
    known::note_forgotten(world, node, joint);
    world.tally.count(Thing::TwoAtOnce);
}

fn by(world: &World, machine: &super::machine::Machine) -> usize {
    world.machines.iter().position(|other| other.name == machine.name).unwrap_or(0)
}

fn add(world: &mut World) {
    let node = world.machines.len() - 1;
    let mut members = known::members(world);
    members.push(node);
    if world.machines[node].is_member || !known::stays_known(world, &[], &members) {
        return;
    }
    world.tally.count(Thing::Added);
    world.machines[node].is_member = true;
    world.roster.insert(node_name(node), pop_name(world.plan.cluster.spare));
    world.start(node);
    tell_roster(world);
}

fn remove(world: &mut World, node: usize) {
    let mut members = known::members(world);
    members.retain(|other| *other != node);
    if is_witness(world, node) || !world.machines[node].is_member {
        return;
    }
    if !known::stays_known(world, &[node], &members) {
        return;
    }
    world.tally.count(Thing::Removed);
    world.machines[node].is_member = false;
    stop(world, node, true);
    world.roster.remove(&node_name(node));
    tell_roster(world);
}

fn tell_roster(world: &mut World) {
    for process in 0..world.processes.len() {
        if world.processes[process].alive {
            let roster = world.roster.clone().into();
            world.tell(process, Input::Roster(roster));
        }
    }
}

/// The operator tells one witness, while no other change is under way. Where the last one was lost with the
/// memory of those who knew of it, the same is asked for again: of another one by the same number a late message
/// could tell.
fn change_witnesses(world: &mut World, members: &[usize]) {
    let lost = known::lost(world).map(<[usize]>::to_vec);
    let members = lost.as_deref().unwrap_or(members);
    let alive = || world.processes.iter().enumerate().filter(|(_, process)| process.alive);
    let mut numbers: Vec<u64> =
        alive().map(|(_, process)| process.replica.witnesses().number).collect();
    numbers.dedup();
    let settled = alive().all(|(_, process)| process.replica.witnesses().joining.is_none());
    let serving = || alive().filter(|(_, process)| process.replica.is_serving());
    let stays = serving().find(|(_, process)| members.contains(&process.machine));
    let first = stays.or_else(|| serving().next()).map(|(first, _)| first);
    let present = members.iter().all(|node| world.machines[*node].is_member);
    if let (1, true, Some(first), true) = (numbers.len(), settled, first, present) {
        let set = world.processes[first].replica.witnesses();
        let old = (0..world.machines.len()).filter(|node| set.members.contains(&node_name(*node)));
        let change = Change::new(set.number + 1, old.collect(), members.to_vec());
        let members: Vec<Name> = members.iter().map(|node| node_name(*node)).collect();
        // What is refused is no change.
        let taken = world.processes[first].replica.may_change_to(&members).is_ok();
        if lost.is_none() && taken {
            world.changes.push(change);
        }
        world.tell(first, Input::Witnesses(members));
    }
}

/// Whether the clocks of the plan run apart.
pub(crate) fn count_drift(world: &mut World) {
    if world.plan.cluster.drift_ppm.iter().any(|ppm| ppm.abs() > 10_000) {
        world.tally.count(Thing::Drifted);
    }
}
