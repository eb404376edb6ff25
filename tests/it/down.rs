//! An origin that is down while visitors keep coming, and one whose whole cache is purged.
//!
//! The long form is the same story for half a minute at 2,000 requests a second, or `DOWN_RATE`; an
//! unoptimised build is too slow for that many.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::crowd::{Counting, Crowd, Got, HITS, Mood, STALES, Wish, within_share};
use crate::support::edge::{HOST, Plan};
use crate::support::{Connection, Edge, side_by_side, until};

/// Places at the origin.
const PLACES: usize = 32;
/// Time between two requests on trial, and between two probes.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time that the origin has for an answer.
const PATIENCE: Duration = Duration::from_millis(300);

/// How big the story is.
struct Size {
    visitors: u32,
    rate: u32,
    up: Duration,
    down: Duration,
}

fn edge(origin: &Counting) -> Edge {
    let probe = "probe = { path = \"/health\", interval = \"500ms\", timeout = \"300ms\", rise = 1, fall = 2 }";
    Plan::before(&[origin.address])
        .origin_too(probe)
        .limits(&format!(
            "origin_connections = {PLACES}\norigin_queue = 512\norigin_first_byte = \"300ms\"\n\
             circuit_retry = \"500ms\""
        ))
        .start()
}

async fn stored(edge: &Edge) {
    let mut client = edge.connect().await;
    for number in 0..HITS {
        assert_eq!(client.get(HOST, &format!("/hit/{number}"), &[]).await.status(), 200);
    }
    for number in 0..STALES {
        assert_eq!(client.get(HOST, &format!("/stale/{number}"), &[]).await.status(), 200);
    }
    edge.settled().await;
}

/// What visitors with one wish got in a time.
fn of(got: &[Got], wish: Wish, from: Instant, to: Instant) -> Vec<&Got> {
    got.iter().filter(|got| got.wish == wish && got.at >= from && got.at < to).collect()
}

fn statuses(got: &[&Got], status: u16) -> usize {
    got.iter().filter(|got| got.status == status).count()
}

/// Most that came in any tenth of a second.
fn densest(came: &[Instant]) -> usize {
    let within = |first: &Instant| {
        came.iter()
            .filter(|at| **at >= *first && **at < *first + Duration::from_millis(100))
            .count()
    };
    came.iter().map(within).max().unwrap_or(0)
}

async fn pass(time: Duration) {
    let mut passing = tokio::time::interval(time);
    passing.tick().await;
    passing.tick().await;
}

/// The origin goes down in this way, and comes back.
async fn story(size: &Size, down: Mood) {
    let origin = Counting::start(Duration::from_millis(5)).await;
    let edge = edge(&origin);
    stored(&edge).await;
    let begun = Instant::now();
    let crowd = Crowd::start(edge.plain(), size.visitors, size.rate);
    pass(size.up).await;
    let steady = densest(&origin.came());
    origin.most();
    origin.probes();

    let began = Instant::now();
    origin.be(down);
    edge.metric_becomes("atoll_origin_circuit_open{origin=\"main\"}", 1.0).await;
    let (opened, noticed) = (Instant::now(), origin.came().len());
    pass(size.down).await;
    let asked = origin.came().len();
    let probes = origin.probes();
    let ended = Instant::now();
    let open = ended - opened;

    origin.most();
    origin.be(Mood::Well);
    pass(Duration::from_secs(2)).await;
    let (recovered, most) = (Instant::now(), origin.most());
    let back = origin.came();
    pass(size.up).await;
    let got = crowd.stop().await;
    let after = Instant::now();

    // Hits: unaffected.
    let before = of(&got, Wish::Hit, begun, began);
    let hits = of(&got, Wish::Hit, began, recovered);
    assert!(hits.iter().all(|got| got.status == 200), "a hit needs no origin");
    // Stale answers and refusals come at once, but for those on trial.
    let intervals = usize::try_from(open.as_millis() / INTERVAL.as_millis()).unwrap() + 1;
    let stale = of(&got, Wish::Stale, opened, ended);
    assert_eq!(statuses(&stale, 200), stale.len(), "a stale answer stands in");
    let misses = of(&got, Wish::Miss, opened, ended);
    let refused = statuses(&misses, 503);
    assert!(misses.len() - refused <= intervals, "{} of {}", misses.len() - refused, misses.len());
    let all = misses.iter().chain(&stale).copied();
    // A silent origin costs the one on trial, and those who joined its fill, their patience.
    let (mut quick, trial): (Vec<&Got>, Vec<&Got>) = all.partition(|got| got.took < PATIENCE / 2);
    if down == Mood::Silent {
        // Whoever joined a fill on trial late waited for the rest of its time.
        quick.retain(|got| got.wish == Wish::Miss);
    }
    assert!(trial.len() <= 8 * intervals, "{} waited in {intervals} intervals", trial.len());
    let slow = quick.iter().filter(|got| got.took >= Duration::from_millis(10)).count();
    // At the origin: one probe and one on trial an interval.
    println!(
        "{down:?}: {} requests in {:?} down; to notice: {noticed} requests, {:?}\n\
         hits before: p50 {:?} p99 {:?}; while down: {} p50 {:?} p99 {:?} max {:?}\n\
         stale and refused: {}, of them {} for a trial; the others p50 {:?} p99 {:?} p99.9 {:?}, 10 ms or more: {slow}\n\
         at the origin: {probes} probes, {asked} on trial in {intervals} intervals",
        hits.len() + stale.len() + misses.len(),
        ended - began,
        opened - began,
        within_share(&before, 500),
        within_share(&before, 990),
        hits.len(),
        within_share(&hits, 500),
        within_share(&hits, 990),
        within_share(&hits, 1000),
        quick.len() + trial.len(),
        trial.len(),
        within_share(&quick, 500),
        within_share(&quick, 990),
        within_share(&quick, 999),
    );
    // The machine may be busy: what a hit has to wait for it, these may, too.
    let meanwhile = of(&got, Wish::Hit, opened, ended);
    for (share, of_hits) in [(500, 500), (990, 1000)] {
        let most = within_share(&meanwhile, of_hits) + Duration::from_millis(10);
        assert!(within_share(&quick, share) < most, "{share}: hits within {most:?}");
    }
    assert!(probes <= intervals + 1, "{probes} probes in {intervals} intervals");
    assert!(asked <= intervals + 1, "{asked} on trial in {intervals} intervals");

    // It is back within two seconds, and was not run over.
    let first = of(&got, Wish::Miss, ended, after).into_iter().filter(|got| got.status == 200);
    let first = first.map(|got| got.at).min().expect("the origin is asked again");
    let late = of(&got, Wish::Miss, recovered, after);
    println!(
        "back: first answer after {:?}, {} of {} misses answered after 2 s; most at once {most} of \
         {PLACES}, in a tenth of a second {} (before: {steady})",
        first - ended,
        statuses(&late, 200),
        late.len(),
        densest(&back),
    );
    assert!(first - ended <= Duration::from_secs(2), "{:?}", first - ended);
    assert_eq!(statuses(&late, 200), late.len(), "all of it is back after two seconds");
    assert!(most <= PLACES, "{most}");
    assert!(densest(&back) <= 2 * steady + PLACES, "{} after {steady}", densest(&back));
}

