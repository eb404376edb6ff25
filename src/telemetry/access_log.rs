//! The access log: one record a request, formatted and written by a thread of its own.
//!
//! ```text
//! worker 1 -> its recorder --.
//! worker 2 -> its recorder --+--> writer: collect, format, write in pieces, sleep
//! ```
//!
//! Serving never waits for the log. Every worker has a recorder: a short list behind a lock that
//! nobody else takes except the writer, once in a few milliseconds, for a swap. A full list drops
//! the record and counts it. Under load the writer polls and is never woken; when there was
//! nothing to do it sleeps, and the next record wakes it. Records go back to their recorder after
//! they are written, so that a request allocates nothing for its line.
//!
//! The same thread counts what is asked for most ([`Hottest`]), from a sample of the records. Where
//! no log is written it looks for a few records several times a second and is never woken.
//!
//! A broken pipe or a full disk costs the lines that could not be written and nothing else.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use super::file::LogFile;
use super::format::Formatter;
use super::hottest::Hottest;
use super::metrics::{LogMetrics, Metrics};
use super::record::Record;
use super::sites::SiteMetrics;
use super::trace::RequestId;
use crate::clock::{self, Now};
use crate::config::{AccessFormat, Log, Site};

/// Time that the writer lets records gather while there are any.
const GATHER: Duration = Duration::from_millis(5);

/// Bytes that are handed to the file at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Records of one recorder that are counted for what is asked for most, at one look.
const SAMPLE: usize = 64;

/// Records of one recorder whose tags are counted, at one look. Fewer, since each has several; and
/// a record that waits keeps the head alive that it names.
const TAGGED: usize = 16;

/// Time between two looks where no log is written.
const SAMPLING: Duration = Duration::from_millis(200);

/// Records that a recorder keeps for reuse.
const FREE_RECORDS: usize = 1024;

/// Largest text buffer that is kept for reuse, in bytes.
const FREE_TEXT_BYTES: usize = 1024;

/// Text that waiting records may hold on average, in bytes; longer lines fill the queue earlier.
const TEXT_BYTES: usize = 1024;

/// The lock's content, whatever became of its former holder: every change here is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records as they come and go. Boxed, since they are handed from list to list and each is several
/// hundred bytes.
type Records = Vec<Box<Record>>;

/// Handle of the access log; clones are the same log.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Shared>);

/// What recorders, handles and the writer share.
#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    hottest: Hottest,
    /// Records that may wait in one recorder; 0 where no log is written.
    most_waiting: usize,
    recorders: Mutex<Vec<Arc<Recorder>>>,
    writer: OnceLock<Thread>,
    /// The writer found nothing and waits to be woken.
    asleep: AtomicBool,
    reopen: AtomicBool,
    closing: AtomicBool,
    closed: (Mutex<bool>, Condvar),
    /// Second of the boot clock in which a drop was last reported.
    reported: AtomicU64,
}

impl AccessLog {
    /// Opens the log and starts its writer. `workers` recorders share the queue's places. Without
    /// a format nothing is written, and records only count for the metrics.
    ///
    /// # Errors
    /// The file cannot be opened or the thread not started.
    pub fn start(log: &Log, workers: usize, metrics: Arc<Metrics>) -> io::Result<Self> {
        let Some(format) = log.access else {
            return Self::spawn(None, Arc::new(Shared::new(metrics, 0)));
        };
        let file = LogFile::open(log.access_file.clone())?;
        Self::write_to(file, format, log.access_queue.div_ceil(workers.max(1)), metrics)
    }

    /// What is asked for most.
    #[must_use]
    pub fn hottest(&self) -> &Hottest {
        &self.0.hottest
    }

    fn write_to(
        file: LogFile,
        format: AccessFormat,
        most_waiting: usize,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let output = Output {
            formatter: Formatter::new(format),
            file,
            buffer: Vec::with_capacity(2 * PIECE_BYTES),
            in_buffer: 0,
        };
        Self::spawn(Some(output), Arc::new(Shared::new(metrics, most_waiting.max(1))))
    }

    fn spawn(output: Option<Output>, shared: Arc<Shared>) -> io::Result<Self> {
        let writer = Writer { shared: Arc::clone(&shared), output, records: Vec::new() };
        let thread = thread::Builder::new().name("access-log".into()).spawn(|| writer.run())?;
        // The only other caller of `set` would be a second writer, and there is none.
        let _ = shared.writer.set(thread.thread().clone());
        Ok(Self(shared))
    }

