//! Taking part, and leaving: one process at a time is this node.
//!
//! ```text
//! prepared --take_part--> takes part --leave--> another process is this node
//!                              ^                            |
//!                              +---------take_part----------+   where that one came to nothing
//! ```
//!
//! Who leaves gives its lease up first, waits for purges that somebody waits for, and lets go of the
//! links and of the log on disk. Who takes part begins with a new life, from what the log says by then.
//! Purges may have passed by whoever takes part again: all that it has stored is checked with its origin.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::core::{Core, draw};
use super::disk::Opened;
use super::links::{LinkIdentity, Links, MeshError, identity};
use super::node::{HEARD, LinkVoice, Mesh};
use super::reopen::{Reopen, open_disk};
use super::tls::Identity;
use crate::clock::{self, Now};
use crate::config;
use crate::replication::{Mutation, Name, Replica, Start};

/// Time that is left to purges which somebody waits for.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Time between two looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// Whether this process is its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Nobody has heard of it.
    NotYet,
    /// It is.
    Taken,
    /// Another one may be.
    Left,
}

/// What a node needs to take part.
pub(super) struct Seat {
    config: config::Mesh,
    name: Name,
    pop: Name,
    identity: Arc<Identity>,
    socket: Mutex<Option<TcpListener>>,
    runtime: Handle,
}

impl Seat {
    pub(super) fn new(
        config: &config::Mesh,
        (name, pop): (Name, Name),
        socket: TcpListener,
        runtime: Handle,
    ) -> Result<Self, MeshError> {
        let identity = identity(config, &name)?;
        let (config, socket) = (config.clone(), Mutex::new(Some(socket)));
        Ok(Self { config, name, pop, identity, socket, runtime })
    }

    fn listen(&self, error: std::io::Error) -> MeshError {
        MeshError::Listen { address: self.config.listen, error }
    }

    /// Its socket once more; none once all has ended.
    fn socket(&self) -> std::io::Result<TcpListener> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || std::io::Error::from(std::io::ErrorKind::NotConnected);
        socket.as_ref().ok_or_else(closed)?.try_clone()
    }
}

impl Mesh {
    /// Takes this node's part in the mesh.
    ///
    /// # Errors
    /// When the system gives no descriptor or no thread. Nothing has changed then.
    pub fn take_part(self: &Arc<Self>) -> Result<(), MeshError> {
        let seat = &self.seat;
        let (said, heard) = mpsc::channel(HEARD);
        let (metrics, tickets) = {
            let around = &self.first().around;
            (Arc::clone(&around.metrics), Arc::clone(&around.tickets))
        };
        let (name, pop) = (seat.name.clone(), seat.pop.clone());
        let who = LinkIdentity { name, pop, seed: draw(), tickets };
        let socket = seat.socket().map_err(|error| seat.listen(error))?;
        let links = {
            let _inside = seat.runtime.enter();
            Links::with(&seat.config, who, (Arc::clone(&seat.identity), socket), said, metrics)?
        };
        self.begin(&links);
        self.links.store(Some(links));
        self.stop.send_replace(false);
        self.start(heard).map_err(|error| {
            self.leave();
            seat.listen(error)
        })
    }

    fn begin(&self, links: &Arc<Links>) {
        let mut core = self.first();
        let (settings, metrics) = (core.settings.clone(), Arc::clone(&core.around.metrics));
        let open = self.seat.config.directory.clone().map(|directory| {
            let moved = Arc::clone(&self.disk_moved);
            move || open_disk(&directory, &settings, Arc::clone(&moved), Arc::clone(&metrics))
        });
        let nothing = || Opened { disk: None, start: Start::Forgotten, trouble: None };
        let Opened { disk, start, .. } = open.as_ref().map_or_else(nothing, |open| open());
        let now = clock::now();
        core.voice = Arc::new(LinkVoice(Arc::clone(links)));
        core.disk = disk;
        core.reopen = open.map(|open| Reopen {
            open: Arc::new(open),
            tried: now.boot,
            coming: None,
            forgets: false,
        });
        core.take_part(start, now);
    }

    /// Where peers come to.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.seat.socket().ok()?.local_addr().ok()
    }

    /// Leaves the mesh to another process. Without a lease from here on, and with nothing open when
    /// this returns; what was handed to the disk is written.
    pub fn leave(&self) {
        let until = clock::now().boot + UNDER_WAY;
        self.first().leave(clock::now());
        while !self.first().waiting.is_empty() && clock::now().boot < until {
            std::thread::sleep(LOOK);
        }
        self.stop.send_replace(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the mesh's thread has panicked");
        }
        if let Some(links) = self.links.swap(None) {
            links.end();
        }
        let mut core = self.first();
        core.reopen = None;
        core.disk = None;
    }

    /// Leaves the mesh for good.
    pub fn close(&self) {
        self.leave();
        *self.seat.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Core {
    fn take_part(&mut self, start: Start, now: Now) {
        let before = std::mem::replace(&mut self.part, Part::Taken);
        if before == Part::Left {
            return self.begin(start, now);
        }
        // Nothing is stored yet that could be older than a purge.
        self.replica = Replica::new(self.settings.clone(), start, Mutation::None, draw(), now);
        self.note_all();
        self.dirty = true;
    }

    fn leave(&mut self, now: Now) {
        self.part = Part::Left;
        self.publish(None, now);
    }
}
