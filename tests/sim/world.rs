//! The simulated world: one queue of events by one true time, everything drawn from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use atoll::replication::{
    Action, Event as Input, Message, Mutation, Name, Notice, Replica, ResetWhy, Saved, Settings,
    Start, WitnessSet,
};

use super::dice::Dice;
use super::edge::{Edge, EdgeBug, Request, Step, Want};
use super::known::Change;
use super::machine::{Clock, Machine, Process};
use super::network::Network;
use super::observer::{Broken, Observer};
use super::origin::{OBJECTS, Object, Strength, Version};
use super::plan::{HEALING, MILLI, Plan, SECOND, TROUBLE};
use super::tally::{Tally, Thing};

/// Which bug is planted, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Core(Mutation),
    Edge(EdgeBug),
}

#[derive(Debug)]
pub(crate) enum Event {
    Tick { process: usize },
    Deliver { from: usize, to: usize, message: Message },
    Persisted { process: usize, ticket: u64 },
    Ask { machine: usize, request: Request },
    Step { process: usize, step: Step },
    OriginReads { process: usize, object: Object, number: u64 },
    OriginAnswers { process: usize, object: Object, number: u64, version: Version },
    Sweep { process: usize },
    Resume { process: usize },
    Begin { fault: usize },
    End { fault: usize },
    Load,
    Purge,
    Audit,
}

/// More than this in one run is a storm of messages.
const EVENTS: u64 = 1_000_000;

pub(crate) struct World {
    pub(crate) plan: Plan,
    planted: Planted,
    pub(crate) dice: Dice,
    pub(crate) at: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    order: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) processes: Vec<Process>,
    by_name: BTreeMap<Name, usize>,
    pub(crate) network: Network,
    pub(crate) versions: [Version; OBJECTS],
    pub(crate) observer: Observer,
    pub(crate) tally: Tally,
    pub(crate) roster: BTreeMap<Name, Name>,
    pub(crate) running: BTreeSet<usize>,
    /// Changes of the witnesses that were asked for.
    pub(crate) changes: Vec<Change>,
    /// Who forgot which joint set, and when.
    pub(crate) forgotten: Vec<(u64, usize, u64)>,
    /// The newest set of witnesses that a node went over to.
    newest_set: u64,
    /// More was forgotten than is assumed: nothing is promised any more.
    beyond: bool,
}

impl World {
    pub(crate) fn new(plan: Plan, planted: Planted) -> Self {
        let mut dice = Dice::new(plan.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 7);
        let cluster = &plan.cluster;
        let count = cluster.pops.len();
        let mut machines = Vec::new();
        for node in 0..=count {
            let clock = Clock {
                drift_ppm: cluster.drift_ppm[node],
                boot_offset: dice.between(1, 100_000) * SECOND,
                frozen: 0,
                suspended: 0,
                wall_offset: dice.between(0, 100) as i64 * SECOND as i64,
            };
            machines.push(Machine {
                name: node_name(node),
                clock,
                disk: None,
                locked_by: None,
                processes: Vec::new(),
                is_member: node < count,
                misread: None,
                links: (0, 0),
            });
        }
        let pop_of = |node: usize| cluster.pops.get(node).copied().unwrap_or(cluster.spare);
        let roster: BTreeMap<Name, Name> =
            (0..count).map(|node| (node_name(node), pop_name(pop_of(node)))).collect();
        let by_name = (0..=count).map(|node| (node_name(node), node)).collect();
        let pops = (0..=count).map(pop_of).collect();
        let network = Network::new(pops, cluster.wide_micros);
        let mut world = Self {
            plan,
            planted,
            dice,
            at: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            order: 0,
            machines,
            processes: Vec::new(),
            by_name,
            network,
            versions: [1; OBJECTS],
            observer: Observer::default(),
            tally: Tally::default(),
            roster,
            running: BTreeSet::new(),
            changes: Vec::new(),
            forgotten: Vec::new(),
            newest_set: 1,
            beyond: false,
        };
        for node in 0..count {
            world.start(node);
        }
        for fault in 0..world.plan.faults.len() {
            world.push(world.plan.faults[fault].at, Event::Begin { fault });
        }
        world.push(TROUBLE + super::ending::AUDITED_AFTER, Event::Audit);
        world.push(SECOND / 2, Event::Load);
        world.push(SECOND, Event::Purge);
        world
    }

