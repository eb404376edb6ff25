//! Second attempts: after an answer that policy does not want, and beside a first one that is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::balance::Balance;
use crate::message::Body;
use crate::origin::{Manner, Outgoing, SendError};
use crate::semantics::RetryOn;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

fn trying_again(request: Outgoing) -> Outgoing {
    let retry_on = RetryOn::of(&[503]).unwrap();
    Outgoing { manner: Manner { retry_on, ..Manner::default() }, ..request }
}

fn hedged(request: Outgoing) -> Outgoing {
    Outgoing { manner: Manner { hedge: true, ..Manner::default() }, ..request }
}

/// An origin that answers at once until it is told to be silent, and counts what it is asked.
struct Moody {
    script: Script,
    silent: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Moody {
    async fn answering(bytes: &'static [u8]) -> Self {
        let (silent, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (quiet, count) = (Arc::clone(&silent), Arc::clone(&asked));
        let script = Script::new(move |_, mut stream| {
            let (quiet, count) = (Arc::clone(&quiet), Arc::clone(&count));
            async move {
                while read_head(&mut stream).await.is_some() {
                    count.fetch_add(1, Ordering::SeqCst);
                    if quiet.load(Ordering::SeqCst) {
                        // Until the other side gives up.
                        let _ = read_head(&mut stream).await;
                        return;
                    }
                    let _ = stream.write_all(bytes).await;
                }
            }
        })
        .await;
        Self { script, silent, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn be_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }
}

/// Two servers in turn, both warm: how long answers take is known.
async fn warm(one: &Moody, two: &Moody, budget: u32) -> Side {
    let side = tuned(&[one.script.url(), two.script.url()], |limits, origin| {
        origin.balance = Balance::RoundRobin;
        limits.retry_budget_percent = budget;
        limits.eject_failures = 1000;
    });
    for _ in 0..60 {
        let answer = side.send(hedged(get("/"))).await.unwrap();
        collect(answer.body).await.unwrap();
    }
    side
}

#[tokio::test]
async fn an_unwanted_status_is_asked_for_elsewhere_where_that_is_safe() {
    let cases = [
        ("policy says so", trying_again(get("/")), StatusCode::OK),
        ("no policy", get("/"), StatusCode::SERVICE_UNAVAILABLE),
        (
            "not idempotent",
            trying_again(request(Method::POST, "/", Body::Empty)),
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (
            "a body that can be sent again",
            trying_again(request(Method::PUT, "/", Body::from("x".to_owned()))),
            StatusCode::OK,
        ),
        (
            "a body that cannot",
            trying_again(request(Method::PUT, "/", by_hand().1)),
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    ];
    for (case, outgoing, expected) in cases {
        let (busy, well) = (Script::always(BUSY).await, Script::always(OK).await);
        let side = tuned(&[busy.url(), well.url()], |_, origin| {
            origin.balance = Balance::RoundRobin;
        });
        let outcome = side.send(outgoing).await;
        assert_eq!(status(&outcome), Some(expected), "{case}");
        assert_eq!(well.seen(), usize::from(expected == StatusCode::OK), "{case}");
    }
}

#[tokio::test]
async fn an_unwanted_answer_stands_where_there_is_no_other() {
    let busy = Script::always(BUSY).await;
    for (case, servers) in
        [("alone", vec![busy.url()]), ("the other is dead", vec![busy.url(), nobody().await])]
    {
        let side = tuned(&servers, |_, origin| origin.balance = Balance::RoundRobin);
        let answer = side.send(trying_again(get("/"))).await.unwrap();
        assert_eq!(answer.head.status, StatusCode::SERVICE_UNAVAILABLE, "{case}");
        assert_eq!(collect(answer.body).await.unwrap(), b"busy", "{case}");
    }
}

#[tokio::test]
async fn unwanted_answers_are_asked_for_again_within_the_budget() {
    let (one, two) = (Moody::answering(BUSY).await, Moody::answering(BUSY).await);
    let side = tuned(&[one.script.url(), two.script.url()], |limits, _| {
        limits.eject_share_percent = 100;
    });
    for _ in 0..500 {
        let answer = side.send(trying_again(get("/"))).await.unwrap();
        collect(answer.body).await.unwrap();
    }
    assert_eq!(side.measured().retries.get(), 55, "five at the start, then a tenth");
    assert_eq!(one.asked() + two.asked(), 555);
}

#[tokio::test]
async fn a_long_unwanted_answer_is_not_read_to_its_end() {
    let long = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000000000\r\n\r\n";
        let _ = stream.write_all(head).await;
        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let well = Script::always(OK).await;
    let side = tuned(&[long.url(), well.url()], |_, origin| origin.balance = Balance::RoundRobin);
    let answer = side.send(trying_again(get("/"))).await.unwrap();
    assert_eq!(collect(answer.body).await.unwrap(), b"ok");
    until(|| side.measured().in_flight.get() == 0).await;
}

#[tokio::test]
async fn a_slow_first_attempt_is_overtaken_by_a_second_one() {
    let (slow, well) = (Moody::answering(OK).await, Moody::answering(OK).await);
    let side = warm(&slow, &well, 10).await;
    slow.be_silent();
    for _ in 0..4 {
        let answer = side.send(hedged(get("/"))).await.unwrap();
        assert_eq!(answer.endpoint, well.script.address);
        collect(answer.body).await.unwrap();
    }
    let metrics = side.measured();
    assert!(metrics.hedges_won.get() >= 2, "the slow server has had its turn");
    assert_eq!(side.states(), ["up", "up"], "what is given up is no failure");
    assert_eq!(metrics.retries.get(), 0);
    assert!(side.origins.status()[0].endpoints[0].ewma_ms > Some(4.0), "but it is known as slow");
    until(|| metrics.in_flight.get() == 0 && metrics.connections_open.get() <= 2).await;
}

#[tokio::test]
async fn hedges_stay_within_the_budget_and_are_never_more_than_one() {
    let (one, two) = (Moody::answering(OK).await, Moody::answering(OK).await);
    let side = tuned(&[one.script.url(), two.script.url()], |limits, origin| {
        origin.balance = Balance::RoundRobin;
        limits.origin_first_byte = Duration::from_millis(60);
        limits.eject_failures = 1000;
        limits.eject_share_percent = 100;
    });
    for _ in 0..60 {
        let answer = side.send(hedged(get("/"))).await.unwrap();
        collect(answer.body).await.unwrap();
    }
    let (asked, before) = (one.asked() + two.asked(), side.measured().hedges.get());
    one.be_silent();
    two.be_silent();
    for _ in 0..40 {
        assert_eq!(side.send(hedged(get("/"))).await.unwrap_err(), SendError::HttpResponseTimeout);
    }
    let metrics = side.measured();
    let hedges = usize::try_from(metrics.hedges.get() - before).unwrap();
    assert!((1..=15).contains(&hedges), "eleven saved up, and a tenth of forty: {hedges}");
    assert_eq!(one.asked() + two.asked() - asked, 40 + hedges);
    assert_eq!(metrics.retries.get(), 0, "a timeout is not asked for again");
}

#[tokio::test]
async fn what_must_not_be_sent_twice_is_not_hedged() {
    let (slow, well) = (Moody::answering(OK).await, Moody::answering(OK).await);
    let side = warm(&slow, &well, 100).await;
    let before = side.measured().hedges.get();
    slow.be_silent();
    for (case, outgoing) in [
        ("no policy", get("/")),
        ("not idempotent", hedged(request(Method::POST, "/", Body::Empty))),
        ("with a body", hedged(request(Method::PUT, "/", Body::from("x".to_owned())))),
    ] {
        let asked = slow.asked();
        let answer = side.worker.send(0, 0, outgoing, |_| {});
        tokio::select! {
            _ = answer => panic!("{case}: nobody answers"),
            () = until(|| slow.asked() > asked) => {}
        }
        // The other server's turn comes between.
        collect(side.send(get("/")).await.unwrap().body).await.unwrap();
    }
    assert_eq!(side.measured().hedges.get(), before);
}

#[tokio::test]
async fn a_second_attempt_that_fails_fast_does_not_beat_a_first_one_that_works() {
    let gate = Arc::new(AtomicBool::new(false));
    let slow = Arc::new(AtomicBool::new(false));
    let (wait, open) = (Arc::clone(&slow), Arc::clone(&gate));
    let works = Script::new(move |_, mut stream| {
        let (wait, open) = (Arc::clone(&wait), Arc::clone(&open));
        async move {
            while read_head(&mut stream).await.is_some() {
                if wait.load(Ordering::SeqCst) {
                    until(|| open.load(Ordering::SeqCst)).await;
                }
                let _ = stream.write_all(OK).await;
            }
        }
    })
    .await;
    let fails = Arc::new(AtomicBool::new(false));
    let (broken, open) = (Arc::clone(&fails), Arc::clone(&gate));
    let other = Script::new(move |_, mut stream| {
        let (broken, open) = (Arc::clone(&broken), Arc::clone(&open));
        async move {
            while read_head(&mut stream).await.is_some() {
                if broken.load(Ordering::SeqCst) {
                    let _ = stream.write_all(BUSY).await;
                    open.store(true, Ordering::SeqCst);
                } else {
                    let _ = stream.write_all(OK).await;
                }
            }
        }
    })
    .await;
    let side = tuned(&[works.url(), other.url()], |_, origin| {
        origin.balance = Balance::RoundRobin;
    });
    for _ in 0..60 {
        let answer = side.send(hedged(get("/"))).await.unwrap();
        collect(answer.body).await.unwrap();
    }
    slow.store(true, Ordering::SeqCst);
    fails.store(true, Ordering::SeqCst);
    let answer = side.send(hedged(get("/"))).await.unwrap();
    assert_eq!((answer.head.status, answer.endpoint), (StatusCode::OK, works.address));
}

#[tokio::test]
async fn a_hedge_takes_no_place_that_another_needs() {
    let (slow, well) = (Moody::answering(OK).await, Moody::answering(OK).await);
    let side = tuned(&[slow.script.url(), well.script.url()], |limits, origin| {
        origin.balance = Balance::RoundRobin;
        limits.origin_connections = 1;
        limits.origin_first_byte = Duration::from_secs(2);
    });
    for _ in 0..60 {
        let answer = side.send(hedged(get("/"))).await.unwrap();
        collect(answer.body).await.unwrap();
    }
    slow.be_silent();
    assert_eq!(side.send(hedged(get("/"))).await.unwrap_err(), SendError::HttpResponseTimeout);
    assert_eq!(side.measured().hedges.get(), 0);
}
