//! What is asked for most, lately: URLs and tags by requests and by bytes, and sites.
//!
//! Strangers choose URLs, and origins tags, so they cannot all be counted. A sketch (count-min: Cormode and
//! Muthukrishnan, "An improved data stream summary", 2005) bounds from above how much each of
//! them weighs, in memory that does not grow, and the heaviest are kept by name:
//!
//! ```text
//! record -> 4 cells by 4 hashes, the least of them is its weight -> heavier than the lightest kept? -> kept
//! ```
//!
//! Weights fade by 1/e in [`LATELY`]. All of it happens on the access log's thread, from a sample
//! where there is much; nothing here is on a request's way. Requests that no site answers for do
//! not count.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;

use super::record::{Part, Record};
use super::sites::SiteMetrics;
use crate::clock::Now;

/// Time after which a request weighs 1/e.
const LATELY: Duration = Duration::from_secs(60);
/// Time between two fadings.
const FADE: Duration = Duration::from_secs(1);
/// URLs, and tags, that are kept by name.
const KEPT: usize = 200;
/// Newcomers beyond that, until the lightest of all go: one by one each would cost a sorting.
const NEWCOMERS: usize = 50;
/// Longest URL that is kept, in bytes.
const URL_BYTES: usize = 1024;
/// Rows and cells of a sketch.
const ROWS: usize = 4;
const CELLS: usize = 4096;

/// By what the hottest are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Requests.
    Requests,
    /// Bytes of answers.
    Bytes,
}

/// How much something was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests per second.
    pub requests: f64,
    /// Bytes of answers per second.
    pub bytes: f64,
    /// Requests per second for which the origin was asked.
    pub forwarded: f64,
}

impl Load {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.forwarded += other.forwarded;
    }

    /// Every number times `factor`.
    #[must_use]
    fn times(self, factor: f64) -> Self {
        let Self { requests, bytes, forwarded } = self;
        Self { requests: requests * factor, bytes: bytes * factor, forwarded: forwarded * factor }
    }

    /// One of its numbers.
    #[must_use]
    pub fn weight(self, by: Weight) -> f64 {
        match by {
            Weight::Requests => self.requests,
            Weight::Bytes => self.bytes,
        }
    }
}

/// One of the hottest URLs or tags.
#[derive(Clone, Debug)]
pub struct Hot {
    /// Name of its site.
    pub site: Arc<str>,
    /// URL, as it was asked for; or tag.
    pub name: Box<str>,
    /// How much: an upper bound of what it was chosen by, a lower bound of the rest.
    pub load: Load,
}

/// What is asked for most.
#[derive(Debug)]
pub struct Hottest(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    hasher: RandomState,
    urls: Both,
    tags: Both,
    sites: HashMap<Arc<str>, Load>,
    /// Moments on the boot clock: of the first record, and of the last fading.
    began: Option<Duration>,
    faded: Duration,
}

