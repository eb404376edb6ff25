//! The audit log: who changed what, when and from where, in a file that shows when it was altered.
//!
//! One JSON object a line, one line for each thing that an operator had done. Every line bears the
//! hash of the one before and its own, so that whoever changes, removes or inserts a line has to
//! write all later ones anew, and then the last hash is another than the one noted elsewhere.
//!
//! ```text
//! {"seq":1,...,"prev":"000…","hash":"3fa…"}
//! {"seq":2,...,"prev":"3fa…","hash":"b07…"}
//! ```
//!
//! A line is written after the act and before its answer. What if it cannot be, since the disk is
//! full? Then the act stands and its answer says that it is not in the log. Refusing would be worse: a
//! purge is often there to take something down, and a disk that ran full is no reason to go on
//! showing it. Nothing is lost silently: an error in the process log, a metric, and the next line that
//! can be written says how many are missing before it.
//!
//! A thread of its own writes, so that a disk that hangs holds up nobody but who waits for a line,
//! and that not for long.

mod chain;
mod file;
mod line;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tokio::sync::oneshot;

pub use chain::{Broken, Chain};
pub use file::read_lines;
pub use line::{Part, parts};

use crate::clock::Now;
use crate::config::AuditFile;
use crate::purge::{Selector, Strength};
use crate::telemetry::Metrics;

/// Lines that may wait for the disk.
const QUEUE: usize = 1024;

/// Time that the answer to an act waits for its line.
const PATIENCE: Duration = Duration::from_secs(2);

/// Something that an operator had done.
#[derive(Clone, Debug)]
pub struct Act {
    name: &'static str,
    /// Name of the token, and the address that it came from; `None` for what the node did by itself.
    by: Option<(Box<str>, IpAddr)>,
    what: Map<String, Value>,
    outcome: &'static str,
    at: SystemTime,
}

impl Act {
    /// An act by the holder of a token: `purge`, `reset`, `warm` and so on.
    #[must_use]
    pub fn new(name: &'static str, token: &str, from: IpAddr, now: Now) -> Self {
        let by = Some((token.into(), from.to_canonical()));
        Self { name, by, what: Map::new(), outcome: "done", at: now.wall }
    }

    /// A purge that was carried out as `id`, with all that is needed to do it again.
    #[must_use]
    pub fn purge(
        token: &str,
        from: IpAddr,
        (selectors, strength): (&[Selector], Strength),
        id: &str,
        now: Now,
    ) -> Self {
        Self::new("purge", token, from, now)
            .with("id", id)
            .with("mode", strength.label())
            .with("selectors", serde_json::to_value(parts(selectors)).unwrap_or_default())
    }

    fn of_node(name: &'static str, now: Now) -> Self {
        Self { name, by: None, what: Map::new(), outcome: "done", at: now.wall }
    }

    /// The same with something to be said about what was done.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.what.insert(name.to_owned(), value.into());
        self
    }

    /// The same with another outcome than `done`: `begun` for what goes on by itself.
    #[must_use]
    pub fn outcome(self, outcome: &'static str) -> Self {
        Self { outcome, ..self }
    }
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// There is no audit log.
    Off,
    /// It is in the file.
    Yes,
    /// It is not, or was not in time.
    No,
}

/// Handle of the audit log; clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    sender: SyncSender<Message>,
    /// Lines that found no place in the queue; the writer's next line tells of them.
    lost: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    done: std::sync::Mutex<Receiver<()>>,
}

/// What goes to the writer.
enum Message {
    Line(Box<Act>, oneshot::Sender<bool>),
    End,
}

/// Whose log it is.
#[derive(Clone, Debug)]
pub struct Signature {
    /// Name of the node.
    pub node: String,
    /// This run of its process.
    pub incarnation: String,
}

impl Audit {
    /// No audit log.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens the log, takes up its chain, writes that the node has started, and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened or written, or the thread not started.
    pub fn start(
        settings: Option<&AuditFile>,
        signature: Signature,
        metrics: Arc<Metrics>,
        now: Now,
    ) -> io::Result<Self> {
        let Some(settings) = settings else { return Ok(Self::off()) };
        let lost = Arc::new(AtomicU64::new(0));
        let mut log = file::Log::new(settings.clone(), signature);
        log.append(&Act::of_node("start", now).with("version", env!("CARGO_PKG_VERSION")))?;
        let (sender, receiver) = sync_channel(QUEUE);
        // The writer's end is dropped when it has written everything before the end.
        let (end, done) = sync_channel(1);
        let writer = Writer { log, lost: Arc::clone(&lost), metrics: Arc::clone(&metrics) };
        thread::Builder::new().name("audit-log".into()).spawn(move || {
            writer.run(&receiver);
            drop(end);
        })?;
        metrics.node.audit_lines.inc();
        Ok(Self(Some(Arc::new(Open { sender, lost, metrics, done: done.into() }))))
    }

    /// Writes a line for an act that was carried out, and says whether it is there. To be awaited
    /// before the act is answered.
    pub async fn note(&self, act: Act) -> Written {
        let Some(open) = &self.0 else { return Written::Off };
        let (answer, written) = oneshot::channel();
        if open.sender.try_send(Message::Line(Box::new(act), answer)).is_err() {
            open.lost.fetch_add(1, Ordering::Relaxed);
            open.metrics.node.audit_failures.inc();
            tracing::error!("the audit log is behind: a line is lost");
            return Written::No;
        }
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(true)) => Written::Yes,
            Ok(_) | Err(_) => Written::No,
        }
    }

    /// Has everything written that waits, and ends the writer; `patience` bounds the wait.
    pub fn close(&self, patience: Duration) {
        let Some(open) = &self.0 else { return };
        let done = open.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let told = open.sender.try_send(Message::End).is_ok();
        if !told || done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the audit log could not be written to its end");
        }
    }
}

/// The one who writes.
struct Writer {
    log: file::Log,
    lost: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(Message::Line(act, answer)) = messages.recv() {
            self.log.missed(self.lost.swap(0, Ordering::Relaxed));
            let written = self.log.append(&act);
            match &written {
                Ok(()) => self.metrics.node.audit_lines.inc(),
                Err(error) => {
                    self.metrics.node.audit_failures.inc();
                    self.log.missed(1);
                    let path = self.log.path().display().to_string();
                    tracing::error!(%error, path, act = act.name, "not written to the audit log");
                }
            }
            // Nobody waits any more where it took too long.
            let _ = answer.send(written.is_ok());
        }
    }
}

/// Names of a log's older files, the newest first.
fn older(path: &std::path::Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
