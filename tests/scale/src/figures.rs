//! One run: settle, listen to the idle mesh, purge, and reckon.

use std::time::Instant;

use crate::paths::Loss;
pub use crate::tally::Said;
use crate::tally::{
    ACKNOWLEDGE, APPLIED, BEAT, COMPARE, LEASE, RECORD, RECORDS, Tally, VECTOR, WANT,
};
pub use crate::world::Size;
use crate::world::{NEVER, World};

const SECOND: u64 = 1_000_000;

/// Time until every node has its lease.
const SETTLING: u64 = 5 * SECOND;

/// Time for the last purges to arrive.
const ENDING: u64 = 3 * SECOND;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Nodes.
    pub size: Size,
    /// What the network does.
    pub loss: Loss,
    /// Purges.
    pub purges: usize,
    /// Seconds of the idle mesh.
    pub idle: u64,
    /// Where everything is drawn from.
    pub seed: u64,
}

/// Times in milliseconds over nodes and purges.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The last.
    pub max: f64,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What was run.
    pub run: Run,
    /// Until a purge is in force, over all nodes and purges.
    pub in_force: Times,
    /// The same beyond the way from the issuer, which no protocol makes shorter.
    pub beyond: Times,
    /// Until a purge is in force on the last node, over purges.
    pub last: Times,
    /// Until a purge is acknowledged, over purges.
    pub acknowledged: Times,
    /// Until the issuer has heard from the last node, over purges.
    pub receipts: Times,
    /// For each purge and node: everything that is said because of it, receipts apart.
    pub purge: Said,
    /// Of that: records as they spread.
    pub spread: Said,
    /// Of that: what is compared, asked for and brought.
    pub repair: Said,
    /// Of that: acknowledgements.
    pub acknowledge: Said,
    /// Of that: what answers about leases are longer.
    pub leases: Said,
    /// For each purge and node: what its receipt takes.
    pub receipt: Said,
    /// For each node and second of the idle mesh: beats and comparisons.
    pub beats: Said,
    /// For each node and second of the idle mesh: questions about leases and their answers.
    pub questions: Said,
    /// Messages said and heard in a second by the busiest node of the idle mesh.
    pub busiest: f64,
    /// Nodes that missed a purge until the end.
    pub missed: usize,
    /// Nodes without a lease after settling, and at the end.
    pub without_lease: (usize, usize),
    /// Resets after settling.
    pub resets: u64,
    /// Events handled.
    pub events: u64,
    /// Wall-clock seconds that it took.
    pub seconds: f64,
}

