//! The protocol core of this node, and what it asks for, done in its order.
//!
//! All of it is under one lock, so that the actions of one event are done before the next event is
//! looked at, whoever brings it: a peer, the clock, the disk, or a request for a purge. Nothing in
//! here waits: what is said is queued, what is written down is handed to a thread, a log that has to be opened
//! again is opened by another, and applying a purge is a few rows in memory. (After a panic the disk is waited for, some seconds at most.)
//!
//! ```text
//! event -> Replica -> Apply    rows at one new epoch, published
//!                     Lease    published after the epochs that it depends on
//!                     Persist  all of one event together, or none of it
//!                     Send     queued on the link
//! ```
//!
//! A panic does not end the node. One while a record is carried out has the record applied as wide
//! as its frame says, as one that can't be read. One in the protocol gives the lease up, distrusts all that is stored, and
//! begins the protocol anew from what the disk has, or without memory, which it is made to survive.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::disk::Disk;
use super::handle::{Busy, Issued};
use super::meant::Localise;
use super::overheard::{Overheard, Told};
use super::part::Part;
use super::payload;
use super::peers::PeerView;
use super::reopen::Reopen;
use crate::clock::{self, Now};
use crate::purge::Strength;
use crate::replication::{
    Action, Entry, Event, Identity, Lease, Message, Mutation, Name, Notice, Record, Refusal,
    Replica, Reset, ResetWhy, Settings, Source, Start,
};
use crate::store::{Applied, Events, Purges, What};
use crate::telemetry::Metrics;
use crate::tickets::Tickets;

/// First time for which a node hears nothing after a fault in the protocol; it doubles with each.
const DEAF: Duration = Duration::from_millis(100);
/// How often it doubles at most.
const DEAF_DOUBLES: u32 = 6;
/// After this long without a fault they are forgotten.
const FAULTS_FORGOTTEN: Duration = Duration::from_secs(60);

/// How others are spoken to.
pub(super) trait Voice: Send + Sync {
    /// Queues a message. Never waits.
    fn say(&self, to: &Name, message: &Message);

    /// How the links stand.
    fn peers(&self) -> Vec<PeerView>;
}

/// What purges are applied to, and where it is told.
#[derive(Clone)]
pub struct Surroundings {
    /// The purge table, and the lease.
    pub purges: Arc<Purges>,
    /// What happens on the node.
    pub events: Arc<Events>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What selectors mean here.
    pub localise: Localise,
    /// Keys of session tickets, which the nodes share.
    pub tickets: Arc<Tickets>,
}

/// The protocol core with what it acts on.
pub(super) struct Core {
    pub(super) replica: Replica,
    pub(super) settings: Settings,
    /// Every node with its PoP, and whether it issues purges.
    pub(super) roster: Roster,
    /// The witnesses as the configuration names them.
    pub(super) configured: Vec<Name>,
    pub(super) around: Surroundings,
    pub(super) voice: Arc<dyn Voice>,
    pub(super) disk: Option<Disk>,
    /// How a disk is opened that could not be, or has failed.
    pub(super) reopen: Option<Reopen>,
    pub(super) standing: Standing,
    pub(super) part: Part,
    pub(super) peers: BTreeMap<Name, Heard>,
    /// Those who wait for a purge to come further.
    pub(super) waiting: HashMap<Identity, (usize, Arc<Notify>)>,
    /// Something has changed that somebody may watch.
    pub(super) dirty: bool,
    /// Sites of others that the log has told of.
    pub(super) unknown: RefCell<BTreeSet<Arc<str>>>,
    faults: Faults,
    pub(super) persisted: u64,
}

/// Every node with its PoP, and whether it issues purges.
pub(super) type Roster = BTreeMap<Name, (Name, bool)>;

/// This node's lease over time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) lease: Option<Lease>,
    /// Since when it has been as it is.
    pub(super) since: Duration,
    pub(super) lost: u64,
    pub(super) caught_up: bool,
}

/// What was heard of a peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) at: Duration,
    /// Its life, and the last number that it gave in it.
    pub(super) issued: Option<(Source, u64)>,
}

/// Faults in the protocol, of late.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    number: u32,
    last: Duration,
    deaf_until: Duration,
}

