//! Runs an edge until it is told to stop.
//!
//! SIGTERM or SIGINT drains; a second one cuts off what is left. SIGHUP has the configuration read
//! anew, SIGUSR1 the access log opened anew.

use tokio::signal::unix::{SignalKind, signal};

use super::{Listening, Running, Source, StartError};
use crate::listener::Drain;
use crate::telemetry::init_log;

/// How an edge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Drained, within its deadline.
    Drained,
    /// Cut off by a second signal.
    Aborted,
    /// A worker ended by a panic.
    Failed,
}

/// Runs an edge until it has drained. `up` is called once it answers.
///
/// # Errors
/// When it cannot start.
pub fn run(source: impl Into<Source>, up: impl FnOnce(&Listening)) -> Result<Ended, StartError> {
    let source = source.into();
    let log = init_log(&source.config.log).map_err(StartError::Log)?;
    let running = Running::start(source)?;
    let shared = std::sync::Arc::clone(&running.shared);
    if let Some(control) = &running.control {
        control.spawn(async move {
            if let Err(error) = listen(&shared).await {
                tracing::error!(%error, "signals cannot be received");
            }
        });
    }
    up(running.addresses());
    let shared = std::sync::Arc::clone(&running.shared);
    let clean = running.wait();
    drop(log);
    let aborted = *shared.drain.borrow() == Drain::Abort;
    Ok(match (clean, aborted) {
        (false, _) => Ended::Failed,
        (true, true) => Ended::Aborted,
        (true, false) => Ended::Drained,
    })
}

async fn listen(shared: &super::Shared) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => stop(shared),
            _ = interrupt.recv() => stop(shared),
            _ = hangup.recv() => shared.reload_by_signal("SIGHUP"),
            _ = reopen.recv() => shared.log.reopen(),
        }
    }
}

fn stop(shared: &super::Shared) {
    if shared.draining() {
        shared.drain.send_replace(Drain::Abort);
    } else {
        shared.begin_drain();
    }
}