    /// Runs to the end, or to where something is broken.
    pub(crate) fn run(&mut self) {
        let end = TROUBLE + HEALING;
        while let Some(Reverse((at, _, slot))) = self.queue.pop() {
            if at > end || self.observer.broken.is_some() || self.beyond {
                break;
            }
            self.at = at;
            if self.order > EVENTS {
                return self.observer.fail(Broken::Storm { at });
            }
            if let Some(event) = self.events[slot].take() {
                self.free.push(slot);
                self.happen(event);
            }
        }
        if self.observer.broken.is_none() && !self.beyond {
            self.at = end;
            super::ending::judge(self);
        }
    }

    pub(crate) fn push(&mut self, at: u64, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.order += 1;
        self.queue.push(Reverse((at, self.order, slot)));
    }

    pub(crate) fn mutation(&self) -> Mutation {
        match self.planted {
            Planted::Core(mutation) => mutation,
            Planted::Edge(_) => Mutation::None,
        }
    }

    fn bug(&self) -> EdgeBug {
        match self.planted {
            Planted::Core(_) => EdgeBug::None,
            Planted::Edge(bug) => bug,
        }
    }

    /// Starts a process on a machine, with the log on its disk if that is there and not locked.
    pub(crate) fn start(&mut self, node: usize) -> usize {
        let process = self.processes.len();
        let mutation = self.mutation();
        let (mut settings, draw) = (self.settings(node), self.dice.next());
        let records = self.plan.cluster.log_records;
        let now = self.now(node);
        let machine = &mut self.machines[node];
        let has_disk = settings.disk && machine.locked_by.is_none();
        settings.disk = has_disk;
        let saved = machine.disk.take().filter(Saved::tells_something);
        let start = match saved {
            Some(saved) if has_disk => {
                machine.disk = Some(saved.clone());
                self.tally.count(Thing::RestartedWithLog);
                Start::Saved(Box::new(saved))
            }
            saved => {
                machine.disk = if has_disk { Some(empty_disk(records)) } else { saved };
                Start::Forgotten
            }
        };
        if has_disk {
            machine.locked_by = Some(process);
        }
        machine.processes.push(process);
        let replica = Replica::new(settings, start, mutation, draw, now);
        let edge = Edge::new(self.bug(), mutation, self.plan.cluster.old_version[node]);
        self.processes.push(Process {
            machine: node,
            replica,
            edge,
            started: self.at,
            reset_at: self.at,
            paused_until: 0,
            alive: true,
            inbox: Vec::new(),
            demanded: [0; OBJECTS],
            applied: BTreeSet::new(),
            has_disk,
            written_at: 0,
        });
        let first = self.at + self.dice.below(100 * MILLI);
        self.push(first, Event::Tick { process });
        let sweep = self.at + self.dice.between(SECOND, 6 * SECOND);
        self.push(sweep, Event::Sweep { process });
        process
    }

    /// Ends a process as `kill -9` does.
    pub(crate) fn kill(&mut self, process: usize) {
        self.flush_disks();
        self.network.writes.retain(|write| write.0 != process);
        let half = self.network.halves.remove(&process);
        if half.is_some_and(|(from, until)| (from..until).contains(&self.at)) {
            self.tally.count(Thing::Torn);
        }
        let node = self.processes[process].machine;
        self.processes[process].alive = false;
        self.processes[process].inbox.clear();
        let machine = &mut self.machines[node];
        machine.processes.retain(|other| *other != process);
        if machine.locked_by == Some(process) {
            machine.locked_by = None;
        }
    }

    pub(crate) fn now(&self, node: usize) -> atoll::clock::Now {
        let stops = self.bug() == EdgeBug::ClockStopsInSuspend;
        self.machines[node].clock.now(self.at, stops)
    }

