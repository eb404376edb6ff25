//! How long a message takes between two places, and what loss makes of it.
//!
//! Between PoPs: the great circle at two thirds of the speed of light in a vacuum, times 1.5 to 2 since
//! cables do not follow great circles, drawn once for each pair; and jitter for each message.
//!
//! Loss is of two kinds. A *stream* loses nothing: the segment is sent again after the time-out, which
//! is a round trip and 200 ms (Linux's least, `tcp_rto_min`) and doubles from then on; what is said
//! on the same connection meanwhile comes after it. No fast retransmission is credited: the links are
//! nearly idle, and one segment alone has no successors that would tell of its loss. A *datagram* that
//! is lost is gone, and the protocol has to notice: the worst case, and what a broken connection does.

use std::collections::HashMap;

use crate::cities::CITIES;
use crate::dice::Dice;

/// Inside a PoP, one way, in microseconds.
const NEAR: u64 = 200;

/// Kilometres in a millisecond of fibre.
const FIBRE: f64 = 200.0;

/// The least time-out of a connection, beside its round trip, in microseconds.
const TIME_OUT: u64 = 200_000;

/// What becomes of a message that the network loses, and how many it loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Nothing is lost.
    None,
    /// This part is lost and sent again by the connection.
    Stream(f64),
    /// This part is lost.
    Datagram(f64),
}

impl Loss {
    /// As the tables name it.
    #[must_use]
    pub fn told(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Stream(part) => format!("{} % TCP", part * 100.0),
            Self::Datagram(part) => format!("{} % gone", part * 100.0),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Paths {
    pops: usize,
    /// One way, in microseconds, from each PoP to each.
    one_way: Vec<u64>,
    loss: Loss,
    /// When connections that repeat something are through with it.
    held: HashMap<(u32, u32), u64>,
}

impl Paths {
    pub(crate) fn new(pops: usize, loss: Loss, dice: &mut Dice) -> Self {
        let mut one_way = vec![NEAR; pops * pops];
        for a in 0..pops {
            for b in 0..a {
                let delay = between(a, b, dice);
                one_way[a * pops + b] = delay;
                one_way[b * pops + a] = delay;
            }
        }
        Self { pops, one_way, loss, held: HashMap::new() }
    }

    /// One way between two PoPs, without jitter.
    pub(crate) fn one_way(&self, from: usize, to: usize) -> u64 {
        self.one_way[from * self.pops + to]
    }

    /// When a message arrives that leaves at `at`, if it does.
    pub(crate) fn arrival(
        &mut self,
        (from, to): (u32, u32),
        pops: (usize, usize),
        at: u64,
        dice: &mut Dice,
    ) -> Option<u64> {
        let one_way = self.one_way(pops.0, pops.1);
        let mut arrives = at + one_way + jitter(one_way, pops.0 == pops.1, dice);
        match self.loss {
            Loss::None => return Some(arrives),
            Loss::Datagram(part) => return (dice.part() >= part).then_some(arrives),
            Loss::Stream(part) => {
                let mut time_out = 2 * one_way + TIME_OUT;
                while dice.part() < part {
                    arrives += time_out;
                    time_out *= 2;
                    self.held.insert((from, to), arrives);
                }
            }
        }
        if let Some(until) = self.held.get(&(from, to)).copied() {
            if until < at {
                self.held.remove(&(from, to));
            }
            arrives = arrives.max(until);
        }
        Some(arrives)
    }
}

fn between(a: usize, b: usize, dice: &mut Dice) -> u64 {
    let (_, north, east) = CITIES[a % CITIES.len()];
    let (_, other_north, other_east) = CITIES[b % CITIES.len()];
    let (north, other_north) = (north.to_radians(), other_north.to_radians());
    let haversine = ((other_north - north) / 2.0).sin().powi(2)
        + north.cos() * other_north.cos() * ((other_east - east).to_radians() / 2.0).sin().powi(2);
    let kilometres = 2.0 * 6_371.0 * haversine.sqrt().asin();
    // Two PoPs of one city are some streets apart.
    let millis = 0.5 + kilometres / FIBRE * (1.5 + 0.5 * dice.part());
    (millis * 1_000.0) as u64
}

/// Mostly little, now and then much: exponential, 2 % of the way and 0.2 ms in the mean.
fn jitter(one_way: u64, near: bool, dice: &mut Dice) -> u64 {
    let mean = if near { 30.0 } else { 200.0 + one_way as f64 / 50.0 };
    (mean * -(1.0 - dice.part()).ln()) as u64
}

/// Name of a PoP.
pub(crate) fn pop_name(pop: usize) -> String {
    format!("{}-{}", CITIES[pop % CITIES.len()].0, pop / CITIES.len() + 1)
}