impl Hottest {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Counts {
            hasher: RandomState::new(),
            urls: Both::new(),
            tags: Both::new(),
            sites: HashMap::new(),
            began: None,
            faded: Duration::ZERO,
        }))
    }

    /// Counts records of these sites, each as `share` of them.
    pub(super) fn note<'a>(
        &self,
        records: impl Iterator<Item = &'a Record>,
        sites: &[SiteMetrics],
        share: f64,
        now: Duration,
    ) {
        let mut counts = self.lock();
        counts.fade(now);
        for record in records {
            counts.note(record, sites, share);
        }
    }

    /// Counts the tags of records of these sites, each record as `share` of them.
    pub(super) fn note_tags<'a>(
        &self,
        records: impl Iterator<Item = &'a Record>,
        sites: &[SiteMetrics],
        share: f64,
        now: Duration,
    ) {
        let mut counts = self.lock();
        counts.fade(now);
        for record in records {
            counts.note_tags(record, sites, share);
        }
    }

    /// The hottest URLs of sites that `pass`, `most` of them, the hottest first.
    #[must_use]
    pub fn urls(&self, by: Weight, most: usize, pass: &dyn Fn(&str) -> bool, now: Now) -> Vec<Hot> {
        self.hottest(|counts| &counts.urls, by, most, pass, now)
    }

    /// The hottest tags of sites that `pass`, `most` of them, the hottest first.
    #[must_use]
    pub fn tags(&self, by: Weight, most: usize, pass: &dyn Fn(&str) -> bool, now: Now) -> Vec<Hot> {
        self.hottest(|counts| &counts.tags, by, most, pass, now)
    }

    fn hottest(
        &self,
        of: impl Fn(&Counts) -> &Both,
        by: Weight,
        most: usize,
        pass: &dyn Fn(&str) -> bool,
        now: Now,
    ) -> Vec<Hot> {
        let mut counts = self.lock();
        counts.fade(now.boot);
        let per_second = counts.per_second(now.boot);
        let kept = of(&counts).by(by).kept.values();
        let mut hot: Vec<Hot> = kept.filter(|hot| pass(&hot.site)).cloned().collect();
        drop(counts);
        let weight = |hot: &Hot| hot.load.weight(by);
        hot.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then_with(|| a.name.cmp(&b.name)));
        hot.truncate(most);
        hot.iter_mut().for_each(|hot| hot.load = hot.load.times(per_second));
        hot
    }

    /// How much each site was asked for that was, by name.
    #[must_use]
    pub fn sites(&self, now: Now) -> HashMap<Arc<str>, Load> {
        let mut counts = self.lock();
        counts.fade(now.boot);
        let per_second = counts.per_second(now.boot);
        let rate = |(name, load): (&Arc<str>, &Load)| (Arc::clone(name), load.times(per_second));
        counts.sites.iter().map(rate).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn note(&mut self, record: &Record, sites: &[SiteMetrics], share: f64) {
        let Some(site) = site_of(record, sites) else { return };
        let load = load_of(record, share);
        match self.sites.get_mut(site) {
            Some(sum) => sum.add(load),
            None => drop(self.sites.insert(Arc::clone(site), load)),
        }
        if !matches!(record.method, Method::GET | Method::HEAD) {
            return;
        }
        let (host, target) = (record.text.part(Part::Host), record.text.part(Part::Target));
        if host.len() + target.len() > URL_BYTES {
            return;
        }
        let hash = self.hasher.hash_one((site, record.scheme, host, target));
        self.urls.note(hash, load, || {
            let (host, target) = (String::from_utf8_lossy(host), String::from_utf8_lossy(target));
            let url = format!("{}://{host}{target}", record.scheme.as_str());
            Hot { site: Arc::clone(site), name: url.into_boxed_str(), load: Load::default() }
        });
    }

    fn note_tags(&mut self, record: &Record, sites: &[SiteMetrics], share: f64) {
        let (Some(site), Some(tagged)) = (site_of(record, sites), &record.tagged) else { return };
        let load = load_of(record, share);
        for tag in tagged.first_tags() {
            let hash = self.hasher.hash_one((site, &tag));
            let named = || Hot { site: Arc::clone(site), name: tag.clone(), load: Load::default() };
            self.tags.note(hash, load, named);
        }
    }

    fn fade(&mut self, now: Duration) {
        if self.began.is_none() {
            (self.began, self.faded) = (Some(now), now);
        }
        let passed = now.saturating_sub(self.faded);
        if passed < FADE {
            return;
        }
        self.faded = now;
        let left = (-passed.as_secs_f64() / LATELY.as_secs_f64()).exp();
        self.urls.fade(left);
        self.tags.fade(left);
        for load in self.sites.values_mut() {
            *load = load.times(left);
        }
        self.sites.retain(|_, load| load.requests > 1e-6);
    }

    /// What makes a faded sum a rate: over the time that is counted, shorter while it is young.
    fn per_second(&self, now: Duration) -> f64 {
        let age = now.saturating_sub(self.began.unwrap_or(now)).max(FADE).as_secs_f64();
        let lately = LATELY.as_secs_f64();
        1.0 / (lately * (1.0 - (-age / lately).exp()))
    }
}

