//! The log on disk of a witness, which acknowledges nothing that is not in it.
//!
//! ```text
//! node    write(7) write(8) write(9)         write(10)
//! thread           [append 7 8 9, fdatasync] -> safe 9, [append 10, fdatasync] -> safe 10
//! ```
//!
//! A thread of its own writes; whatever came while the disk was busy goes with the next write, so
//! that a slow disk costs latency and not throughput. The file holds everything since it was made. When
//! it has outgrown what the protocol keeps, a new one is written beside it, a slice at a time between
//! the others' writes, and takes its place. By how much it may outgrow is drawn for each process, so
//! that witnesses with the same records do not do this at the same time.
//!
//! One process has a log at a time. One that finds it locked, or damaged, or a disk that fails, begins
//! without memory: for that the protocol has its rules. After a write that failed nothing is safe any
//! more in this process's life: it is never again told that something is, and so answers nothing as a
//! witness.

mod file;
mod thread;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::sync::Notify;

use crate::replication::{Entry, Saved, Start};
use file::{Found, LogFile};
use thread::{Job, Writer};

/// Bytes that may wait for the disk. Beyond them it counts as failed: to go on without some of them
/// would be a hole.
const QUEUE_BYTES: usize = 256 << 20;

/// How long the node waits for what the disk has, after a fault of its own.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);

/// Bounds on what a log keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Records.
    pub(super) records: usize,
    /// Bytes of them.
    pub(super) bytes: usize,
    /// Percent of what is kept that the file may have, and this much more in bytes.
    pub(super) outgrows_percent: u64,
    /// See above.
    pub(super) outgrows_bytes: u64,
}

/// Why a process begins without the log.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another process has it.
    Locked,
    /// It is not as it was written. It was put aside.
    Damaged {
        /// From this byte on.
        at: u64,
        /// Where it is now.
        aside: PathBuf,
    },
    /// The disk says no.
    Disk(io::Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => out.write_str("another process has it open"),
            Self::Damaged { at, aside } => {
                write!(out, "it is damaged at byte {at}, and is now {}", aside.display())
            }
            Self::Disk(error) => write!(out, "{error}"),
        }
    }
}

/// What a process finds.
#[derive(Debug)]
pub(super) struct Opened {
    /// The log; none where nothing can be written.
    pub(super) disk: Option<Disk>,
    /// What it remembers.
    pub(super) start: Start,
    /// Why it does not remember, where it should.
    pub(super) trouble: Option<Trouble>,
}

/// A log that is open.
#[derive(Debug)]
pub(super) struct Disk {
    jobs: Option<mpsc::Sender<Job>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// How the log stands.
#[derive(Debug)]
struct State {
    /// Everything up to this ticket is safe.
    safe: AtomicU64,
    healthy: AtomicBool,
    bytes: AtomicU64,
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    moved: Arc<Notify>,
}

impl Disk {
    /// Opens the log in `directory`, making it where there is none. `moved` is notified when more is
    /// safe; `synced` is told how long each write took.
    pub(super) fn open(
        directory: &Path,
        bounds: Bounds,
        moved: Arc<Notify>,
        synced: impl Fn(Duration) + Send + 'static,
    ) -> Opened {
        let without =
            |trouble| Opened { disk: None, start: Start::Forgotten, trouble: Some(trouble) };
        let lock = match lock(directory) {
            Ok(Some(lock)) => lock,
            Ok(None) => return without(Trouble::Locked),
            Err(error) => return without(Trouble::Disk(error)),
        };
        let (file, saved, trouble) = match read(directory, bounds) {
            Ok(found) => found,
            Err(error) => return without(Trouble::Disk(error)),
        };
        let state = Arc::new(State {
            safe: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            bytes: AtomicU64::new(file.bytes()),
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            moved,
        });
        let start = saved.clone().map_or(Start::Forgotten, Start::Saved);
        let mirror = saved.map_or_else(|| bounds.empty(), |saved| *saved);
        let (jobs, waiting) = mpsc::channel();
        let writer = Writer::new(file, directory.to_owned(), mirror, bounds, Arc::clone(&state));
        let run = move || writer.run(&waiting, &synced, lock);
        match std::thread::Builder::new().name("mesh-log".to_owned()).spawn(run) {
            Ok(thread) => {
                let disk = Self { jobs: Some(jobs), state, thread: Some(thread) };
                Opened { disk: Some(disk), start, trouble }
            }
            Err(error) => without(Trouble::Disk(error)),
        }
    }

