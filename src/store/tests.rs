mod busting;
mod searches;
mod variants;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;

use super::*;
use crate::clock::Now;
use crate::message::BodyError;
use crate::purge::{Secret, Selector, Strength};
use crate::semantics::{FreshnessSource, Policy, Terms, VaryFields};

const SECRET: Secret = Secret(1, 2);

pub(super) fn terms() -> Terms {
    Terms {
        received: Now::at(100),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(60),
        fresh_for: Duration::from_secs(60),
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
        date: SystemTime::UNIX_EPOCH,
        has_hidden_fields: false,
        mark: crate::semantics::Mark::default(),
    }
}

pub(super) struct World {
    pub(super) store: Store,
    pub(super) purges: Purges,
    pub(super) fills: Arc<Fills>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(64 * 1024 * 1024)
    }

    pub(super) fn with(budget_bytes: u64) -> Self {
        Self {
            store: Store::new(StoreLimits {
                budget_bytes,
                stored_bytes: 1 << 30,
                variants: 3,
                uncacheable_keys: 100,
                uncacheable_memory: Duration::from_secs(10),
            }),
            purges: Purges::new(SECRET, 1000),
            fills: Arc::new(Fills::new(FillLimits { fills: 4, bytes: 1 << 20, body_bytes: 4096 })),
        }
    }

    fn key(&self, name: &str) -> CacheKey {
        let parts: Box<[u8]> = name.as_bytes().into();
        CacheKey { hash: self.store.secret().hash(&[&parts]), parts }
    }

    pub(super) fn head(&self, name: &str, tags: &[&str], vary: Option<(&str, &str)>) -> Arc<Head> {
        self.descendant(name, tags, vary, None)
    }

    /// The head that a 304 makes of `old`.
    pub(super) fn confirmed(&self, name: &str, old: &Head) -> Arc<Head> {
        self.descendant(name, &[], None, Some(old.lineage))
    }

    fn descendant(
        &self,
        name: &str,
        tags: &[&str],
        vary: Option<(&str, &str)>,
        lineage: Option<u64>,
    ) -> Arc<Head> {
        let tags: Vec<Box<str>> = tags.iter().map(|tag| Box::from(*tag)).collect();
        let fields = vary.map(|(field, _)| {
            let mut headers = HeaderMap::new();
            headers.insert("vary", HeaderValue::from_str(field).unwrap());
            Arc::new(VaryFields::of(&headers, 8, &Policy::default()).unwrap().unwrap())
        });
        let secondary = fields.as_ref().map(|fields| fields.secondary(&asks(vary)));
        Arc::new(Head::new(NewHead {
            key: self.key(name),
            vary: fields,
            secondary: secondary.unwrap_or_default().into_boxed_slice(),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            terms: terms(),
            selectors: self.purges.selectors("site", "host", name, &tags),
            born: self.purges.epoch(),
            fill: 0,
            lineage,
        }))
    }

    pub(super) fn keep(&self, head: &Arc<Head>, body: &'static str) -> bool {
        let body = StoredBody::One(Bytes::from_static(body.as_bytes()));
        let stored = self.store.stored(Arc::clone(head), body);
        self.store.insert(&stored, &self.purges)
    }

    pub(super) fn look(&self, name: &str, request: &HeaderMap) -> Lookup {
        self.store.lookup(&self.key(name), request, &self.purges, self.purges.epoch())
    }

    fn body(&self, name: &str, request: &HeaderMap) -> Option<Bytes> {
        match self.look(name, request) {
            Lookup::Found(stored, _) => match stored.body() {
                StoredBody::One(bytes) => Some(bytes.clone()),
                StoredBody::Many(..) | StoredBody::Segmented(_) => None,
            },
            Lookup::Miss | Lookup::VaryMiss => None,
        }
    }

    /// Waits until what the store's counters say is so: it lets go of what it removed a little
    /// later.
    pub(super) fn settles(&self, what: impl Fn(&Store) -> bool) {
        for _ in 0..100_000 {
            self.store.upkeep();
            if what(&self.store) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{} bytes, {:?}", self.store.bytes(), self.store.class(0));
    }

    pub(super) fn purge(&self, tag: &str, strength: Strength) {
        let selector = Selector::Tag { site: "site".into(), tag: tag.into() };
        self.purges.apply(&[selector], strength, Now::at(200));
    }
}

fn asks(field: Option<(&str, &str)>) -> HeaderMap {
    let mut request = HeaderMap::new();
    if let Some((name, value)) = field {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.insert(name, HeaderValue::from_str(value).unwrap());
    }
    request
}

