//! This node among the others: the handle that the process has on it, and the thread that owns its
//! time.
//!
//! ```text
//! links --> heard --> [ thread: a message, the clock, the disk ] --\
//! admin, PURGE ------------------------------------------------------> lock --> Core
//! ```
//!
//! The thread has a clock of its own, so that nothing that the control runtime is busy with delays
//! a tick or an answer. A purge is issued by whoever asks for it, under the same lock: it is in force
//! when the call returns, after microseconds, or after the few milliseconds of a batch that is
//! being caught up. The thread lets those go first who wait for the lock.

use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::core::{Core, Roster, Surroundings, Voice};
use super::handle::{Busy, Issued, MeshView, ReceiptView, Until, Waited};
use super::links::{Heard, Links, MeshError};
use super::meant::Localise;
use super::part::{Part, Seat};
use super::payload;
use super::peers::PeerView;
use crate::clock::{self, Now};
use crate::config;
use crate::purge::{Selector, Strength};
use crate::replication::{Event, Identity, Message, Name, Settings, TooFewForChange, WitnessSet};
use crate::store::Author;

/// Time between two ticks of the protocol.
const TICK: Duration = Duration::from_millis(50);
/// Messages of peers that wait to be looked at; beyond them the links wait.
pub(super) const HEARD: usize = 1024;
/// Messages that are looked at before others are asked whether they wait.
const AT_ONCE: usize = 64;
/// How often somebody who waits for the lock is let go first, at most.
const GIVE_WAY: usize = 1_000;
/// When it is worth asking again for a purge while another process takes this one's part.
const ELSEWHERE: Duration = Duration::from_secs(1);
/// How long somebody who waits for a purge to be everywhere sleeps at most: that a node is fenced
/// comes with time and not with a message.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// This node among the others.
pub struct Mesh {
    core: Mutex<Core>,
    /// Those who wait for the lock and are not the thread.
    waiting: AtomicUsize,
    changes: watch::Sender<u64>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) disk_moved: Arc<Notify>,
    /// There while it takes part.
    pub(super) links: ArcSwapOption<Links>,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) seat: Seat,
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").finish_non_exhaustive()
    }
}

impl Mesh {
    /// This node, which takes no part yet. From here on no lease is in force until it does and
    /// holds one. Peers come to `socket`; the links are carried by `runtime`.
    ///
    /// # Errors
    /// When its certificate cannot be used.
    pub fn prepare(
        config: &config::Mesh,
        node: &config::Node,
        around: Surroundings,
        (socket, runtime): (TcpListener, Handle),
    ) -> Result<Arc<Self>, MeshError> {
        let (name, pop) = (Name::from(node.name.as_str()), Name::from(node.pop.as_str()));
        let settings = settings(config, name.clone());
        let seat = Seat::new(config, (name, pop), socket, runtime)?;
        let core = Core::new((settings, roster(config)), around, Arc::new(Nobody));
        Ok(Arc::new(Self {
            core: Mutex::new(core),
            waiting: AtomicUsize::new(0),
            changes: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            disk_moved: Arc::new(Notify::new()),
            links: ArcSwapOption::empty(),
            thread: Mutex::new(None),
            seat,
        }))
    }

    /// Gives the node its time.
    pub(super) fn start(self: &Arc<Self>, heard: mpsc::Receiver<Heard>) -> std::io::Result<()> {
        let own = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mesh = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("mesh".to_owned())
            .spawn(move || own.block_on(mesh.run(heard)))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Issues a purge. It is in force here when this returns, and on its way to the others.
    ///
    /// # Errors
    /// When this node issues none, purges come too fast, or one is too long. Nothing of it is
    /// applied then.
    pub fn purge(
        &self,
        by: &Author,
        selectors: &[Selector],
        strength: Strength,
        now: Now,
    ) -> Result<Issued, Busy> {
        let parts = payload::encode(Some(by), now.wall, strength, selectors);
        let parts = parts.map_err(|payload::TooLong| Busy::TooLong)?;
        let (issued, changed) = {
            let mut core = self.first();
            if !core.issues() {
                return Err(Busy::Barred);
            }
            if core.part != Part::Taken {
                return Err(Busy::Elsewhere { again: ELSEWHERE });
            }
            let issued = core.submit(parts);
            (issued, std::mem::take(&mut core.dirty))
        };
        self.tell(changed);
        issued
    }

    /// How a purge that this node issued stands, as long as that is remembered.
    #[must_use]
    pub fn receipt(&self, identity: &Identity, now: Now) -> Option<ReceiptView> {
        let peers = self.peers();
        self.first().receipt(identity, &peers, now)
    }

    /// Waits until a purge that this node issued has come so far, `timeout` at longest.
    pub async fn wait(&self, identity: &Identity, until: Until, timeout: Duration) -> Waited {
        let place = Place::take(self, identity);
        let far = async {
            loop {
                // Enabled before it is looked at: what happens in between wakes.
                let mut moved = std::pin::pin!(place.moved.notified());
                moved.as_mut().enable();
                match self.first().has_reached(identity, until, clock::now()) {
                    Some(true) | None => return,
                    Some(false) => {}
                }
                // A timeout is a reason to look again, too.
                let _ = tokio::time::timeout(LOOK_AGAIN, moved).await;
            }
        };
        // Whichever way this ends, how it stands is what counts.
        let _ = tokio::time::timeout(timeout, far).await;
        let receipt = self.receipt(identity, clock::now());
        let reached = receipt.as_ref().is_some_and(|receipt| match until {
            Until::Acknowledged => receipt.acknowledged_ms.is_some(),
            Until::Everywhere => receipt.everywhere,
        });
        Waited { reached, receipt }
    }

    /// Moves whenever a receipt or the view has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The mesh as this node sees it.
    #[must_use]
    pub fn view(&self, now: Now) -> MeshView {
        let peers = self.peers();
        self.first().view(&peers, now)
    }

    /// Whether this node has held a lease in this life of its process.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.first().standing.caught_up
    }

