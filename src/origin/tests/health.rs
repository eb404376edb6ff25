//! When an origin is not asked, what an operator says of its endpoints, and what outlives them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::clock;
use crate::config::Probe;
use crate::health::{Observed, Order};
use crate::origin::{SendError, UnknownEndpoint};
use crate::store::What;

/// Answers while it is well, and else hangs up when it has read a request. Counts the requests, and
/// how many were under way at most.
struct Moody {
    script: Script,
    well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Moody {
    async fn new() -> Self {
        let (well, asked, most) = (Arc::default(), Arc::default(), Arc::default());
        let now = Arc::new(AtomicUsize::new(0));
        let parts: (Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>) =
            (Arc::clone(&well), Arc::clone(&asked), Arc::clone(&most));
        let script = Script::new(move |_, mut stream| {
            let ((well, asked, most), now) = (parts.clone(), Arc::clone(&now));
            async move {
                while read_head(&mut stream).await.is_some() {
                    asked.fetch_add(1, Ordering::SeqCst);
                    if !well.load(Ordering::SeqCst) {
                        return;
                    }
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    answer(&mut stream, "ok").await;
                }
            }
        })
        .await;
        Self { script, well, asked, most }
    }

    fn be(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An edge's side that gives up after three failures and tries again after so many milliseconds.
fn cautious(servers: &[String], retry: u64) -> Arc<Side> {
    Arc::new(tuned(servers, |limits, _| {
        limits.retries = 0;
        limits.circuit_failures = 3;
        limits.circuit_retry = Duration::from_millis(retry);
        limits.origin_connections = 64;
    }))
}

fn circuit(side: &Side) -> &'static str {
    side.origins.status()[0].circuit
}

#[tokio::test]
async fn who_does_not_answer_is_not_asked_but_now_and_then() {
    let origin = Moody::new().await;
    let side = cautious(&[origin.script.url()], 200);
    for _ in 0..3 {
        let error = side.get().await.unwrap_err();
        assert_eq!(error, SendError::ConnectionTerminated { reused: false });
    }
    assert_eq!(circuit(&side), "open");
    let status = &side.origins.status()[0];
    assert!(!status.healthy);
    assert_eq!(status.endpoints[0].state, "up", "the last one is never ejected");
    let begun = clock::now().boot;
    let mut refused = 0;
    while origin.asked() < 5 {
        let outcome = side.get().await;
        refused += usize::from(outcome.unwrap_err() == SendError::DestinationUnavailable);
        tokio::task::yield_now().await;
    }
    let passed = clock::now().boot - begun;
    assert!(passed >= Duration::from_millis(380), "two trials after {passed:?}");
    assert!(refused > 10, "{refused}");
    assert_eq!(side.measured().breaker.opened.get(), 1);
    let told: Vec<String> = side
        .events
        .since(0, 100)
        .events
        .iter()
        .filter_map(|event| match &event.what {
            What::Origin { state, why, .. } => Some(format!("{state} {why:?}")),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["circuit-open Some(\"connection_terminated\")"]);
}

#[tokio::test]
async fn what_comes_back_is_not_run_over() {
    let origin = Moody::new().await;
    let side = cautious(&[origin.script.url()], 100);
    while circuit(&side) != "open" {
        let _ = side.get().await;
    }
    origin.be(true);
    until(|| side.origins.status()[0].circuit == "open").await;
    // Sixty visitors who do not give up, all the time.
    let load = |side: &Arc<Side>| {
        let side = Arc::clone(side);
        tokio::spawn(async move {
            let mut widest = 0;
            while circuit(&side) != "closed" {
                let recovering = circuit(&side) == "recovering";
                if side.text().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if recovering {
                    widest = widest.max(side.origins.status()[0].in_flight);
                }
            }
            widest
        })
    };
    let visitors: Vec<_> = (0..60).map(|_| load(&side)).collect();
    // The first answers come to one, then two, then three: never sixty at once.
    until(|| origin.most.load(Ordering::SeqCst) >= 2).await;
    let (most, answered) = (origin.most.load(Ordering::SeqCst), origin.asked());
    assert!(most <= answered, "{most} at once after {answered} requests");
    for visitor in visitors {
        visitor.await.unwrap();
    }
    assert!(origin.most.load(Ordering::SeqCst) > 8, "and then it takes up its load");
    assert_eq!(circuit(&side), "closed");
    assert_eq!(side.measured().breaker.open.get(), 0);
}

#[tokio::test]
async fn those_who_wait_are_told_at_once_when_the_circuit_opens() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let side = Arc::new(tuned(&[origin.url()], |limits, _| {
        limits.retries = 0;
        limits.origin_connections = 2;
        limits.circuit_failures = 2;
        limits.circuit_retry = Duration::from_secs(100);
        limits.origin_queue_wait = Duration::from_secs(100);
    }));
    let all: Vec<_> = (0..20)
        .map(|_| {
            let side = Arc::clone(&side);
            tokio::spawn(async move { side.get().await.map(|_| ()).unwrap_err() })
        })
        .collect();
    let mut errors = Vec::new();
    for one in all {
        errors.push(soon(one).await.unwrap());
    }
    let refused = errors.iter().filter(|error| **error == SendError::DestinationUnavailable);
    assert!(refused.count() >= 16, "{errors:?}");
    assert_eq!(side.measured().queued.get(), 0);
    assert!(origin.seen() <= 4, "{}", origin.seen());
}

#[tokio::test]
async fn one_that_answers_keeps_the_circuit_closed() {
    let alive = Script::always(b"HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n").await;
    let dead = nobody().await;
    let side = cautious(&[dead, alive.url()], 60_000);
    for _ in 0..60 {
        let _ = side.get().await;
    }
    assert_eq!(circuit(&side), "closed", "an answer of 500 is an answer");
    let odd = Script::always(b"SSH-2.0-x\r\n\r\n").await;
    let side = cautious(&[odd.url()], 60_000);
    for _ in 0..60 {
        let error = side.get().await.unwrap_err();
        assert!(matches!(error, SendError::HttpProtocolError(_)), "{error}");
    }
    assert_eq!(circuit(&side), "closed", "it is there, if not for us");
}

#[tokio::test]
async fn a_new_address_is_tried_at_once() {
    let origin = Script::always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let side = cautious(&[nobody().await], 60_000);
    for _ in 0..3 {
        let _ = side.get().await;
    }
    assert_eq!(circuit(&side), "open");
    assert_eq!(side.get().await.unwrap_err(), SendError::DestinationUnavailable);
    let own = side.origins.origin(0).unwrap();
    let now = clock::now().boot;
    let gone = own.endpoints()[0].address;
    own.apply(0, &own.targets(0, &[gone.ip(), IpAddr::from([127, 0, 0, 2])]), now);
    let error = side.get().await.unwrap_err();
    assert_eq!(error, SendError::ConnectionRefused, "one goes on trial at once");
    drop(origin);
}

#[tokio::test]
async fn an_operator_takes_endpoints_out_and_leaves_them_to_their_health_again() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (one, two) = (Script::always(OK).await, Script::always(OK).await);
    let side = side(&[one.url(), two.url()]);
    let order = |address, order| side.origins.order("o", address, order).map(|_| ());
    assert_eq!(order(one.address, Order::Drain), Ok(()));
    assert_eq!(side.states(), ["drain", "up"]);
    for _ in 0..50 {
        assert_eq!(side.get().await.unwrap().endpoint, two.address);
    }
    assert_eq!(order(two.address, Order::Down), Ok(()));
    assert_eq!(side.states(), ["drain", "down"]);
    let status = &side.origins.status()[0];
    assert!(!status.healthy && !status.panic, "it is an order and no alarm");
    assert_eq!(side.get().await.unwrap_err(), SendError::DestinationUnavailable);
    assert_eq!(order(one.address, Order::Auto), Ok(()));
    for _ in 0..20 {
        assert_eq!(side.get().await.unwrap().endpoint, one.address);
    }
    let share = side.origins.status()[0].endpoints[0].share;
    assert!(share < 0.5, "its load comes back slowly: {share}");
    let stranger = "192.0.2.1:1".parse().unwrap();
    assert_eq!(order(stranger, Order::Down), Err(UnknownEndpoint::Address));
    let other = side.origins.order("other", one.address, Order::Down);
    assert_eq!(other.map(|_| ()), Err(UnknownEndpoint::Origin));
}

#[tokio::test]
async fn the_only_endpoint_may_be_taken_out_and_what_runs_is_finished() {
    let origin = Script::new(|_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = stream.write_all(b"cd").await;
        }
    })
    .await;
    let side = side(&[origin.url()]);
    let begun = side.get().await.unwrap();
    side.origins.order("o", origin.address, Order::Drain).unwrap();
    assert_eq!(side.get().await.unwrap_err(), SendError::DestinationUnavailable);
    assert_eq!(collect(begun.body).await.unwrap(), b"abcd");
    until(|| side.worker.idle() == 0).await;
    side.origins.order("o", origin.address, Order::Auto).unwrap();
    assert_eq!(side.text().await.unwrap(), "abcd");
}

