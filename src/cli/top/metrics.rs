//! Reads what `/metrics` says, as far as the view needs it.

use std::collections::BTreeMap;

/// Outcomes that are answered from memory.
const FROM_MEMORY: [&str; 4] = ["hit", "stale", "revalidated", "collapsed"];

/// What one look at the metrics saw, all sites together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Metrics {
    pub(super) requests: f64,
    /// Of them, answered from memory.
    pub(super) hits: f64,
    /// Of them, answered by a server error.
    pub(super) errors: f64,
    pub(super) bytes: f64,
    /// Answers up to each bound in microseconds: of hits, and of all.
    pub(super) hit_times: BTreeMap<u64, f64>,
    pub(super) times: BTreeMap<u64, f64>,
    pub(super) resident_bytes: f64,
    pub(super) cpu_seconds: f64,
    /// Requests sent to each origin.
    pub(super) origins: BTreeMap<String, f64>,
}

impl Metrics {
    pub(super) fn parse(text: &str) -> Self {
        let mut seen = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            seen.take(name, labels.trim_end_matches('}'), value);
        }
        seen
    }

    fn take(&mut self, name: &str, labels: &str, value: f64) {
        let cache = || label(labels, "cache").unwrap_or_default();
        match name {
            "atoll_requests_total" => {
                self.requests += value;
                if FROM_MEMORY.contains(&cache()) {
                    self.hits += value;
                }
                if label(labels, "status") == Some("5xx") {
                    self.errors += value;
                }
            }
            "atoll_response_bytes_total" => self.bytes += value,
            "atoll_request_duration_seconds_bucket" => {
                let bound = label(labels, "le").and_then(micros);
                let Some(bound) = bound else { return };
                *self.times.entry(bound).or_default() += value;
                if matches!(cache(), "hit" | "stale") {
                    *self.hit_times.entry(bound).or_default() += value;
                }
            }
            "process_resident_memory_bytes" => self.resident_bytes = value,
            "process_cpu_seconds_total" => self.cpu_seconds = value,
            "atoll_origin_requests_total" => {
                let origin = label(labels, "origin").unwrap_or_default();
                self.origins.insert(origin.to_owned(), value);
            }
            _ => {}
        }
    }
}

/// The value of a label; names and words of ours have no quotation marks in them.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split("\",").find_map(|pair| {
        let (own, value) = pair.split_once("=\"")?;
        (own == name).then(|| value.trim_end_matches('"'))
    })
}

/// A bound in microseconds; the last one is without bound.
fn micros(bound: &str) -> Option<u64> {
    if bound == "+Inf" {
        return Some(u64::MAX);
    }
    let seconds: f64 = bound.parse().ok()?;
    let time = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    u64::try_from(time.as_nanos().div_ceil(1000)).ok()
}

/// The time in seconds within which this share of the answers between two looks were given; `None`
/// where there were none, or it lies beyond the last bound.
pub(super) fn quantile(
    old: &BTreeMap<u64, f64>,
    new: &BTreeMap<u64, f64>,
    share: f64,
) -> Option<f64> {
    let rows: Vec<(u64, f64)> = new
        .iter()
        .map(|(bound, count)| (*bound, count - old.get(bound).copied().unwrap_or(0.0)))
        .collect();
    let (_, all) = rows.last()?;
    let wanted = all * share;
    if *all <= 0.0 {
        return None;
    }
    let (mut from, mut below) = (0.0, 0.0);
    for (bound, count) in rows {
        if bound == u64::MAX {
            return None;
        }
        let to = std::time::Duration::from_micros(bound).as_secs_f64();
        if count >= wanted {
            let inside = if count > below { (wanted - below) / (count - below) } else { 1.0 };
            return Some(from + (to - from) * inside);
        }
        (from, below) = (to, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP atoll_requests_total x
atoll_requests_total{site=\"a\",cache=\"hit\",status=\"2xx\"} 90
atoll_requests_total{site=\"b\",cache=\"miss\",status=\"5xx\"} 10
atoll_response_bytes_total{site=\"a\",cache=\"hit\"} 1e3
atoll_request_duration_seconds_bucket{site=\"a\",cache=\"hit\",le=\"0.001\"} 50
atoll_request_duration_seconds_bucket{site=\"a\",cache=\"hit\",le=\"0.002\"} 90
atoll_request_duration_seconds_bucket{site=\"a\",cache=\"hit\",le=\"+Inf\"} 100
atoll_origin_requests_total{origin=\"web\"} 7
process_resident_memory_bytes 5
broken
";

    #[test]
    fn what_the_view_needs_is_read() {
        let seen = Metrics::parse(TEXT);
        assert_eq!((seen.requests, seen.hits, seen.errors), (100.0, 90.0, 10.0));
        assert_eq!((seen.bytes, seen.resident_bytes), (1000.0, 5.0));
        assert_eq!(seen.origins["web"], 7.0);
        assert_eq!(seen.times, seen.hit_times);
    }

    #[test]
    fn quantiles_are_of_what_came_between_two_looks() {
        let new = Metrics::parse(TEXT).times;
        let none = BTreeMap::new();
        let close = |share: f64, expected: f64| {
            let found = quantile(&none, &new, share).unwrap();
            assert!((found - expected).abs() < 1e-9, "{share}: {found}");
        };
        close(0.25, 0.0005);
        close(0.5, 0.001);
        close(0.7, 0.0015);
        assert_eq!(quantile(&none, &new, 0.99), None);
        assert_eq!(quantile(&new, &new, 0.5), None);
        assert_eq!(quantile(&none, &none, 0.5), None);
    }
}
