//! Which server of an origin takes a request, and what is sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::edge::{HOST, Plan};
use crate::support::{Edge, Gate, Origin, Piece, Reply};

/// Two servers that say which one they are.
fn two() -> (Origin, Origin) {
    (Origin::serving(Reply::ok("one")), Origin::serving(Reply::ok("two")))
}

#[tokio::test]
async fn the_same_key_goes_to_the_same_server() {
    let (one, two) = two();
    let plan = || {
        Plan::before(&[one.address, two.address]).origin_too("balance = \"hash\"\nhash_bound = 2.0")
    };
    let (edge, another) = (plan().start(), plan().start());
    let mut homes = Vec::new();
    for number in 0..20 {
        let target = format!("/{number}");
        let home = edge.get(&target).await.text().to_owned();
        for _ in 0..3 {
            assert_eq!(edge.get(&target).await.text(), home);
        }
        assert_eq!(another.get(&target).await.text(), home, "nodes agree without a word");
        homes.push(home);
    }
    assert!(homes.contains(&"one".to_owned()) && homes.contains(&"two".to_owned()), "{homes:?}");
}

#[tokio::test]
async fn the_same_value_of_a_field_goes_to_the_same_server() {
    let (one, two) = two();
    let edge = Plan::before(&[one.address, two.address])
        .origin_too("balance = \"hash\"\nhash_by = \"header:X-Session\"\nhash_bound = 2.0")
        .start();
    let mut homes = Vec::new();
    for session in 0..20 {
        let session = [("X-Session", &*session.to_string())];
        let home = edge.get_with("/", &session).await.text().to_owned();
        for target in ["/a", "/b", "/c"] {
            assert_eq!(edge.get_with(target, &session).await.text(), home);
        }
        homes.push(home);
    }
    assert!(homes.contains(&"one".to_owned()) && homes.contains(&"two".to_owned()), "{homes:?}");
}

#[tokio::test]
async fn servers_take_turns_as_they_weigh() {
    let (one, two) = two();
    let keys = format!(
        "name = \"main\"\nbalance = \"round-robin\"\n\
         servers = [{{ url = \"http://{}\", weight = 3 }}, \"http://{}\"]",
        one.address, two.address
    );
    let edge = Edge::before(&one).no_origins().origin_keys(&keys).start();
    for number in 0..20 {
        edge.get(&format!("/{number}")).await;
    }
    assert_eq!((one.requests(), two.requests()), (15, 5));
}

#[tokio::test]
async fn near_servers_are_asked_first() {
    let (one, two) = two();
    let keys = format!(
        "name = \"main\"\nservers = [{{ url = \"http://{}\", locality = \"far\" }}, \
         {{ url = \"http://{}\", locality = \"local\" }}]",
        one.address, two.address
    );
    let plan = Edge::before(&one).no_origins().origin_keys(&keys);
    let edge = plan.limits("retry_budget_percent = 100").start();
    for number in 0..10 {
        assert_eq!(edge.get(&format!("/{number}")).await.text(), "two");
    }
    two.stop().await;
    assert_eq!(edge.get("/near-is-gone").await.text(), "one");
}

#[tokio::test]
async fn an_origin_that_cuts_half_of_its_connections_is_not_asked_twice_as_much() {
    const REQUESTS: usize = 400;
    let broken = || {
        let asked = AtomicUsize::new(0);
        Origin::start(move |_| {
            if asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                Reply::script(vec![Piece::Close])
            } else {
                Reply::ok("ok")
            }
        })
    };
    let (one, two) = (broken(), broken());
    let edge = Plan::before(&[one.address, two.address])
        .limits("eject_failures = 1000\neject_share_percent = 100")
        .start();
    let mut failed = 0;
    for number in 0..REQUESTS {
        failed += usize::from(edge.get(&format!("/{number}")).await.status() != 200);
    }
    let attempts = one.requests() + two.requests();
    assert!(attempts > REQUESTS, "something was asked again");
    assert!(attempts <= REQUESTS * 11 / 10 + 5, "{attempts} attempts at {REQUESTS} requests");
    assert!(failed > REQUESTS / 4, "the budget was needed: {failed} failed");
    let retries = edge.metric("atoll_origin_retries_total{origin=\"main\"}").await;
    assert!((retries - (attempts - REQUESTS) as f64).abs() < 0.5, "{retries}");
}