/// Addresses of the first origin in use, with their state and order.
fn stand(side: &Side) -> Vec<(IpAddr, &'static str)> {
    let status = side.origins.status();
    status[0].endpoints.iter().map(|one| (one.address.ip(), one.state)).collect()
}

#[tokio::test]
async fn an_order_holds_while_the_address_comes_and_goes() {
    let side = side(&["http://shop.invalid:80".to_owned()]);
    let own = side.origins.origin(0).unwrap();
    let [one, two, three] = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
    let now = clock::now().boot;
    own.apply(0, &own.targets(0, &[one, two]), now);
    let address = std::net::SocketAddr::new(one, 80);
    side.origins.order("o", address, Order::Down).unwrap();
    own.apply(0, &own.targets(0, &[two, three]), now);
    assert_eq!(stand(&side), [(two, "up"), (three, "up")]);
    let absent = &side.origins.status()[0].absent;
    assert_eq!(
        absent.iter().map(|one| (one.address, one.order)).collect::<Vec<_>>(),
        [(address, "down")]
    );
    own.apply(0, &own.targets(0, &[one, two]), now);
    assert_eq!(stand(&side), [(two, "up"), (one, "down")]);
    // Lifted while it is away.
    own.apply(0, &own.targets(0, &[two]), now);
    side.origins.order("o", address, Order::Auto).unwrap();
    own.apply(0, &own.targets(0, &[one, two]), now);
    assert_eq!(stand(&side), [(two, "up"), (one, "up")]);
    assert!(side.origins.status()[0].endpoints[1].share < 0.2, "it starts slowly");
}

