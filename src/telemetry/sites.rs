//! What each site answered: by cache outcome and status class, how long it took, how many bytes.
//!
//! This is counted for every request, so it is laid out for the writer: a row of stripes, and in
//! each stripe everything that one request touches lies together. A scrape does the summing.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};

use super::collect::{count, describe, family, labels};
use super::stripes::{STRIPES, stripe};
use crate::semantics::Outcome;

/// Upper bounds of the latency buckets in microseconds: hits take tens of microseconds, origins
/// milliseconds to seconds.
const BOUNDS: [u32; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Classes of status codes; the last is for requests that got no answer.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Stripes times sites that are made at most; with many sites, threads share stripes.
const CELLS: usize = 4096;

/// What is counted of one outcome of one site.
#[derive(Debug, Default)]
struct Tally {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    classes: [AtomicU64; CLASSES.len()],
    nanoseconds: AtomicU64,
    bytes: AtomicU64,
}

/// One thread's part of a site's counts.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([Tally; Outcome::ALL.len()]);

/// Counts of one site.
#[derive(Clone, Debug)]
pub struct SiteMetrics {
    /// Name of the site.
    pub name: Arc<str>,
    stripes: Arc<[Stripe]>,
}

impl SiteMetrics {
    /// Counts for one of `sites` sites that `workers` threads answer for.
    pub(super) fn new(name: Arc<str>, sites: usize, workers: usize) -> Self {
        let stripes = workers.clamp(1, STRIPES).min((CELLS / sites.max(1)).max(1));
        Self { name, stripes: (0..stripes).map(|_| Stripe::default()).collect() }
    }

    /// Counts one answer: how the cache came to it, its status, the time from the request's head
    /// to the last byte, and the bytes sent.
    pub fn answered(&self, outcome: Outcome, status: StatusCode, took: Duration, bytes: u64) {
        self.ended(outcome, status.as_u16(), took, bytes);
    }

    /// As [`Self::answered`], with status 0 for a request that ended without an answer.
    pub(super) fn ended(&self, outcome: Outcome, status: u16, took: Duration, bytes: u64) {
        let Some(tally) = self
            .stripes
            .get(stripe() % self.stripes.len())
            .and_then(|stripe| stripe.0.get(outcome as usize))
        else {
            return;
        };
        let micros = took.as_micros();
        let bucket = BOUNDS.partition_point(|bound| u128::from(*bound) < micros);
        let class = usize::from(status / 100).wrapping_sub(1).min(CLASSES.len() - 1);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        for (cell, add) in [
            (tally.buckets.get(bucket), 1),
            (tally.classes.get(class), 1),
            (Some(&tally.nanoseconds), nanoseconds),
            (Some(&tally.bytes), bytes),
        ] {
            if let Some(cell) = cell {
                cell.fetch_add(add, Ordering::Relaxed);
            }
        }
    }

    /// Answers so far with this outcome.
    #[must_use]
    pub fn answers(&self, outcome: Outcome) -> u64 {
        self.sum(outcome).classes.iter().sum()
    }

    fn sum(&self, outcome: Outcome) -> Sum {
        let mut sum = Sum::default();
        for tally in self.stripes.iter().filter_map(|stripe| stripe.0.get(outcome as usize)) {
            let pairs = sum.buckets.iter_mut().zip(&tally.buckets);
            for (total, part) in pairs.chain(sum.classes.iter_mut().zip(&tally.classes)) {
                *total += part.load(Ordering::Relaxed);
            }
            sum.nanoseconds =
                sum.nanoseconds.wrapping_add(tally.nanoseconds.load(Ordering::Relaxed));
            sum.bytes = sum.bytes.wrapping_add(tally.bytes.load(Ordering::Relaxed));
        }
        sum
    }
}

/// A [`Tally`] over all stripes.
#[derive(Default)]
struct Sum {
    buckets: [u64; BOUNDS.len() + 1],
    classes: [u64; CLASSES.len()],
    nanoseconds: u64,
    bytes: u64,
}

/// The sites that are counted. They are known by name: a configuration that takes another's place
/// counts on where that one was.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    workers: usize,
    sites: Arc<Mutex<Vec<SiteMetrics>>>,
}

