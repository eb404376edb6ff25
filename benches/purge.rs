//! What does a purge cost, whoever it hits, and what do hits feel of it?
//!
//! ```text
//! cargo bench --bench purge                 one million stored responses, about a minute
//! cargo bench --bench purge -- 100000       another number of them
//! ```
//!
//! A store as the edge has it, with its two threads beside, in this process. Half of the responses,
//! chosen at random, bear one tag. A **hit** here is all that the edge does for one but the socket
//! and the log: the request normalised, its key, the look-up with the purges' verdict, the decision,
//! the answer's fields. Over a socket a hit costs several times as much, so what is lost here is
//! more than what an edge would lose.
//!
//! Processor time is that of the thread that answers; it does not mind what else the machine does.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "numbers are this file's own, and small"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use atoll::clock::{self, Now};
use atoll::message::{RequestHead, Scheme};
use atoll::purge::{Secret, Selector, Strength};
use atoll::semantics::{
    CacheKey, Decision, FreshnessSource, Policy, Terms, Trust, decide_why, normalise, shape,
};
use atoll::store::{
    FillLimits, Fills, Head, Lookup, NewHead, PurgeLimits, Purges, Store, StoreLimits, StoredBody,
    sweep,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SITE: &str = "bench";
const HOST: &str = "bench.test";
const BODY: [u8; 1024] = [b'x'; 1024];
const TAG: &str = "half";
/// Responses that hits ask for: none of them bears the tag.
const HOT: usize = 20_000;
const PURGES_PER_SECOND: u64 = 20_000;

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    // First: later on, memory that is given back would hide what it takes.
    what_does_a_row_take();
    let world = Arc::new(World::filled(numbers.next().unwrap_or(1_000_000)));
    beside(&world, "upkeep", keep_up);
    beside(&world, "sweep", keep_swept);
    is_a_purge_as_quick_whatever_it_hits(&world);
    what_do_hits_feel_of_a_large_purge(&world);
    what_do_hits_lose_while_purges_come(&world);
    what_does_it_cost_to_count_a_use(&world);
    world.stop.store(true, Ordering::Release);
}

/// The same purge, soft so that nothing is gone afterwards, of a tag that half of the store bears
/// and of one that nobody bears, in turn.
fn is_a_purge_as_quick_whatever_it_hits(world: &World) {
    let (mut nobody, mut half) = (Times::default(), Times::default());
    for number in 0..2000 {
        nobody.note(world.purge(&format!("nobody{number}"), Strength::Soft));
        half.note(world.purge(TAG, Strength::Soft));
    }
    println!("\na purge of a tag             median      p99");
    println!("  that nobody bears      {nobody}");
    println!("  that half the store bears{half}");
}

/// Latency of hits before a hard purge of the half and after it, while the sweep gives the memory
/// back, and how long that takes.
fn what_do_hits_feel_of_a_large_purge(world: &Arc<World>) {
    world.swept_up_to(world.purges.epoch());
    let before = world.store.bytes();
    let count = (0..3).map(|class| world.store.class(class).0).sum::<u64>();
    println!("\nhits beside it               median      p99    worst");
    println!("  before                 {}", world.hits_for(Duration::from_secs(5)).1.whole());
    let begun = clock::now();
    let took = world.purge(TAG, Strength::Hard);
    let watch = {
        let world = Arc::clone(world);
        std::thread::spawn(move || {
            world.swept_up_to(world.purges.epoch());
            clock::now().since(begun)
        })
    };
    println!("  in the 10 s after it   {}", world.hits_for(Duration::from_secs(10)).1.whole());
    let back = watch.join().unwrap_or_default();
    let left = (0..3).map(|class| world.store.class(class).0).sum::<u64>();
    println!(
        "the purge itself took {} us; {} of {count} responses and {} of {} MB were back after {:.1} s",
        took.as_micros(),
        count - left,
        (before - world.store.bytes()) >> 20,
        before >> 20,
        back.as_secs_f64(),
    );
    println!(
        "the walk took {} ms, {} of a processor; resident: {} MB",
        world.walk.load(Ordering::Acquire),
        world.walk_spent.load(Ordering::Acquire),
        resident() >> 20
    );
}

