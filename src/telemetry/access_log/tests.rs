use std::fs;
use std::path::PathBuf;

use super::*;
use crate::telemetry::{metrics, test_config};

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("atoll-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn metrics() -> Arc<Metrics> {
    Metrics::new(&metrics::tests::config())
}

fn log_to(path: PathBuf) -> Log {
    Log {
        access: Some(AccessFormat::Json),
        access_file: Some(path),
        access_queue: 64,
        json: false,
        level: "info".into(),
    }
}

fn id(text: &str) -> RequestId {
    RequestId::given(text.as_bytes()).unwrap()
}

fn until(condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain");
}

#[test]
fn every_record_becomes_a_line_and_the_writer_sleeps_between() {
    let directory = Directory::new("lines");
    let path = directory.0.join("log");
    let metrics = metrics();
    let log = AccessLog::start(&log_to(path.clone()), 2, Arc::clone(&metrics)).unwrap();
    let recorders =
        [log.recorder(&test_config().sites, &[]), log.recorder(&test_config().sites, &[])];
    for round in 1..=3 {
        for recorder in &recorders {
            let mut record = recorder.record(id("a"), Now::at(5));
            record.site = Some(1);
            record.status = 200;
            record.finish(10, true, Now::at(6));
        }
        until(|| metrics.log.written.get() == 2 * round);
        until(|| log.0.asleep.load(Ordering::Relaxed));
    }
    log.close(Duration::from_secs(5));
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 6);
    assert!(text.lines().all(|line| line.contains("\"site\":\"blog\"")));
    assert_eq!(
        metrics.sites(&test_config().sites, &[])[1].answers(crate::semantics::Outcome::Refused),
        6
    );
}

#[test]
fn records_are_used_again_and_remember_nothing() {
    let log =
        AccessLog::start(&Log { access: None, ..log_to(PathBuf::new()) }, 1, metrics()).unwrap();
    let recorder = log.recorder(&test_config().sites, &[]);
    let mut record = recorder.record(id("a"), Now::at(1));
    record.set_request(&http::Method::PUT, "h", "/t", &http::HeaderMap::new());
    record.ttl = Some(3);
    record.finish(1, true, Now::at(2));
    until(|| lock(&recorder.lot).free.len() == 1);
    let record = recorder.record(id("b"), Now::at(3));
    assert!(lock(&recorder.lot).free.is_empty());
    assert_eq!((&record.method, record.ttl, record.complete), (&http::Method::GET, None, false));
    assert_eq!(record.text.part(crate::telemetry::record::Part::Target), b"");
    assert_eq!((record.request_id.as_str(), record.started), ("b", Now::at(3)));
}

#[test]
fn without_a_log_a_sample_is_counted_and_stands_for_all() {
    let log =
        AccessLog::start(&Log { access: None, ..log_to(PathBuf::new()) }, 1, metrics()).unwrap();
    let recorder = log.recorder(&test_config().sites, &[]);
    let silent = log.silent_recorder();
    for _ in 0..1000 {
        for recorder in [&recorder, &silent] {
            let mut record = recorder.record(id("a"), Now::at(1));
            record.set_request(&http::Method::GET, "h", "/t", &http::HeaderMap::new());
            record.site = Some(1);
            record.finish(1, true, Now::at(2));
        }
    }
    assert!(lock(&recorder.lot).waiting.len() <= SAMPLE);
    assert!(lock(&silent.lot).waiting.is_empty());
    until(|| lock(&recorder.lot).waiting.is_empty());
    let now = clock::now();
    until(|| log.hottest().sites(now).contains_key("blog"));
    let hot = log.hottest().urls(super::super::hottest::Weight::Requests, 5, &|_| true, now);
    assert_eq!(&*hot[0].name, "http://h/t");
    // Over the second that it is rounded up to; nothing of the silent ones.
    let found = hot[0].load.requests;
    assert!((100.0..=1020.0).contains(&found), "{found}");
}

