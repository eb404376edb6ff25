//! Connections: kept, checked, capped, aged; places and the queue before them; TLS.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Notify};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::support::*;
use crate::message::Body;
use crate::origin::{Hop, Outgoing, SendError};

#[tokio::test]
async fn a_connection_is_used_again_and_again() {
    let origin = Script::always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let side = side(&[origin.url()]);
    for _ in 0..100 {
        assert_eq!(side.text().await.unwrap(), "ok");
    }
    assert_eq!(origin.seen(), 1);
    let metrics = side.measured();
    assert_eq!(metrics.connections_opened.get(), 1);
    assert_eq!(metrics.connections_reused.get(), 99);
    assert_eq!(metrics.connections_open.get(), 1);
}

#[tokio::test]
async fn two_sites_never_share_a_connection() {
    let origin = Script::always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let side = side(&[origin.url()]);
    for site in [0, 1, 0, 1] {
        let answer = soon(side.worker.send(0, site, get("/"), |_| {})).await.unwrap();
        collect(answer.body).await.unwrap();
    }
    assert_eq!(origin.seen(), 2);
    assert_eq!(side.worker.idle(), 2);
}

#[tokio::test]
async fn a_connection_that_either_side_ends_is_not_kept() {
    let cases: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ];
    for bytes in cases {
        let origin = Script::once(bytes).await;
        let side = side(&[origin.url()]);
        assert_eq!(side.text().await.unwrap(), "ok");
        assert_eq!(side.worker.idle(), 0);
    }
}

#[tokio::test]
async fn idle_connections_are_capped_and_grow_old() {
    let barrier = Arc::new(Barrier::new(4));
    let origin = Script::new(move |_, mut stream| {
        let barrier = Arc::clone(&barrier);
        async move {
            while read_head(&mut stream).await.is_some() {
                barrier.wait().await;
                answer(&mut stream, "ok").await;
            }
        }
    })
    .await;
    let side = tuned(&[origin.url()], |limits, _| {
        limits.origin_idle_connections = 2;
        limits.origin_idle = Duration::from_millis(50);
    });
    let (one, two, three, four) = tokio::join!(side.text(), side.text(), side.text(), side.text());
    for text in [one, two, three, four] {
        assert_eq!(text.unwrap(), "ok");
    }
    assert_eq!(side.worker.idle(), 2);
    until(|| side.worker.idle() == 0).await;
    assert_eq!(side.measured().connections_open.get(), 0);
}

#[tokio::test]
async fn a_connection_past_its_age_is_closed_after_its_request() {
    let origin = Script::always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let side = tuned(&[origin.url()], |limits, _| {
        limits.origin_connection_age = Duration::ZERO;
    });
    side.text().await.unwrap();
    assert_eq!(side.worker.idle(), 0);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced_without_anyone_noticing() {
    let origin = Script::once(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let side = side(&[origin.url()]);
    for _ in 0..5 {
        let answer = side.send(request(Method::POST, "/", Body::from("x".to_owned()))).await;
        collect(answer.unwrap().body).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(side.measured().retries.get(), 0, "found out before it was used");
}

#[tokio::test]
async fn places_are_capped_with_a_queue_before_them() {
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let origin = Script::new(move |_, mut stream| {
        let waits = Arc::clone(&waits);
        async move {
            while read_head(&mut stream).await.is_some() {
                waits.notified().await;
                answer(&mut stream, "ok").await;
            }
        }
    })
    .await;
    let side = Arc::new(tuned(&[origin.url()], |limits, _| {
        limits.origin_connections = 1;
        limits.origin_queue = 1;
        limits.origin_queue_wait = Duration::from_secs(10);
    }));
    let spawn = || {
        let side = Arc::clone(&side);
        tokio::spawn(async move { side.text().await })
    };
    let first = spawn();
    until(|| origin.seen() == 1).await;
    let second = spawn();
    until(|| side.origins.status()[0].queued == 1).await;
    assert_eq!(side.get().await.unwrap_err(), SendError::ConnectionLimitReached, "queue is full");
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap(), "ok");
    go.notify_one();
    assert_eq!(second.await.unwrap().unwrap(), "ok");
    assert_eq!(side.measured().in_flight.get(), 0);
}

#[tokio::test]
async fn who_asks_for_what_hangs_leaves_places_to_others() {
    let origin = Script::new(|_, mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            if head.contains("/hangs") {
                std::future::pending::<()>().await;
            }
            answer(&mut stream, "ok").await;
        }
    })
    .await;
    let side = Arc::new(tuned(&[origin.url()], |limits, _| {
        limits.origin_connections = 8;
        limits.origin_client_percent = 50;
        limits.origin_queue = 8;
        limits.origin_queue_wait = Duration::from_millis(50);
    }));
    let hanging: Vec<_> = (0..8)
        .map(|_| {
            let side = Arc::clone(&side);
            tokio::spawn(async move { side.send(from("192.0.2.1", "/hangs")).await })
        })
        .collect();
    let refused = || hanging.iter().filter(|one| one.is_finished()).count();
    until(|| refused() == 4).await;
    assert_eq!(side.origins.status()[0].in_flight, 4, "the others are at the origin");
    for other in ["192.0.2.2", "2001:db8::2", "127.0.0.1"] {
        let answer = side.send(from(other, "/")).await.unwrap();
        assert_eq!(collect(answer.body).await.unwrap(), b"ok", "{other}");
    }
    let outcome = side.send(from("192.0.2.1", "/")).await;
    assert_eq!(outcome.unwrap_err(), SendError::ConnectionLimitReached, "has its share");
}

