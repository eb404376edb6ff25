//! Several endpoints: shares, failures, retries, ejection, probes, backups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::balance::Balance;
use crate::config::Probe;
use crate::message::Body;
use crate::origin::{Manner, Outgoing, SendError};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn probe() -> Probe {
    Probe {
        path: "/health".to_owned(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        rise: 2,
        fall: 2,
        ..Probe::default()
    }
}

#[tokio::test]
async fn several_servers_share_the_load() {
    let (one, two) = (Script::always(OK).await, Script::always(OK).await);
    let side = side(&[one.url(), two.url()]);
    let mut taken = [0, 0];
    for _ in 0..200 {
        let answer = side.get().await.unwrap();
        taken[usize::from(answer.endpoint == two.address)] += 1;
        collect(answer.body).await.unwrap();
    }
    assert!(taken.iter().all(|&count| count > 0), "{taken:?}");
}

#[tokio::test]
async fn a_dead_server_costs_nobody_an_answer_and_is_ejected() {
    let dead = nobody().await;
    let alive = Script::always(OK).await;
    let side = tuned(&[dead, alive.url()], |limits, _| limits.eject_failures = 3);
    for _ in 0..200 {
        let outcome = side.send(request(Method::POST, "/", Body::from("x".to_owned()))).await;
        assert_eq!(status(&outcome), Some(StatusCode::OK));
        collect(outcome.unwrap().body).await.unwrap();
    }
    assert_eq!(side.states(), ["ejected", "up"]);
    let metrics = side.measured();
    assert_eq!(metrics.retries.get(), 3);
    assert_eq!(metrics.ejections.get(), 1);
    assert_eq!(metrics.endpoints_up.get(), 1);
    let status = side.origins.status();
    assert_eq!(status[0].endpoints[0].last_error.as_deref(), Some("connection_refused"));
}

#[tokio::test]
async fn the_last_usable_endpoint_is_never_ejected() {
    let side = tuned(&[nobody().await], |limits, _| limits.circuit_failures = 0);
    for _ in 0..20 {
        assert_eq!(side.get().await.unwrap_err(), SendError::ConnectionRefused);
    }
    assert_eq!(side.states(), ["up"]);
    assert_eq!(side.measured().ejections.get(), 0);
    assert_eq!(side.measured().retries.get(), 0, "there was nowhere else to go");
}

/// Ends every connection after the request without an answer.
async fn mute(requests: &Arc<AtomicUsize>) -> Script {
    let requests = Arc::clone(requests);
    Script::new(move |_, mut stream| {
        let requests = Arc::clone(&requests);
        async move {
            if read_head(&mut stream).await.is_some() {
                requests.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_is_safe_to_repeat_is_repeated_once_and_nothing_else() {
    let (sender, streamed) = by_hand();
    sender.send(Ok(Bytes::from("x"))).await.unwrap();
    let cases = [
        ("idempotent", get("/"), 2),
        ("idempotent with a body", request(Method::PUT, "/", Body::from("x".to_owned())), 2),
        ("not idempotent", request(Method::POST, "/", Body::from("x".to_owned())), 1),
        ("body cannot be sent twice", request(Method::PUT, "/", streamed), 1),
    ];
    for (case, outgoing, expected) in cases {
        let requests = Arc::default();
        let origin = mute(&requests).await;
        let side = side(&[origin.url()]);
        let error = side.send(outgoing).await.unwrap_err();
        assert_eq!(error, SendError::ConnectionTerminated { reused: false }, "{case}");
        assert_eq!(requests.load(Ordering::SeqCst), expected, "{case}");
    }
}

#[tokio::test]
async fn a_request_whose_answer_had_begun_is_not_repeated() {
    let origin = Script::once(b"HTTP/1.1 20").await;
    let side = side(&[origin.url()]);
    let error = side.get().await.unwrap_err();
    assert_eq!(error, SendError::ConnectionTerminated { reused: false });
    assert_eq!(origin.seen(), 1);
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let requests = Arc::default();
    let origin = mute(&requests).await;
    let side = tuned(&[origin.url()], |limits, _| limits.circuit_failures = 0);
    for _ in 0..500 {
        assert!(side.get().await.is_err());
    }
    assert_eq!(side.measured().retries.get(), 55, "five at the start, then a tenth");
    assert_eq!(requests.load(Ordering::SeqCst), 555);
}

#[tokio::test]
async fn an_answer_of_503_is_an_answer() {
    const BAD: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let (one, two) = (Script::always(BAD).await, Script::always(BAD).await);
    let side = side(&[one.url(), two.url()]);
    for _ in 0..40 {
        let answer = side.get().await.unwrap();
        assert_eq!(answer.head.status, StatusCode::SERVICE_UNAVAILABLE);
        collect(answer.body).await.unwrap();
    }
    assert_eq!(side.measured().retries.get(), 0);
    let mut states = side.states();
    states.sort_unstable();
    assert_eq!(states, ["ejected", "up"], "twenty of them are a share, and half of two is one");
}

#[tokio::test]
async fn backups_take_over_only_when_all_others_are_down() {
    let well = Arc::new(AtomicBool::new(true));
    let first = probed(&well).await;
    let backup = Script::always(OK).await;
    let side = tuned(&[first.url(), backup.url()], |_, origin| {
        origin.servers[1].tier = 1;
        origin.probe = Some(probe());
    })
    .in_background();
    for _ in 0..20 {
        assert_eq!(side.get().await.unwrap().endpoint, first.address);
    }
    well.store(false, Ordering::SeqCst);
    until(|| side.states() == ["down", "up"]).await;
    for _ in 0..20 {
        assert_eq!(side.get().await.unwrap().endpoint, backup.address);
    }
    well.store(true, Ordering::SeqCst);
    until(|| side.states() == ["up", "up"]).await;
    assert_eq!(side.get().await.unwrap().endpoint, first.address);
}

/// Answers well to all but probes, which it answers as `well` says.
async fn probed(well: &Arc<AtomicBool>) -> Script {
    let well = Arc::clone(well);
    Script::new(move |_, mut stream| {
        let well = Arc::clone(&well);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                if head.starts_with("GET /health ") && !well.load(Ordering::SeqCst) {
                    let bytes = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
                    let _ = stream.write_all(bytes).await;
                } else {
                    answer(&mut stream, "ok").await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn probes_take_an_endpoint_out_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(false));
    let (sick, healthy) = (probed(&well).await, Script::always(OK).await);
    let side = tuned(&[sick.url(), healthy.url()], |_, origin| origin.probe = Some(probe()))
        .in_background();
    until(|| side.states() == ["down", "up"]).await;
    assert!(side.measured().probes_failed.get() >= 2);
    for _ in 0..50 {
        assert_eq!(side.get().await.unwrap().endpoint, healthy.address);
    }
    well.store(true, Ordering::SeqCst);
    until(|| side.states() == ["up", "up"]).await;
}

#[tokio::test]
async fn when_all_look_down_all_are_used() {
    let well = Arc::new(AtomicBool::new(false));
    let origin = probed(&well).await;
    let side = tuned(&[origin.url()], |_, origin| origin.probe = Some(probe())).in_background();
    until(|| side.states() == ["down"]).await;
    assert!(side.origins.status()[0].panic);
    assert_eq!(side.text().await.unwrap(), "ok");
}

#[tokio::test]
async fn probes_do_not_wait_behind_requests() {
    let well = Arc::new(AtomicBool::new(true));
    let seen = Arc::new(AtomicUsize::new(0));
    let (count, health) = (Arc::clone(&seen), Arc::clone(&well));
    let origin = Script::new(move |_, mut stream| {
        let (count, _health) = (Arc::clone(&count), Arc::clone(&health));
        async move {
            let head = read_head(&mut stream).await.unwrap_or_default();
            if head.starts_with("GET /health ") {
                count.fetch_add(1, Ordering::SeqCst);
                answer(&mut stream, "ok").await;
            } else {
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    let side = tuned(&[origin.url()], |limits, origin| {
        limits.origin_connections = 1;
        origin.probe = Some(probe());
    })
    .in_background();
    let stuck = side.worker.send(0, 0, get("/"), |_| {});
    tokio::select! {
        _ = stuck => panic!("never answered"),
        () = until(|| seen.load(Ordering::SeqCst) >= 5) => {}
    }
}

#[tokio::test]
async fn localhost_is_reached_in_whichever_family_it_listens() {
    let origin = Script::always(OK).await;
    let side = side(&[format!("http://localhost:{}", origin.address.port())]);
    for _ in 0..30 {
        assert_eq!(side.text().await.unwrap(), "ok");
    }
    assert_eq!(side.measured().retries.get(), 0, "the race is no retry");
}

/// Answers whom it is asked by, in turn, twelve times.
async fn asked(side: &Side, affinity: Option<u64>) -> Vec<std::net::SocketAddr> {
    let mut endpoints = Vec::new();
    for _ in 0..12 {
        let manner = Manner { affinity, ..Manner::default() };
        let answer = side.send(Outgoing { manner, ..get("/") }).await.unwrap();
        endpoints.push(answer.endpoint);
        collect(answer.body).await.unwrap();
    }
    endpoints
}

#[tokio::test]
async fn in_turn_is_in_turn() {
    let (one, two) = (Script::always(OK).await, Script::always(OK).await);
    let side = tuned(&[one.url(), two.url()], |_, origin| {
        origin.balance = Balance::RoundRobin;
        origin.servers[0].weight = 2;
    });
    let endpoints = asked(&side, None).await;
    assert_eq!(endpoints.iter().filter(|&&endpoint| endpoint == one.address).count(), 8);
    assert!(endpoints.windows(2).all(|pair| pair.contains(&one.address)), "{endpoints:?}");
}

#[tokio::test]
async fn what_is_alike_goes_to_one_server_and_to_another_when_that_is_gone() {
    let (one, two) = (Script::always(OK).await, Script::always(OK).await);
    let hashed = |servers: &[String]| {
        tuned(servers, |_, origin| origin.balance = Balance::Hash { bound: 2.0 })
    };
    let side = hashed(&[one.url(), two.url()]);
    let mut homes = Vec::new();
    for affinity in 0..40 {
        let endpoints = asked(&side, Some(affinity)).await;
        assert!(endpoints.iter().all(|endpoint| *endpoint == endpoints[0]), "{endpoints:?}");
        homes.push(endpoints[0]);
    }
    assert!(homes.contains(&one.address) && homes.contains(&two.address));
    let turned_around = hashed(&[two.url(), one.url()]);
    for (affinity, home) in (0..).zip(&homes).take(5) {
        assert_eq!(asked(&turned_around, Some(affinity)).await[0], *home, "on every node");
    }
    let dead = hashed(&[one.url(), nobody().await]);
    assert_eq!(asked(&dead, Some(3)).await, [one.address; 12]);
}

#[tokio::test]
async fn near_servers_are_asked_while_they_have_room() {
    let (far, near) = (Script::always(OK).await, Script::always(OK).await);
    let side = tuned(&[far.url(), near.url()], |_, origin| {
        origin.servers[1].near = true;
        origin.near_in_flight = 1;
    });
    assert_eq!(asked(&side, None).await, [near.address; 12]);
    let hung = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let side = tuned(&[far.url(), hung.url()], |_, origin| {
        origin.servers[1].near = true;
        origin.near_in_flight = 1;
    });
    let stuck = side.worker.send(0, 0, get("/"), |_| {});
    tokio::select! {
        _ = stuck => panic!("never answered"),
        () = async {
            until(|| hung.seen() == 1).await;
            assert_eq!(asked(&side, None).await, [far.address; 12], "the near one has enough");
        } => {}
    }
}

#[tokio::test]
async fn tiers_are_used_one_after_the_other() {
    let (last, middle) = (Script::always(OK).await, Script::always(OK).await);
    let well = Arc::new(AtomicBool::new(true));
    let first = probed(&well).await;
    let side = tuned(&[last.url(), middle.url(), first.url()], |_, origin| {
        origin.servers[0].tier = 2;
        origin.servers[1].tier = 1;
        origin.probe = Some(probe());
    })
    .in_background();
    assert_eq!(asked(&side, None).await, [first.address; 12]);
    well.store(false, Ordering::SeqCst);
    until(|| side.states() == ["up", "up", "down"]).await;
    assert_eq!(asked(&side, None).await, [middle.address; 12]);
}
