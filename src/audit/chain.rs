//! Whether lines follow each other as they were written.
//!
//! A line is as it was written if its own hash says so. It follows the one before if it bears that
//! one's hash and the next number. Bytes that are no line are a write that broke off, if the next
//! line says that so many are torn; else somebody was there.

use std::fmt;

use super::line::{self, Hash, Place};

/// Where and how a chain breaks. Lines count from one, in the file that was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The line is not as it was written.
    Altered {
        /// Its number.
        line: u64,
    },
    /// The line does not follow the one before it: lines between them are missing, or others stand
    /// there.
    Unlinked {
        /// Its number.
        line: u64,
        /// Number in the chain that should come.
        expected: u64,
        /// Number in the chain that it has.
        found: u64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered { line } => write!(out, "line {line}: is not as it was written"),
            Self::Unlinked { line, expected, found } if expected == found => {
                write!(out, "line {line}: number {found} does not follow the line before it")
            }
            Self::Unlinked { line, expected, found } => {
                write!(out, "line {line}: number {found} where number {expected} should come")
            }
        }
    }
}

/// Reads a chain line by line, over as many files as it has.
#[derive(Debug, Default)]
pub struct Chain {
    last: Option<(u64, Hash)>,
    /// Number and hash of what the first line follows.
    first: Option<(u64, Hash)>,
    /// Line of this file that is read.
    line: u64,
    lines: u64,
    missing: u64,
    torn: u64,
    /// Bytes that are no line, and where they begin.
    loose: Option<(u64, u64)>,
    /// A newline came behind what was read last.
    ended: bool,
}

impl Chain {
    /// Begins another file of the same chain.
    ///
    /// # Errors
    /// Where the file before ended in bytes that are no line.
    pub fn next_file(&mut self) -> Result<(), Broken> {
        self.line = 0;
        self.loose.take().map_or(Ok(()), |(_, line)| Err(Broken::Altered { line }))
    }

    /// Takes one line; `ended` says whether a newline, which is not part of it, came behind it.
    ///
    /// # Errors
    /// Where the chain breaks. It goes on with this line, so that more breaks can be found.
    pub fn take(&mut self, raw: &[u8], ended: bool) -> Result<(), Broken> {
        self.line += 1;
        self.ended = ended;
        let Some((place, hash)) = line::decode(raw) else {
            let bytes = raw.len() as u64 + u64::from(ended);
            let (before, begin) = self.loose.unwrap_or((0, self.line));
            self.loose = Some((before + bytes, begin));
            return Ok(());
        };
        let judged = self.judge(&place);
        self.first.get_or_insert((place.seq, place.prev));
        self.last = Some((place.seq, hash));
        self.lines += 1;
        self.missing += place.missing;
        self.torn += u64::from(place.torn > 0);
        judged
    }

    fn judge(&mut self, place: &Place) -> Result<(), Broken> {
        // What is torn was ended by a newline when the next line was written.
        match (self.loose.take(), place.torn) {
            (None, 0) => {}
            (Some((bytes, _)), torn) if torn > 0 && bytes == torn + 1 => {}
            (Some((_, line)), _) => return Err(Broken::Altered { line }),
            (None, _) => return Err(Broken::Altered { line: self.line }),
        }
        let (expected, prev) = match &self.last {
            Some((seq, hash)) => (seq + 1, hash),
            None => return Ok(()),
        };
        if place.seq == expected && place.prev == *prev {
            return Ok(());
        }
        Err(Broken::Unlinked { line: self.line, expected, found: place.seq })
    }

    /// Number and hash of the last line.
    #[must_use]
    pub fn last(&self) -> Option<(u64, &str)> {
        self.last.as_ref().map(|(seq, hash)| (*seq, &**hash))
    }

    /// Number of the first line and the hash of what came before it.
    #[must_use]
    pub fn first(&self) -> Option<(u64, &str)> {
        self.first.as_ref().map(|(seq, hash)| (*seq, &**hash))
    }

    /// Lines that were read.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Acts whose lines could not be written, as later lines tell.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Writes that broke off, as later lines tell.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Whether the last line lacks its end.
    pub(super) fn unended(&self) -> bool {
        self.lines > 0 && self.loose.is_none() && !self.ended
    }

    /// Whether there are bytes at the end that are no line, and end as one does: no write broke off
    /// there.
    #[must_use]
    pub fn loose_ended(&self) -> bool {
        self.loose.is_some() && self.ended
    }

    /// Bytes at the end that are no line: a write that broke off, or one that is under way.
    #[must_use]
    pub fn loose(&self) -> u64 {
        self.loose.map_or(0, |(bytes, _)| bytes)
    }
}
