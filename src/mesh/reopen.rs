//! Opening the log on disk: at the start, and again where another process had it or the disk has failed.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::Notify;

use super::core::{Core, draw};
use super::disk::{Bounds, Disk, Opened, Trouble};
use crate::clock::{self, Now};
use crate::replication::{Settings, Start};
use crate::telemetry::Metrics;

/// How often a log that could not be opened, or not written, is tried again.
const DISK_AGAIN: Duration = Duration::from_secs(5);

/// Opens the log on disk, on a thread of its own: to read a long log takes seconds, and a disk that has
/// just failed may take as long as it likes.
pub(super) struct Reopen {
    pub(super) open: Arc<dyn Fn() -> Opened + Send + Sync>,
    pub(super) tried: Duration,
    /// Where what is being opened will come from.
    pub(super) coming: Option<mpsc::Receiver<Opened>>,
    /// It has failed: what it seems to have may not be what it kept. So until it is open again, which
    /// may take several tries while the former thread still has the lock.
    pub(super) forgets: bool,
}

impl Core {
    /// A log that another process had, or that could not be written, is tried again now and then.
    pub(super) fn look_after_disk(&mut self) {
        let now = clock::now();
        let failed = self.disk.as_ref().is_none_or(|disk| !disk.is_healthy());
        let Some(reopen) = self.reopen.as_mut().filter(|_| failed) else { return };
        if reopen.coming.is_none() && now.boot.saturating_sub(reopen.tried) >= DISK_AGAIN {
            reopen.forgets |= self.disk.take().is_some();
            reopen.begin(now);
        }
        let Some(Opened { disk: Some(disk), start, .. }) = reopen.opened() else { return };
        let forgets = std::mem::take(&mut reopen.forgets);
        tracing::warn!("the witness log can be written again: this node begins anew with it");
        self.disk = Some(disk);
        self.begin(if forgets { Start::Forgotten } else { start }, now);
    }
}

impl Reopen {
    /// Tries it once more.
    fn begin(&mut self, now: Now) {
        self.tried = now.boot;
        let (open, (opened, coming)) = (Arc::clone(&self.open), mpsc::channel());
        // Who does not want it any more lets it go, and the log is closed again.
        let work = move || drop(opened.send(open()));
        match std::thread::Builder::new().name("mesh-log-open".to_owned()).spawn(work) {
            Ok(_) => self.coming = Some(coming),
            Err(error) => tracing::error!(%error, "the witness log cannot be opened"),
        }
    }

    /// What was opened, once it is.
    fn opened(&mut self) -> Option<Opened> {
        match self.coming.as_ref()?.try_recv() {
            Err(mpsc::TryRecvError::Empty) => None,
            came => {
                self.coming = None;
                came.ok()
            }
        }
    }
}

/// Opens the log that the configuration names.
pub(super) fn open_disk(
    directory: &Path,
    settings: &Settings,
    moved: Arc<Notify>,
    metrics: Arc<Metrics>,
) -> Opened {
    // Witnesses have the same records: none is to rewrite its log when the others do.
    let spread = draw() % 100;
    let bounds = Bounds {
        records: settings.log_records,
        bytes: settings.log_bytes,
        outgrows_percent: 150 + spread,
        outgrows_bytes: 16 << 20,
    };
    let opened = Disk::open(directory, bounds, moved, move |took| metrics.mesh.synced(took));
    match &opened.trouble {
        None => {}
        Some(trouble @ Trouble::Damaged { .. }) => {
            tracing::error!(directory = %directory.display(), %trouble, "the witness log is lost: this node begins without memory");
        }
        Some(trouble) => {
            tracing::error!(directory = %directory.display(), %trouble, "no witness log: this node answers nothing as a witness");
        }
    }
    opened
}
