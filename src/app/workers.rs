//! The worker threads: each a runtime of its own with its own sockets, connections and timers.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::watchdog::{Pulse, Watchdog};
use super::{Shared, random, supervise};
use crate::admin::Admin;
use crate::clock;
use crate::listener::{Context, Drain, TlsAcceptorState, WorkerSockets, run};
use crate::proxy::{Proxy, PurgeByMethod};
use crate::store::Fills;
use crate::telemetry::RequestIds;

/// The workers of a process.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Waits until all have drained. `false` if one ended by a panic.
    pub(super) fn join(&mut self) -> bool {
        let mut clean = true;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
                clean = false;
            }
        }
        clean
    }
}

/// Starts a worker for each set of sockets, and gives what answers at each.
pub(super) fn start(
    shared: &Arc<Shared>,
    sockets: Vec<WorkerSockets>,
    tls: Option<&Arc<TlsAcceptorState>>,
    context: &Arc<Context>,
    admin: &Arc<Admin>,
) -> io::Result<(Workers, Vec<Proxy>)> {
    let in_force = shared.in_force();
    let mut proxies = Vec::with_capacity(sockets.len());
    let mut threads = Vec::with_capacity(sockets.len());
    let pulses: Vec<Arc<Pulse>> = sockets.iter().map(|_| Arc::default()).collect();
    for (number, (sockets, pulse)) in sockets.into_iter().zip(&pulses).enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let proxy = Proxy::new(
            Arc::clone(&in_force.edge),
            in_force.origins.worker(),
            shared.log.recorder(&in_force.config.sites, &[]),
            RequestIds::new(random()),
            Arc::clone(admin) as Arc<dyn PurgeByMethod>,
        );
        proxies.push(proxy.clone());
        let (tls, context) = (tls.cloned(), Arc::clone(context));
        let fills = Arc::clone(&shared.fills);
        let pulse = Arc::clone(pulse);
        let thread =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                runtime.block_on(async {
                    let beating = tokio::spawn(async move { pulse.beat().await });
                    run(sockets, tls, Arc::new(proxy), Arc::clone(&context)).await;
                    finish_fills(&fills, &context).await;
                    beating.abort();
                });
            })?;
        threads.push(thread);
    }
    watch(shared, &pulses)?;
    Ok((Workers { threads }, proxies))
}

/// Watches over the workers until the edge drains: those that have ended beat no more.
fn watch(shared: &Arc<Shared>, pulses: &[Arc<Pulse>]) -> io::Result<()> {
    let limits = &shared.config.limits;
    let mut watchdog =
        Watchdog::new(pulses, limits.watchdog, limits.watchdog_abort, &shared.metrics);
    let state = Arc::clone(shared);
    supervise::thread("watchdog", &shared.metrics, move || {
        watchdog.watch(|| *state.stop.borrow() || state.draining());
    })?;
    Ok(())
}

/// Time between two looks at what is still arriving.
const LOOK: Duration = Duration::from_millis(10);

/// Waits while fills are read: clients of other workers may be reading along with this one's.
async fn finish_fills(fills: &Fills, context: &Context) {
    let Some(since) = context.draining() else { return };
    while fills.readers() > 0
        && *context.drain.borrow() != Drain::Abort
        && clock::now().since(since) < context.newest().limits.drain
    {
        tokio::time::sleep(LOOK).await;
    }
}
