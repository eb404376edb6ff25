//! Where the load comes from: threads that make one act after the other, drawn from the seed.
//!
//! In a phase of abuse each thread does what the dice say; in the well-formed phase after it the same thread
//! makes the same acts at the same pace, each replaced by its well-formed twin: as many connections over the
//! same transports, and a request in each. What is held open is let go at the end of a phase.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::acts::{self, Act};
use crate::dice::Dice;
use crate::origin::reset;
use crate::{Abuse, Phase};

/// Networks that strangers come from: each is a client of its own.
const NETWORKS: usize = 64;
/// More of them, with so many connections that their cap is reached.
const CROWDED: usize = 8;

/// Connections that a thread holds at most; the oldest makes room.
const HELD: usize = 500;

/// How often what is held is looked after.
const CARE: Duration = Duration::from_millis(500);

/// One thread of them.
pub(crate) struct Stranger<'a> {
    pub(crate) abuse: &'a Abuse,
    pub(crate) dice: Dice,
    held: VecDeque<Held>,
    cared: Instant,
}

/// What is done with a connection that is held.
#[derive(Clone, Copy)]
pub(crate) enum Habit {
    /// Nothing.
    Still,
    /// A byte now and then.
    Drips(u8),
    /// A few bytes are read now and then.
    Sips,
}

struct Held {
    stream: TcpStream,
    habit: Habit,
}

/// Goes on until it is over; `period` lies between two acts.
pub(crate) fn run(number: usize, period: Duration, abuse: &Abuse) {
    // Strangers have machines of their own: here they must not take the processor from the edge.
    let _ = rustix::process::nice(10);
    let mut stranger = Stranger {
        abuse,
        dice: Dice(abuse.seed ^ (number as u64 + 1) << 48),
        held: VecDeque::new(),
        cared: Instant::now(),
    };
    let mut done = Vec::new();
    while !abuse.over() {
        match abuse.phase() {
            Phase::Abuse => done = stranger.abuses(period),
            Phase::Good => stranger.behaves(&done),
            Phase::Rest | Phase::Over => {
                stranger.lets_go();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Stranger<'_> {
    /// A phase of abuse; what was done.
    fn abuses(&mut self, period: Duration) -> Vec<Act> {
        let mut done = Vec::new();
        let mut next = Instant::now() + period.mul_f64(self.dice.below(1000) as f64 / 1000.0);
        while self.waits(next, Phase::Abuse) {
            let act = Act::draw(&mut self.dice);
            acts::abuse(act, self);
            self.abuse.count(act);
            done.push(act);
            // What a slow act has delayed is not made up for.
            next = (next + period).max(Instant::now());
        }
        done
    }

    /// The twins of what was done, over the same time.
    fn behaves(&mut self, done: &[Act]) {
        let begun = Instant::now();
        for (turn, act) in done.iter().enumerate() {
            let part = turn as f64 / done.len() as f64;
            if !self.waits(begun + self.abuse.length.mul_f64(part), Phase::Good) {
                return;
            }
            acts::behave(*act, self);
            self.abuse.behaved();
        }
        self.waits(begun + 2 * self.abuse.length, Phase::Good);
    }

    /// Looks after what is held until then; false where the phase ends before.
    fn waits(&mut self, until: Instant, phase: Phase) -> bool {
        loop {
            if self.abuse.phase() != phase {
                return false;
            }
            self.care();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    fn care(&mut self) {
        if self.cared.elapsed() < CARE {
            return;
        }
        self.cared = Instant::now();
        let mut space = [0; 256];
        self.held.retain_mut(|held| {
            let moved = match held.habit {
                Habit::Still => return true,
                Habit::Drips(byte) => held.stream.write(&[byte]),
                Habit::Sips => held.stream.read(&mut space),
            };
            match moved {
                Ok(bytes) => bytes > 0,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
    }

    fn lets_go(&mut self) {
        for held in self.held.drain(..) {
            // In both of the ways in which one leaves.
            if self.dice.below(2) == 0 {
                reset(&held.stream);
            }
        }
    }

    /// Keeps a connection for the rest of the phase.
    pub(crate) fn hold(&mut self, stream: TcpStream, habit: Habit) {
        let _ = stream.set_nonblocking(true);
        if self.held.len() >= HELD {
            self.held.pop_front();
        }
        self.held.push_back(Held { stream, habit });
    }

    /// A connection from one of many networks.
    pub(crate) fn connect(&mut self, to: SocketAddr) -> Option<TcpStream> {
        let network = self.dice.below(NETWORKS);
        connect_from(network, to, None).ok()
    }

    /// The same, with hardly any room for what comes.
    pub(crate) fn connect_narrow(&mut self, to: SocketAddr) -> Option<TcpStream> {
        let network = self.dice.below(NETWORKS);
        connect_from(network, to, Some(4096)).ok()
    }

    /// Several from one network, of a few that have many.
    pub(crate) fn crowd(&mut self, to: SocketAddr, count: usize) -> Vec<TcpStream> {
        let network = NETWORKS + self.dice.below(CROWDED);
        (0..count).filter_map(|_| connect_from(network, to, None).ok()).collect()
    }
}

fn connect_from(network: usize, to: SocketAddr, room: Option<usize>) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(bytes) = room {
        socket.set_recv_buffer_size(bytes)?;
    }
    let from = Ipv4Addr::new(127, 66, 0, network as u8 + 1);
    socket.bind(&SockAddr::from(SocketAddr::from((from, 0))))?;
    socket.connect_timeout(&SockAddr::from(to), Duration::from_secs(1))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    stream.set_write_timeout(Some(Duration::from_millis(300)))?;
    Ok(stream)
}
