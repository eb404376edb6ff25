//! Many nodes around one queue of events, by one true time.
//!
//! Nothing fails here but messages: what failures do is for `tests/sim`. A node handles one event
//! after the other, and each message that it says or hears costs it some time, so that who has much
//! to say is late with the last of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::dice::Dice;
use crate::paths::{Loss, Paths, pop_name};
use crate::replication::{
    Action, Event as Input, Holding, Identity, Message, Mutation, Name, Replica, Roster, Scope,
    Settings, Start, Vector, WitnessSet, encode,
};
use crate::tally::Tally;

/// Microseconds that a node has to do with a message that it hears or says: a record of TLS and a
/// call into the kernel.
const HANDLING: u64 = 10;

/// Microseconds until a witness's disk has what it was given.
const DISK: u64 = 2_000;

/// Ticks of a node, as the embedding makes them.
const TICK: u64 = 100_000;

/// Bytes of a purge's payload: a URL or some tags.
const PAYLOAD: usize = 100;

/// How many nodes, and how they are told to go about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// PoPs.
    pub pops: usize,
    /// Nodes in each.
    pub nodes: usize,
}

impl Size {
    /// Nodes in all.
    #[must_use]
    pub fn all(&self) -> usize {
        self.pops * self.nodes
    }

    /// Witnesses, each in another PoP.
    #[must_use]
    pub fn witnesses(&self) -> usize {
        if self.pops < 10 { 3 } else { 5 }
    }
}

enum Event {
    Tick { node: u32 },
    Deliver { from: u32, to: u32, message: Message },
    Persisted { node: u32, ticket: u64 },
}

struct Node {
    replica: Replica,
    pop: usize,
    /// When it is through with what it has to do.
    busy: u64,
    said: u64,
    heard: u64,
}

/// One purge and where it got to.
pub(crate) struct Purge {
    pub(crate) issuer: usize,
    pub(crate) identity: Identity,
    pub(crate) issued: u64,
    pub(crate) acknowledged: Option<u64>,
    /// For each node, microseconds until it was in force there.
    pub(crate) applied: Vec<u32>,
}

pub(crate) const NEVER: u32 = u32::MAX;

pub(crate) struct World {
    pub(crate) at: u64,
    pub(crate) tally: Tally,
    pub(crate) purges: Vec<Purge>,
    /// Resets since the purges began: there should be none.
    pub(crate) resets: u64,
    pub(crate) events: u64,
    nodes: Vec<Node>,
    names: Vec<Name>,
    by_name: HashMap<Name, u32>,
    by_identity: HashMap<Identity, usize>,
    paths: Paths,
    dice: Dice,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    order: u64,
}

impl World {
    pub(crate) fn new(size: Size, loss: Loss, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let name = |node: usize| {
            let (pop, inside) = (node / size.nodes, node % size.nodes);
            Name::from(format!("{}-{inside:03}", pop_name(pop)).as_str())
        };
        let names: Vec<Name> = (0..size.all()).map(name).collect();
        let pops: Vec<Name> =
            (0..size.pops).map(|pop| Name::from(pop_name(pop).as_str())).collect();
        let of_pop = |node: usize| pops[node / size.nodes].clone();
        let roster: Roster =
            names.iter().enumerate().map(|(node, name)| (name.clone(), of_pop(node))).collect();
        let members: Vec<Name> =
            (0..size.witnesses()).map(|pop| names[pop * size.nodes].clone()).collect();
        let witnesses = WitnessSet { number: 1, members, joining: None };
        let nodes = names.iter().enumerate().map(|(node, name)| {
            let settings = Settings::new(name.clone(), roster.clone(), witnesses.clone());
            let draw = dice.next();
            let replica = Replica::new(settings, Start::Forgotten, Mutation::None, draw, now(0));
            Node { replica, pop: node / size.nodes, busy: 0, said: 0, heard: 0 }
        });
        let nodes: Vec<Node> = nodes.collect();
        let by_name = (0..).zip(&names).map(|(node, name)| (name.clone(), node)).collect();
        let paths = Paths::new(size.pops, loss, &mut dice);
        let mut world = Self {
            at: 0,
            tally: Tally::default(),
            purges: Vec::new(),
            resets: 0,
            events: 0,
            nodes,
            names,
            by_name,
            by_identity: HashMap::new(),
            paths,
            dice,
            queue: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            order: 0,
        };
        world.begin();
        world
    }

    /// Ticks begin apart from one another, and every node has heard once what another has: a node
    /// whose first comparison finds something resets instead of applying it.
    fn begin(&mut self) {
        for node in 0..u32::try_from(self.nodes.len()).unwrap() {
            let first = self.dice.below(5 * TICK);
            self.push(first, Event::Tick { node });
            let message = Message::Vector(Holding { vector: Vector::default(), step: None });
            self.push(first, Event::Deliver { from: node, to: node, message });
        }
    }

