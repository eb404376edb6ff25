//! What the site says to whom: a page is known from its URL, who asks and its version, so that an answer
//! which belongs to another of these is seen to be wrong, byte by byte.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Host of the site.
pub(crate) const HOST: &str = "h";

/// Pages that everybody asks for.
pub(crate) const HOT: usize = 200;
/// Pages that change, and are purged then.
pub(crate) const NEWS: usize = 16;
/// Large ones that everybody asks for.
pub(crate) const FILMS: usize = 60;

/// Who asks where nobody says who he is.
pub(crate) const NOBODY: &str = "nobody";

/// What strangers try to have reflected.
pub(crate) const EVIL: &str = "evil.test";

const KIB: usize = 1024;

/// Sizes of what is asked for once: each of the store's classes gets its part.
const SCANNED: [usize; 3] = [48 * KIB, 640 * KIB, 4096 * KIB];

/// Versions of the pages that change: what the origin shows, and what a purge has made the oldest that may
/// be shown.
#[derive(Default)]
pub(crate) struct Versions {
    shown: [AtomicU64; NEWS],
    least: [AtomicU64; NEWS],
}

impl Versions {
    /// The next version of a page.
    pub(crate) fn publish(&self, page: usize) -> u64 {
        self.shown[page].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The purge of what came before a version is in force.
    pub(crate) fn purged(&self, page: usize, version: u64) {
        self.least[page].fetch_max(version, Ordering::SeqCst);
    }

    /// The version of a page at the origin; 0 of all that do not change.
    pub(crate) fn of(&self, target: &str) -> u64 {
        Self::page(target).map_or(0, |page| self.shown[page].load(Ordering::SeqCst))
    }

    /// The oldest version that an answer to a request sent from now on may have.
    pub(crate) fn least(&self, target: &str) -> u64 {
        Self::page(target).map_or(0, |page| self.least[page].load(Ordering::SeqCst))
    }

    fn page(target: &str) -> Option<usize> {
        target.strip_prefix("/news/")?.parse().ok().filter(|page| *page < NEWS)
    }
}

/// How long a page is.
pub(crate) fn length(target: &str) -> usize {
    let mut parts = target.split('/').skip(1);
    let kind = parts.next().unwrap_or_default();
    let number: usize = parts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    match kind {
        "hot" => (number % 16 + 1) * 2 * KIB,
        "film" => (number % 4 + 1) * 256 * KIB,
        "huge" => 20 * KIB * KIB,
        "scan" => SCANNED[target.bytes().map(usize::from).sum::<usize>() % SCANNED.len()],
        "me" => KIB,
        _ if kind.starts_with('a') => 16 * KIB,
        _ => 3 * KIB,
    }
}

/// Pages by which so many bytes of a store are filled, each class with its part.
pub(crate) fn filling(bytes: usize) -> impl Iterator<Item = String> {
    let mut left = SCANNED.map(|_| bytes / 3);
    (0..usize::MAX)
        .map_while(move |number| {
            let target = format!("/scan/warm-{number}");
            let length = length(&target);
            let place = SCANNED.iter().position(|own| *own == length).unwrap_or(0);
            let wanted = left[place] > 0;
            left[place] = left[place].saturating_sub(length);
            let goes_on = wanted || left.iter().any(|left| *left > 0);
            goes_on.then_some(wanted.then_some(target))
        })
        .flatten()
}

/// The whole of a page. `evil` says that the origin took something to heart that a stranger had said.
pub(crate) fn body(host: &str, target: &str, user: &str, version: u64, evil: bool) -> Vec<u8> {
    let length = length(target);
    let mut line = Vec::new();
    let _ = writeln!(line, "host={host} url={target} user={user} version={version} evil={evil}");
    let mut body = line;
    body.reserve(length);
    while body.len() < length {
        let more = (length - body.len()).min(body.len());
        body.extend_from_within(..more);
    }
    body.truncate(length);
    body
}

/// The version that a body tells of.
pub(crate) fn version(body: &[u8]) -> Option<u64> {
    let line = body.split(|byte| *byte == b'\n').next()?;
    let text = str::from_utf8(line).ok()?;
    let word = text.split(' ').find_map(|word| word.strip_prefix("version="))?;
    word.parse().ok()
}