    fn settings(&self, node: usize) -> Settings {
        let cluster = &self.plan.cluster;
        let misread = self.machines[node].misread.as_ref();
        let members = misread.unwrap_or(&cluster.witnesses);
        let members = members.iter().map(|node| node_name(*node)).collect();
        let witnesses = WitnessSet { number: 1, members, joining: None };
        let mut settings = Settings::new(node_name(node), self.roster.clone(), witnesses);
        settings.disk = cluster.disk;
        settings.ask_relays = cluster.ask_relays;
        settings.relays = cluster.relays;
        settings.log_records = cluster.log_records;
        settings.sources = cluster.sources;
        settings.retire_after = Duration::from_secs(3);
        settings.waiting_records = 16;
        settings.batch_records = 8;
        settings.rate = cluster.rate;
        settings.burst = if cluster.rate < 100 { 4 } else { 10_000 };
        settings.receipts = 64;
        settings
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { process } if self.processes[process].alive => {
                let next = self.at + 100 * MILLI;
                self.push(next, Event::Tick { process });
                self.at_process(process, Event::Tick { process });
            }
            Event::Deliver { from, to, message } => {
                let reply = matches!(
                    message,
                    Message::Adopt { .. }
                        | Message::Answer { .. }
                        | Message::Relayed { .. }
                        | Message::Holds { .. }
                );
                if let ([old, new], true) = (&self.machines[to].processes[..], reply) {
                    // A reply takes the link on which it was asked for.
                    let (old, new) = (*old, *new);
                    let message = message.clone();
                    self.at_process(old, Event::Deliver { from, to, message: message.clone() });
                    self.at_process(new, Event::Deliver { from, to, message });
                } else if let Some(process) = self.linked(from, to) {
                    self.at_process(process, Event::Deliver { from, to, message });
                }
            }
            Event::Ask { machine, request } => {
                let processes = &self.machines[machine].processes;
                if !processes.is_empty() {
                    let process = processes[self.dice.index(processes.len())];
                    self.at_process(process, Event::Ask { machine, request });
                }
            }
            Event::Persisted { process, .. } => {
                self.flush_disks();
                self.at_process(process, event);
            }
            Event::Step { process, .. }
            | Event::OriginAnswers { process, .. }
            | Event::Sweep { process } => self.at_process(process, event),
            Event::OriginReads { process, object, number } => {
                let version = self.versions[object.index()];
                let back = self.at + self.origin_delay();
                self.push(back, Event::OriginAnswers { process, object, number, version });
            }
            Event::Resume { process } => self.resume(process),
            Event::Begin { fault } => super::faults::begin(self, fault),
            Event::End { fault } => super::faults::end(self, fault),
            Event::Audit => super::ending::audit(self),
            Event::Load => self.load(),
            Event::Purge => self.purge_some(),
            Event::Tick { .. } => {}
        }
    }

    /// The process of `to` that `from` is linked to.
    fn linked(&self, from: usize, to: usize) -> Option<usize> {
        let machine = &self.machines[to];
        let [old, new] = machine.processes[..] else { return machine.processes.last().copied() };
        let (mask, turns) = machine.links;
        let to_old = ((mask >> from) & 1 == 1) != (self.at > turns);
        Some(if to_old { old } else { new })
    }

    /// Something happens at a process; if it is paused, once it goes on.
    fn at_process(&mut self, process: usize, event: Event) {
        let state = &mut self.processes[process];
        if !state.alive {
            return;
        }
        if state.paused_until > self.at {
            if !matches!(event, Event::Tick { .. }) || state.inbox.is_empty() {
                state.inbox.push(event);
            }
            return;
        }
        let node = state.machine;
        let now = self.now(node);
        match event {
            Event::Tick { .. } => {
                self.processes[process].edge.coarse = Some(now);
                self.processes[process].edge.expire(self.at);
                self.tell(process, Input::Tick);
                self.watch_memory(process);
            }
            Event::Deliver { from, message, .. } => {
                let from = self.machines[from].name.clone();
                self.tell(process, Input::Message { from, message });
            }
            Event::Persisted { ticket, .. } => self.tell(process, Input::Persisted { ticket }),
            Event::Ask { request, .. } => {
                let pause = match self.dice.below(10) {
                    0 => self.dice.between(50, 30 * MILLI),
                    _ => 0,
                };
                let mut want = Vec::new();
                let state = &mut self.processes[process];
                let demanded = state.demanded[request.object.index()];
                state.edge.arrive(request, demanded, pause, now, &mut want);
                self.fulfil(process, want);
            }
            Event::Step { step, .. } => {
                let mut want = Vec::new();
                self.processes[process].edge.step(&step, now, &mut want);
                self.fulfil(process, want);
            }
            Event::OriginAnswers { object, number, version, .. } => {
                let mut want = Vec::new();
                let at = self.at;
                self.processes[process].edge.arrived(object, number, version, at, &mut want);
                self.fulfil(process, want);
            }
            Event::Sweep { .. } => {
                let mut want = Vec::new();
                self.processes[process].edge.sweep(&mut want);
                self.fulfil(process, want);
                let next = self.at + self.dice.between(SECOND, 6 * SECOND);
                self.push(next, Event::Sweep { process });
            }
            _ => {}
        }
    }

    /// A paused process goes on: what strangers sent meanwhile is read first.
    fn resume(&mut self, process: usize) {
        if self.processes[process].paused_until > self.at {
            return;
        }
        let mut inbox = std::mem::take(&mut self.processes[process].inbox);
        inbox.sort_by_key(|event| !matches!(event, Event::Ask { .. }));
        for event in inbox {
            self.at_process(process, event);
        }
    }

    pub(crate) fn tell(&mut self, process: usize, input: Input) {
        let node = self.processes[process].machine;
        let now = self.now(node);
        let draw = self.dice.next();
        let actions = self.processes[process].replica.handle(input, draw, now);
        self.act(process, actions);
    }

    pub(crate) fn act(&mut self, process: usize, mut actions: Vec<Action>) {
        if self.bug() == EdgeBug::LeaseBeforeEpoch {
            self.lease_first(process, &mut actions);
        }
        let mut want = Vec::new();
        for action in actions {
            match action {
                Action::Send { to, message } => self.send(process, &to, message),
                Action::Apply(records) => {
                    for record in &records {
                        self.demand(process, record);
                    }
                    self.processes[process].edge.apply(&records, &mut want);
                }
                Action::Reset(reset) => {
                    self.tally.count(match reset.why {
                        ResetWhy::FirstAdoption => Thing::FirstAdoption,
                        ResetWhy::LogTruncated => Thing::LogTruncated,
                        ResetWhy::Generation => Thing::Generation,
                        ResetWhy::Retired => Thing::RetiredReset,
                        ResetWhy::Conflict => Thing::Conflict,
                    });
                    self.processes[process].reset_at = self.at;
                    self.processes[process].edge.reset(reset);
                }
                Action::Persist { ticket, entries } => self.persist(process, ticket, entries),
                Action::Lease(lease) => self.processes[process].edge.lease = lease,
                Action::Acknowledged(identity) => {
                    if self.observer.acknowledge(&identity, self.at) {
                        self.tally.count(Thing::Acknowledged);
                        self.probe(&identity);
                    }
                }
                Action::Notice(notice) => self.notice(&notice),
            }
        }
        self.fulfil(process, want);
    }

    /// The planted bug: the lease is published, and only a moment later what it depends on.
    fn lease_first(&mut self, process: usize, actions: &mut [Action]) {
        for action in actions {
            if let Action::Lease(lease) = action {
                self.processes[process].edge.lease = *lease;
                for object in Object::all() {
                    let request = Request { object, sent: self.at };
                    let demanded = self.processes[process].demanded[object.index()];
                    let now = self.now(self.processes[process].machine);
                    let mut want = Vec::new();
                    self.processes[process].edge.arrive(request, demanded, 0, now, &mut want);
                    self.fulfil(process, want);
                }
            }
        }
    }

    fn notice(&mut self, notice: &Notice) {
        if let Notice::Witnesses { number } = notice
            && *number > self.newest_set
        {
            self.newest_set = *number;
            if super::known::was_left_on_old_word(self, *number) {
                self.beyond = true;
                self.tally.count(Thing::Beyond);
            }
        }
        self.tally.count(match notice {
            Notice::Refused(_) => Thing::Refused,
            Notice::Reborn => Thing::Reborn,
            Notice::Superseded => Thing::Superseded,
            Notice::Serving { .. } => Thing::Serving,
            Notice::Retired { .. } => Thing::Retired,
            Notice::Witnesses { .. } => Thing::WitnessesChanged,
            Notice::OtherWitnesses { .. } => Thing::OtherWitnesses,
            Notice::Unconfirmed { .. } => Thing::Unconfirmed,
            Notice::ChangeRefused(_) => Thing::ChangeRefused,
            Notice::ChangeStuck(_) => Thing::ChangeStuck,
        });
    }

    fn demand(&mut self, process: usize, record: &atoll::replication::Record) {
        let Some(issued) = self.observer.issued.get(&record.identity) else { return };
        self.processes[process].applied.insert(record.identity.clone());
        if issued.purge.strength != Strength::Hard {
            return;
        }
        let demanded = &mut self.processes[process].demanded;
        for object in Object::all().filter(|object| issued.purge.selector.hits(*object)) {
            let version = issued.versions[object.index()];
            demanded[object.index()] = demanded[object.index()].max(version);
        }
        let old = self.plan.cluster.old_version[self.processes[process].machine];
        if old && issued.purge.newer {
            self.tally.count(Thing::Unreadable);
        }
    }

    fn send(&mut self, process: usize, to: &Name, message: Message) {
        let from = self.processes[process].machine;
        let Some(to) = self.by_name.get(to).copied() else { return };
        let deliveries =
            self.network.carry((from, to), message, self.at, &mut self.dice, &mut self.tally);
        match deliveries {
            Ok(deliveries) => {
                for (at, message) in deliveries {
                    self.push(at, Event::Deliver { from, to, message });
                }
            }
            Err(()) => self.observer.fail(Broken::Rubbish { at: self.at }),
        }
    }

    fn fulfil(&mut self, process: usize, want: Vec<Want>) {
        let node = self.processes[process].machine;
        for want in want {
            match want {
                Want::Answer { waiter, version } => {
                    let (sent, object) = (waiter.request.sent, waiter.request.object);
                    let times = (sent, self.at);
                    self.observer.judge_answer(node, object, times, version, waiter.demanded);
                }
                Want::Fetch { object, number } => {
                    let there = self.at + self.origin_delay();
                    self.push(there, Event::OriginReads { process, object, number });
                }
                Want::Step { step, after } => {
                    let at = self.at + after;
                    self.push(at, Event::Step { process, step });
                }
                Want::Overreach { object } => {
                    self.observer.fail(Broken::Overreach { at: self.at, node, object });
                }
            }
        }
    }

    fn watch_memory(&mut self, process: usize) {
        let state = &self.processes[process];
        let sizes = state.replica.sizes();
        let settings = self.plan.cluster.log_records;
        let fits = sizes.log_records <= settings
            && sizes.waiting <= 16 * 40
            && sizes.sources <= 150
            && sizes.receipts <= 64
            && sizes.behind_disk <= 4_096;
        if !fits {
            let (at, node, what) = (self.at, state.machine, format!("{sizes:?}"));
            self.observer.fail(Broken::Memory { at, node, what });
        }
    }
}

pub(crate) fn node_name(node: usize) -> Name {
    Name::from(format!("n{node}").as_str())
}

pub(crate) fn pop_name(pop: u8) -> Name {
    Name::from(format!("pop{pop}").as_str())
}

pub(crate) fn empty_disk(records: usize) -> Saved {
    Saved::new(records, 1 << 20)
}
