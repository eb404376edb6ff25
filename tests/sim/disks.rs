//! Disks: what is written is safe a little later, or seconds later, and one entry after the other.

use atoll::replication::Entry;

use super::plan::{Kind, MILLI, SECOND};
use super::world::{Event, World};

impl World {
    pub(crate) fn persist(&mut self, process: usize, ticket: u64, entries: Vec<Entry>) {
        if !self.processes[process].has_disk {
            // Told to write although the log is another's: nothing is safe, nothing is said.
            return;
        }
        let machine = self.processes[process].machine;
        let slowest =
            self.network.active.iter().any(|(_, kind)| *kind == Kind::SlowDisk { node: machine });
        let slow = slowest || self.plan.cluster.slow_disk && self.dice.percent(30);
        let delay = if slow { 3 * SECOND } else { 3 * MILLI };
        let begun = self.processes[process].written_at.max(self.at);
        let done = self.at + self.dice.between(200, delay);
        let done = done.max(begun);
        // One entry after the other: a process may end between any two of them. The slowest disk hangs
        // with the last one.
        let soon = begun + (done - begun) / if slowest { 16 } else { 1 };
        let mut times: Vec<u64> =
            entries.iter().skip(1).map(|_| self.dice.between(begun, soon)).collect();
        times.sort_unstable();
        if let Some(half) = times.first() {
            self.network.halves.insert(process, (*half, done));
        }
        for (entry, safe) in entries.into_iter().zip(times.into_iter().chain([done])) {
            self.network.writes.push((process, safe, vec![entry]));
        }
        self.processes[process].written_at = done;
        self.push(done, Event::Persisted { process, ticket });
    }

    /// Moves what is safe by now to the disks.
    pub(crate) fn flush_disks(&mut self) {
        let at = self.at;
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.network.writes).into_iter().partition(|write| write.1 <= at);
        self.network.writes = waiting;
        for (process, _, entries) in done {
            let node = self.processes[process].machine;
            if let Some(disk) = &mut self.machines[node].disk {
                entries.into_iter().for_each(|entry| disk.replay(entry));
            }
        }
    }
}
