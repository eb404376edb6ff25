//! Where log lines end up: standard output, or a file that is opened anew when it was moved away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::clock::{self, Now};

/// Pause before another try on a descriptor that takes nothing at the moment.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Tries on such a descriptor.
const BUSY_TRIES: u32 = 100;

/// Time between two complaints about failed writes.
const COMPLAINT: Duration = Duration::from_secs(1);

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// Name to open it by; `None` for standard output.
    path: Option<PathBuf>,
    /// The last write broke off within a line.
    torn: bool,
    complained: Option<Now>,
}

impl LogFile {
    /// Opens the file for appending, or takes standard output.
    pub(super) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let file = match &path {
            Some(path) => OpenOptions::new().append(true).create(true).open(path)?,
            // A descriptor of our own: the standard library's handle would flush at every line.
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        };
        Ok(Self { path, ..Self::of(file) })
    }

    /// Takes an open file.
    pub(super) fn of(file: File) -> Self {
        Self { file, path: None, torn: false, complained: None }
    }

    /// Opens the file by its name again; keeps the old one where that fails.
    pub(super) fn reopen(&mut self) {
        if self.path.is_none() {
            return;
        }
        match Self::open(self.path.clone()) {
            Ok(file) => *self = file,
            Err(error) => tracing::error!(%error, path = ?self.path, "log file not reopened"),
        }
    }

    /// Writes whole lines. After an error part of them may be written; the next write then begins
    /// on a new line.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if std::mem::take(&mut self.torn) {
            self.write_all(b"\n").inspect_err(|_| self.torn = true)?;
        }
        self.write_all(lines)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut busy = 0;
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    self.torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && busy < BUSY_TRIES => {
                    busy += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says in the process log that a write failed, once in a second.
    pub(super) fn report(&mut self, error: &io::Error) {
        let now = clock::now();
        if self.complained.is_none_or(|last| now.since(last) >= COMPLAINT) {
            self.complained = Some(now);
            tracing::warn!(%error, path = ?self.path, "the access log could not be written");
        }
    }
}