    /// Has `entries`, all or none, appended. Never waits.
    pub(super) fn write(&self, ticket: u64, entries: Vec<Entry>) {
        let bytes = entries.iter().map(weight_bytes).sum::<usize>();
        let queued = self.state.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.state.queued.fetch_add(1, Ordering::Relaxed);
        if queued > QUEUE_BYTES {
            self.state.fail("the disk is too slow for what it is to keep");
        }
        self.hand(Job::Write { ticket, entries, bytes });
    }

    /// Everything up to this ticket is safe.
    pub(super) fn safe(&self) -> u64 {
        self.state.safe.load(Ordering::Acquire)
    }

    /// Whether what is written is safe some time.
    pub(super) fn is_healthy(&self) -> bool {
        self.state.healthy.load(Ordering::Acquire)
    }

    /// Length of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Writes that wait.
    pub(super) fn queued(&self) -> usize {
        self.state.queued.load(Ordering::Relaxed)
    }

    /// What a process would find that started once everything is written that waits now. Waits for
    /// that; tickets begin anew after it.
    pub(super) fn start_over(&self) -> Start {
        let (told, answer) = mpsc::sync_channel(1);
        self.hand(Job::StartOver(told));
        match answer.recv_timeout(SNAPSHOT_PATIENCE) {
            Ok(Some(saved)) => Start::Saved(saved),
            Ok(None) => Start::Forgotten,
            Err(_) => {
                self.state.fail("the disk does not answer");
                Start::Forgotten
            }
        }
    }

    fn hand(&self, job: Job) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            self.state.fail("its thread has ended");
        }
    }
}

impl Drop for Disk {
    /// What waits is written still. A disk that has failed may not even come back from a write.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take().filter(|_| self.is_healthy()) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn fail(&self, why: &str) {
        if self.healthy.swap(false, Ordering::AcqRel) {
            tracing::error!(
                why,
                "the witness log cannot be written: this node answers nothing as a witness until \
                 it is started anew"
            );
            self.moved.notify_one();
        }
    }
}

impl Bounds {
    fn empty(&self) -> Saved {
        Saved::new(self.records, self.bytes)
    }
}

/// The log and what it amounts to.
type Read = (LogFile, Option<Box<Saved>>, Option<Trouble>);

fn read(directory: &Path, bounds: Bounds) -> io::Result<Read> {
    // What a former process left half rewritten.
    let _ = fs::remove_file(directory.join(thread::NEW));
    let path = directory.join(thread::LOG);
    let (file, found) = LogFile::open(&path, bounds.empty())?;
    Ok(match found {
        Found::Log(saved) => (file, Some(saved), None),
        Found::Nothing => (LogFile::create(&path)?, None, None),
        Found::Damaged { at } => {
            let aside = directory.join("witness.log.damaged");
            fs::rename(&path, &aside)?;
            let file = LogFile::create(&path)?;
            thread::sync_directory(directory)?;
            (file, None, Some(Trouble::Damaged { at, aside }))
        }
    })
}

/// Locks the folder for this process; the lock ends with the file, or with the process.
fn lock(directory: &Path) -> io::Result<Option<File>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(directory.join("lock"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn weight_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Record(record) => record.weight_bytes(),
        Entry::Vector(vector) => 64 + 128 * vector.len(),
        Entry::State(_) | Entry::Set(_) => 256,
    }
}

#[cfg(test)]
mod tests;