    /// A recorder for one worker, for records of these sites. It is let go of once nobody else holds
    /// it and what it took is written.
    #[must_use]
    pub fn recorder(&self, sites: &[Site], before: &[Site]) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder {
            shared: Arc::clone(&self.0),
            sites: self.0.metrics.sites(sites, before),
            silent: false,
            lot: Mutex::default(),
        });
        lock(&self.0.recorders).push(Arc::clone(&recorder));
        recorder
    }

    /// A recorder for requests of our own, which are no client traffic: nothing is written or
    /// counted.
    #[must_use]
    pub fn silent_recorder(&self) -> Arc<Recorder> {
        let shared = Arc::clone(&self.0);
        Arc::new(Recorder { shared, sites: Arc::default(), silent: true, lot: Mutex::default() })
    }

    /// Has the file opened anew by its name, after it was moved away. Returns at once.
    pub fn reopen(&self) {
        self.0.reopen.store(true, Ordering::Release);
        self.0.wake();
    }

    /// Has everything written that waits, and ends the writer; `patience` bounds the wait for a
    /// reader that does not read. Later records only count for the metrics.
    pub fn close(&self, patience: Duration) {
        self.0.closing.store(true, Ordering::Release);
        if self.0.writer.get().is_none() {
            return;
        }
        self.0.wake();
        let (closed, condition) = &self.0.closed;
        let waited = condition.wait_timeout_while(lock(closed), patience, |closed| !*closed);
        if waited.is_ok_and(|(_, result)| result.timed_out()) {
            tracing::warn!("the access log could not be written to its end");
        }
    }
}

impl Shared {
    fn new(metrics: Arc<Metrics>, most_waiting: usize) -> Self {
        Self {
            hottest: Hottest::new(),
            metrics,
            most_waiting,
            recorders: Mutex::default(),
            writer: OnceLock::new(),
            asleep: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            closed: (Mutex::new(false), Condvar::new()),
            reported: AtomicU64::new(0),
        }
    }

    fn log(&self) -> &LogMetrics {
        &self.metrics.log
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Counts a dropped record and says so in the process log, once in a second.
    fn dropped(&self, record: &Record) {
        self.log().dropped.inc();
        let second = (record.started.boot + record.took).as_secs();
        if self.reported.swap(second, Ordering::Relaxed) != second {
            let dropped = self.log().dropped.get();
            tracing::warn!(dropped, "the access log is behind and drops records");
        }
    }
}

/// Takes the records of one worker.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    /// What the sites of its records are positions in.
    sites: Arc<[SiteMetrics]>,
    /// Nothing is written or counted.
    silent: bool,
    lot: Mutex<Lot>,
}

/// Records of one worker that wait for the writer, and used ones for the next requests.
#[derive(Debug, Default)]
struct Lot {
    waiting: Records,
    text_bytes: usize,
    /// Records that did not wait, since enough did: those that wait stand for them.
    passed: u64,
    free: Records,
}

impl Lot {
    /// Keeps a record for reuse, unless there are enough or it has grown large; gives back what
    /// is not kept, to be freed without the lock.
    fn keep(&mut self, mut record: Box<Record>) -> Option<Box<Record>> {
        record.tagged = None;
        if self.free.len() >= FREE_RECORDS || record.text.bytes.capacity() > FREE_TEXT_BYTES {
            return Some(record);
        }
        self.free.push(record);
        None
    }
}

impl Recorder {
    /// A record for a request whose head was complete at `now`.
    #[must_use]
    pub fn record(self: &Arc<Self>, request_id: RequestId, now: Now) -> Box<Record> {
        let used = lock(&self.lot).free.pop();
        let mut record = match used {
            Some(mut record) => {
                record.reset(Arc::clone(self));
                record
            }
            None => Box::new(Record::blank(Some(Arc::clone(self)))),
        };
        record.request_id = request_id;
        record.started = now;
        record
    }

    /// Counts an ended request and queues its line.
    pub(super) fn take(&self, record: Box<Record>) {
        if self.silent {
            return;
        }
        if let Some(site) = record.site.and_then(|site| self.sites.get(site)) {
            // How long a tunnel was open says nothing of how long answers take.
            let tunnel = record.bytes_received.and(record.first_byte);
            let took = tunnel.unwrap_or(record.took);
            site.ended(record.outcome, record.status, took, record.bytes_sent);
        }
        // Freed after the lock, where it is not kept.
        let _surplus = self.queue(record);
        if self.shared.asleep.load(Ordering::Relaxed)
            && self.shared.asleep.swap(false, Ordering::Relaxed)
        {
            self.shared.wake();
        }
    }

    fn queue(&self, mut record: Box<Record>) -> Option<Box<Record>> {
        let most = self.shared.most_waiting;
        // Freed after the lock.
        let _uncounted;
        let mut lot = lock(&self.lot);
        if lot.waiting.len() >= TAGGED {
            _uncounted = record.tagged.take();
        }
        if self.shared.closing.load(Ordering::Relaxed) {
            return lot.keep(record);
        }
        if most == 0 {
            if lot.waiting.len() < SAMPLE && record.text.bytes.capacity() <= FREE_TEXT_BYTES {
                lot.waiting.push(record);
                return None;
            }
            lot.passed += 1;
            return lot.keep(record);
        }
        let bytes = record.text.bytes.len();
        if lot.waiting.len() >= most || lot.text_bytes + bytes > most.saturating_mul(TEXT_BYTES) {
            drop(lot);
            self.shared.dropped(&record);
            return Some(record);
        }
        lot.text_bytes += bytes;
        lot.waiting.push(record);
        None
    }
}