#[tokio::test]
async fn a_new_configuration_takes_over_what_is_known() {
    let servers = ["http://127.0.0.1:81", "http://127.0.0.1:82", "http://shop.invalid:80"];
    let servers = servers.map(str::to_owned);
    let old = side(&servers);
    let now = clock::now().boot;
    let own = old.origins.origin(0).unwrap();
    let named = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
    own.apply(2, &own.targets(2, &named), now);
    own.apply(2, &own.targets(2, &named[..1]), now);
    let at = |address: &str| address.parse().unwrap();
    old.origins.order("o", at("127.0.0.1:81"), Order::Drain).unwrap();
    old.origins.order("o", at("192.0.2.2:80"), Order::Down).unwrap();
    let second = Arc::clone(&own.endpoints()[1]);
    own.observe(&second, Observed::BadStatus, Some(Duration::from_millis(7)), now);
    for _ in 0..5 {
        own.observe(&second, Observed::Failure, None, now);
    }
    assert_eq!(old.states(), ["drain", "ejected", "up"]);

    // The same in another order, one of them new, one gone.
    let new = side(&[servers[2].clone(), "http://127.0.0.1:83".to_owned(), servers[1].clone()]);
    new.origins.adopt(&old.origins);
    let mut stood = stand(&new);
    stood.sort_unstable();
    let local = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(stood, [(local, "ejected"), (local, "up"), (named[0], "up")]);
    let status = &new.origins.status()[0];
    let shares: Vec<f64> = status.endpoints.iter().map(|one| one.share).collect();
    assert_eq!(shares, [1.0; 3], "what stays does not start anew");
    assert_eq!(status.absent.len(), 1);
    assert!(new.worker.send(0, 0, get("/"), |_| {}).await.is_err(), "it needs no DNS first");
    // What is still under way there counts here.
    old.origins.order("o", at("127.0.0.1:82"), Order::Down).unwrap();
    assert!(stand(&new).contains(&(local, "down")));
}

