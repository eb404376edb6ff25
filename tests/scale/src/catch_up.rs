//! A node that was away: how long it takes until it has what it missed, and what that takes.
//!
//! Two nodes, all messages through `encode` and `decode`, no time on the way: what is measured is the
//! core. How long it takes over a distance follows from the number of questions, since each waits for
//! the answer to the one before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::figures::memory;
use crate::replication::{
    Action, Event, Holding, Message, Mutation, Name, Replica, Roster, Scope, Settings, Start,
    Vector, WitnessSet, decode, encode,
};

/// What it took.
#[derive(Clone, Copy, Debug)]
pub struct CatchUp {
    /// Purges that were missed.
    pub records: u64,
    /// Seconds that issuing them took.
    pub issuing: f64,
    /// Seconds until they were taken in.
    pub seconds: f64,
    /// Of those: writing and reading messages.
    pub wire: f64,
    /// Questions, each a round trip.
    pub questions: usize,
    /// Times that records were applied, each one epoch.
    pub epochs: usize,
    /// Bytes of the answers.
    pub bytes: usize,
    /// Memory of the process before the catch-up and at its most, in MiB: both nodes' logs share
    /// nothing, since the records come through the wire.
    pub memory: (f64, f64),
}

/// Has one node miss `records` purges and catch up.
#[must_use]
pub fn run(records: u64) -> CatchUp {
    let names = ["a", "b"].map(Name::from);
    let mut issuer = node(&names, 0, records);
    let mut other = node(&names, 1, records);
    let nothing = Message::Vector(Holding { vector: Vector::default(), step: None });
    hear(&mut other, &names[0], nothing);
    let begun = Instant::now();
    for number in 0..records {
        let payload: Arc<[u8]> = Arc::from(format!("{number:0100}").as_bytes());
        issuer.submit(Scope::Site("www.example.org".into()), payload, false, now()).unwrap();
    }
    let issuing = begun.elapsed().as_secs_f64();
    let before = memory();
    let begun = Instant::now();
    let mut took = Took::default();
    let mut way: VecDeque<(usize, Message)> = VecDeque::from([(
        1,
        Message::Vector(Holding { vector: issuer.vector().clone(), step: None }),
    )]);
    while let Some((to, message)) = way.pop_front() {
        let message = took.over_the_wire(message);
        let (replica, from) =
            if to == 0 { (&mut issuer, &names[1]) } else { (&mut other, &names[0]) };
        for action in hear(replica, from, message) {
            match action {
                Action::Send { message, .. } => way.push_back((1 - to, message)),
                Action::Apply(_) => took.epochs += 1,
                Action::Reset(reset) => panic!("nothing was to be reset: {reset:?}"),
                _ => {}
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(issuer.vector(), other.vector());
    CatchUp {
        records,
        issuing,
        seconds,
        wire: took.wire.as_secs_f64(),
        questions: took.questions,
        epochs: took.epochs,
        bytes: took.bytes,
        memory: (before, memory()),
    }
}

/// The same, told.
#[must_use]
pub fn told(records: u64) -> String {
    let took = run(records);
    let over = |millis: f64| took.seconds + took.questions as f64 * millis / 1_000.0;
    format!(
        "{} purges caught up in {:.2} s, {:.2} s of it writing and reading messages; {} questions, \
         {} epochs, {:.0} MiB of answers; {:.0} MiB of memory before, {:.0} at the most; issued in {:.2} s. \
         With a round trip of 20 ms {:.1} s, of 100 ms {:.1} s, of 250 ms {:.1} s.",
        took.records,
        took.seconds,
        took.wire,
        took.questions,
        took.epochs,
        took.bytes as f64 / 1_048_576.0,
        took.memory.0,
        took.memory.1,
        took.issuing,
        over(20.0),
        over(100.0),
        over(250.0),
    )
}

#[derive(Default)]
struct Took {
    wire: Duration,
    questions: usize,
    epochs: usize,
    bytes: usize,
}

impl Took {
    fn over_the_wire(&mut self, message: Message) -> Message {
        self.questions += usize::from(matches!(message, Message::Want(_)));
        let begun = Instant::now();
        let frame = encode(&message);
        drop(message);
        self.bytes += frame.len();
        let message = decode(&frame).unwrap();
        self.wire += begun.elapsed();
        message
    }
}

fn node(names: &[Name; 2], me: usize, records: u64) -> Replica {
    let roster: Roster = names.iter().map(|name| (name.clone(), name.clone())).collect();
    let witnesses = WitnessSet { number: 1, members: vec![names[0].clone()], joining: None };
    let mut settings = Settings::new(names[me].clone(), roster, witnesses);
    settings.disk = false;
    settings.log_records = usize::try_from(records).unwrap();
    settings.log_bytes = 1 << 30;
    settings.burst = u32::MAX;
    Replica::new(settings, Start::Forgotten, Mutation::None, me as u64, now())
}

fn hear(replica: &mut Replica, from: &Name, message: Message) -> Vec<Action> {
    replica.handle(Event::Message { from: from.clone(), message }, 7, now())
}

/// Time stands still: what is measured is work, not waiting.
fn now() -> Now {
    Now::at(100)
}