/// The thread that writes and counts.
struct Writer {
    shared: Arc<Shared>,
    /// `None` where no log is written.
    output: Option<Output>,
    /// Records of one recorder, while they are formatted.
    records: Records,
}

/// Where lines go.
struct Output {
    formatter: Formatter,
    file: LogFile,
    buffer: Vec<u8>,
    /// Lines in `buffer`.
    in_buffer: u64,
}

impl Writer {
    fn run(mut self) {
        loop {
            let closing = self.shared.closing.load(Ordering::Acquire);
            if self.shared.reopen.swap(false, Ordering::Acquire)
                && let Some(output) = &mut self.output
            {
                output.file.reopen();
            }
            let some = self.collect();
            if closing && !some {
                break;
            } else if self.output.is_none() {
                thread::park_timeout(SAMPLING);
            } else if some && !closing {
                thread::park_timeout(GATHER);
            } else if !some {
                self.sleep();
            }
        }
        lock(&self.shared.recorders).clear();
        let (closed, condition) = &self.shared.closed;
        *lock(closed) = true;
        condition.notify_all();
    }

    /// Waits for a record. The flag is raised before the last look, and a record is queued before
    /// its worker looks at the flag; the lots' locks order the two, so one of them sees the other.
    fn sleep(&self) {
        self.shared.asleep.store(true, Ordering::Relaxed);
        let waiting = |recorder: &Arc<Recorder>| !lock(&recorder.lot).waiting.is_empty();
        let busy = lock(&self.shared.recorders).iter().any(waiting);
        if !busy && !self.shared.closing.load(Ordering::Acquire) {
            thread::park();
        }
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    /// Writes everything that waits; false if that was nothing.
    fn collect(&mut self) -> bool {
        let recorders = lock(&self.shared.recorders).clone();
        let mut some = false;
        for recorder in recorders {
            let mut lot = lock(&recorder.lot);
            std::mem::swap(&mut lot.waiting, &mut self.records);
            lot.text_bytes = 0;
            let passed = std::mem::take(&mut lot.passed);
            drop(lot);
            some |= !self.records.is_empty();
            self.count(&recorder.sites, passed);
            self.count_tags(&recorder.sites, passed);
            if let Some(output) = &mut self.output {
                output.format(&self.records, &recorder.sites, &self.shared);
            }
            self.give_back(&recorder);
        }
        // Those of a configuration that is in force no more, after its last request.
        let used = |recorder: &Arc<Recorder>| {
            Arc::strong_count(recorder) > 1 || !lock(&recorder.lot).waiting.is_empty()
        };
        lock(&self.shared.recorders).retain(used);
        if let Some(output) = &mut self.output {
            output.write(&self.shared);
        }
        some
    }

    /// Counts a sample of the records, which stands for all of them and for `passed` others.
    fn count(&self, sites: &[SiteMetrics], passed: u64) {
        let found = self.records.len();
        if found == 0 {
            return;
        }
        let step = found.div_ceil(SAMPLE);
        let sample = self.records.iter().step_by(step).map(|record| &**record);
        let share = share(found, passed, found.div_ceil(step));
        self.shared.hottest.note(sample, sites, share, clock::now().boot);
    }

    /// Counts the tags of the first records, and lets go of what they were read from.
    fn count_tags(&mut self, sites: &[SiteMetrics], passed: u64) {
        let found = self.records.len();
        let share = share(found, passed, found.min(TAGGED));
        let first = self.records.iter().take(TAGGED).map(|record| &**record);
        self.shared.hottest.note_tags(first, sites, share, clock::now().boot);
        for record in self.records.iter_mut().take(TAGGED) {
            record.tagged = None;
        }
    }

    fn give_back(&mut self, recorder: &Recorder) {
        let mut lot = lock(&recorder.lot);
        while let Some(record) = self.records.pop() {
            if let Some(surplus) = lot.keep(record) {
                self.records.push(surplus);
                break;
            }
        }
        drop(lot);
        self.records.clear();
    }
}

/// For how many each of `taken` records stands.
fn share(found: usize, passed: u64, taken: usize) -> f64 {
    let all = u32::try_from(passed.saturating_add(found as u64)).unwrap_or(u32::MAX);
    let taken = u32::try_from(taken).unwrap_or(u32::MAX);
    f64::from(all) / f64::from(taken.max(1))
}

impl Output {
    fn format(&mut self, records: &Records, sites: &[SiteMetrics], shared: &Shared) {
        for record in records {
            let site = record.site.and_then(|site| sites.get(site));
            self.formatter.line(record, site.map_or("", |s| &*s.name), &mut self.buffer);
            self.in_buffer += 1;
            if self.buffer.len() >= PIECE_BYTES {
                self.write(shared);
            }
        }
    }

    fn write(&mut self, shared: &Shared) {
        if self.buffer.is_empty() {
            return;
        }
        match self.file.write(&self.buffer) {
            Ok(()) => shared.log().written.inc_by(self.in_buffer),
            Err(error) => {
                shared.log().failures.inc();
                shared.log().dropped.inc_by(self.in_buffer);
                self.file.report(&error);
            }
        }
        self.in_buffer = 0;
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests;