#[test]
fn dropped_record_is_logged_as_incomplete() {
    let directory = Directory::new("dropped");
    let path = directory.0.join("log");
    let log = AccessLog::start(&log_to(path.clone()), 1, metrics()).unwrap();
    let recorder = log.recorder(&test_config().sites, &[]);
    drop(recorder.record(id("gone"), crate::clock::now()));
    recorder.record(id("whole"), Now::at(1)).finish(0, true, Now::at(1));
    log.close(Duration::from_secs(5));
    let text = fs::read_to_string(path).unwrap();
    for line in text.lines() {
        assert_eq!(line.contains("\"incomplete\":true"), line.contains("\"id\":\"gone\""));
    }
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn reopen_follows_a_moved_file() {
    let directory = Directory::new("reopen");
    let path = directory.0.join("log");
    let moved = directory.0.join("log.1");
    let metrics = metrics();
    let log = AccessLog::start(&log_to(path.clone()), 1, Arc::clone(&metrics)).unwrap();
    let recorder = log.recorder(&test_config().sites, &[]);
    recorder.record(id("old"), Now::at(1)).finish(0, true, Now::at(1));
    until(|| metrics.log.written.get() == 1);
    fs::rename(&path, &moved).unwrap();
    log.reopen();
    until(|| path.exists());
    recorder.record(id("new"), Now::at(1)).finish(0, true, Now::at(1));
    log.close(Duration::from_secs(5));
    assert!(fs::read_to_string(moved).unwrap().contains("\"id\":\"old\""));
    assert!(fs::read_to_string(path).unwrap().contains("\"id\":\"new\""));
}

#[test]
fn full_disk_and_broken_pipe_cost_lines_and_nothing_else() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let broken = LogFile::of(std::fs::File::from(std::os::fd::OwnedFd::from(writer)));
    let full = LogFile::open(Some(PathBuf::from("/dev/full"))).unwrap();
    for file in [broken, full] {
        let metrics = metrics();
        let log =
            AccessLog::write_to(file, AccessFormat::Combined, 10, Arc::clone(&metrics)).unwrap();
        let recorder = log.recorder(&test_config().sites, &[]);
        recorder.record(id("a"), Now::at(1)).finish(0, true, Now::at(1));
        until(|| metrics.log.failures.get() > 0);
        recorder.record(id("b"), Now::at(1)).finish(0, true, Now::at(1));
        log.close(Duration::from_secs(5));
        assert_eq!((metrics.log.dropped.get(), metrics.log.written.get()), (2, 0));
    }
}

#[test]
fn reader_that_stopped_reading_blocks_nobody() {
    let (reader, writer) = io::pipe().unwrap();
    let file = LogFile::of(std::fs::File::from(std::os::fd::OwnedFd::from(writer)));
    let metrics = metrics();
    let log = AccessLog::write_to(file, AccessFormat::Json, 100, Arc::clone(&metrics)).unwrap();
    let recorder = log.recorder(&test_config().sites, &[]);
    let mut sent = 0;
    while metrics.log.dropped.get() == 0 {
        recorder.record(id("a"), Now::at(1)).finish(0, true, Now::at(1));
        sent += 1;
        assert!(sent < 1_000_000);
    }
    assert!(lock(&recorder.lot).waiting.len() <= 100);
    log.close(Duration::from_millis(20));
    drop(reader);
}

#[test]
fn long_lines_fill_the_queue_earlier() {
    let shared = Shared::new(metrics(), 10);
    let recorder = Arc::new(Recorder {
        shared: Arc::new(shared),
        sites: Arc::default(),
        silent: false,
        lot: Mutex::default(),
    });
    for _ in 0..10 {
        let mut record = recorder.record(id("a"), Now::at(1));
        let target = "x".repeat(4 * TEXT_BYTES);
        record.set_request(&http::Method::GET, "", &target, &http::HeaderMap::new());
        record.finish(0, true, Now::at(1));
    }
    assert_eq!(lock(&recorder.lot).waiting.len(), 2);
    assert_eq!(recorder.shared.metrics.log.dropped.get(), 8);
}