/// A request of the client at `address`.
fn from(address: &str, target: &str) -> Outgoing {
    let end = SocketAddr::new(address.parse().unwrap(), 1);
    Outgoing { hop: Some(Hop { from: end, to: end }), ..get(target) }
}

#[tokio::test]
async fn the_wait_for_a_place_has_an_end() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let side = tuned(&[origin.url()], |limits, _| {
        limits.origin_connections = 1;
        limits.origin_queue_wait = Duration::from_millis(50);
    });
    let holder = side.worker.send(0, 0, get("/"), |_| {});
    let late = async {
        until(|| origin.seen() == 1).await;
        side.get().await
    };
    tokio::select! {
        _ = holder => panic!("the holder never ends"),
        outcome = late => assert_eq!(outcome.unwrap_err(), SendError::ConnectionLimitReached),
    }
}

#[tokio::test]
async fn a_place_is_held_until_the_body_has_ended() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let side = side(&[origin.url()]);
    let answer = side.get().await.unwrap();
    assert_eq!(side.origins.status()[0].in_flight, 1);
    drop(answer);
    assert_eq!(side.origins.status()[0].in_flight, 0);
}

/// A TLS origin for `name` that plays `play`, and the PEM file of its authority.
async fn tls_origin<F, P>(name: &str, play: F) -> (Script, PathBuf)
where
    F: Fn(TlsStream<TcpStream>) -> P + Send + Sync + 'static,
    P: Future<Output = ()> + Send + 'static,
{
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let pem = std::env::temp_dir().join(format!("atoll-{}-{name}.pem", std::process::id()));
    std::fs::write(&pem, certificate_pem(made.cert.der())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let play = Arc::new(play);
    let origin = Script::new(move |_, stream| {
        let (acceptor, play) = (acceptor.clone(), Arc::clone(&play));
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                play(stream).await;
            }
        }
    })
    .await;
    (origin, pem)
}

#[tokio::test]
async fn tls_is_verified_and_kept() {
    let (origin, pem) = tls_origin("127.0.0.1", |mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            answer(&mut stream, "ok").await;
        }
    })
    .await;
    let url = format!("https://{}", origin.address);
    let trusting = tuned(std::slice::from_ref(&url), |_, origin| origin.ca = Some(pem.clone()));
    for _ in 0..10 {
        assert_eq!(trusting.text().await.unwrap(), "ok");
    }
    assert_eq!(origin.seen(), 1, "tickets after the handshake are no reason to close");

    let strange = side(&[url]);
    let error = strange.get().await.unwrap_err();
    assert!(matches!(error, SendError::TlsCertificateError(_)), "{error}");

    let other = format!("https://localhost:{}", origin.address.port());
    let other = tuned(&[other], |_, origin| origin.ca = Some(pem.clone()));
    let error = other.get().await.unwrap_err();
    assert!(matches!(error, SendError::TlsCertificateError(_)), "wrong name: {error}");
    std::fs::remove_file(pem).unwrap();
}

#[tokio::test]
async fn a_cut_of_tls_without_its_end_is_no_end() {
    let (origin, pem) = tls_origin("localhost", |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
        stream.flush().await.unwrap();
        // Dropped without close_notify.
    })
    .await;
    let url = format!("https://localhost:{}", origin.address.port());
    let side = tuned(&[url], |_, origin| origin.ca = Some(pem.clone()));
    let body = side.get().await.unwrap().body;
    assert!(collect(body).await.is_err());
    std::fs::remove_file(pem).unwrap();
}

#[tokio::test]
async fn plain_on_the_tls_port_is_a_protocol_error() {
    let origin = Script::new(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let error = side(&[format!("https://{}", origin.address)]).get().await.unwrap_err();
    assert!(matches!(error, SendError::TlsProtocolError(_)), "{error}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_times_out() {
    let origin = Script::new(|_, stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let side = tuned(&[format!("https://{}", origin.address)], |limits, _| {
        limits.origin_connect = Duration::from_millis(100);
    });
    assert_eq!(side.get().await.unwrap_err(), SendError::ConnectionTimeout);
}