    /// Whether the witnesses of a configuration that was read anew can take the place of those that are.
    ///
    /// # Errors
    /// There are too few nodes to exchange so many at once.
    pub fn may_reconfigure(&self, config: &config::Mesh) -> Result<(), TooFewForChange> {
        self.first().may_reconfigure(&witnesses(config))
    }

    /// Another roster, and other witnesses, from a configuration that was read anew.
    pub fn reconfigure(&self, config: &config::Mesh) {
        self.first().reconfigure(roster(config), witnesses(config));
    }

    /// What selectors mean here, by a configuration that was read anew.
    pub fn localise_by(&self, localise: Localise) {
        self.first().around.localise = localise;
    }

    /// The links, to have their certificate read anew.
    #[must_use]
    pub fn links(&self) -> Option<Arc<Links>> {
        self.links.load_full()
    }

    async fn run(self: Arc<Self>, mut heard: mpsc::Receiver<Heard>) {
        let mut stop = self.stop.subscribe();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => self.act(Core::tick),
                () = self.disk_moved.notified() => self.act(Core::persisted),
                heard = self.hear(&mut heard) => if !heard { return },
            }
        }
    }

    /// Takes the messages that are there, some at a time. Says whether more may come.
    async fn hear(&self, heard: &mut mpsc::Receiver<Heard>) -> bool {
        let mut some = Vec::new();
        if heard.recv_many(&mut some, AT_ONCE).await == 0 {
            return false;
        }
        for Heard { from, message } in some {
            self.act(|core| core.handle(Event::Message { from, message }));
        }
        true
    }

    /// The thread's turn.
    fn act(&self, act: impl FnOnce(&mut Core)) {
        for _ in 0..GIVE_WAY {
            if self.waiting.load(Ordering::Acquire) == 0 {
                break;
            }
            std::thread::yield_now();
        }
        let changed = {
            let mut core = self.lock();
            act(&mut core);
            std::mem::take(&mut core.dirty)
        };
        self.tell(changed);
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }

    /// Somebody else's turn, before the thread's next one.
    pub(super) fn first(&self) -> MutexGuard<'_, Core> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let core = self.lock();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        core
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers(&self) -> Vec<PeerView> {
        // Not under the lock: the links have their own.
        let voice = Arc::clone(&self.first().voice);
        voice.peers()
    }
}

/// A place among those who wait for a purge, given back when it is dropped.
struct Place<'a> {
    mesh: &'a Mesh,
    identity: &'a Identity,
    moved: Arc<Notify>,
}

impl<'a> Place<'a> {
    fn take(mesh: &'a Mesh, identity: &'a Identity) -> Self {
        let mut core = mesh.first();
        let (places, moved) = core.waiting.entry(identity.clone()).or_default();
        *places += 1;
        Self { mesh, identity, moved: Arc::clone(moved) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut core = self.mesh.first();
        if let Some((places, _)) = core.waiting.get_mut(self.identity) {
            *places -= 1;
            if *places == 0 {
                core.waiting.remove(self.identity);
            }
        }
    }
}

/// Nobody to speak to.
struct Nobody;

impl Voice for Nobody {
    fn say(&self, _to: &Name, _message: &Message) {}

    fn peers(&self) -> Vec<PeerView> {
        Vec::new()
    }
}

/// The links as the core speaks through them.
pub(super) struct LinkVoice(pub(super) Arc<Links>);

impl Voice for LinkVoice {
    fn say(&self, to: &Name, message: &Message) {
        self.0.say(to, message);
    }

    fn peers(&self) -> Vec<PeerView> {
        self.0.peers()
    }
}

fn name(text: &str) -> Name {
    Name::from(text)
}

fn roster(config: &config::Mesh) -> Roster {
    let node = |node: &config::MeshNode| (name(&node.name), (name(&node.pop), node.issues));
    config.nodes.iter().map(node).collect()
}

fn witnesses(config: &config::Mesh) -> Vec<Name> {
    config.witnesses.iter().map(|member| name(member)).collect()
}

/// What the configuration means to the protocol.
pub(super) fn settings(config: &config::Mesh, me: Name) -> Settings {
    let roster: BTreeMap<Name, Name> =
        roster(config).into_iter().map(|(name, (pop, _))| (name, pop)).collect();
    let witnesses =
        WitnessSet { number: config.witness_set, members: witnesses(config), joining: None };
    let mut settings = Settings::new(me, roster, witnesses);
    settings.lease = config.lease;
    settings.relays = config.relays;
    settings.disk = config.directory.is_some();
    settings.log_records = config.log_records;
    settings.log_bytes = config.log_bytes;
    settings.rate = config.purge_rate;
    settings.burst = config.purge_burst;
    settings
}