/// Hits per second of processor time before and while purges of many tags are applied.
fn what_do_hits_lose_while_purges_come(world: &Arc<World>) {
    let mut ratios = Vec::new();
    println!("\nhits per second of processor time, {PURGES_PER_SECOND} purges a second or none");
    for _ in 0..3 {
        let (calm, _) = world.hits_for(Duration::from_secs(2));
        let at = (world.purges.epoch(), world.purges.floor());
        let done = Arc::new(AtomicBool::new(false));
        let most = Arc::new(AtomicU64::new(0));
        let purger = {
            let (world, done, most) = (Arc::clone(world), Arc::clone(&done), Arc::clone(&most));
            std::thread::spawn(move || purge_steadily(&world, &done, &most))
        };
        let (busy, _) = world.hits_for(Duration::from_secs(10));
        done.store(true, Ordering::Release);
        let seconds = purger.join().unwrap_or_default().as_secs_f64();
        ratios.push(busy.per_second() / calm.per_second());
        println!(
            "  {:9.0} none  {:9.0} beside {:5.0}/s  share {:.2}  +{:4.0} ns a hit  most rows {}  \
             swept {} of {}, walk {} ms  missed {}",
            calm.per_second(),
            busy.per_second(),
            (world.purges.epoch() - at.0) as f64 / seconds,
            busy.per_second() / calm.per_second(),
            1e9 / busy.per_second() - 1e9 / calm.per_second(),
            most.load(Ordering::Acquire),
            world.purges.floor() - at.1,
            world.purges.epoch() - at.0,
            world.walk.load(Ordering::Acquire),
            busy.missed,
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("  median share {:.2}, resident {} MB", ratios[ratios.len() / 2], resident() >> 20);
}

/// A use noted on a stored response, as each hit does, beside what the rest of a hit takes.
fn what_does_it_cost_to_count_a_use(world: &World) {
    const TIMES: u32 = 10_000_000;
    let Ok(asked) = normalise(world.hot[0].clone()) else { return };
    let key = CacheKey::of(world.store.secret(), SITE, &asked, &world.policy);
    let epoch = world.purges.epoch();
    let Lookup::Found(stored, _) = world.store.lookup(&key, &asked.headers, &world.purges, epoch)
    else {
        return;
    };
    let begun = processor_time();
    for time in 0..TIMES {
        std::hint::black_box(&stored).note_use(Now::at(u64::from(time >> 20)));
    }
    let spent = processor_time() - begun;
    println!("\ncounting a use takes {:.2} ns", spent.as_nanos() as f64 / f64::from(TIMES));
}

/// Memory of a full table.
fn what_does_a_row_take() {
    const ROWS: u64 = 100_000;
    let limits = PurgeLimits { rows_per_site: ROWS as usize, ..PurgeLimits::default() };
    let purges = Purges::within(Secret(1, 2), limits);
    let before = resident();
    for number in 0..ROWS {
        let selector = Selector::Tag { site: SITE.into(), tag: format!("row:{number}") };
        purges.apply(&[selector], Strength::Hard, clock::now());
    }
    let each = resident().saturating_sub(before) / ROWS;
    println!("a row takes {each} bytes, {} rows {} MB", purges.rows(), (each * ROWS) >> 20);
}

/// Purges tags that nobody bears, each once, until `done`. Says how long that was.
fn purge_steadily(world: &World, done: &AtomicBool, most: &AtomicU64) -> Duration {
    let begun = clock::now();
    let mut count = 0_u64;
    while !done.load(Ordering::Acquire) {
        let due = clock::now().since(begun).as_micros() as u64 * PURGES_PER_SECOND / 1_000_000;
        while count < due {
            count += 1;
            world.purge(&format!("article:{count}"), Strength::Hard);
            if count.is_multiple_of(256) {
                most.fetch_max(world.purges.rows() as u64, Ordering::AcqRel);
            }
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    clock::now().since(begun)
}

/// What an edge has, without its sockets.
struct World {
    store: Store,
    purges: Purges,
    fills: Fills,
    policy: Policy,
    hot: Vec<RequestHead>,
    stop: AtomicBool,
    /// The last walk of the sweep, in milliseconds, and what it took of a processor.
    walk: AtomicU64,
    walk_spent: AtomicU64,
}

impl World {
    fn filled(count: usize) -> Self {
        let limits = StoreLimits {
            budget_bytes: 16 << 30,
            stored_bytes: 1 << 20,
            variants: 8,
            uncacheable_keys: 1000,
            uncacheable_memory: Duration::from_secs(60),
        };
        let world = Self {
            store: Store::new(limits),
            purges: Purges::within(Secret(1, 2), PurgeLimits::default()),
            fills: Fills::new(FillLimits { fills: 16, bytes: 1 << 20, body_bytes: 1 << 20 }),
            policy: Policy::default(),
            hot: (0..HOT.min(count / 4)).map(|number| request(4 * number as u64 + 1)).collect(),
            stop: AtomicBool::new(false),
            walk: AtomicU64::new(0),
            walk_spent: AtomicU64::new(0),
        };
        let (before, begun) = (resident(), clock::now());
        for number in 0..count as u64 {
            world.fill(number);
            if number.is_multiple_of(4096) {
                world.store.upkeep();
            }
        }
        let took = clock::now().since(begun).as_secs_f64();
        world.store.upkeep();
        let each = (resident() - before) / count as u64;
        println!("{count} responses of 1 KiB in {took:.1} s, {each} bytes each, rows included");
        world
    }

    /// Stores response `number`. Of four, one is hot and bears no tag of the half, and two of the
    /// other three do, in no order.
    fn fill(&self, number: u64) {
        let Ok(asked) = normalise(request(number)) else { return };
        let mut tags: Vec<Box<str>> =
            vec![format!("page:{number}").into(), format!("section:{}", number % 1000).into()];
        let skipped = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let skipped = [0, 2, 3][(number / 4 + skipped / 7) as usize % 3];
        if number % 4 != 1 && number % 4 != skipped {
            tags.push(TAG.into());
        }
        let target = asked.target();
        let head = Arc::new(Head::new(NewHead {
            key: CacheKey::of(self.store.secret(), SITE, &asked, &self.policy),
            vary: None,
            secondary: Box::default(),
            status: StatusCode::OK,
            headers: answer_fields(number),
            terms: terms(clock::now()),
            selectors: self.purges.selectors(SITE, HOST, &target, &tags),
            born: self.purges.epoch(),
            fill: number,
            lineage: None,
        }));
        let body = StoredBody::One(bytes::Bytes::copy_from_slice(&BODY));
        self.store.insert(&self.store.stored(head, body), &self.purges);
    }

    /// Purges a tag; says how long that took.
    fn purge(&self, tag: &str, strength: Strength) -> Duration {
        let selectors = [Selector::Tag { site: SITE.into(), tag: tag.into() }];
        let begun = clock::now();
        self.purges.apply(&selectors, strength, begun);
        clock::now().since(begun)
    }

    /// Answers requests for as long as that, on this thread.
    fn hits_for(&self, time: Duration) -> (Hits, Times) {
        let (begun, spent) = (clock::now(), processor_time());
        let (mut hits, mut times) = (Hits::default(), Times::default());
        let mut draw = 1_u64;
        loop {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            let asked = self.hot[(draw >> 33) as usize % self.hot.len()].clone();
            let now = clock::now();
            if now.since(begun) >= time {
                hits.spent = processor_time() - spent;
                return (hits, times);
            }
            match self.hit(asked, now) {
                true => hits.done += 1,
                false => hits.missed += 1,
            }
            times.note(clock::now().since(now));
        }
    }

    fn hit(&self, asked: RequestHead, now: Now) -> bool {
        let Ok(asked) = normalise(asked) else { return false };
        let key = CacheKey::of(self.store.secret(), SITE, &asked, &self.policy);
        let (lease, epoch) = self.purges.moment(now);
        let Lookup::Found(stored, verdict) =
            self.store.lookup(&key, &asked.headers, &self.purges, epoch)
        else {
            return false;
        };
        stored.note_use(now);
        let head = stored.head();
        let found = Some((&head.terms, verdict));
        let (decision, _) =
            decide_why(&asked, found, true, &self.policy, Trust::of(lease, &self.policy), now, 1.0);
        let length = Some(stored.body().len());
        let terms = Some(&head.terms);
        let answer = shape(&asked, head.status, &head.headers, length, terms, &self.policy, now);
        std::hint::black_box((answer, stored.whole()));
        matches!(decision, Decision::Hit { .. })
    }

    /// Waits until a sweep has walked all that was stored at `epoch`.
    fn swept_up_to(&self, epoch: u64) {
        while self.purges.floor() < epoch {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn request(number: u64) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: None,
        target: format!("/section/{}/page-{number}", number % 1000),
        version: Version::HTTP_11,
        headers: fields(&[("host", HOST), ("user-agent", "bench"), ("accept", "*/*")]),
    }
}

fn answer_fields(number: u64) -> HeaderMap {
    fields(&[
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "public, max-age=86400"),
        ("etag", &format!("\"{number:x}\"")),
        ("last-modified", "Tue, 01 Jul 2025 10:00:00 GMT"),
    ])
}

fn fields(rows: &[(&'static str, &str)]) -> HeaderMap {
    rows.iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
        })
        .collect()
}

fn terms(received: Now) -> Terms {
    let day = Duration::from_secs(86_400);
    Terms {
        mark: atoll::semantics::Mark::default(),
        received,
        initial_age: Duration::ZERO,
        lifetime: day,
        fresh_for: day,
        source: FreshnessSource::MaxAge,
        fetch_time: Duration::from_millis(1),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        must_revalidate: false,
        no_cache: false,
        immutable: false,
        authorized: false,
        etag: None,
        last_modified: None,
        date: received.wall,
        has_hidden_fields: false,
    }
}

fn beside(world: &Arc<World>, name: &str, work: fn(&World)) {
    let world = Arc::clone(world);
    let started = std::thread::Builder::new().name(name.into()).spawn(move || work(&world));
    assert!(started.is_ok(), "{name} does not start");
}

/// As the edge's thread `upkeep`.
fn keep_up(world: &World) {
    while !world.stop.load(Ordering::Acquire) {
        world.store.upkeep();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As the edge's thread `sweep`.
fn keep_swept(world: &World) {
    let (mut swept, mut rests_until) = (world.purges.floor(), Duration::ZERO);
    while !world.stop.load(Ordering::Acquire) {
        let begun = clock::now();
        let may_rest = begun.boot < rests_until && !world.purges.is_crowded();
        if world.purges.epoch() > swept && !may_rest {
            let spent = processor_time();
            swept = sweep(&world.store, &world.purges, &world.fills).floor;
            let ended = clock::now();
            world.walk.store(ended.since(begun).as_millis() as u64, Ordering::Release);
            let spent = (processor_time() - spent).as_millis() as u64;
            world.walk_spent.store(spent, Ordering::Release);
            rests_until = ended.boot + Duration::from_secs(5).min(ended.since(begun) * 4);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Hits and the processor time of the thread that answered them.
#[derive(Default)]
struct Hits {
    done: u64,
    missed: u64,
    spent: Duration,
}

impl Hits {
    fn per_second(&self) -> f64 {
        self.done as f64 / self.spent.as_secs_f64()
    }
}

#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn note(&mut self, time: Duration) {
        self.0.push(time);
    }

    fn whole(&self) -> String {
        format!("{self} {:8.1} us", micros(self.at(1.0)))
    }

    fn at(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        let at = ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
        *sorted.select_nth_unstable(at).1
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:8.1} {:8.1}", micros(self.at(0.5)), micros(self.at(0.99)))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
