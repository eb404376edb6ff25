//! What a hit may cost in allocations, with the log, the metrics, the limits and the purge check on.
//!
//! Time depends on the machine and on what else it does; the number of allocations does not, so this
//! is the part of a hit's cost that a test can hold on to. It counts what each thread of the edge allocates
//! while a client in this process asks for the same fresh response over a kept connection, and judges
//! the busiest, which is the worker. What a hit sets off elsewhere, such as in the log's writer, comes
//! in batches that depend on the machine; it is told, and not judged.
//!
//! A binary of its own, since the counting allocator is the whole process's.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail, and its helpers are part of it"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use atoll::app::{Running, Source};
use atoll::config;

/// Allocations of one hit over HTTP/1.1: of a plain one, and of one whose fields are changed on their way.
/// Lower them when a change makes hits cheaper; whoever raises one says in the commit what the
/// allocation buys.
const BUDGETS: [(&str, u64); 2] = [("/plain?id=7", 15), ("/tagged?id=7", 20)];

/// Hits that are counted at a time.
const HITS: u64 = 1000;

/// What the worker's timers may allocate beside them, in each hundred hits.
const ASIDE_PERCENT: u64 = 20;

/// Threads that are told apart; more share a count.
const THREADS: usize = 64;

/// Place of threads whose allocations are the test's own.
const OURS: usize = THREADS;

/// Place of a thread that has allocated nothing yet.
const NEW: usize = usize::MAX;

thread_local! {
    /// Place of this thread in the counts. Without a destructor and without lazy initialisation, so
    /// that an allocator may read it.
    static PLACE: Cell<usize> = const { Cell::new(NEW) };
}

/// Allocations of each thread since the process began.
static ALLOCATIONS: [AtomicU64; THREADS + 1] = [const { AtomicU64::new(0) }; THREADS + 1];

/// The next thread's place.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and a count.
struct Counting;

impl Counting {
    fn count() {
        // Threads that are about to end have no locals; they serve nobody.
        let _ = PLACE.try_with(|place| {
            if place.get() == NEW {
                place.set(NEXT.fetch_add(1, Ordering::Relaxed) % THREADS);
            }
            if let Some(count) = ALLOCATIONS.get(place.get()) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

#[expect(
    unsafe_code,
    reason = "the trait is unsafe; each call goes to the system's allocator as it came"
)]
// SAFETY: memory comes from and goes back to `System` alone, with the layouts that callers gave, so
// its guarantees are ours. Counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: `memory` came from `System` with this layout, since all of ours does.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A server that answers every request with a storable KiB, and those for `/tagged` with tags that no
/// client sees.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        PLACE.set(OURS);
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    PLACE.set(OURS);
    let body = "x".repeat(1024);
    let reply = |own: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Type: text/plain\r\n\
             {own}ETag: \"a\"\r\nContent-Length: 1024\r\n\r\n{body}"
        )
    };
    #[expect(clippy::disallowed_methods, reason = "an origin has a clock of its own")]
    let now = httpdate::fmt_http_date(std::time::SystemTime::now());
    let plain = reply(&format!("Date: {now}\r\n"));
    let tagged = reply("Surrogate-Key: one two\r\n");
    let (mut bytes, mut length) = ([0; 4096], 0);
    while let Ok(read @ 1..) = stream.read(&mut bytes[length..]) {
        length += read;
        if bytes[..length].ends_with(b"\r\n\r\n") {
            let reply = if bytes.starts_with(b"GET /tagged") { &tagged } else { &plain };
            stream.write_all(reply.as_bytes()).unwrap();
            length = 0;
        }
    }
}

/// An edge with one worker and everything on that is on by default.
fn edge(origin: SocketAddr, log: &Path) -> Running {
    let text = format!(
        "[node]\nname = \"edge\"\nworkers = 1\nseed = 7\n[memory]\nbudget = \"1GiB\"\n\
         [log]\naccess = \"json\"\naccess_file = {:?}\nlevel = \"error\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [limits]\ndrain_notice = \"0s\"\n\
         [[origin]]\nname = \"main\"\nservers = [\"http://{origin}\"]\n\
         [[site]]\nname = \"main\"\nhosts = [\"*\"]\norigin = \"main\"\njitter = \"0%\"\n",
        log.display().to_string(),
    );
    let config =
        config::load(&text, Path::new("edge.toml")).unwrap_or_else(|problems| panic!("{problems}"));
    Running::start(Source::from(config)).unwrap_or_else(|error| panic!("{error}"))
}

/// Asks once and reads the answer; gives its head.
fn ask(stream: &mut TcpStream, target: &str) -> String {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: site.test\r\nUser-Agent: budget\r\n\
         Accept: */*\r\nAccept-Encoding: gzip, br\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut bytes, mut length) = (vec![0; 8192], 0);
    loop {
        let read = stream.read(&mut bytes[length..]).unwrap();
        assert!(read > 0, "the edge closed the connection");
        length += read;
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() == 1024
        {
            return head.to_owned();
        }
    }
}

/// Allocations of each of the edge's threads so far.
fn so_far() -> Vec<u64> {
    ALLOCATIONS[..THREADS].iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

/// Allocations of the busiest thread since then, and of all.
fn since(before: &[u64]) -> (u64, u64) {
    let grown: Vec<u64> = so_far().iter().zip(before).map(|(now, then)| now - then).collect();
    (grown.iter().copied().max().unwrap_or(0), grown.iter().sum())
}

/// What the edge allocates while it answers `HITS` hits.
fn counted(stream: &mut TcpStream, target: &str) -> (u64, u64) {
    let before = so_far();
    for _ in 0..HITS {
        let head = ask(stream, target);
        assert!(head.contains("; hit"), "{head}");
    }
    since(&before)
}

#[test]
fn a_hit_stays_within_its_allocations() {
    let log = std::env::temp_dir().join(format!("atoll-hit-budget-{}.log", std::process::id()));
    let edge = edge(origin(), &log);
    PLACE.set(OURS);
    let mut stream = TcpStream::connect(edge.addresses().plain[0]).unwrap();
    stream.set_nodelay(true).unwrap();

    let found = BUDGETS.map(|(target, budget)| {
        let before = so_far();
        let head = ask(&mut stream, target);
        assert!(!head.contains("; hit"), "the first cannot be a hit: {head}");
        let (fill, _) = since(&before);
        assert!(fill > 20, "a fill allocates more than {fill} times: the worker is not counted");

        counted(&mut stream, target);
        // The least of several: a timer may fall into one of them, hardly into all.
        let (least, all) = (0..5).map(|_| counted(&mut stream, target)).min().unwrap();
        println!(
            "{target}: {least} for {HITS} hits, {all} with other threads; {fill} for the fill"
        );
        (target, least, budget)
    });
    let lines = std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    drop(edge);
    let _ = std::fs::remove_file(&log);

    assert!(lines > 0, "the log is on");
    for (target, least, budget) in found {
        assert!(
            least <= HITS * budget + HITS * ASIDE_PERCENT / 100,
            "{target}: {least} allocations for {HITS} hits; the budget is {budget} a hit"
        );
    }
}
