//! The shared connections of one worker: which of them has room for another stream.
//!
//! Known by endpoint (address, TLS name, rules of verification, client certificate) and site, as
//! idle HTTP/1.1 connections are: two sites never share a connection, so an answer that an origin
//! gives to the wrong name cannot leave the site that asked.
//!
//! A request takes the newest connection with room. Where none has, one request opens another and
//! the others wait for it: a cold start opens one connection and not one for each request. An
//! origin that takes few streams, or none, is given a few connections and not more.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};

use super::session::{Peek, Session};
use crate::clock;
use crate::config::Limits;
use crate::origin::SendError;
use crate::origin::lock::Lock;

/// Time between two looks at what has become too old.
const SWEEP: Duration = Duration::from_secs(1);

/// Shared connections by endpoint and site.
#[derive(Debug)]
pub(in crate::origin) struct Shelf {
    limits: Arc<Limits>,
    rows: Lock<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    rows: HashMap<(u64, usize), Row>,
    sweeping: bool,
}

#[derive(Debug, Default)]
struct Row {
    /// The newest last.
    sessions: Vec<Arc<Session>>,
    opening: Option<watch::Receiver<Option<SendError>>>,
    room: Arc<Notify>,
}

/// What a request gets.
pub(in crate::origin) enum Take {
    /// A stream on a connection.
    Slot(Slot),
    /// It is to open a connection, and says by the sender what came of it.
    Open(Opening),
    /// Somebody else opens one, or there is no room: it waits and asks again.
    Wait(Waiting),
}

/// A place for one stream on a connection.
#[derive(Debug)]
pub(in crate::origin) struct Slot {
    /// The connection.
    pub(in crate::origin) session: Arc<Session>,
    room: Arc<Notify>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.session.leave(clock::now().boot);
        self.room.notify_one();
    }
}

/// The task of opening a connection that others wait for.
pub(in crate::origin) struct Opening {
    shelf: Arc<Shelf>,
    key: (u64, usize),
    outcome: watch::Sender<Option<SendError>>,
    /// Told when a connection may have room.
    pub(in crate::origin) room: Arc<Notify>,
}

/// A wait for a connection or for room on one.
pub(in crate::origin) struct Waiting {
    opening: Option<watch::Receiver<Option<SendError>>>,
    room: OwnedNotified,
}

impl Waiting {
    /// Waits until asking again may help.
    ///
    /// # Errors
    /// Why no connection came about.
    pub(in crate::origin) async fn wait(self) -> Result<(), SendError> {
        let Some(mut opening) = self.opening else {
            self.room.await;
            return Ok(());
        };
        tokio::select! {
            changed = opening.changed() => match (changed, opening.borrow().clone()) {
                (Ok(()), Some(error)) => Err(error),
                _ => Ok(()),
            },
            () = self.room => Ok(()),
        }
    }
}

impl Opening {
    /// The connection is there: the first stream on it, unless the origin takes none.
    pub(in crate::origin) fn opened(self, session: &Arc<Session>) -> Option<Slot> {
        self.shelf.add(self.key, session)
    }

    /// No connection came about; those who wait are told why.
    pub(in crate::origin) fn failed(self, error: &SendError) {
        self.outcome.send_replace(Some(error.clone()));
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut rows = self.shelf.rows.lock();
        if let Some(row) = rows.rows.get_mut(&self.key) {
            row.opening = None;
            if row.sessions.is_empty() {
                rows.rows.remove(&self.key);
            }
        }
        drop(rows);
        self.room.notify_waiters();
    }
}

impl Shelf {
    pub(in crate::origin) fn new(limits: Arc<Limits>) -> Self {
        Self { limits, rows: Lock::default() }
    }

    /// Looks for room on a connection to `endpoint` for `site`. `fresh` asks for one that was heard
    /// of a short while ago.
    pub(in crate::origin) async fn take(
        self: &Arc<Self>,
        endpoint: u64,
        site: usize,
        fresh: bool,
    ) -> Take {
        let mut yielded = false;
        loop {
            let now = clock::now().boot;
            let slot = match self.pick((endpoint, site), fresh, now) {
                Take::Slot(slot) => slot,
                other => return other,
            };
            match slot.session.peek() {
                // The task of the connection will see what has come; here it decides whether the
                // connection is still good for a request.
                Peek::Unread if !yielded => {
                    drop(slot);
                    yielded = true;
                    tokio::task::yield_now().await;
                }
                Peek::Quiet | Peek::Unread => return Take::Slot(slot),
                Peek::Ended => slot.session.retire(),
            }
        }
    }

    fn pick(self: &Arc<Self>, key: (u64, usize), fresh: bool, now: Duration) -> Take {
        let mut rows = self.rows.lock();
        let row = rows.rows.entry(key).or_default();
        let gone = row.prune(&self.limits, now);
        let strict = fresh && row.sessions.len() < self.most();
        let free = row
            .sessions
            .iter()
            .rev()
            .find(|session| (!strict || session.is_fresh(now)) && session.join());
        let take = if let Some(session) = free {
            Take::Slot(Slot { session: Arc::clone(session), room: Arc::clone(&row.room) })
        } else if row.opening.is_some() || row.sessions.len() >= self.most() {
            let room = Arc::clone(&row.room).notified_owned();
            Take::Wait(Waiting { opening: row.opening.clone(), room })
        } else {
            let (outcome, opening) = watch::channel(None);
            row.opening = Some(opening);
            let room = Arc::clone(&row.room);
            Take::Open(Opening { shelf: Arc::clone(self), key, outcome, room })
        };
        drop(rows);
        drop(gone);
        take
    }

    fn most(&self) -> usize {
        self.limits.origin_http2_connections
    }

    fn add(self: &Arc<Self>, key: (u64, usize), session: &Arc<Session>) -> Option<Slot> {
        let mut rows = self.rows.lock();
        let row = rows.rows.entry(key).or_default();
        row.sessions.push(Arc::clone(session));
        let slot = session
            .join()
            .then(|| Slot { session: Arc::clone(session), room: Arc::clone(&row.room) });
        let start = !std::mem::replace(&mut rows.sweeping, true);
        drop(rows);
        if start {
            self.start_sweeping();
        }
        slot
    }

    /// A task that lets go of what is too old, retired or closed by the other side, and ends when
    /// nothing is left.
    fn start_sweeping(self: &Arc<Self>) {
        let shelf: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(shelf) = shelf.upgrade() else { return };
                if !shelf.sweep(clock::now().boot) {
                    return;
                }
            }
        });
    }

    fn sweep(&self, now: Duration) -> bool {
        let mut gone = Vec::new();
        let mut rows = self.rows.lock();
        rows.rows.retain(|_, row| {
            gone.extend(row.prune(&self.limits, now));
            // Whoever waits holds the row's bell.
            !row.sessions.is_empty() || row.opening.is_some() || Arc::strong_count(&row.room) > 1
        });
        let left = !rows.rows.is_empty();
        rows.sweeping = left;
        drop(rows);
        drop(gone);
        left
    }
}

impl Row {
    /// Takes out what must not get another stream; streams under way go on.
    fn prune(&mut self, limits: &Limits, now: Duration) -> Vec<Arc<Session>> {
        self.sessions.extract_if(.., |session| !session.may_live(limits, now)).collect()
    }
}