#[test]
fn what_is_stored_is_found_until_a_purge_kills_it() {
    let world = World::new();
    let nothing = HeaderMap::new();
    assert!(world.keep(&world.head("/a", &["x"], None), "one"));
    assert_eq!(world.body("/a", &nothing).unwrap(), "one");
    world.purge("other", Strength::Hard);
    assert_eq!(world.body("/a", &nothing).unwrap(), "one");
    world.purge("x", Strength::Hard);
    assert!(matches!(world.look("/a", &nothing), Lookup::Miss));
}

#[test]
fn a_response_that_was_asked_for_before_the_purge_is_not_stored_after_it() {
    let world = World::new();
    let head = world.head("/a", &["x"], None);
    world.purge("x", Strength::Hard);
    assert!(!world.keep(&head, "old"));
    assert!(world.keep(&world.head("/a", &["x"], None), "new"));
    assert_eq!(world.body("/a", &HeaderMap::new()).unwrap(), "new");
}

#[test]
fn soft_and_check_marks_outlive_their_rows() {
    let world = World::new();
    world.keep(&world.head("/a", &["x"], None), "soft");
    world.keep(&world.head("/b", &["y"], None), "check");
    world.purge("x", Strength::Soft);
    world.purge("y", Strength::Check);
    sweep(&world.store, &world.purges, &world.fills);
    assert_eq!(world.purges.rows(), 0);
    let nothing = HeaderMap::new();
    let Lookup::Found(_, verdict) = world.look("/a", &nothing) else { panic!("gone") };
    assert_eq!(verdict, Verdict::Soft { since: Now::at(200) });
    let Lookup::Found(_, verdict) = world.look("/b", &nothing) else { panic!("gone") };
    assert_eq!(verdict, Verdict::Check);
}

/// Rows that fold purge more than was asked for, but nothing that was looked at since they came.
#[test]
fn what_was_looked_at_lives_on_when_rows_fold() {
    let mut world = World::new();
    world.purges = Purges::new(SECRET, 4);
    for name in ["/hot", "/cold"] {
        assert!(world.keep(&world.head(name, &["x"], None), "body"));
    }
    for number in 0..4 {
        world.purge(&format!("other{number}"), Strength::Hard);
    }
    let nothing = HeaderMap::new();
    assert!(world.body("/hot", &nothing).is_some());
    world.purge("other4", Strength::Hard);
    assert_eq!(world.purges.rows(), 5, "four rows, and the site's own");
    assert!(world.body("/hot", &nothing).is_some());
    // A purge that names it makes both look at the table, where the site's row stands now.
    world.purge("x", Strength::Soft);
    let Lookup::Found(_, verdict) = world.look("/hot", &nothing) else { panic!("gone") };
    assert_eq!(verdict, Verdict::Soft { since: Now::at(200) });
    assert!(world.body("/cold", &nothing).is_none());
}

/// What is in use and not in the store any more is moved on by the sweep, and counts for nothing.
#[test]
fn the_sweep_meets_what_is_in_use_elsewhere() {
    let world = World::new();
    assert!(world.keep(&world.head("/a", &["x"], None), "old"));
    let Lookup::Found(reader, _) = world.look("/a", &HeaderMap::new()) else { panic!("gone") };
    assert!(world.keep(&world.head("/a", &["x"], None), "new"));
    world.purge("other", Strength::Hard);
    let seen = sweep(&world.store, &world.purges, &world.fills);
    assert_eq!((seen.walked, seen.removed), (1, 0));
    assert_eq!(reader.head().checked(), world.purges.epoch());
    let tag = |tag: &str| [Selector::Tag { site: "site".into(), tag: tag.into() }];
    let tried = try_out(&world.store, &world.purges, &tag("x"), 9, Now::at(200));
    assert_eq!((tried.stored, tried.matched), (1, 1));
}

