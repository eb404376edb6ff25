//! The files of an audit log: `audit.log`, then `audit.log.1` and so on, the older the higher.
//!
//! The file is only ever appended to, so that it may be marked append-only. The chain is taken up
//! from its last whole line, at the start and whenever the file is not as it was left: another
//! process wrote to it meanwhile (two overlap in a restart without loss), somebody moved it away, or
//! a write failed midway. A lock on the file keeps two writers apart.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::chain::Chain;
use super::line::{self, Hash, Place};
use super::{Act, Signature, older};
use crate::config::AuditFile;

/// Tries to get hold of the file under its name, while others rotate it.
const TRIES: usize = 16;

/// One log, open for appending.
#[derive(Debug)]
pub(super) struct Log {
    settings: AuditFile,
    signature: Signature,
    /// The open file and its length when it was left.
    open: Option<(File, u64)>,
    /// Number and hash of the last line.
    last: (u64, Hash),
    /// Bytes behind the last line that are none.
    torn: u64,
    /// The last line lacks its end.
    unended: bool,
    missing: u64,
}

impl Log {
    pub(super) fn new(settings: AuditFile, signature: Signature) -> Self {
        Self {
            settings,
            signature,
            open: None,
            last: (0, line::genesis()),
            torn: 0,
            unended: false,
            missing: 0,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Remembers acts whose lines were lost; the next line tells of them.
    pub(super) fn missed(&mut self, acts: u64) {
        self.missing += acts;
    }

    /// Writes a line. After an error the file is looked at again before the next.
    pub(super) fn append(&mut self, act: &Act) -> io::Result<()> {
        let appended = self.try_append(act);
        match (&appended, &self.open) {
            (Ok(()), Some((file, _))) => {
                let _ = file.unlock();
            }
            _ => self.open = None,
        }
        appended
    }

    fn try_append(&mut self, act: &Act) -> io::Result<()> {
        self.take_hold()?;
        let (mut text, mut hash) = self.line(act)?;
        if self.full(text.len()) {
            self.rotate()?;
            self.take_hold()?;
            (text, hash) = self.line(act)?;
        }
        if self.torn > 0 || self.unended {
            text.insert(0, '\n');
        }
        text.push('\n');
        let Some((file, length)) = &mut self.open else {
            return Err(io::ErrorKind::NotFound.into());
        };
        file.write_all(text.as_bytes())?;
        *length += text.len() as u64;
        self.last = (self.last.0 + 1, hash);
        (self.torn, self.missing, self.unended) = (0, 0, false);
        Ok(())
    }

    fn line(&self, act: &Act) -> io::Result<(String, Hash)> {
        let place = Place {
            seq: self.last.0 + 1,
            prev: self.last.1.clone(),
            torn: self.torn,
            missing: self.missing,
        };
        line::encode(act, &place, &self.signature).map_err(io::Error::other)
    }

    /// Whether a line belongs into the next file. One that tells of torn bytes stands behind them.
    fn full(&self, bytes: usize) -> bool {
        let length = self.open.as_ref().map_or(0, |(_, length)| *length);
        self.torn == 0 && length > 0 && length + bytes as u64 > self.settings.bytes
    }

    /// Opens and locks the file that has the name now, and takes up its chain where it changed.
    fn take_hold(&mut self) -> io::Result<()> {
        for _ in 0..TRIES {
            let (file, left) = match self.open.take() {
                Some((file, length)) => (file, Some(length)),
                None => (self.open_file()?, None),
            };
            let held = file.metadata()?;
            if !held.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            lock(&file)?;
            let held = file.metadata()?;
            let named = fs::metadata(&self.settings.path);
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
                if left != Some(held.len()) {
                    self.take_up(&file, left.is_none())?;
                }
                self.open = Some((file, held.len()));
                return Ok(());
            }
        }
        Err(io::Error::other("the file changes its name all the time"))
    }

    fn open_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).open(&self.settings.path)
    }

    /// Finds the end of the chain: in the file, in the one before it, or as remembered, whichever
    /// has come furthest. A file whose end is behind what is remembered has lost lines.
    fn take_up(&mut self, file: &File, anew: bool) -> io::Result<()> {
        let mut chain = Chain::default();
        let mut sound = true;
        let mut input = file;
        input.rewind()?;
        read_lines(input, |raw, ended| sound &= chain.take(raw, ended).is_ok())?;
        (self.torn, self.unended) = (chain.loose(), chain.unended());
        let found = chain.last().map(|(seq, hash)| (seq, hash.into()));
        let path = self.settings.path.display();
        if !sound || found.as_ref().is_some_and(|(seq, _): &(u64, Hash)| *seq < self.last.0) {
            tracing::error!(%path, "the audit log was altered: `atoll audit verify` says where");
        }
        if anew && self.torn > 0 {
            tracing::warn!(%path, bytes = self.torn, "the last line of the audit log is torn");
        }
        let found = match found {
            None => self.end_of_older()?,
            found => found,
        };
        if let Some(last) = found.filter(|(seq, _)| *seq > self.last.0) {
            self.last = last;
        }
        Ok(())
    }

    /// Number and hash of the last line of the file that was rotated last.
    fn end_of_older(&self) -> io::Result<Option<(u64, Hash)>> {
        let file = match File::open(older(&self.settings.path, 1)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut chain = Chain::default();
        read_lines(&file, |raw, ended| {
            let _ = chain.take(raw, ended);
        })?;
        Ok(chain.last().map(|(seq, hash)| (seq, hash.into())))
    }

    /// Gives every file the name of the next older one; the oldest gives way.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        for number in (1..self.settings.files).rev() {
            match fs::rename(older(path, number), older(path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(path, older(path, 1))?;
        tracing::info!(last = %self.last.1, lines = self.last.0, "the audit log goes on in a new file");
        Ok(())
    }
}

/// Keeps other processes out until it is unlocked or closed. Some file systems have no locks.
fn lock(file: &File) -> io::Result<()> {
    match file.lock() {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        locked => locked,
    }
}

/// Hands every line of a log's file on, with whether a newline ended it.
///
/// # Errors
/// The file cannot be read.
pub fn read_lines(file: &File, mut take: impl FnMut(&[u8], bool)) -> io::Result<()> {
    let mut input = BufReader::with_capacity(1 << 16, file);
    let mut raw = Vec::new();
    while input.read_until(b'\n', &mut raw)? > 0 {
        let ended = raw.last() == Some(&b'\n');
        if ended {
            raw.pop();
        }
        take(&raw, ended);
        raw.clear();
    }
    Ok(())
}
