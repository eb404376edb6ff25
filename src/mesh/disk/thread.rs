//! The thread that writes the log.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError};
use std::time::Duration;

use super::file::{LogFile, frame};
use super::{Bounds, State};
use crate::clock;
use crate::replication::{Entry, Mark, Record, Saved, Vector};

/// The log.
pub(super) const LOG: &str = "witness.log";
/// The one that takes its place.
pub(super) const NEW: &str = "witness.log.new";

/// Bytes that go with one write.
const GROUP_BYTES: usize = 8 << 20;
/// Bytes of the new file that are written at once.
const SLICE_BYTES: usize = 2 << 20;
/// The same for its end: more than can come between two slices, so that there is an end.
const LAST_SLICE_BYTES: usize = 4 * GROUP_BYTES;

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Append this.
    Write { ticket: u64, entries: Vec<Entry>, bytes: usize },
    /// Tell what the log amounts to, and begin tickets anew.
    StartOver(SyncSender<Option<Box<Saved>>>),
}

/// The owner of the file.
#[derive(Debug)]
pub(super) struct Writer {
    file: LogFile,
    directory: PathBuf,
    /// What the file amounts to.
    mirror: Saved,
    bounds: Bounds,
    rewriting: Option<Rewriting>,
    state: Arc<State>,
}

/// A file that is to take the place of the log.
#[derive(Debug)]
struct Rewriting {
    file: LogFile,
    /// Records that were there when it was begun and are not in it.
    left: VecDeque<Arc<Record>>,
    /// What came since.
    tail: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        file: LogFile,
        directory: PathBuf,
        mirror: Saved,
        bounds: Bounds,
        state: Arc<State>,
    ) -> Self {
        Self { file, directory, mirror, bounds, rewriting: None, state }
    }

    /// Writes until nobody can hand it anything more. Holds the lock as long.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, synced: &dyn Fn(Duration), lock: File) {
        while let Some(first) = self.wait(jobs) {
            if let Some(first) = first {
                self.work(first, jobs, synced);
            }
            if let Err(error) = self.rewrite() {
                // The log itself is whole; it only stays longer than it need be.
                tracing::warn!(%error, "the witness log cannot be rewritten");
                self.rewriting = None;
                self.bounds.outgrows_bytes = self.file.bytes().saturating_mul(2);
            }
        }
        drop(lock);
    }

    /// The next job; `Some(None)` where there is none and the file is being rewritten.
    fn wait(&self, jobs: &Receiver<Job>) -> Option<Option<Job>> {
        if self.rewriting.is_none() {
            return jobs.recv().map_or_else(|RecvError| None, |job| Some(Some(job)));
        }
        match jobs.try_recv() {
            Ok(job) => Some(Some(job)),
            Err(TryRecvError::Empty) => Some(None),
            Err(TryRecvError::Disconnected) => None,
        }
    }

    /// Does a job, with the writes that wait behind it.
    fn work(&mut self, first: Job, jobs: &Receiver<Job>, synced: &dyn Fn(Duration)) {
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Write { ticket, entries, bytes } => group.push(ticket, entries, bytes),
                Job::StartOver(told) => {
                    self.commit(std::mem::take(&mut group), synced);
                    self.state.safe.store(0, Ordering::Release);
                    let healthy = self.state.healthy.load(Ordering::Acquire);
                    let saved = healthy.then(|| self.mirror.clone());
                    let saved = saved.filter(Saved::tells_something);
                    // Nobody waits any more: then nobody needs it.
                    let _ = told.send(saved.map(Box::new));
                }
            }
            if group.bytes.len() < GROUP_BYTES {
                next = jobs.try_recv().ok();
            }
        }
        self.commit(group, synced);
    }

    fn commit(&mut self, group: Group, synced: &dyn Fn(Duration)) {
        let Some(ticket) = group.ticket else { return };
        self.state.queued.fetch_sub(group.writes, Ordering::Relaxed);
        self.state.queued_bytes.fetch_sub(group.weight, Ordering::Relaxed);
        if !self.state.healthy.load(Ordering::Acquire) {
            return;
        }
        let begun = clock::now();
        let written = self.file.append(&group.bytes).and_then(|()| self.file.sync());
        if let Err(error) = written {
            return self.state.fail(&error.to_string());
        }
        synced(clock::now().since(begun));
        if let Some(rewriting) = &mut self.rewriting {
            rewriting.tail.extend(&group.bytes);
        }
        group.entries.into_iter().for_each(|entry| self.mirror.replay(entry));
        self.state.bytes.store(self.file.bytes(), Ordering::Relaxed);
        self.state.safe.store(ticket, Ordering::Release);
        self.state.moved.notify_one();
    }

    /// Writes a slice of the new file, if one is due or under way.
    fn rewrite(&mut self) -> io::Result<()> {
        if self.rewriting.is_none() {
            let kept = u64::try_from(self.mirror.log.bytes()).unwrap_or(u64::MAX);
            let most = kept / 100 * self.bounds.outgrows_percent + self.bounds.outgrows_bytes;
            if self.file.bytes() > most && self.state.healthy.load(Ordering::Acquire) {
                self.rewriting = Some(self.begin()?);
            }
            return Ok(());
        }
        let Some(rewriting) = &mut self.rewriting else { return Ok(()) };
        if rewriting.slice()? {
            return Ok(());
        }
        self.replace(sync_directory)
    }

    /// Has the new file take the place of the log; `keep` makes its name safe.
    fn replace(&mut self, keep: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        fs::rename(self.directory.join(NEW), self.directory.join(LOG))?;
        // The former file has no name any more: nothing that is written to it would be found again.
        if let Some(rewriting) = self.rewriting.take() {
            self.file = rewriting.file;
            self.state.bytes.store(self.file.bytes(), Ordering::Relaxed);
        }
        if let Err(error) = keep(&self.directory) {
            // Nobody knows which of the two a machine that stops now would find.
            self.state.fail(&error.to_string());
        }
        Ok(())
    }

    fn begin(&self) -> io::Result<Rewriting> {
        let mut file = LogFile::create(&self.directory.join(NEW))?;
        let (base, left) = taken_apart(&self.mirror);
        let mut bytes = Vec::new();
        frame(&base, &mut bytes);
        file.append(&bytes)?;
        file.sync()?;
        Ok(Rewriting { file, left, tail: Vec::new() })
    }
}

