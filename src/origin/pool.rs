//! Idle connections of one worker.
//!
//! Known by endpoint (address, TLS name and rules of verification in one) and site: two sites that
//! share an origin never share a connection. The newest is used first, so that under little load
//! the oldest grow idle and go. A connection is put back only after its response has ended
//! cleanly, and is asked once more before it is used: whatever the other side has sent meanwhile,
//! a byte or the end, nobody may ever read it as an answer.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock;
use crate::config::Limits;

use super::connect::Connection;
use super::lock::Lock;

/// Idle connections by endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    limits: Arc<Limits>,
    shelf: Lock<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    idle: HashMap<u64, Vec<Idle>>,
    sweeping: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    site: usize,
    since: Duration,
}

/// Time between two looks at what has become too old.
const SWEEP: Duration = Duration::from_secs(1);

impl Pool {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self { limits, shelf: Lock::default() }
    }

    /// Takes the newest connection to `endpoint` for `site` that may still be used.
    pub(super) fn take(&self, endpoint: u64, site: usize, now: Duration) -> Option<Connection> {
        loop {
            let mut idle = self.pop(endpoint, site)?;
            if self.may_live(&idle, now) && idle.connection.is_quiet() {
                return Some(idle.connection);
            }
        }
    }

    fn pop(&self, endpoint: u64, site: usize) -> Option<Idle> {
        let mut shelf = self.shelf.lock();
        let row = shelf.idle.get_mut(&endpoint)?;
        let newest = row.iter().rposition(|idle| idle.site == site)?;
        Some(row.remove(newest))
    }

    /// Puts a connection back whose last response has ended cleanly.
    pub(super) fn put(self: &Arc<Self>, mut connection: Connection, site: usize, now: Duration) {
        let most = self.limits.origin_idle_connections;
        if most == 0
            || connection.single
            || connection.endpoint.is_retired()
            || self.is_aged(&connection, now)
        {
            return;
        }
        connection.reused = true;
        let mut shelf = self.shelf.lock();
        let row = shelf.idle.entry(connection.endpoint.id).or_default();
        let surplus = (row.len() >= most).then(|| row.remove(0));
        row.push(Idle { connection, site, since: now });
        let start = !std::mem::replace(&mut shelf.sweeping, true);
        drop(shelf);
        drop(surplus);
        if start {
            self.start_sweeping();
        }
    }

    fn is_aged(&self, connection: &Connection, now: Duration) -> bool {
        now.saturating_sub(connection.opened) >= self.limits.origin_connection_age
    }

    fn may_live(&self, idle: &Idle, now: Duration) -> bool {
        now.saturating_sub(idle.since) < self.limits.origin_idle
            && !self.is_aged(&idle.connection, now)
            && !idle.connection.endpoint.is_retired()
    }

    /// A task that closes what is too old, retired or closed by the other side, and ends when
    /// nothing is left.
    fn start_sweeping(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.shelf.lock().sweeping = false;
            return;
        };
        let pool: Weak<Self> = Arc::downgrade(self);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = pool.upgrade() else { return };
                if !pool.sweep(clock::now().boot) {
                    return;
                }
            }
        });
    }

    /// Closes what may not be used any more; false when nothing is left, and then the next
    /// connection starts the sweeping anew.
    fn sweep(&self, now: Duration) -> bool {
        let mut closed = Vec::new();
        let mut shelf = self.shelf.lock();
        shelf.idle.retain(|_, row| {
            closed.extend(
                row.extract_if(.., |idle| !self.may_live(idle, now) || !idle.connection.is_quiet()),
            );
            !row.is_empty()
        });
        let left = !shelf.idle.is_empty();
        shelf.sweeping = left;
        drop(shelf);
        drop(closed);
        left
    }

    /// Connections that lie idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.shelf.lock().idle.values().map(Vec::len).sum()
    }
}
