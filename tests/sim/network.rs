//! The network between the machines: delays, and everything that can happen to a message.

use std::collections::BTreeMap;

use atoll::replication::{Entry, Message};

use super::dice::Dice;
use super::plan::{Kind, MILLI, SECOND};
use super::tally::{Tally, Thing};

/// Messages kept to be said again.
const KEPT: usize = 256;

#[derive(Debug)]
pub(crate) struct Network {
    pops: Vec<u8>,
    wide: u64,
    /// Faults that are on, by their number in the plan.
    pub(crate) active: Vec<(usize, Kind)>,
    kept: Vec<(usize, usize, Message)>,
    /// Last delivery on each way, to see that something was overtaken.
    last: Vec<u64>,
    /// Writes under way: process, when they are safe, what.
    pub(crate) writes: Vec<(usize, u64, Vec<Entry>)>,
    /// Of each process, until when the last write with several entries is half done, and when it began
    /// to be.
    pub(crate) halves: BTreeMap<usize, (u64, u64)>,
}

type Deliveries = Vec<(u64, Message)>;

impl Network {
    pub(crate) fn new(pops: Vec<u8>, wide: u64) -> Self {
        let last = vec![0; pops.len() * pops.len()];
        Self {
            pops,
            wide,
            active: Vec::new(),
            kept: Vec::new(),
            last,
            writes: Vec::new(),
            halves: BTreeMap::new(),
        }
    }

    /// What arrives of a message, and when. An error is a message that was made up from rubbish.
    pub(crate) fn carry(
        &mut self,
        (from, to): (usize, usize),
        message: Message,
        at: u64,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Result<Deliveries, ()> {
        // One in eight is enough to see that nothing gets lost on the way.
        let message = if dice.percent(12) {
            tally.count(Thing::ThroughWire);
            super::garbage::over_the_wire(&message)?
        } else {
            message
        };
        let near = self.pops[from] == self.pops[to];
        let least = if near { 150 } else { self.wide };
        let mut delay = least + dice.below(least / 5 + 1);
        let mut copies = 1;
        let mut deliveries = Vec::new();
        for (_, kind) in &self.active {
            match kind {
                Kind::Loss { percent } if dice.percent(*percent) => {
                    tally.count(Thing::Lost);
                    copies = 0;
                }
                Kind::OneWay { from: a, to: b } if (*a, *b) == (from, to) => {
                    tally.count(Thing::CutOneWay);
                    copies = 0;
                }
                Kind::Isolate { node } if *node == from || *node == to => {
                    tally.count(Thing::Isolated);
                    copies = 0;
                }
                Kind::Split { mask } if (mask >> from) & 1 != (mask >> to) & 1 => {
                    tally.count(Thing::CutBySplit);
                    copies = 0;
                }
                Kind::Bridge { node, mask }
                    if *node != from && *node != to && (mask >> from) & 1 != (mask >> to) & 1 =>
                {
                    tally.count(Thing::CutBySplit);
                    copies = 0;
                }
                Kind::Flap { from: a, to: b }
                    if [(*a, *b), (*b, *a)].contains(&(from, to))
                        && (at / (400 * MILLI)).is_multiple_of(2) =>
                {
                    tally.count(Thing::Flapped);
                    copies = 0;
                }
                Kind::Duplicate { percent } if copies > 0 && dice.percent(*percent) => {
                    tally.count(Thing::Duplicated);
                    copies += dice.between(1, 9);
                }
                Kind::Reorder { most } => delay += dice.below(*most),
                Kind::Delay { percent, most } if dice.percent(*percent) => {
                    let more = dice.below(*most);
                    if copies > 0 && more > SECOND {
                        tally.count(Thing::DelayedLong);
                    }
                    delay += more;
                }
                Kind::Replay { percent } if dice.percent(*percent) && !self.kept.is_empty() => {
                    let (old_from, old_to, old) = &self.kept[dice.index(self.kept.len())];
                    if (*old_from, *old_to) == (from, to) {
                        tally.count(Thing::Replayed);
                        deliveries.push((at + delay + dice.below(SECOND), old.clone()));
                    }
                }
                Kind::Garbage { percent } if dice.percent(*percent) => {
                    tally.count(Thing::Garbage);
                    super::garbage::refuse(&message, dice)?;
                }
                _ => {}
            }
        }
        self.keep(from, to, &message, dice);
        let way = from * self.pops.len() + to;
        for copy in 0..copies {
            let again = if copy == 0 { 0 } else { dice.below(2 * SECOND) };
            let arrives = at + delay + again;
            if arrives < self.last[way] {
                tally.count(Thing::Overtaken);
            }
            self.last[way] = arrives;
            deliveries.push((arrives, message.clone()));
        }
        Ok(deliveries)
    }

    fn keep(&mut self, from: usize, to: usize, message: &Message, dice: &mut Dice) {
        if dice.percent(2) {
            let kept = (from, to, message.clone());
            if self.kept.len() < KEPT {
                self.kept.push(kept);
            } else {
                let old = dice.index(KEPT);
                self.kept[old] = kept;
            }
        }
    }
}
