//! Threads beside the requests: they keep the store within its budget, so that requests seldom have
//! to, and make coded copies of what is stored.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Shared, pressure, supervise};
use crate::clock;
use crate::listener::{Context, Lingerer, Pressure, PressureGauge, Thinner};
use crate::store::{CLASSES, sweep};

/// Time between two rounds of the store's upkeep.
const UPKEEP: Duration = Duration::from_millis(20);
/// Time between two looks at the purge table and at memory.
const LOOK: Duration = Duration::from_millis(200);
/// Longest rest between two walks of the sweep: what a purge killed is not to lie there for long.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Time until memory that was given back shows in what is resident.
const SETTLE: Duration = Duration::from_secs(3);

/// How far the thread that codes stands back behind those that answer.
const CODINGS_NICE: i32 = 10;

/// Starts the threads; they end once the edge has stopped, coding as soon as it drains.
pub(super) fn start(shared: &Arc<Shared>, context: &Arc<Context>) -> io::Result<()> {
    let state = Arc::clone(shared);
    supervise::thread("upkeep", &shared.metrics, move || {
        while !*state.stop.borrow() {
            state.store.upkeep();
            std::thread::sleep(UPKEEP);
        }
    })?;
    let state = Arc::clone(shared);
    let context = Arc::clone(context);
    let mut swept = state.purges.epoch();
    let mut rests_until = Duration::ZERO;
    let mut given_back = Duration::ZERO;
    let mut thinner = Thinner::new(&context.limits);
    let mut lingerer = Lingerer::default();
    let mut share = pressure::Share::new(&shared.config.limits);
    supervise::thread("sweep", &shared.metrics, move || {
        while !*state.stop.borrow() {
            let begun = clock::now();
            // Where rows come faster than walks, they would fold before the next one lets them go.
            let may_rest = begun.boot < rests_until && !state.purges.is_crowded();
            if state.purges.epoch() > swept && !may_rest {
                let seen = sweep(&state.store, &state.purges, &state.fills);
                swept = seen.floor;
                state.metrics.store.purged.inc_by(seen.removed);
                // A walk over a large store must not become all that this core does.
                let ended = clock::now();
                rests_until = ended.boot + LONGEST_REST.min(ended.since(begun) * 4);
            }
            measure(&state);
            yield_to_fills(&state, share.percent());
            press(&state, &context.pressure, &mut given_back, &mut share);
            make_room(&context, &mut thinner);
            hurry(&state, &context, &mut lingerer);
            std::thread::sleep(LOOK);
        }
    })?;
    if shared.codes.load(Ordering::Relaxed) {
        code(shared)?;
    }
    Ok(())
}

/// Starts the thread that codes.
pub(super) fn code(shared: &Arc<Shared>) -> io::Result<()> {
    let state = Arc::clone(shared);
    supervise::thread("codings", &shared.metrics, move || {
        // On Linux this is the priority of this thread alone.
        if let Err(error) = rustix::process::setpriority_process(None, CODINGS_NICE) {
            tracing::debug!(%error, "the thread that codes keeps its priority");
        }
        let ended = || *state.stop.borrow() || state.draining();
        while !ended() {
            let edge = Arc::clone(&state.in_force().edge);
            edge.make_codings(ended, || !Arc::ptr_eq(&edge, &state.in_force().edge));
        }
    })?;
    Ok(())
}

/// Publishes what the store holds.
pub(super) fn measure(shared: &Shared) {
    let metrics = &shared.metrics.store;
    for class in 0..CLASSES {
        let (entries, bytes) = shared.store.class(class);
        metrics.set_class(class, entries, bytes);
    }
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    metrics.epoch.set(gauge(shared.purges.epoch()));
    metrics.purge_rows.set(gauge(shared.purges.rows() as u64));
    metrics.fills_open.set(gauge(shared.fills.open() as u64));
    metrics.budget_bytes.set(gauge(shared.store.budget_bytes()));
    metrics.killed.inc_by(shared.store.killed().saturating_sub(metrics.killed.get()));
    metrics.evictions.inc_by(shared.store.evictions().saturating_sub(metrics.evictions.get()));
}

/// Has idle connections closed where there are too many, or memory is short.
fn make_room(context: &Context, thinner: &mut Thinner) {
    let clients = &context.clients;
    let short = context.pressure.step() >= Pressure::Shed;
    thinner.look(
        &context.thinning,
        (clients.open(), clients.most_open()),
        short,
        clock::now().boot,
    );
}

/// What is arriving, and what slow readers keep, has its place in the share that all of these have
/// together with what is stored: the store makes room before memory is short. Else a full store and
/// busy fills would look like overload.
fn yield_to_fills(shared: &Shared, percent: u64) {
    let all = shared.config.memory.budget_bytes / 100 * percent;
    let others = shared.fills.bytes() + shared.store.kept_by_readers();
    let over = shared.store.shelved_bytes().saturating_sub(all.saturating_sub(others));
    if over > 0 {
        shared.store.make_room(over);
    }
}

/// Cuts off the slowest readers where what they keep is too much.
fn hurry(shared: &Shared, context: &Context, lingerer: &mut Lingerer) {
    let percent = u64::from(shared.config.limits.memory_slow_readers_percent);
    let most = shared.config.memory.budget_bytes / 100 * percent;
    let kept = shared.store.kept_by_readers();
    lingerer.look(&context.thinning.lingering, kept, most, clock::now().boot);
}

/// Publishes the step of memory pressure, and gives memory back where there is some.
fn press(
    shared: &Shared,
    gauge: &PressureGauge,
    given_back: &mut Duration,
    share: &mut pressure::Share,
) {
    let Some(resident) = pressure::resident_bytes() else { return };
    let (limits, budget) = (&shared.config.limits, shared.config.memory.budget_bytes);
    let before = gauge.step();
    let (step, percent) = pressure::step(resident, budget, before, limits);
    if step != before {
        tracing::warn!(?step, resident, percent, "memory pressure");
    }
    gauge.set(step);
    shared.metrics.strain.memory_pressure.set(step as i64);
    let now = clock::now().boot;
    if step >= Pressure::Evict && now.saturating_sub(*given_back) >= SETTLE {
        *given_back = now;
        let excess = pressure::excess(percent, budget, limits);
        let hundredth = (budget / 100).max(1);
        let taken = (shared.store.bytes() + shared.fills.bytes()) / hundredth;
        share.shrink(taken, excess / hundredth, now);
        shared.store.give_back(excess);
    }
    if step == Pressure::None {
        share.grow(now);
    }
}