#[test]
fn a_dry_run_tells_how_much_was_asked_for_and_by_whom_most() {
    let world = World::new();
    let now = Now::at(1000);
    for (name, uses) in [("/a", 64), ("/b", 640), ("/c", 0), ("/other", 6400)] {
        let tags: &[&str] = if name == "/other" { &[] } else { &["x"] };
        assert!(world.keep(&world.head(name, tags, None), "body"));
        let Lookup::Found(stored, _) = world.look(name, &HeaderMap::new()) else { panic!("gone") };
        (0..uses).for_each(|_| stored.note_use(now));
    }
    let tag = [Selector::Tag { site: "site".into(), tag: "x".into() }];
    let named = |most| {
        let tried = try_out(&world.store, &world.purges, &tag, most, now);
        assert_eq!(tried.per_second, 11.0);
        let name = |head: &Arc<Head>| String::from_utf8_lossy(&head.key.parts).into_owned();
        tried.hottest.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(named(0), [""; 0]);
    assert_eq!(named(1), ["/b"]);
    assert_eq!(named(9), ["/b", "/a"], "what nobody asked for is not hot");
    // A new response under the same key goes on with the uses of the one before.
    assert!(world.keep(&world.head("/a", &["x"], None), "new"));
    assert_eq!(named(9), ["/b", "/a"]);
}

#[test]
fn the_sweep_frees_the_dead_and_what_it_did_not_meet_counts_as_dead() {
    let world = World::new();
    world.keep(&world.head("/a", &["x"], None), "dead");
    world.keep(&world.head("/b", &["y"], None), "alive");
    let unmet = world.head("/c", &["z"], None);
    world.purge("x", Strength::Hard);
    let seen = sweep(&world.store, &world.purges, &world.fills);
    assert_eq!((seen.walked, seen.removed), (2, 1));
    assert_eq!(world.purges.rows(), 0);
    assert_eq!(world.body("/b", &HeaderMap::new()).unwrap(), "alive");
    assert!(!world.keep(&unmet, "born before the floor"));
    world.settles(|store| store.class(0).0 == 1);
}

#[test]
fn variants_are_selected_bounded_and_purged_together() {
    let world = World::new();
    for language in ["a", "b", "c"] {
        let head = world.head("/v", &["x"], Some(("x-lang", language)));
        assert!(world.keep(&head, language));
    }
    assert_eq!(world.body("/v", &asks(Some(("x-lang", "b")))).unwrap(), "b");
    assert!(matches!(world.look("/v", &asks(Some(("x-lang", "d")))), Lookup::VaryMiss));
    world.keep(&world.head("/v", &["x"], Some(("x-lang", "d"))), "d");
    assert_eq!(world.body("/v", &asks(Some(("x-lang", "d")))).unwrap(), "d");
    assert!(matches!(world.look("/v", &asks(Some(("x-lang", "a")))), Lookup::VaryMiss));
    world.purge("x", Strength::Hard);
    for language in ["b", "c", "d"] {
        assert!(world.body("/v", &asks(Some(("x-lang", language)))).is_none());
    }
}

#[test]
fn a_forced_collision_of_hashes_is_a_miss() {
    let world = World::new();
    let head = world.head("/a", &[], None);
    world.keep(&head, "one");
    let other = CacheKey { hash: head.key.hash, parts: b"/b"[..].into() };
    let found = world.store.lookup(&other, &HeaderMap::new(), &world.purges, 1);
    assert!(matches!(found, Lookup::Miss));
}

/// F40: two variants, and two keys with variants, whose hashes are forced to be one.
#[test]
fn a_forced_collision_of_variants_is_a_miss() {
    let world = World::new();
    let head = world.head("/a", &[], Some(("x-lang", "de")));
    world.keep(&head, "eins");
    let other = CacheKey { hash: head.key.hash, parts: b"/b"[..].into() };
    let german = asks(Some(("x-lang", "de")));
    let found = world.store.lookup(&other, &german, &world.purges, 1);
    assert!(!matches!(found, Lookup::Found(..)), "{found:?}");
    // Under the hash of the English variant lies the German one.
    let english = world.head("/a", &[], Some(("x-lang", "en")));
    let body = StoredBody::One(Bytes::from_static(b"eins"));
    let stored = world.store.stored(Arc::clone(&head), body);
    assert!(world.store.put(english.variant_hash(world.store.secret()), &stored));
    assert!(world.body("/a", &asks(Some(("x-lang", "en")))).is_none());
    assert!(world.body("/a", &german).is_some());
}

/// F41
#[cfg(debug_assertions)]
#[test]
fn what_changed_in_memory_is_a_miss() {
    let world = World::new();
    let keep = |head: &Arc<Head>, changed: Arc<Head>| {
        let body = StoredBody::One(Bytes::from_static(b"body"));
        let weight = super::stored::weight(head, &body);
        let accounted = world.store.account(body.len(), weight);
        let stored = super::stored::Stored::new(Arc::clone(head), body, None, accounted);
        assert!(world.store.insert(&Arc::new(stored.changed(changed)), &world.purges));
    };
    type Change = fn(&mut Head);
    let changes: [(&str, Change); 4] = [
        ("a later end of freshness", |head| head.terms.fresh_for += Duration::from_nanos(1 << 20)),
        ("a status", |head| head.status = StatusCode::NOT_FOUND),
        ("a field", |head| drop(head.headers.insert("x-user", HeaderValue::from_static("bob")))),
        ("a fill", |head| head.fill ^= 1),
    ];
    for (what, change) in changes {
        let (head, same) = (world.head("/a", &[], None), world.head("/a", &[], None));
        keep(&head, same);
        assert!(world.body("/a", &HeaderMap::new()).is_some());
        let mut changed = Arc::into_inner(world.head("/a", &[], None)).unwrap();
        change(&mut changed);
        keep(&head, Arc::new(changed));
        assert!(world.body("/a", &HeaderMap::new()).is_none(), "{what}");
        assert!(world.body("/a", &HeaderMap::new()).is_none(), "{what} stays");
    }
}

#[test]
fn evicted_memory_is_accounted_until_the_last_reader_lets_go() {
    let world = World::new();
    world.keep(&world.head("/a", &["x"], None), "body");
    let Lookup::Found(reader, _) = world.look("/a", &HeaderMap::new()) else { panic!("gone") };
    let before = world.store.bytes();
    world.store.clear();
    assert_eq!(world.store.bytes(), before);
    drop(reader);
    world.settles(|store| store.bytes() == 0);
}

#[test]
fn the_store_stays_within_its_budget() {
    let world = World::with(1 << 20);
    for number in 0..5000 {
        world.keep(&world.head(&format!("/{number}"), &[], None), "some body");
    }
    world.settles(|store| store.bytes() <= 1 << 20);
    assert!(world.store.evictions() > 0);
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn read(body: &mut FillBody) -> Poll<Option<Result<Bytes, BodyError>>> {
    let frame = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
    frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().unwrap())))
}