impl Counted {
    /// None yet; `workers` threads will answer for them.
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, sites: Arc::default() }
    }

    /// The counts of sites of these names, in their order. Of others only those are shown on that
    /// were there at the last call, so that names which come and go do not pile up.
    pub(super) fn of(&self, names: &[Arc<str>], before: &[Arc<str>]) -> Arc<[SiteMetrics]> {
        let shown: HashSet<&Arc<str>> = names.iter().chain(before).collect();
        let mut sites = self.lock();
        sites.retain(|site| shown.contains(&site.name));
        let known: HashMap<Arc<str>, SiteMetrics> =
            sites.iter().map(|site| (Arc::clone(&site.name), site.clone())).collect();
        let one = |name: &Arc<str>| {
            known.get(name).cloned().unwrap_or_else(|| {
                let new = SiteMetrics::new(Arc::clone(name), names.len(), self.workers);
                sites.push(new.clone());
                new
            })
        };
        names.iter().map(one).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SiteMetrics>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All sites as a scrape sees them.
pub(super) struct Sites {
    sites: Counted,
    requests: Desc,
    bytes: Desc,
    duration: Desc,
}

impl Sites {
    pub(super) fn new(sites: Counted) -> Self {
        Self {
            sites,
            requests: describe(
                "atoll_requests_total",
                "Requests answered, by site, cache outcome and status class.",
                &["site", "cache", "status"],
            ),
            bytes: describe(
                "atoll_response_bytes_total",
                "Bytes sent in answers, by site and cache outcome.",
                &["site", "cache"],
            ),
            duration: describe(
                "atoll_request_duration_seconds",
                "Time from a request's head to the last byte of its answer.",
                &["site", "cache"],
            ),
        }
    }
}

impl Collector for Sites {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.requests, &self.bytes, &self.duration]
    }

    /// Rows of an outcome are there from the start, so that rates can be taken from zero; those
    /// of unusual status classes and the latency buckets come with the first request.
    fn collect(&self) -> Vec<MetricFamily> {
        let (mut requests, mut bytes, mut durations) = (Vec::new(), Vec::new(), Vec::new());
        for site in &*self.sites.lock() {
            for outcome in Outcome::ALL {
                let sum = site.sum(outcome);
                let pairs = [("site", &*site.name), ("cache", outcome.label())];
                let [name, cache] = pairs;
                for (class, times) in CLASSES.iter().zip(sum.classes) {
                    if times > 0 || *class == "2xx" {
                        requests.push(count(&[name, cache, ("status", class)], times));
                    }
                }
                bytes.push(count(&pairs, sum.bytes));
                if sum.buckets.iter().any(|times| *times > 0) {
                    durations.push(duration(&pairs, &sum));
                }
            }
        }
        vec![
            family(&self.requests, MetricType::COUNTER, requests),
            family(&self.bytes, MetricType::COUNTER, bytes),
            family(&self.duration, MetricType::HISTOGRAM, durations),
        ]
    }
}

fn duration(pairs: &[(&str, &str)], sum: &Sum) -> proto::Metric {
    let mut total = 0;
    let mut buckets = Vec::with_capacity(BOUNDS.len());
    for (bound, times) in BOUNDS.iter().zip(sum.buckets) {
        total += times;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(f64::from(*bound) / 1e6);
        bucket.set_cumulative_count(total);
        buckets.push(bucket);
    }
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(sum.buckets.iter().sum());
    histogram.set_sample_sum(Duration::from_nanos(sum.nanoseconds).as_secs_f64());
    let mut row = proto::Metric::from_label(labels(pairs));
    row.set_histogram(histogram);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_lie_in_the_order_of_their_list() {
        for (position, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, position);
        }
    }

    #[test]
    fn an_answer_is_counted_once_in_its_bucket_and_class() {
        let rows = [
            (0, 200, 0, 1),
            (50, 200, 0, 1),
            (51, 304, 1, 2),
            (10_000_000, 404, 16, 3),
            (10_000_001, 599, 17, 4),
            (1, 0, 0, 5),
            (1, 999, 0, 5),
        ];
        for (micros, status, bucket, class) in rows {
            let site = SiteMetrics::new(Arc::from("a"), 1, 4);
            site.ended(Outcome::Stale, status, Duration::from_micros(micros), 7);
            let sum = site.sum(Outcome::Stale);
            assert_eq!(sum.buckets[bucket], 1, "{micros}");
            assert_eq!(sum.buckets.iter().sum::<u64>(), 1);
            assert_eq!(sum.classes[class], 1, "{status}");
            assert_eq!(site.answers(Outcome::Stale), 1);
            assert_eq!((sum.bytes, sum.nanoseconds), (7, micros * 1000));
            assert_eq!(site.answers(Outcome::Hit), 0);
        }
    }

    #[test]
    fn sites_are_counted_by_name_whatever_their_place() {
        let counted = Counted::new(1);
        let name = |name: &str| Arc::<str>::from(name);
        let first = counted.of(&[name("a"), name("b")], &[]);
        first[0].ended(Outcome::Hit, 200, Duration::ZERO, 1);
        let second = counted.of(&[name("b"), name("a"), name("c")], &[name("a"), name("b")]);
        assert_eq!(second[0].answers(Outcome::Hit), 0);
        assert_eq!(second[1].answers(Outcome::Hit), 1);
        counted.of(&[name("c")], &[name("a"), name("b"), name("c")]);
        assert_eq!(counted.lock().len(), 3, "what is still answered for is still shown");
        counted.of(&[name("c")], &[name("c")]);
        assert_eq!(counted.lock().len(), 1);
    }

    #[test]
    fn many_sites_share_stripes() {
        assert_eq!(SiteMetrics::new(Arc::from("a"), 1, 64).stripes.len(), STRIPES);
        assert_eq!(SiteMetrics::new(Arc::from("a"), 1, 0).stripes.len(), 1);
        assert_eq!(SiteMetrics::new(Arc::from("a"), 1_000_000, 8).stripes.len(), 1);
    }
}