impl Core {
    /// A node that takes no part yet. Until it holds a lease, none is in force.
    pub(super) fn new(
        (settings, roster): (Settings, Roster),
        around: Surroundings,
        voice: Arc<dyn Voice>,
    ) -> Self {
        let now = clock::now();
        around.purges.publish_lease(None);
        around.metrics.mesh.lease_held.set(0);
        let start = Start::Forgotten;
        let replica = Replica::new(settings.clone(), start, Mutation::None, draw(), now);
        Self {
            replica,
            configured: settings.witnesses.members.clone(),
            settings,
            roster,
            around,
            voice,
            disk: None,
            reopen: None,
            standing: Standing { since: now.boot, ..Standing::default() },
            part: Part::NotYet,
            peers: BTreeMap::new(),
            waiting: HashMap::new(),
            dirty: true,
            unknown: RefCell::default(),
            faults: Faults::default(),
            persisted: 0,
        }
    }

    /// Something has happened.
    pub(super) fn handle(&mut self, event: Event) {
        let now = clock::now();
        if matches!(event, Event::Message { .. }) && now.boot < self.faults.deaf_until {
            return;
        }
        self.guarded(now, |core| {
            let heard = Overheard::of(&event);
            let actions = core.replica.handle(event, draw(), now);
            core.perform(actions, now);
            core.overhear(heard, now);
        });
    }