fn start(world: &World, key: u128) -> FillWriter {
    match world.fills.join_or_start(key, 1) {
        Claim::Started(writer) => writer,
        other => panic!("{other:?}"),
    }
}

fn push(writer: &FillWriter, chunk: &[u8]) -> Poll<Result<(), BodyError>> {
    poll(std::pin::pin!(writer.push(chunk)))
}

fn ready(bytes: &'static str) -> Poll<Option<Result<Bytes, BodyError>>> {
    Poll::Ready(Some(Ok(Bytes::from_static(bytes.as_bytes()))))
}

#[test]
fn readers_read_along_each_at_its_own_pace() {
    let world = World::new();
    let writer = start(&world, 1);
    let Claim::Joined(fill) = world.fills.join_or_start(1, 1) else { panic!("two fills") };
    let (mut fast, mut slow) = (fill.read(0, Some(6)), fill.read(4, Some(1)));
    assert_eq!(read(&mut fast), Poll::Pending);
    assert!(push(&writer, b"abc").is_ready());
    assert_eq!(read(&mut fast), ready("abc"));
    assert_eq!(read(&mut fast), Poll::Pending);
    assert!(push(&writer, b"def").is_ready());
    writer.complete();
    assert_eq!(read(&mut fast), ready("def"));
    assert_eq!(read(&mut fast), Poll::Ready(None));
    assert_eq!(read(&mut slow), ready("e"));
    assert_eq!(read(&mut slow), Poll::Ready(None));
    assert_eq!((world.fills.open(), world.fills.bytes(), world.fills.readers()), (0, 0, 2));
    drop((fast, slow));
    assert_eq!(world.fills.readers(), 0);
}

#[test]
fn a_writer_that_vanishes_cuts_its_readers_off() {
    let world = World::new();
    let writer = start(&world, 1);
    let mut body = writer.fill().read(0, None);
    assert!(push(&writer, b"abc").is_ready());
    drop(writer);
    assert_eq!(read(&mut body), ready("abc"));
    assert_eq!(read(&mut body), Poll::Ready(Some(Err(BodyError::Cancelled))));
    assert_eq!(world.fills.open(), 0);
}

#[test]
fn a_body_shorter_than_promised_is_never_ended_cleanly() {
    let world = World::new();
    let writer = start(&world, 1);
    let mut body = writer.fill().read(0, Some(5));
    assert!(push(&writer, b"abc").is_ready());
    writer.complete();
    assert_eq!(read(&mut body), ready("abc"));
    assert_eq!(read(&mut body), Poll::Ready(Some(Err(BodyError::Incomplete))));
}

