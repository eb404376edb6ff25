//! Metrics of the process itself, read from `/proc` when somebody asks.
//!
//! They keep the names that dashboards know from every Prometheus client (`process_*`) rather
//! than ours.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::collect::{describe, family, level};

/// Names, kinds and texts, in the order of [`Reading::values`].
const ROWS: [(&str, MetricType, &str); 7] = [
    ("process_cpu_seconds_total", MetricType::COUNTER, "User and system time of the process."),
    ("process_resident_memory_bytes", MetricType::GAUGE, "Resident memory."),
    ("process_virtual_memory_bytes", MetricType::GAUGE, "Virtual memory."),
    ("process_open_fds", MetricType::GAUGE, "Open file descriptors."),
    ("process_max_fds", MetricType::GAUGE, "Limit of open file descriptors."),
    ("process_threads", MetricType::GAUGE, "Threads."),
    ("process_start_time_seconds", MetricType::GAUGE, "Start of the process, as Unix time."),
];

/// The process as a scrape sees it.
pub(super) struct Process {
    descs: [Desc; ROWS.len()],
    build: Desc,
}

impl Process {
    pub(super) fn new() -> Self {
        Self {
            descs: ROWS.map(|(name, _, help)| describe(name, help, &[])),
            build: describe("atoll_build_info", "Version of the program.", &["version"]),
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().chain([&self.build]).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let version = level(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let mut families = vec![family(&self.build, MetricType::GAUGE, vec![version])];
        for ((desc, (_, kind, _)), value) in
            self.descs.iter().zip(ROWS).zip(Reading::now().values())
        {
            let Some(value) = value else { continue };
            families.push(family(desc, kind, vec![row(kind, value)]));
        }
        families
    }
}

fn row(kind: MetricType, value: f64) -> prometheus::proto::Metric {
    if kind != MetricType::COUNTER {
        return level(&[], value);
    }
    let mut counter = prometheus::proto::Counter::default();
    counter.set_value(value);
    let mut row = prometheus::proto::Metric::from_label(Vec::new());
    row.set_counter(counter);
    row
}

/// One look into `/proc`. What cannot be read is left out.
#[derive(Debug, Default)]
struct Reading {
    stat: Option<Stat>,
    open_files: Option<usize>,
    most_files: Option<u64>,
    boot_seconds: Option<u64>,
}

/// The fields of `/proc/self/stat` that matter (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Reading {
    fn now() -> Self {
        let text = |path| fs::read_to_string(path).ok();
        Self {
            stat: text("/proc/self/stat").as_deref().and_then(stat),
            // The directory itself is open while it is counted.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|d| d.count().saturating_sub(1)),
            most_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            boot_seconds: text("/proc/stat").as_deref().and_then(boot_seconds),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the exposition format is floating point")]
    fn values(&self) -> [Option<f64>; ROWS.len()] {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as f64;
        let stat = self.stat.as_ref();
        [
            stat.map(|stat| stat.cpu_ticks as f64 / ticks),
            stat.map(|stat| stat.resident_pages as f64 * page),
            stat.map(|stat| stat.virtual_bytes as f64),
            self.open_files.map(|files| files as f64),
            self.most_files.map(|files| files as f64),
            stat.map(|stat| stat.threads as f64),
            stat.zip(self.boot_seconds)
                .map(|(stat, boot)| boot as f64 + stat.start_ticks as f64 / ticks),
        ]
    }
}

/// Reads `/proc/self/stat`. The name in brackets may hold anything, so counting starts behind its
/// last bracket: the state is the first field there, number 3 in the manual.
fn stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        threads: field(20)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// Unix time of the machine's start, from `/proc/stat`.
fn boot_seconds(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_hostile_process_name() {
        let text = "7 (a) R 1) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 0 0 20 0 5 0 333 444 555 0 0";
        let expected = Stat {
            cpu_ticks: 33,
            threads: 5,
            start_ticks: 333,
            virtual_bytes: 444,
            resident_pages: 555,
        };
        assert_eq!(stat(text), Some(expected));
        for broken in
            ["", "7 (a", "7 (a) S 1 2", "7 (a) S 1 7 7 0 -1 4 1 0 0 0 x 2 0 0 2 0 5 0 3 4 5"]
        {
            assert_eq!(stat(broken), None, "{broken}");
        }
    }

    #[test]
    fn this_process_can_be_read() {
        let [cpu, resident, _, files, _, threads, start] = Reading::now().values();
        assert!(cpu.is_some_and(|seconds| seconds >= 0.0));
        assert!(resident.is_some_and(|bytes| bytes > 100_000.0));
        assert!(files.is_some_and(|files| files >= 3.0));
        assert!(threads.is_some_and(|threads| threads >= 1.0));
        assert!(start.is_some_and(|seconds| seconds > 1_000_000_000.0));
    }
}