    /// Has the core know what is safe on disk by now.
    pub(super) fn persisted(&mut self) {
        let Some(disk) = &self.disk else { return };
        let safe = disk.safe();
        if safe > self.persisted {
            self.persisted = safe;
            self.handle(Event::Persisted { ticket: safe });
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        self.persisted();
        self.handle(Event::Tick);
        self.look_after_disk();
        self.measure();
    }

    /// Issues a purge, which is in force here when this returns.
    pub(super) fn submit(&mut self, mut parts: Vec<payload::Part>) -> Result<Issued, Busy> {
        let now = clock::now();
        let fault = Busy::TooMany { again: Duration::from_secs(1) };
        let Some(last) = parts.pop() else { return Err(Busy::TooLong) };
        let taken_apart = |part: payload::Part| (part.scope, part.payload);
        let before = parts.into_iter().map(taken_apart).collect();
        let issued = self.guarded(now, |core| {
            let submitted = core.replica.submit_parts(before, taken_apart(last), true, now);
            let (identity, actions) = submitted.map_err(|refusal| match refusal {
                Refusal::TooMany { again } => Busy::TooMany { again },
                Refusal::TooLong => Busy::TooLong,
            })?;
            let applied = core.perform(actions, now).ok_or(fault)?;
            Ok(Issued { identity, applied })
        });
        let issued = issued.unwrap_or(Err(fault));
        match &issued {
            Ok(_) => self.around.metrics.mesh.issued.inc(),
            Err(Busy::TooMany { .. }) => self.around.metrics.mesh.too_many.inc(),
            Err(Busy::Elsewhere { .. } | Busy::Barred | Busy::TooLong) => {}
        }
        issued
    }

    /// Does what the core asks for, in its order; gives what the first purges came to.
    fn perform(&mut self, actions: Vec<Action>, now: Now) -> Option<Applied> {
        let mut first = None;
        let mut writes: Option<(u64, Vec<Entry>)> = None;
        let mut leapt = false;
        for action in actions {
            match action {
                Action::Send { to, message } => self.say(&to, &message),
                Action::Apply(records) => {
                    let applied = self.apply(&records, now);
                    first.get_or_insert(applied);
                }
                Action::Reset(reset) => {
                    self.reset(reset, now);
                    leapt = true;
                }
                Action::Persist { ticket, entries } => {
                    let (last, all) = writes.get_or_insert_with(|| (ticket, Vec::new()));
                    *last = ticket;
                    all.extend(entries);
                }
                Action::Lease(lease) => self.publish(lease, now),
                Action::Acknowledged(identity) => self.acknowledged(identity, now),
                Action::Notice(notice) => {
                    leapt |= matches!(notice, Notice::Retired { .. });
                    self.notice(notice, now);
                }
            }
        }
        if let (Some((ticket, entries)), Some(disk)) = (writes, &self.disk) {
            // Together: a life never stands on the disk without what was taken over for it.
            disk.write(ticket, entries);
        }
        if leapt {
            self.note_all();
        }
        first
    }

    fn say(&self, to: &Name, message: &Message) {
        if let Message::Records(records) = message {
            self.around.metrics.mesh.repairs.inc_by(records.len() as u64);
        }
        self.voice.say(to, message);
    }

    fn apply(&mut self, records: &[Arc<Record>], now: Now) -> Applied {
        let purges = &self.around.purges;
        let exact = || purges.apply_batch(&self.meant(records, true), now);
        // Whatever was written before a panic is in force with the next epoch: too much, not less.
        let applied = catch_unwind(AssertUnwindSafe(exact)).unwrap_or_else(|_| {
            tracing::error!(records = records.len(), "purges could not be carried out");
            purges.apply_batch(&self.meant(records, false), now)
        });
        self.note(records);
        applied
    }

    /// Counts records that are in force, and notes how far their sources have come.
    fn note(&self, records: &[Arc<Record>]) {
        for run in records.chunk_by(|one, next| one.identity.source == next.identity.source) {
            let Some(Identity { source, sequence }) = run.last().map(|last| &last.identity) else {
                continue;
            };
            self.around.purges.positions().note(source, *sequence);
            let pop = self.pop(&source.node);
            self.around.metrics.mesh.applied(pop, run.len() as u64);
        }
    }

    /// Notes how far all sources have come, and forgets those that have left.
    pub(super) fn note_all(&self) {
        let positions = self.around.purges.positions();
        let vector = self.replica.vector();
        positions.retain(|source| vector.mark(source).sequence > 0);
        vector.marks().for_each(|(source, mark)| positions.note(source, mark.sequence));
    }

    fn reset(&mut self, reset: Reset, now: Now) {
        let why = reason(reset.why);
        let epoch = self.around.purges.distrust_all(Strength::Check, now);
        self.around.metrics.mesh.reset(why);
        self.around.events.publish(What::Distrust { epoch, why }, now.wall);
        tracing::warn!(why, epoch, "all that is stored is to be checked with its origin");
        self.dirty = true;
    }

    pub(super) fn publish(&mut self, lease: Option<Lease>, now: Now) {
        let lease = lease.filter(|_| self.part == Part::Taken);
        self.around.purges.publish_lease(lease.map(Into::into));
        let (before, metrics) = (self.standing.lease, &self.around.metrics.mesh);
        self.standing.lease = lease;
        if before.is_some() == lease.is_some() {
            return;
        }
        let held = lease.is_some();
        let since = now.boot.saturating_sub(self.standing.since);
        self.standing.since = now.boot;
        metrics.lease_held.set(held.into());
        let without = held.then_some(since);
        if held {
            tracing::info!(without = ?since, first = !self.standing.caught_up, "the lease is held");
            self.standing.caught_up = true;
        } else {
            tracing::warn!(held = ?since, "the lease is lost: purges may be missed");
            self.standing.lost += 1;
            metrics.lease_lost.inc();
        }
        self.around.events.publish(What::Lease { held, without }, now.wall);
        self.dirty = true;
    }

    fn acknowledged(&mut self, identity: Identity, now: Now) {
        let issued = self.replica.receipt(&identity).map(|receipt| receipt.issued);
        if let Some(issued) = issued {
            let after = now.boot.saturating_sub(issued);
            self.around.metrics.mesh.acknowledged_after(after);
            self.wake(&identity);
            self.around.events.publish(What::Acknowledged { identity, after }, now.wall);
        }
        self.dirty = true;
    }

    fn notice(&mut self, notice: Notice, now: Now) {
        self.dirty = true;
        match notice {
            Notice::Refused(identity) => {
                self.around.metrics.mesh.refused.inc();
                tracing::error!(%identity, "a record was refused: its name is known with another content");
                self.around.events.publish(What::RefusedRecord { identity }, now.wall);
            }
            Notice::Reborn => {
                let (source, _) = self.replica.issued();
                tracing::error!(
                    ?source,
                    "this node's former numbers are taken: it issues under another incarnation"
                );
            }
            Notice::Superseded => {
                tracing::error!("another process answers as this witness: this one begins anew");
            }
            Notice::Serving { generation } => {
                tracing::info!(generation = %format_args!("{generation:016x}"), "this node counts as a witness");
            }
            Notice::Retired { sources } => tracing::info!(sources, "sources have left the vector"),
            Notice::Unconfirmed { holders, asked } => tracing::warn!(
                holders,
                asked,
                "most witnesses are without memory, and not enough nodes have said that they know no \
                 newer set of witnesses: there are no leases until more than half have"
            ),
            Notice::OtherWitnesses { node, number } => {
                self.around.metrics.mesh.other_witnesses.inc();
                tracing::error!(
                    %node, number,
                    "a node was told other witnesses under the same number: what the two sets say is \
                     never counted together, and whoever has no majority has no lease"
                );
            }
            Notice::ChangeRefused(too_few) => {
                tracing::error!("the witnesses stay: {too_few}");
            }
            Notice::ChangeStuck(too_few) => tracing::error!(
                "the change of the witnesses cannot end, and purges need most of the former and of the new \
                 ones until nodes are added: {too_few}"
            ),
            Notice::Witnesses { number } => {
                tracing::info!(number, members = ?self.replica.witnesses().members, "another set of witnesses");
            }
        }
    }

    /// Notes what a message says beside what the core makes of it.
    fn overhear(&mut self, overheard: Option<Overheard>, now: Now) {
        let Some(Overheard { from, what }) = overheard else { return };
        match &what {
            Told::Applied(identity) => self.applied_there(&from, identity, now),
            Told::Records(number) => self.around.metrics.mesh.repaired.inc_by(*number),
            Told::Beat(..) | Told::Other => {}
        }
        let heard = self.peers.entry(from).or_default();
        heard.at = now.boot;
        if let Told::Beat(source, sequence) = what {
            heard.issued = Some((source, sequence));
        }
    }

    /// A node says that it has applied a purge of this one, and all before it.
    fn applied_there(&mut self, from: &Name, identity: &Identity, now: Now) {
        for receipt in self.replica.heard_applied(identity, from, now) {
            let after = now.boot.saturating_sub(receipt.issued);
            self.around.metrics.mesh.spread(self.pop(from), after);
            self.wake(&receipt.identity);
            self.dirty = true;
        }
    }

    fn wake(&self, identity: &Identity) {
        if let Some((_, waiting)) = self.waiting.get(identity) {
            waiting.notify_waiters();
        }
    }

    /// A name for labels: only those of the roster are bounded.
    pub(super) fn pop(&self, node: &Name) -> &str {
        self.roster.get(node).map_or("other", |(pop, _)| pop.as_str())
    }

    /// Begins anew after a panic in the protocol.
    fn guarded<T>(&mut self, now: Now, act: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if let Ok(result) = catch_unwind(AssertUnwindSafe(|| act(self))) {
            return Some(result);
        }
        self.around.metrics.mesh.restarts.inc();
        let calm = now.boot.saturating_sub(self.faults.last) >= FAULTS_FORGOTTEN;
        let number = if calm { 0 } else { self.faults.number };
        let deaf = DEAF * 2_u32.pow(number.min(DEAF_DOUBLES));
        self.faults = Faults { number: number + 1, last: now.boot, deaf_until: now.boot + deaf };
        tracing::error!(faults = number + 1, "a fault in the mesh's protocol: it begins anew");
        // What waits for the disk below may take seconds, during which purges wait for the lock, and
        // nothing is answered from memory unasked.
        self.publish(None, now);
        // A log that leads to a fault is not trusted twice.
        let start = match &self.disk {
            Some(disk) if number == 0 => disk.start_over(),
            Some(disk) => {
                disk.start_over();
                Start::Forgotten
            }
            None => Start::Forgotten,
        };
        self.begin(start, now);
        None
    }

    /// Begins anew in a process that goes on: what it had applied is in force still, but nobody
    /// knows whether that is all.
    pub(super) fn begin(&mut self, start: Start, now: Now) {
        self.publish(None, now);
        self.around.purges.distrust_all(Strength::Check, now);
        self.around.metrics.mesh.reset("restart");
        self.persisted = 0;
        let settings = self.settings.clone();
        self.replica = Replica::new(settings, start, Mutation::None, draw(), now);
        self.note_all();
        self.waiting.values().for_each(|(_, waiting)| waiting.notify_waiters());
        self.dirty = true;
    }

    fn measure(&self) {
        let sizes = self.replica.sizes();
        let metrics = &self.around.metrics.mesh;
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.sources.set(gauge(sizes.sources));
        metrics.waiting.set(gauge(sizes.waiting));
        metrics.log_records.set(gauge(sizes.log_records));
        metrics.log_bytes.set(gauge(sizes.log_bytes));
        metrics.missing.set(i64::try_from(self.replica.missing()).unwrap_or(i64::MAX));
        if let Some(disk) = &self.disk {
            metrics.disk_bytes.set(i64::try_from(disk.bytes()).unwrap_or(i64::MAX));
        }
        let healthy = self.disk.as_ref().is_some_and(Disk::is_healthy);
        metrics.disk_healthy.set((healthy || !self.settings.disk).into());
    }
}

fn reason(why: ResetWhy) -> &'static str {
    match why {
        ResetWhy::FirstAdoption => "first-adoption",
        ResetWhy::LogTruncated => "log-truncated",
        ResetWhy::Generation => "generation",
        ResetWhy::Retired => "retired",
        ResetWhy::Conflict => "conflict",
    }
}

/// A random number.
pub(super) fn draw() -> u64 {
    let mut bytes = [0; 8];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::error!("the system gives no random bytes");
    }
    u64::from_ne_bytes(bytes)
}
