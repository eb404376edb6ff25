//! Machines and processes: clocks that err, disks that outlive a process, pauses.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use atoll::clock::Now;
use atoll::replication::{Identity, Name, Replica, Saved};

use super::edge::Edge;
use super::origin::{OBJECTS, Version};
use super::world::Event;

/// A machine's clocks.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pub(crate) drift_ppm: i64,
    pub(crate) boot_offset: u64,
    /// What the boot clock has lost while the machine was frozen from outside.
    pub(crate) frozen: u64,
    /// How long it was suspended, which only a wrong clock does not count.
    pub(crate) suspended: u64,
    pub(crate) wall_offset: i64,
}

impl Clock {
    pub(crate) fn now(&self, at: u64, stops_in_suspend: bool) -> Now {
        let run = at as i64 + at as i64 * self.drift_ppm / 1_000_000;
        let lost = self.frozen + if stops_in_suspend { self.suspended } else { 0 };
        let boot = (run + self.boot_offset as i64 - lost as i64).max(0) as u64;
        let wall = 1_700_000_000_000_000_i64 + run + self.wall_offset;
        Now {
            wall: SystemTime::UNIX_EPOCH + Duration::from_micros(wall as u64),
            boot: Duration::from_micros(boot),
        }
    }
}

/// A machine with a name, its disk and its clocks.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: Name,
    pub(crate) clock: Clock,
    /// What the log on disk holds; `None` where there is none or it was lost.
    pub(crate) disk: Option<Saved>,
    /// The process that has the log locked.
    pub(crate) locked_by: Option<usize>,
    pub(crate) processes: Vec<usize>,
    pub(crate) is_member: bool,
    /// The witnesses that its configuration names wrongly.
    pub(crate) misread: Option<Vec<usize>>,
    /// While two processes run: whose links go to the old one, and until when.
    pub(crate) links: (u64, u64),
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) machine: usize,
    pub(crate) replica: Replica,
    pub(crate) edge: Edge,
    pub(crate) started: u64,
    pub(crate) reset_at: u64,
    pub(crate) paused_until: u64,
    pub(crate) alive: bool,
    /// What came while it was paused.
    pub(crate) inbox: Vec<Event>,
    /// For each object, the version that the purges applied here demand.
    pub(crate) demanded: [Version; OBJECTS],
    /// The acknowledged or unacknowledged purges that were applied here.
    pub(crate) applied: BTreeSet<Identity>,
    pub(crate) has_disk: bool,
    /// When the last write will be safe.
    pub(crate) written_at: u64,
}