/// Runs it.
#[must_use]
pub fn run(run: &Run) -> Figures {
    let begun = Instant::now();
    let mut world = World::new(run.size, run.loss, run.seed);
    world.run(SETTLING);
    let unsettled = world.without_lease();
    let (quiet, busiest) = listen(&mut world, run.idle);
    let (said, window) = purge(&mut world, run.purges);
    let because = |kinds: &[usize]| {
        let idle = quiet.of(kinds).times(window / run.idle as f64);
        let more = said.of(kinds).plus(idle.times(-1.0));
        more.times(1.0 / (run.purges * run.size.all()) as f64)
    };
    let idle =
        |kinds: &[usize]| quiet.of(kinds).times(1.0 / (run.idle as f64 * run.size.all() as f64));
    let times = Measured::of(&world);
    let spread = because(&[RECORD]);
    let repair = because(&[RECORDS, COMPARE, VECTOR, WANT]);
    let acknowledge = because(&[ACKNOWLEDGE]);
    // A lease is asked for as often as before; only what is answered is longer.
    let leases = Said { messages: 0.0, ..because(&[LEASE]) };
    Figures {
        run: *run,
        in_force: times.in_force,
        beyond: times.beyond,
        last: times.last,
        acknowledged: times.acknowledged,
        receipts: times.receipts,
        purge: spread.plus(repair).plus(acknowledge).plus(leases),
        spread,
        repair,
        acknowledge,
        leases,
        receipt: because(&[APPLIED]),
        beats: idle(&[BEAT, COMPARE, VECTOR, WANT, RECORDS]),
        questions: idle(&[LEASE]),
        busiest,
        missed: times.missed,
        without_lease: (unsettled, world.without_lease()),
        resets: world.resets,
        events: world.events,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// What the idle mesh says, and what the busiest node says and hears in a second of it.
fn listen(world: &mut World, seconds: u64) -> (Tally, f64) {
    let before = world.tally.clone();
    world.forget_loads();
    world.run(world.at + seconds * SECOND);
    (world.tally.since(&before), world.busiest() as f64 / seconds as f64)
}

/// Purges from everywhere, some tenths of a second apart; what is said meanwhile, and how many
/// seconds that was.
fn purge(world: &mut World, purges: usize) -> (Tally, f64) {
    let (before, begun) = (world.tally.clone(), world.at);
    // Few nodes issue purges: those that callers speak to.
    let issuers: Vec<usize> = (0..purges.min(16)).map(|_| world.draw(world.len())).collect();
    for purge in 0..purges {
        world.purge(issuers[purge % issuers.len()]);
        let pause = 300 + world.draw(400) as u64;
        world.run(world.at + pause * 1_000);
    }
    world.run(world.at + ENDING);
    (world.tally.since(&before), (world.at - begun) as f64 / SECOND as f64)
}

struct Measured {
    in_force: Times,
    beyond: Times,
    last: Times,
    acknowledged: Times,
    receipts: Times,
    missed: usize,
}

impl Measured {
    fn of(world: &World) -> Self {
        let applied = |(issuer, times): (usize, &Vec<u32>)| -> Vec<u32> {
            let others = times.iter().enumerate().filter(|(node, _)| *node != issuer);
            others.map(|(_, took)| *took).collect()
        };
        let of_purge: Vec<Vec<u32>> =
            world.purges.iter().map(|purge| applied((purge.issuer, &purge.applied))).collect();
        let all: Vec<u32> = of_purge.iter().flatten().copied().collect();
        let beyond = world.purges.iter().flat_map(|purge| {
            let others = purge.applied.iter().enumerate();
            others.filter(|(node, _)| *node != purge.issuer).map(|(node, took)| {
                let way = world.one_way(purge.issuer, node).try_into().unwrap_or(0);
                if *took == NEVER { NEVER } else { took.saturating_sub(way) }
            })
        });
        let beyond = Times::of(beyond.collect());
        let last = of_purge.iter().filter_map(|times| times.iter().max().copied()).collect();
        let acknowledged = world.purges.iter().map(|purge| {
            let took = purge.acknowledged.map(|at| at - purge.issued);
            took.and_then(|took| u32::try_from(took).ok()).unwrap_or(NEVER)
        });
        let receipts = world.purges.iter().map(|purge| {
            let receipt = world.replica(purge.issuer).receipt(&purge.identity);
            let complete = receipt.filter(|receipt| receipt.applied.len() == world.len());
            let took = complete.and_then(|receipt| {
                let last = receipt.applied.values().max()?;
                u32::try_from(last.saturating_sub(receipt.issued).as_micros()).ok()
            });
            took.unwrap_or(NEVER)
        });
        let missed = all.iter().filter(|took| **took == NEVER).count();
        Self {
            in_force: Times::of(all),
            beyond,
            last: Times::of(last),
            acknowledged: Times::of(acknowledged.collect()),
            receipts: Times::of(receipts.collect()),
            missed,
        }
    }
}

impl Times {
    fn of(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        let at = |part: f64| {
            let place = (micros.len() as f64 * part).ceil() as usize;
            let took = micros.get(place.max(1) - 1).copied().unwrap_or(NEVER);
            if took == NEVER { f64::INFINITY } else { f64::from(took) / 1_000.0 }
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// The most memory that this process ever had, in MiB.
#[must_use]
pub fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1_024.0
}