impl Rewriting {
    /// Writes the next slice. Says whether there is more to come before the new file has everything.
    ///
    /// What came since is written with the last slice at once, and the file takes its place before
    /// more can come: under load there is always something that came since.
    fn slice(&mut self) -> io::Result<bool> {
        let mut bytes = Vec::new();
        while bytes.len() < SLICE_BYTES
            && let Some(record) = self.left.pop_front()
        {
            frame(&[Entry::Record(record)], &mut bytes);
        }
        if self.left.is_empty() && bytes.len() + self.tail.len() <= LAST_SLICE_BYTES {
            bytes.append(&mut self.tail);
        } else if bytes.is_empty() {
            bytes = std::mem::take(&mut self.tail);
        }
        if !bytes.is_empty() {
            self.file.append(&bytes)?;
            self.file.sync()?;
        }
        Ok(!self.left.is_empty() || !self.tail.is_empty())
    }
}

/// Writes that go together.
#[derive(Debug, Default)]
struct Group {
    ticket: Option<u64>,
    writes: usize,
    weight: usize,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Group {
    fn push(&mut self, ticket: u64, entries: Vec<Entry>, weight: usize) {
        frame(&entries, &mut self.bytes);
        self.ticket = Some(ticket);
        self.writes += 1;
        self.weight += weight;
        self.entries.extend(entries);
    }
}

/// Entries and records that amount to the same.
pub(super) fn taken_apart(saved: &Saved) -> (Vec<Entry>, VecDeque<Arc<Record>>) {
    let mut base = Vector::new(saved.vector.retired());
    let mut left = VecDeque::new();
    for (source, mark) in saved.vector.marks() {
        let records = saved.log.of(source);
        let mut before = *mark;
        for (at, record) in records.enumerate() {
            if at == 0 {
                let sequence = record.identity.sequence.saturating_sub(1);
                before = Mark { sequence, chain: record.before };
            }
            left.push_back(Arc::clone(record));
        }
        base.set(source, before);
    }
    let state = saved.state.clone().map(Entry::State);
    let set = saved.set.clone().map(Entry::Set);
    (state.into_iter().chain(set).chain([Entry::Vector(base)]).collect(), left)
}

/// Has a folder keep the names in it.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
