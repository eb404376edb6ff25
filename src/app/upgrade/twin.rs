//! The other process, while two of them serve: from the moment the new one accepts until the old one
//! has gone.
//!
//! Each has a cache of its own, and clients may still be answered from either: so whatever is purged at
//! one has to be gone at both before the purge is answered. The other one empties its cache altogether.
//! That costs little: the new one's has just begun to fill, and the old one's goes anyway.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::channel::{Channel, Said};
use crate::app::Shared;
use crate::clock;
use crate::listener::OpenSocket;

/// Time that a purge waits for the other process.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks at whether this process ends.
const LOOK: Duration = Duration::from_millis(500);

/// The other process.
#[derive(Debug)]
pub(super) struct Twin {
    channel: Channel,
    asked: AtomicU64,
    heard: Mutex<Heard>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Heard {
    /// Number up to which it has forgotten.
    forgot: u64,
    gone: bool,
}

impl Twin {
    pub(super) fn new(channel: Channel) -> Arc<Self> {
        Arc::new(Self {
            channel,
            asked: AtomicU64::new(0),
            heard: Mutex::default(),
            news: Condvar::new(),
        })
    }

    pub(super) fn say(&self, word: &str) -> io::Result<()> {
        self.channel.say(word)
    }

    /// Hands over the listening sockets and where to write errors.
    pub(super) fn give(
        &self,
        sockets: &[OpenSocket],
        standard_error: BorrowedFd<'_>,
    ) -> io::Result<()> {
        self.channel.give(sockets)?;
        self.channel.begin(standard_error)
    }

    /// What it says before both serve.
    pub(super) fn hear(&self, within: Duration) -> io::Result<Option<Said>> {
        self.channel.hear(within)
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the other one empty its cache; it has, or is gone, when this returns.
    pub(super) fn forget(&self) {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if self.channel.say(&format!("forget {number}")).is_err() {
            return;
        }
        let waits = |heard: &mut Heard| heard.forgot < number && !heard.gone;
        let heard = self.heard();
        let (heard, _) = self
            .news
            .wait_timeout_while(heard, PATIENCE, waits)
            .unwrap_or_else(PoisonError::into_inner);
        if heard.forgot < number && !heard.gone {
            tracing::error!("the other process of this upgrade does not say that it purged");
        }
    }

    /// The other one is gone: nobody needs to wait for it.
    pub(super) fn part(&self) {
        self.heard().gone = true;
        self.news.notify_all();
    }

    /// Hears one thing, and does what it asks for. `true` where the other one is ready.
    pub(super) fn listen(&self, shared: &Shared, within: Duration) -> io::Result<bool> {
        let said = self.channel.hear(within);
        match said {
            Ok(Some(Said::Ready)) => return Ok(true),
            Ok(Some(Said::Forget(number))) => {
                shared.empty(clock::now());
                tracing::info!("emptied: the other process of this upgrade was told to purge");
                self.channel.say(&format!("forgot {number}"))?;
            }
            Ok(Some(Said::Forgot(number))) => {
                let mut heard = self.heard();
                heard.forgot = heard.forgot.max(number);
                self.news.notify_all();
            }
            Ok(_) => {}
            Err(error) => {
                self.part();
                return Err(error);
            }
        }
        Ok(false)
    }

    /// Listens until the other process is gone or this one ends.
    pub(super) fn follow(self: Arc<Self>, shared: &Shared) {
        while !*shared.stop.borrow() && self.listen(shared, LOOK).is_ok() {}
        shared.succession.forget_twin(&self);
    }
}
