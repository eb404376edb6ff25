//! Who asks, who purges, and how long the origin takes.

use super::edge::Request;
use super::observer::PROBES;
use super::origin::{OBJECTS, Object, PER_SITE, Purge, Selector, Strength};
use super::plan::{HEALING, MILLI, TROUBLE};
use super::tally::Thing;
use super::world::{Event, World};

impl World {
    /// Clients ask for anything anywhere.
    pub(crate) fn load(&mut self) {
        let machine = self.dice.index(self.machines.len());
        let object = Object(self.dice.below(OBJECTS as u64) as u8);
        self.ask(machine, object, self.at);
        let next = self.at + self.dice.between(20 * MILLI, 120 * MILLI);
        self.push(next, Event::Load);
    }

    fn ask(&mut self, machine: usize, object: Object, sent: u64) {
        let arrives = sent + self.dice.between(100, 3 * MILLI);
        self.push(arrives, Event::Ask { machine, request: Request { object, sent } });
    }

    /// As soon as the promise holds, every node is asked for what was purged.
    pub(crate) fn probe(&mut self, identity: &atoll::replication::Identity) {
        let issued = &self.observer.issued[identity];
        let selector = issued.purge.selector;
        for after in PROBES {
            let jitter = self.dice.below(30 * MILLI);
            let sent = self.at + after + if after == PROBES[0] { 0 } else { jitter };
            for machine in 0..self.machines.len() {
                for object in Object::all().filter(|object| selector.hits(*object)) {
                    self.ask(machine, object, sent);
                }
            }
        }
    }

    pub(crate) fn purge_some(&mut self) {
        self.purge_once(None);
        let every = self.plan.cluster.purge_every;
        let next = self.at + self.dice.between(every / 4, every * 2);
        if next < TROUBLE + HEALING / 2 {
            self.push(next, Event::Purge);
        }
    }

    /// The origin changes something, and a purge names it.
    pub(crate) fn purge_once(&mut self, by: Option<usize>) {
        let any = self.dice.index(self.machines.len());
        let machine = by.unwrap_or(any);
        let Some(process) = self.machines[machine].processes.last().copied() else { return };
        if self.processes[process].paused_until > self.at {
            return;
        }
        // The second site is purged rarely, so that what is not meant for it shows.
        let site = u8::from(self.dice.percent(15));
        let object = Object(site * PER_SITE + self.dice.below(3) as u8);
        let selector = match self.dice.below(30) {
            0..=19 => Selector::Url(object),
            20..=26 => Selector::Tag(site, object.0 % 2),
            27 | 28 => Selector::Site(site),
            _ => Selector::All,
        };
        let strength = match self.dice.below(12) {
            0 => Strength::Check,
            1 => Strength::Soft,
            _ => Strength::Hard,
        };
        for object in Object::all().filter(|object| selector.hits(*object)) {
            self.versions[object.index()] += 1;
        }
        let old = self.plan.cluster.old_version[machine];
        let newer = !old && self.dice.percent(30);
        let purge = Purge { selector, strength, newer };
        let receipt = self.dice.percent(50);
        let now = self.now(machine);
        let replica = &mut self.processes[process].replica;
        match replica.submit(selector.scope(), purge.encode(), receipt, now) {
            Ok((identity, actions)) => {
                self.observer.issue(identity, purge, self.versions, self.at);
                self.act(process, actions);
            }
            Err(_) => self.tally.count(Thing::TooMany),
        }
    }

    pub(crate) fn origin_delay(&mut self) -> u64 {
        match self.dice.below(12) {
            0 => self.dice.between(100 * MILLI, 2_500 * MILLI),
            _ => self.dice.between(2 * MILLI, 30 * MILLI),
        }
    }
}
