//! The file of a witness's log.
//!
//! ```text
//! atollwl1 | frame | frame | ...
//! frame      length 4 | its check 4 | checksum of the body 8 | body
//! body       entry | entry | ...       entry: length 4 | bytes
//! ```
//!
//! What one event of the protocol writes is one frame, so that it is there as a whole or not at all:
//! a witness that serves anew never finds its new life without what it took over for it.
//!
//! A frame is only ever the last one that is not whole, where the process or the machine stopped
//! while it was written; nobody was told that it is safe, and it is cut off. Anything else that is not
//! as it was written means that the disk lost what it had promised. Then the log counts as lost, since a
//! witness that knows less than it acknowledged is worse than one that knows that it forgot.

use std::fs::{File, OpenOptions};
use std::hash::Hasher as _;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use siphasher::sip::SipHasher13;

use crate::replication::{Entry, Saved, decode_entry, encode_entry};

const MAGIC: [u8; 8] = *b"atollwl1";

/// Bytes before a frame's body.
const HEAD_BYTES: usize = 16;

/// Longest body that is written or believed: the records of one batch, with what they bear.
const BODY_BYTES: usize = 64 << 20;

/// What is found when a log is opened.
#[derive(Debug)]
pub(super) enum Found {
    /// There was none, or none with anything in it.
    Nothing,
    /// What it amounts to.
    Log(Box<Saved>),
    /// It is not as it was written, from this byte on.
    Damaged {
        /// The byte.
        at: u64,
    },
}

/// A log that is open for writing.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Begins a new one, whatever was there.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = options().truncate(true).open(path)?;
        file.write_all(&MAGIC)?;
        file.sync_data()?;
        Ok(Self { file, bytes: MAGIC.len() as u64 })
    }

    /// Opens one and reads it into `into`. The end of a frame that was being written is cut off. Of a
    /// damaged log nothing is changed.
    pub(super) fn open(path: &Path, mut into: Saved) -> io::Result<(Self, Found)> {
        let mut file = options().truncate(false).open(path)?;
        let length = file.metadata()?.len();
        let mut reader =
            Frames { from: BufReader::with_capacity(1 << 20, &mut file), at: 0, length };
        let mut body = Vec::new();
        if !reader.magic()? {
            let at = reader.at;
            return Ok((Self { file, bytes: length }, Found::Damaged { at }));
        }
        loop {
            match reader.next(&mut body)? {
                Next::Frame if replay(&body, &mut into).is_some() => {}
                Next::Frame | Next::Damaged => {
                    let at = reader.at;
                    return Ok((Self { file, bytes: length }, Found::Damaged { at }));
                }
                Next::End => break,
            }
        }
        let bytes = reader.at;
        let mut log = Self { file, bytes };
        log.cut(length)?;
        let found =
            if into.tells_something() { Found::Log(Box::new(into)) } else { Found::Nothing };
        Ok((log, found))
    }

    /// Length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends what `frames` holds. It is safe after [`LogFile::sync`].
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        self.file.write_all(frames)?;
        self.bytes += frames.len() as u64;
        Ok(())
    }

    /// Waits until what was appended is safe.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.bytes < MAGIC.len() as u64 {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&MAGIC)?;
            self.bytes = MAGIC.len() as u64;
            return self.file.sync_data();
        }
        if self.bytes < length {
            self.file.set_len(self.bytes)?;
            self.file.sync_data()?;
        }
        self.file.seek(SeekFrom::Start(self.bytes)).map(|_| ())
    }
}

/// Appends a frame with `entries` to `to`.
pub(super) fn frame<'a>(entries: impl IntoIterator<Item = &'a Entry>, to: &mut Vec<u8>) {
    let begin = to.len();
    to.extend([0; HEAD_BYTES]);
    for entry in entries {
        let bytes = encode_entry(entry);
        to.extend(length(bytes.len()).to_be_bytes());
        to.extend(bytes);
    }
    let body = to.get(begin + HEAD_BYTES..).unwrap_or_default();
    let (long, sum) = (length(body.len()), checksum(body));
    if let Some(head) = to.get_mut(begin..begin + HEAD_BYTES) {
        head.copy_from_slice(&write_head(long, sum));
    }
}

fn write_head(length: u32, sum: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let parts = length.to_be_bytes().into_iter().chain(check(length)).chain(sum.to_be_bytes());
    head.iter_mut().zip(parts).for_each(|(to, byte)| *to = byte);
    head
}

/// A body is bounded by what one event may write.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn check(length: u32) -> [u8; 4] {
    let [first, second, third, fourth, ..] = checksum(&length.to_be_bytes()).to_be_bytes();
    [first, second, third, fourth]
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x6174_6f6c_6c77_6c31, bytes.len() as u64);
    hasher.write(bytes);
    hasher.finish()
}

/// Reads the entries of a body; `None` where they are none.
fn replay(mut body: &[u8], into: &mut Saved) -> Option<()> {
    while !body.is_empty() {
        let (long, rest) = body.split_first_chunk::<4>()?;
        let long = usize::try_from(u32::from_be_bytes(*long)).ok()?;
        let (bytes, rest) = rest.split_at_checked(long)?;
        into.replay(decode_entry(bytes).ok()?);
        body = rest;
    }
    Some(())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

enum Next {
    Frame,
    End,
    Damaged,
}

/// Frames of a file, one after the other.
struct Frames<R> {
    from: R,
    /// Where the next one begins.
    at: u64,
    length: u64,
}

impl<R: io::Read> Frames<R> {
    /// Whether the file begins as it should; a shorter one was being made.
    fn magic(&mut self) -> io::Result<bool> {
        let mut magic = Vec::new();
        (&mut self.from).take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        let whole = magic.len() == MAGIC.len();
        self.at = if whole { MAGIC.len() as u64 } else { 0 };
        Ok(MAGIC.starts_with(&magic))
    }

    fn next(&mut self, body: &mut Vec<u8>) -> io::Result<Next> {
        let left = self.length.saturating_sub(self.at);
        if left < HEAD_BYTES as u64 {
            return Ok(Next::End);
        }
        let mut head = [0; HEAD_BYTES];
        self.from.read_exact(&mut head)?;
        let [a, b, c, d, rest @ ..] = head;
        let long = u32::from_be_bytes([a, b, c, d]);
        let [check @ .., s0, s1, s2, s3, s4, s5, s6, s7] = rest;
        let sum = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        if check != self::check(long) || usize::try_from(long).is_ok_and(|long| long > BODY_BYTES) {
            return Ok(Next::Damaged);
        }
        let whole = HEAD_BYTES as u64 + u64::from(long);
        if left < whole {
            return Ok(Next::End);
        }
        body.clear();
        (&mut self.from).take(long.into()).read_to_end(body)?;
        if checksum(body) != sum {
            return Ok(Next::Damaged);
        }
        self.at += whole;
        Ok(Next::Frame)
    }
}