/// Name of the site that a record is of.
fn site_of<'a>(record: &Record, sites: &'a [SiteMetrics]) -> Option<&'a Arc<str>> {
    record.site.and_then(|at| sites.get(at)).map(|site| &site.name)
}

/// What one record comes to, which stands for `share` of them.
fn load_of(record: &Record, share: f64) -> Load {
    let one = Load {
        requests: 1.0,
        bytes: f64::from(u32::try_from(record.bytes_sent).unwrap_or(u32::MAX)),
        forwarded: if record.forward.is_some() { 1.0 } else { 0.0 },
    };
    one.times(share)
}

/// The heaviest by either weight.
#[derive(Debug)]
struct Both {
    by_requests: Sketch,
    by_bytes: Sketch,
}

impl Both {
    fn new() -> Self {
        let new = Sketch::new;
        Self { by_requests: new(Weight::Requests), by_bytes: new(Weight::Bytes) }
    }

    fn by(&self, weight: Weight) -> &Sketch {
        match weight {
            Weight::Requests => &self.by_requests,
            Weight::Bytes => &self.by_bytes,
        }
    }

    fn note(&mut self, hash: u64, load: Load, named: impl Fn() -> Hot) {
        self.by_requests.note(hash, load, &named);
        self.by_bytes.note(hash, load, &named);
    }

    fn fade(&mut self, left: f64) {
        self.by_requests.fade(left);
        self.by_bytes.fade(left);
    }
}

/// The heaviest by one weight.
#[derive(Debug)]
struct Sketch {
    by: Weight,
    rows: [Box<[f64]>; ROWS],
    kept: HashMap<u64, Hot>,
    /// Weight of the lightest that is kept, or less; 0 while there is room.
    least: f64,
}

impl Sketch {
    fn new(by: Weight) -> Self {
        let rows = std::array::from_fn(|_| vec![0.0; CELLS].into_boxed_slice());
        Self { by, rows, kept: HashMap::with_capacity(KEPT + NEWCOMERS), least: 0.0 }
    }

    fn note(&mut self, hash: u64, load: Load, named: impl Fn() -> Hot) {
        let weight = self.count(hash, load.weight(self.by));
        if let Some(kept) = self.kept.get_mut(&hash) {
            kept.load.add(load);
            return;
        }
        if self.kept.len() >= KEPT && weight <= self.least {
            return;
        }
        let mut new = named();
        new.load = load;
        match self.by {
            Weight::Requests => new.load.requests = weight,
            Weight::Bytes => new.load.bytes = weight,
        }
        self.kept.insert(hash, new);
        self.shrink();
    }

    /// Adds to the cells of a hash, and gives the least of them: at least what it really weighs.
    fn count(&mut self, hash: u64, weight: f64) -> f64 {
        let mut least = f64::INFINITY;
        for (row, shift) in self.rows.iter_mut().zip([0_u32, 16, 32, 48]) {
            let at = usize::try_from((hash >> shift) & 0xffff).unwrap_or(0) % CELLS;
            if let Some(cell) = row.get_mut(at) {
                *cell += weight;
                least = least.min(*cell);
            }
        }
        least
    }

    /// Lets the lightest go where there are too many newcomers.
    fn shrink(&mut self) {
        if self.kept.len() < KEPT + NEWCOMERS {
            return;
        }
        let weight = |hot: &Hot| hot.load.weight(self.by);
        let mut rows: Vec<(u64, f64)> =
            self.kept.iter().map(|(hash, hot)| (*hash, weight(hot))).collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (hash, _) in rows.drain(KEPT..) {
            self.kept.remove(&hash);
        }
        self.least = rows.last().map_or(0.0, |(_, weight)| *weight);
    }

    fn fade(&mut self, left: f64) {
        for cell in self.rows.iter_mut().flat_map(|row| row.iter_mut()) {
            *cell *= left;
        }
        for hot in self.kept.values_mut() {
            hot.load = hot.load.times(left);
        }
        // What weighs next to nothing makes room, so that a quiet node does not name old URLs.
        self.kept.retain(|_, hot| hot.load.requests > 0.01);
        self.least *= left;
    }
}

#[cfg(test)]
mod tests;