    /// Goes on until `end`.
    pub(crate) fn run(&mut self, end: u64) {
        while let Some(Reverse((at, _, slot))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.at = at;
            self.events += 1;
            if let Some(event) = self.slots[slot].take() {
                self.free.push(slot);
                self.happen(event);
            }
        }
        self.at = end;
    }

    /// A node that is not a witness issues a purge.
    pub(crate) fn purge(&mut self, issuer: usize) {
        let start = self.start(issuer, 0);
        let payload: Arc<[u8]> = Arc::from([7; PAYLOAD]);
        let replica = &mut self.nodes[issuer].replica;
        let (identity, actions) = replica.submit(Scope::All, payload, true, now(start)).unwrap();
        self.by_identity.insert(identity.clone(), self.purges.len());
        let applied = vec![NEVER; self.nodes.len()];
        let issued = self.at;
        self.purges.push(Purge { issuer, identity, issued, acknowledged: None, applied });
        self.act(issuer, start, actions);
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn draw(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.below(end as u64)).unwrap()
    }

    pub(crate) fn replica(&self, node: usize) -> &Replica {
        &self.nodes[node].replica
    }

    /// One way between two nodes, without jitter.
    pub(crate) fn one_way(&self, from: usize, to: usize) -> u64 {
        self.paths.one_way(self.nodes[from].pop, self.nodes[to].pop)
    }

    /// Nodes without a lease.
    pub(crate) fn without_lease(&self) -> usize {
        let now = now(self.at);
        let holds = |node: &&Node| node.replica.lease().is_some_and(|lease| lease.holds(now));
        self.nodes.len() - self.nodes.iter().filter(holds).count()
    }

    /// The most messages that one node has said and heard.
    pub(crate) fn busiest(&self) -> u64 {
        self.nodes.iter().map(|node| node.said + node.heard).max().unwrap_or(0)
    }

    pub(crate) fn forget_loads(&mut self) {
        self.nodes.iter_mut().for_each(|node| (node.said, node.heard) = (0, 0));
    }

    fn happen(&mut self, event: Event) {
        let (node, input, cost) = match event {
            Event::Tick { node } => {
                self.push(self.at + TICK, Event::Tick { node });
                (node, Input::Tick, 0)
            }
            Event::Deliver { from, to, message } => {
                self.nodes[to as usize].heard += 1;
                let from = self.names[from as usize].clone();
                (to, Input::Message { from, message }, HANDLING)
            }
            Event::Persisted { node, ticket } => (node, Input::Persisted { ticket }, 0),
        };
        let node = node as usize;
        let start = self.start(node, cost);
        let draw = self.dice.next();
        let actions = self.nodes[node].replica.handle(input, draw, now(start));
        self.act(node, start, actions);
    }

    /// When a node gets to it.
    fn start(&mut self, node: usize, cost: u64) -> u64 {
        let busy = &mut self.nodes[node].busy;
        *busy = self.at.max(*busy) + cost;
        *busy
    }

    fn act(&mut self, node: usize, at: u64, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, message } => self.say(node, &to, message),
                Action::Apply(records) => {
                    for record in records {
                        self.note_applied(node, at, &record.identity);
                    }
                }
                Action::Reset(_) => self.resets += u64::from(!self.purges.is_empty()),
                Action::Persist { ticket, .. } => {
                    let node = u32::try_from(node).unwrap();
                    self.push(at + DISK, Event::Persisted { node, ticket });
                }
                Action::Acknowledged(identity) => {
                    if let Some(purge) = self.by_identity.get(&identity) {
                        self.purges[*purge].acknowledged = Some(at);
                    }
                }
                Action::Lease(_) | Action::Notice(_) => {}
            }
        }
    }

    fn note_applied(&mut self, node: usize, at: u64, identity: &Identity) {
        // The issuer's own is noted before the purge is known here: it took no time.
        if let Some(purge) = self.by_identity.get(identity) {
            let purge = &mut self.purges[*purge];
            let took = u32::try_from(at - purge.issued).unwrap_or(NEVER - 1);
            let applied = &mut purge.applied[node];
            *applied = took.min(*applied);
        }
    }

    fn say(&mut self, node: usize, to: &Name, message: Message) {
        self.tally.count(&message, encode(&message).len());
        let (from, to) = (u32::try_from(node).unwrap(), self.by_name[to]);
        let pops = (self.nodes[node].pop, self.nodes[to as usize].pop);
        self.nodes[node].said += 1;
        self.nodes[node].busy += HANDLING;
        let leaves = self.nodes[node].busy;
        let arrives = self.paths.arrival((from, to), pops, leaves, &mut self.dice);
        if let Some(arrives) = arrives {
            self.push(arrives, Event::Deliver { from, to, message });
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(event);
        self.order += 1;
        self.queue.push(Reverse((at, self.order, slot)));
    }
}

/// All clocks go right here, and were started long ago.
fn now(micros: u64) -> Now {
    Now::at(100_000).plus(Duration::from_micros(micros))
}
