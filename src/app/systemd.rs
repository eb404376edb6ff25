//! What a service manager of systemd's kind is told, where one wants to hear it (`NOTIFY_SOCKET`).

use std::time::Duration;

use sd_notify::NotifyState;

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// The process answers: after its start, and after each reload.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The configuration is being read anew; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager was not told of a reload"),
    }
}

/// The process is about to end.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Another process is the service from now on.
pub(super) fn main_process(pid: u32) {
    notify(&[NotifyState::MainPid(pid)]);
}

/// Says twice within the time that the service manager sets that the process lives.
pub(super) async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut beat = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        beat.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}