#[test]
fn a_body_too_large_to_keep_goes_at_the_pace_of_its_fastest_reader() {
    let world = World::new();
    let writer = start(&world, 1);
    let fill = Arc::clone(writer.fill());
    let (mut fast, mut slow) = (fill.read(0, None), fill.read(0, None));
    let chunk = [0_u8; 1024];
    for _ in 0..4 {
        assert!(push(&writer, &chunk).is_ready());
    }
    assert!(push(&writer, &chunk).is_pending(), "it would cut the fastest reader off");
    for _ in 0..100 {
        assert!(matches!(read(&mut fast), Poll::Ready(Some(Ok(_)))));
        assert!(push(&writer, &chunk).is_ready());
    }
    assert!(writer.outgrown() && writer.body().is_none());
    assert!(world.fills.bytes() <= 4096);
    // Nobody new can begin at the first byte.
    assert!(matches!(world.fills.join_or_start(1, 1), Claim::Started(_)));
    assert_eq!(read(&mut slow), Poll::Ready(Some(Err(BodyError::TooSlow))));
    drop((fast, slow));
    assert_eq!(push(&writer, &chunk), Poll::Ready(Err(BodyError::Cancelled)));
}

#[test]
fn one_who_may_not_use_a_fill_puts_a_new_one_in_its_place() {
    let world = World::new();
    let first = start(&world, 1);
    let refused = Arc::clone(first.fill());
    let wish = Wish { instead_of: Some(&refused), since: None };
    let Claim::Started(second) = world.fills.claim(1, 2, wish) else { panic!("not new") };
    let Claim::Joined(shared) = world.fills.claim(1, 2, wish) else { panic!("a third") };
    assert!(Arc::ptr_eq(&shared, second.fill()));
    first.complete();
    assert!(world.fills.is_open(1), "the end of the first must not end the second");
    second.complete();
    assert!(!world.fills.is_open(1));
}

#[test]
fn one_who_may_not_use_what_began_before_waits_and_shares_the_next() {
    let world = World::new();
    let first = start(&world, 1);
    let since = Some(world.fills.next_number());
    let wish = Wish { instead_of: None, since };
    let Claim::Early(early) = world.fills.claim(1, 2, wish) else { panic!("joined") };
    assert!(Arc::ptr_eq(&early, first.fill()));
    // It has been waited for: the next one takes its place, whether it has ended or not.
    let behind = Wish { instead_of: Some(&early), since };
    let Claim::Started(second) = world.fills.claim(1, 2, behind) else { panic!("not new") };
    let Claim::Joined(shared) = world.fills.claim(1, 2, behind) else { panic!("a third") };
    assert!(Arc::ptr_eq(&shared, second.fill()));
    let Claim::Joined(shared) = world.fills.claim(1, 2, wish) else { panic!("not for it") };
    assert!(Arc::ptr_eq(&shared, second.fill()));
    first.complete();
    let later = Wish { instead_of: None, since: Some(world.fills.next_number()) };
    assert!(matches!(world.fills.claim(1, 2, later), Claim::Early(_)));
}

#[test]
fn fills_are_bounded() {
    let world = World::new();
    let writers: Vec<FillWriter> = (0..4).map(|key| start(&world, key)).collect();
    assert!(matches!(world.fills.join_or_start(9, 1), Claim::Full));
    drop(writers);
    assert!(matches!(world.fills.join_or_start(9, 1), Claim::Started(_)));
}

/// The sweep and whoever outgrows what is kept hold the same two locks.
#[test]
fn fills_are_looked_at_while_they_outgrow_what_is_kept() {
    let fills = Arc::new(Fills::new(FillLimits { fills: 4, bytes: 1 << 20, body_bytes: 8 }));
    let (done, ended) = std::sync::mpsc::channel();
    for looks in [false, true] {
        let (fills, done) = (Arc::clone(&fills), done.clone());
        std::thread::spawn(move || {
            for _ in 0..30_000 {
                if looks {
                    let _ = fills.heads();
                    continue;
                }
                let Claim::Started(writer) = fills.join_or_start(1, 1) else { panic!("two") };
                let mut body = writer.fill().read(0, None);
                for _ in 0..4 {
                    assert!(push(&writer, b"12345678").is_ready());
                    assert!(matches!(read(&mut body), Poll::Ready(Some(Ok(_)))));
                }
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..2 {
        ended.recv_timeout(Duration::from_secs(60)).expect("they wait for each other");
    }
}