#[tokio::test]
async fn after_a_503_another_server_is_asked_where_policy_says_so() {
    let busy = Origin::serving(Reply::new(503).body("busy"));
    let well = Origin::serving(Reply::ok("well"));
    let edge = Plan::before(&[busy.address, well.address])
        .origin_too("balance = \"round-robin\"")
        .limits("retry_budget_percent = 100\neject_share_percent = 100")
        .rule("/again", "retry_on_status = [502, 503]")
        .start();
    for number in 0..10 {
        assert_eq!(edge.get(&format!("/again/{number}")).await.text(), "well");
    }
    let mut posted = Vec::new();
    let mut plain = Vec::new();
    for number in 0..6 {
        posted.push(edge.post(&format!("/again/post/{number}"), "x").await.status());
    }
    for number in 0..6 {
        plain.push(edge.get(&format!("/plain/{number}")).await.status());
    }
    assert!(posted.contains(&503), "a POST is sent once: {posted:?}");
    assert!(plain.contains(&503), "an answer is an answer: {plain:?}");
    let sent = busy.requests() + well.requests();
    let retries = edge.metric("atoll_origin_retries_total{origin=\"main\"}").await;
    assert!((retries - (sent - 22) as f64).abs() < 0.5, "{retries} of {sent}");
}

/// A server that hangs for a while on each of its requests whose number is a multiple of `every`.
fn now_and_then_slow(every: usize) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::start(move |_| {
        let reply = Reply::ok("ok");
        if asked.fetch_add(1, Ordering::SeqCst) % every == every - 1 {
            reply.before(Piece::Pause(SLOW))
        } else {
            reply
        }
    })
}

const SLOW: Duration = Duration::from_millis(400);

/// Times that requests for new things take, sorted; the first ones, from which the edge learns, not
/// counted.
async fn times(edge: &Edge) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..360 {
        let began = Instant::now();
        edge.get(&format!("/{number}")).await.expect(200, "ok", "fwd=uri-miss");
        if number >= 60 {
            times.push(began.elapsed());
        }
    }
    times.sort_unstable();
    times
}

#[tokio::test]
async fn a_second_request_shortens_the_longest_waits() {
    let (one, two) = (now_and_then_slow(25), Origin::serving(Reply::ok("ok")));
    let plan = || Plan::before(&[one.address, two.address]).origin_too("balance = \"round-robin\"");
    let edge = plan().site("hedge = true").start();
    let hedged = times(&edge).await;
    let requests = one.requests() + two.requests();
    let plain = times(&plan().start()).await;
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    assert!(p99(&plain) >= SLOW, "{:?}", p99(&plain));
    assert!(p99(&hedged) < SLOW / 2, "{:?}", p99(&hedged));
    let hedges = edge.metric("atoll_origin_hedges_total{origin=\"main\"}").await;
    let won = edge.metric("atoll_origin_hedges_won_total{origin=\"main\"}").await;
    assert!(won >= 3.0 && won <= hedges, "{won} of {hedges}");
    assert!(requests <= 360 * 11 / 10 + 5, "{requests} requests");
    let failures = edge.manage("GET", "/metrics", None).await.text().to_owned();
    assert!(!failures.contains("atoll_origin_failures_total{"), "what is dropped has not failed");
}

#[tokio::test]
async fn a_purge_kills_what_the_second_request_brings_too() {
    let slow = Arc::new(AtomicBool::new(false));
    let (first, second) = (Gate::new(), Gate::new());
    let server = |gate: &Gate| {
        let (slow, gate) = (Arc::clone(&slow), gate.clone());
        Origin::start(move |_| {
            let reply = Reply::fresh("old");
            if slow.load(Ordering::SeqCst) { reply.gate(&gate) } else { Reply::fresh("new") }
        })
    };
    let (one, two) = (server(&first), server(&second));
    let edge = Plan::before(&[one.address, two.address])
        .origin_too("balance = \"round-robin\"")
        .site("hedge = true")
        .start();
    for number in 0..60 {
        edge.fill(&format!("/warm/{number}")).await;
    }
    slow.store(true, Ordering::SeqCst);
    let mut client = edge.connect().await;
    client.ask(HOST, "/page", &[]).await;
    first.reached(1).await;
    second.reached(1).await;
    // Both requests are under way, and both are older than the purge.
    edge.purge_path("/page").await;
    slow.store(false, Ordering::SeqCst);
    second.open();
    first.open();
    assert_eq!(client.response("GET").await.text(), "old", "to the one who asked before");
    edge.settled().await;
    assert_eq!(edge.get("/page").await.text(), "new");
}