const SHORT: Size = Size {
    visitors: 16,
    rate: 300,
    up: Duration::from_millis(600),
    down: Duration::from_millis(2500),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_hangs_up_hurts_nobody_but_those_who_need_it() {
    story(&SHORT, Mood::HangsUp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_says_nothing_hurts_nobody_but_those_who_need_it() {
    story(&SHORT, Mood::Silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; .ci/long runs it"]
async fn down_for_half_a_minute_at_two_thousand_requests_a_second() {
    let rate = std::env::var("DOWN_RATE").map_or(2000, |rate| rate.parse().unwrap());
    let size =
        Size { visitors: 64, rate, up: Duration::from_secs(3), down: Duration::from_secs(30) };
    for mood in [Mood::HangsUp, Mood::Silent] {
        story(&size, mood).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_of_everything_under_load_sends_no_more_than_the_cap() {
    const CAP: usize = 4;
    let origin = Counting::start(Duration::from_millis(20)).await;
    let edge = Plan::before(&[origin.address])
        .limits(&format!(
            "origin_connections = {CAP}\norigin_queue = 8\norigin_queue_wait = \"100ms\""
        ))
        .start();
    let mut client = edge.connect().await;
    for number in 0..200 {
        assert_eq!(client.get(HOST, &format!("/hit/{number}"), &[]).await.status(), 200);
    }
    edge.settled().await;
    assert!(origin.most() <= CAP);
    origin.came();
    edge.purge(json!({ "all": true })).await;
    let address = edge.plain();
    let visit = |number: u32| async move {
        let mut connection = Connection::open(address).await;
        let mut told = Vec::new();
        for round in 0..4 {
            let answer =
                connection.get(HOST, &format!("/hit/{}", (number + round * 50) % 200), &[]).await;
            told.push((answer.status(), answer.field("retry-after").map(str::to_owned)));
        }
        told
    };
    let told: Vec<_> = side_by_side((0..200).map(visit)).await.into_iter().flatten().collect();
    assert!(origin.most() <= CAP, "the cap holds whatever is wanted");
    let refused = told.iter().filter(|(status, _)| *status == 503).count();
    let answered = told.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(refused + answered, told.len());
    assert!(refused > 0 && answered > 0, "{refused} of {}", told.len());
    assert!(told.iter().all(|(status, retry)| (*status == 503) == retry.is_some()));
    // Each that was stored was asked for once.
    assert!(origin.came().len() <= 200);
    let reason =
        |reason: &str| format!("atoll_origin_refused_total{{origin=\"main\",reason=\"{reason}\"}}");
    let counted =
        edge.metric(&reason("queue-full")).await + edge.metric(&reason("queue-wait")).await;
    assert!(counted > 0.0);
    assert!((edge.metric("atoll_origin_places{origin=\"main\"}").await - 4.0).abs() < 0.1);
    until("everything to be there again", || async { edge.get("/hit/0").await.says("hit") }).await;
}
