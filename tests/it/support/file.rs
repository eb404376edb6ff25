//! A large file at an origin: made by a formula as it is asked for, in ranges, under a validator.

use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Reply;
use super::origin::Seen;

/// A file of one version at a time.
pub(crate) struct File {
    version: Mutex<Version>,
    sent: AtomicU64,
}

/// What a file is at one moment.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) total: u64,
    /// What the bytes are made from.
    pub(crate) seed: u64,
    /// Fields beside those of the range.
    pub(crate) fields: Vec<(String, String)>,
    /// Whether ranges are answered.
    pub(crate) ranges: bool,
}

impl Version {
    /// `total` bytes that are fresh for a minute, with a strong validator that names their seed.
    pub(crate) fn new(total: u64, seed: u64) -> Self {
        let version = Self { total, seed, fields: Vec::new(), ranges: true };
        version.field("Cache-Control", "max-age=60").field("ETag", &format!("\"{seed}\""))
    }

    /// Adds a field, or puts it in the place of one of that name.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(own, _)| own != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(own, _)| own != name);
        self
    }

    /// Answers no ranges.
    pub(crate) fn whole_only(mut self) -> Self {
        self.ranges = false;
        self
    }

    /// Its bytes in a range.
    pub(crate) fn bytes(&self, range: RangeInclusive<u64>) -> Vec<u8> {
        let (first, last) = range.into_inner();
        let word = |number: u64| (number ^ self.seed << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut all = Vec::with_capacity(usize::try_from(last - first).unwrap() + 16);
        for number in first / 8..=last / 8 {
            all.extend_from_slice(&word(number).to_be_bytes());
        }
        let skip = usize::try_from(first % 8).unwrap();
        all.drain(..skip);
        all.truncate(usize::try_from(last - first + 1).unwrap());
        all
    }

    /// All its bytes.
    pub(crate) fn all(&self) -> Vec<u8> {
        self.bytes(0..=self.total - 1)
    }

    fn etag(&self) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == "ETag").map(|(_, value)| &**value)
    }

    fn reply(&self, seen: &Seen) -> Reply {
        let with = |reply: Reply| {
            self.fields.iter().fold(reply, |reply, (name, value)| reply.field(name, value))
        };
        if seen.field("if-match").is_some_and(|tag| Some(tag) != self.etag()) {
            return Reply::new(412);
        }
        if seen.field("if-none-match").is_some_and(|tag| Some(tag) == self.etag()) {
            return with(Reply::new(304));
        }
        let range = seen.field("range").filter(|_| self.ranges).and_then(|field| {
            let (first, last) = field.strip_prefix("bytes=")?.split_once('-')?;
            let number = |text: &str| text.parse::<u64>().ok();
            let end = self.total.saturating_sub(1);
            match (number(first), number(last)) {
                (None, suffix) => Some((self.total.saturating_sub(suffix?), end)),
                (Some(first), last) => Some((first, last.unwrap_or(u64::MAX).min(end))),
            }
        });
        match range {
            None if self.total == 0 => with(Reply::ok("")),
            None => with(Reply::ok(self.all())),
            Some((first, _)) if first >= self.total => {
                Reply::new(416).field("Content-Range", &format!("bytes */{}", self.total))
            }
            Some((first, last)) => {
                let range = format!("bytes {first}-{last}/{}", self.total);
                let reply = Reply::new(206).body(self.bytes(first..=last));
                with(reply.field("Content-Range", &range))
            }
        }
    }
}

impl File {
    pub(crate) fn new(version: Version) -> Self {
        Self { version: Mutex::new(version), sent: AtomicU64::new(0) }
    }

    /// What it is now.
    pub(crate) fn version(&self) -> Version {
        self.version.lock().unwrap().clone()
    }

    /// It becomes another.
    pub(crate) fn becomes(&self, version: Version) {
        *self.version.lock().unwrap() = version;
    }

    /// What an origin answers for it.
    pub(crate) fn reply(&self, seen: &Seen) -> Reply {
        let reply = self.version().reply(seen);
        self.sent.fetch_add(reply.body_bytes(), Ordering::SeqCst);
        reply
    }

    /// Bytes of bodies that its origin sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}