#[tokio::test]
async fn an_open_circuit_stays_open_in_a_new_configuration() {
    let servers = [nobody().await];
    let (old, new) = (cautious(&servers, 60_000), cautious(&servers, 60_000));
    for _ in 0..3 {
        let _ = old.get().await;
    }
    new.origins.adopt(&old.origins);
    assert_eq!(circuit(&new), "open");
    assert_eq!(new.get().await.unwrap_err(), SendError::DestinationUnavailable);
}

/// Answers every request with these bytes, cut in two, and counts them.
async fn telling(bytes: &'static [u8], asked: &Arc<AtomicUsize>) -> Script {
    let asked = Arc::clone(asked);
    Script::new(move |_, mut stream| {
        let asked = Arc::clone(&asked);
        async move {
            while read_head(&mut stream).await.is_some() {
                asked.fetch_add(1, Ordering::SeqCst);
                let (first, second) = bytes.split_at(bytes.len() - 4);
                let _ = stream.write_all(first).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                let _ = stream.write_all(second).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn probes_ask_for_a_status_and_a_body_or_for_a_connection_alone() {
    const READY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nis ready";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        6\r\nis rea\r\n2\r\ndy\r\n0\r\n\r\n";
    const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nis ready";
    const ASLEEP: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nasleep";
    const BUSY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy";
    const NO_HTTP: &[u8] = b"SSH-2.0-x\r\n\r\n";
    let with = |status: &[std::ops::RangeInclusive<u16>], body: Option<&str>, tcp| Probe {
        tcp,
        status: status.to_vec(),
        body: body.map(str::to_owned),
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 2,
        ..Probe::default()
    };
    for (case, answers, probe, well) in [
        ("200", READY, with(&[], None, false), true),
        ("429", BUSY, with(&[], None, false), false),
        ("429 is well, too", BUSY, with(&[200..=299, 429..=429], None, false), true),
        ("200 is not", READY, with(&[204..=299], None, false), false),
        ("a body", READY, with(&[], Some("ready"), false), true),
        ("a body in chunks", CHUNKED, with(&[], Some("is ready"), false), true),
        ("a body until the end", CLOSED, with(&[], Some("ready"), false), true),
        ("another body", ASLEEP, with(&[], Some("ready"), false), false),
        ("no HTTP", NO_HTTP, with(&[], None, false), false),
        ("a connection is enough", NO_HTTP, with(&[], None, true), true),
    ] {
        let asked = Arc::default();
        let origin = telling(answers, &asked).await;
        let side = tuned(&[origin.url()], |_, own| own.probe = Some(probe)).in_background();
        let measured = side.measured();
        let probes = &measured.breaker.probes;
        until(|| probes.get() >= 4).await;
        assert_eq!(side.states(), [if well { "up" } else { "down" }], "{case}");
    }
}

#[tokio::test]
async fn a_body_without_an_end_is_read_for_a_while_only() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
    })
    .await;
    let probe = Probe {
        body: Some("ready".to_owned()),
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(10),
        fall: 1,
        ..Probe::default()
    };
    let side = tuned(&[origin.url()], |_, own| own.probe = Some(probe)).in_background();
    until(|| side.states() == ["down"]).await;
    let error = side.origins.status()[0].endpoints[0].last_error.clone().unwrap();
    assert!(error.ends_with("probe answered with another body"), "{error}");
}

#[tokio::test]
async fn an_address_that_comes_and_goes_is_not_probed_more_often() {
    let asked = Arc::default();
    let origin = telling(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", &asked).await;
    let probe = Probe { interval: Duration::from_millis(400), ..Probe::default() };
    let side = tuned(&[origin.url()], |_, own| own.probe = Some(probe)).in_background();
    let own = side.origins.origin(0).unwrap();
    let now = clock::now().boot;
    until(|| asked.load(Ordering::SeqCst) == 1).await;
    let begun = clock::now().boot;
    while asked.load(Ordering::SeqCst) < 3 {
        own.apply(0, &own.targets(0, &[]), now);
        own.apply(0, &own.targets(0, &[origin.address.ip()]), now);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let passed = clock::now().boot - begun;
    assert!(passed >= Duration::from_millis(780), "two more after {passed:?}");
    side.origins.order("o", origin.address, Order::Down).unwrap();
    let count = asked.load(Ordering::SeqCst);
    let mut later = tokio::time::interval(Duration::from_millis(500));
    later.tick().await;
    later.tick().await;
    assert!(asked.load(Ordering::SeqCst) <= count + 1, "an operator wants none");
}
