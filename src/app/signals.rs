//! Runs an edge until it is told to stop.
//!
//! SIGTERM or SIGINT drains; a second one cuts off what is left. SIGHUP has the configuration read
//! anew, SIGUSR1 the access log opened anew, SIGUSR2 has another process take over.

use tokio::signal::unix::{SignalKind, signal};

use super::upgrade::Handed;
use super::{Listening, Running, Source, StartError, systemd};
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
    let handed = Handed::of_environment()?;
    let (running, waiting) = Running::take_over(source, handed)?;
    let shared = std::sync::Arc::clone(&running.shared);
    if let Some(control) = &running.control {
        control.spawn(async move {
            if let Err(error) = listen(&shared).await {
                tracing::error!(%error, "signals cannot be received");
            }
        });
        control.spawn(systemd::watchdog());
    }
    if let Some(waiting) = &waiting {
        waiting.speak();
    }
    up(running.addresses());
    systemd::ready();
    if let Some(waiting) = waiting {
        waiting.ready();
    }
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
    let mut upgrade = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => stop(shared),
            _ = interrupt.recv() => stop(shared),
            _ = hangup.recv() => shared.reload_by_signal("SIGHUP"),
            _ = reopen.recv() => shared.log.reopen(),
            _ = upgrade.recv() => shared.upgrade_by_signal("SIGUSR2"),
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
