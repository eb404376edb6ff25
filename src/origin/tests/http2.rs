//! HTTP/2 to origins: what an origin may do with streams, frame by frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use tokio::sync::Notify;

use super::frames::*;
use super::support::*;
use crate::config::{self, HttpVersions, Limits};
use crate::message::{Body, BodyError};
use crate::origin::{Framing, Outgoing, SendError};

pub(super) fn two(servers: &[String], tune: impl FnOnce(&mut Limits, &mut config::Origin)) -> Side {
    tuned(servers, |limits, origin| {
        origin.http = HttpVersions::Two;
        tune(limits, origin);
    })
}

pub(super) fn post(body: Body) -> Outgoing {
    request(Method::POST, "/", body)
}

/// An origin that answers each stream of each connection after greeting with `settings`.
async fn answering(settings: &'static [(u16, u32)]) -> Script {
    Script::new(move |_, stream| async move {
        let mut raw = Raw::greet(stream, settings).await;
        while let Some(stream) = raw.request().await {
            raw.answer(stream, b"ok").await;
        }
    })
    .await
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let origin = answering(&[]).await;
    let side = two(&[origin.url()], |_, _| {});
    let all = (0..50).map(|_| side.text());
    for text in soon(futures(all)).await {
        assert_eq!(text.unwrap(), "ok");
    }
    for _ in 0..50 {
        assert_eq!(side.text().await.unwrap(), "ok");
    }
    assert_eq!(origin.seen(), 1, "a cold start opens one connection");
    let metrics = side.measured();
    assert_eq!((metrics.requests.get(), metrics.connections_opened.get()), (100, 1));
    assert_eq!(metrics.connections_reused.get(), 99);
    assert_eq!(metrics.in_flight.get(), 0);
}

/// Runs futures side by side.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn two_sites_never_share_a_connection() {
    let origin = answering(&[]).await;
    let side = two(&[origin.url()], |_, _| {});
    for site in [0, 1, 0, 1] {
        let answer = soon(side.worker.send(0, site, get("/"), |_| {})).await.unwrap();
        assert_eq!(collect(answer.body).await.unwrap(), b"ok");
    }
    assert_eq!(origin.seen(), 2, "one connection for each site");
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_whatever_its_method() {
    let origin = Script::new(|_, stream| async move {
        let mut raw = Raw::greet(stream, &[]).await;
        let first = raw.request().await.unwrap();
        raw.reset(first, REFUSED_STREAM).await;
        while let Some(stream) = raw.request().await {
            raw.answer(stream, b"ok").await;
        }
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    let answer = side.send(post(Body::from("hello".to_owned()))).await.unwrap();
    assert_eq!(collect(answer.body).await.unwrap(), b"ok");
    assert_eq!((origin.seen(), side.measured().retries.get()), (1, 1));
}

#[tokio::test]
async fn a_stream_reset_otherwise_is_sent_again_only_where_that_is_safe() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let origin = Script::new(move |_, stream| {
        let requests = Arc::clone(&counted);
        async move {
            let mut raw = Raw::greet(stream, &[]).await;
            while let Some(stream) = raw.request().await {
                requests.fetch_add(1, Ordering::SeqCst);
                raw.reset(stream, CANCEL).await;
            }
        }
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    let outcome = side.send(post(Body::from("hello".to_owned()))).await;
    assert_eq!(outcome.unwrap_err(), SendError::ConnectionTerminated { reused: false });
    assert_eq!(requests.load(Ordering::SeqCst), 1, "a POST goes once");
    assert!(side.get().await.is_err());
    assert_eq!(requests.load(Ordering::SeqCst), 3, "a GET twice");
}

#[tokio::test]
async fn streams_beyond_a_goaway_go_elsewhere_and_the_others_end_well() {
    let origin = Script::new(|number, stream| async move {
        let mut raw = Raw::greet(stream, &[]).await;
        if number > 0 {
            while let Some(stream) = raw.request().await {
                raw.answer(stream, b"second").await;
            }
            return;
        }
        let first = raw.request().await.unwrap();
        raw.write(HEADERS, END_HEADERS, first, OK).await;
        let second = raw.request().await.unwrap();
        raw.go_away(first, NO_ERROR).await;
        assert!(second > first);
        raw.write(DATA, END_STREAM, first, b"first").await;
        raw.linger().await;
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    let first = side.get().await.unwrap();
    // A POST: nothing but the origin's word makes it safe.
    let second = side.send(post(Body::from("x".to_owned()))).await.unwrap();
    assert_eq!(collect(first.body).await.unwrap(), b"first");
    assert_eq!(collect(second.body).await.unwrap(), b"second");
    assert_eq!(side.text().await.unwrap(), "second");
    assert_eq!(origin.seen(), 2);
}

#[tokio::test]
async fn a_goaway_that_covers_the_stream_is_no_promise() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let origin = Script::new(move |_, stream| {
        let requests = Arc::clone(&counted);
        async move {
            let mut raw = Raw::greet(stream, &[]).await;
            let stream = raw.request().await.unwrap();
            requests.fetch_add(1, Ordering::SeqCst);
            raw.go_away(stream, NO_ERROR).await;
        }
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    assert!(side.send(post(Body::from("x".to_owned()))).await.is_err());
    assert_eq!(requests.load(Ordering::SeqCst), 1, "it may have been processed");
}

#[tokio::test]
async fn an_idle_connection_that_said_goodbye_is_not_used() {
    let origin = Script::new(|_, stream| async move {
        let mut raw = Raw::greet(stream, &[]).await;
        let stream = raw.request().await.unwrap();
        raw.answer(stream, b"ok").await;
        raw.go_away(stream, NO_ERROR).await;
        raw.linger().await;
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    for number in 1..=4 {
        let answer = side.send(post(Body::from("x".to_owned()))).await.unwrap();
        assert_eq!(collect(answer.body).await.unwrap(), b"ok");
        assert_eq!(origin.seen(), number);
    }
    assert_eq!(side.measured().retries.get(), 0);
}

#[tokio::test]
async fn a_window_that_stays_shut_ends_with_our_patience() {
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let origin = Script::new(|_, stream| async move {
        let mut raw = Raw::greet(stream, &[(4, 0)]).await;
        raw.linger().await;
    })
    .await;
    let side = two(&[origin.url()], |limits, _| {
        limits.origin_gap = Duration::from_millis(100);
    });
    let outcome = side.send(post(Body::from("hello".to_owned()))).await;
    assert_eq!(outcome.unwrap_err(), SendError::HttpResponseTimeout);
    assert_eq!(side.measured().in_flight.get(), 0);
}

#[tokio::test]
async fn an_origin_that_takes_no_streams_gets_none() {
    // SETTINGS_MAX_CONCURRENT_STREAMS.
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let origin = Script::new(move |_, stream| {
        let requests = Arc::clone(&counted);
        async move {
            let mut raw = Raw::greet(stream, &[(3, 0)]).await;
            while raw.request().await.is_some() {
                requests.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let side = two(&[origin.url()], |limits, _| {
        limits.origin_http2_connections = 3;
        limits.origin_connect = Duration::from_millis(150);
        limits.origin_queue_wait = Duration::from_millis(50);
    });
    assert_eq!(side.get().await.unwrap_err(), SendError::ConnectionLimitReached);
    assert_eq!((origin.seen(), requests.load(Ordering::SeqCst)), (3, 0));
}

#[tokio::test]
async fn fewer_streams_are_respected_at_once() {
    let go = Arc::new(Notify::new());
    let most = Arc::new(AtomicUsize::new(0));
    let (held, high) = (Arc::clone(&go), Arc::clone(&most));
    let origin = Script::new(move |_, stream| {
        let (go, most) = (Arc::clone(&held), Arc::clone(&high));
        async move {
            let mut raw = Raw::greet(stream, &[(3, 2)]).await;
            let first = raw.request().await.unwrap();
            raw.settings(&[(3, 1)]).await;
            raw.answer(first, b"ok").await;
            let mut under_way = Vec::new();
            loop {
                tokio::select! {
                    stream = raw.request() => match stream {
                        Some(stream) => {
                            under_way.push(stream);
                            most.fetch_max(under_way.len(), Ordering::SeqCst);
                        }
                        None => return,
                    },
                    () = go.notified() => {
                        for stream in under_way.drain(..) {
                            raw.answer(stream, b"ok").await;
                        }
                    }
                }
            }
        }
    })
    .await;
    let side = Arc::new(two(&[origin.url()], |limits, _| {
        limits.origin_http2_connections = 1;
        limits.origin_queue_wait = Duration::from_secs(10);
    }));
    assert_eq!(side.text().await.unwrap(), "ok");
    let spawn = || {
        let side = Arc::clone(&side);
        tokio::spawn(async move { side.text().await })
    };
    let all = [spawn(), spawn(), spawn()];
    for _ in 0..3 {
        until(|| most.load(Ordering::SeqCst) > 0).await;
        most.store(0, Ordering::SeqCst);
        go.notify_one();
    }
    for one in all {
        assert_eq!(soon(one).await.unwrap().unwrap(), "ok");
    }
    assert_eq!(origin.seen(), 1);
}

#[tokio::test]
async fn a_body_that_is_reset_is_broken_even_without_error() {
    for code in [NO_ERROR, CANCEL] {
        let origin = Script::new(move |_, stream| async move {
            let mut raw = Raw::greet(stream, &[]).await;
            let stream = raw.request().await.unwrap();
            raw.write(HEADERS, END_HEADERS, stream, OK).await;
            raw.write(DATA, 0, stream, b"part").await;
            raw.reset(stream, code).await;
            raw.linger().await;
        })
        .await;
        let side = two(&[origin.url()], |_, _| {});
        let outcome = match side.get().await {
            Ok(answer) => collect(answer.body).await,
            Err(_) => Err(BodyError::Incomplete),
        };
        assert_eq!(outcome.unwrap_err(), BodyError::Incomplete, "code {code}");
    }
}

#[tokio::test]
async fn a_body_must_be_as_long_as_announced() {
    // content-length: 4, as a literal without indexing of a name in the static table (28).
    const FOUR: &[u8] = &[0x88, 0x0f, 0x0d, 0x01, b'4'];
    for (body, fine) in [(&b"four"[..], true), (b"too long", false), (b"few", false)] {
        let origin = Script::new(move |_, stream| async move {
            let mut raw = Raw::greet(stream, &[]).await;
            let stream = raw.request().await.unwrap();
            raw.write(HEADERS, END_HEADERS, stream, FOUR).await;
            raw.write(DATA, END_STREAM, stream, body).await;
            raw.linger().await;
        })
        .await;
        let side = two(&[origin.url()], |_, _| {});
        let outcome = match side.get().await {
            Ok(answer) => {
                assert_eq!(answer.framing, Framing::Length(4));
                collect(answer.body).await.is_ok()
            }
            Err(_) => false,
        };
        assert_eq!(outcome, fine, "{body:?}");
    }
}

#[tokio::test]
async fn bytes_after_a_204_reach_nobody() {
    let origin = Script::new(|_, stream| async move {
        let mut raw = Raw::greet(stream, &[]).await;
        while let Some(stream) = raw.request().await {
            raw.write(HEADERS, END_HEADERS, stream, NO_CONTENT).await;
            raw.write(DATA, END_STREAM, stream, b"smuggled").await;
        }
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    for _ in 0..2 {
        let answer = side.get().await.unwrap();
        assert_eq!((answer.head.status, answer.framing), (StatusCode::NO_CONTENT, Framing::None));
        assert_eq!(collect(answer.body).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn interim_responses_go_on_and_101_is_an_error() {
    // :status as a literal without indexing (name 8 of the static table).
    let status = |digits: &'static [u8; 3]| [&[0x08, 0x03][..], digits].concat();
    for (interim, fine) in [(b"103", true), (b"101", false)] {
        let origin = Script::new(move |_, stream| async move {
            let mut raw = Raw::greet(stream, &[]).await;
            let stream = raw.request().await.unwrap();
            raw.write(HEADERS, END_HEADERS, stream, &status(b"100")).await;
            raw.write(HEADERS, END_HEADERS, stream, &status(interim)).await;
            raw.answer(stream, b"ok").await;
            raw.linger().await;
        })
        .await;
        let side = two(&[origin.url()], |_, _| {});
        let (outcome, interims) = side.with_interims(get("/")).await;
        assert_eq!(outcome.is_ok(), fine);
        let codes: Vec<u16> = interims.iter().map(|head| head.status.as_u16()).collect();
        assert_eq!(codes, if fine { vec![103] } else { vec![] });
    }
}

#[tokio::test]
async fn heads_have_their_limits() {
    let field = |size: usize| {
        let mut block = vec![0x88, 0x00, 0x01, b'a', 0x7f];
        // The value's length as an HPACK integer with a prefix of seven bits.
        let mut rest = size - 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 0x80);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
        block.extend(vec![b'x'; size]);
        block
    };
    let many = [&[0x88][..], &[0x00, 0x01, b'a', 0x01, b'b'].repeat(200)].concat();
    for (block, fine) in [(field(1000), true), (field(12_000), false), (many, false)] {
        let sent = block.clone();
        let origin = Script::new(move |_, stream| {
            let block = sent.clone();
            async move {
                let mut raw = Raw::greet(stream, &[]).await;
                let stream = raw.request().await.unwrap();
                raw.write(HEADERS, END_HEADERS | END_STREAM, stream, &block).await;
                raw.linger().await;
            }
        })
        .await;
        let side = two(&[origin.url()], |limits, _| limits.origin_head_bytes = 8192);
        assert_eq!(side.get().await.is_ok(), fine, "{} bytes", block.len());
    }
}

#[tokio::test]
async fn a_silent_connection_that_is_dead_is_given_up() {
    let origin = Script::new(|number, stream| async move {
        let mut raw = Raw::greet(stream, &[]).await;
        let first = raw.request().await.unwrap();
        raw.answer(first, b"ok").await;
        if number > 0 {
            return raw.linger().await;
        }
        // From here on it reads and says nothing, as a machine that is gone would.
        assert!(raw.next(PING).await.is_some());
        std::future::pending::<()>().await;
    })
    .await;
    let side = two(&[origin.url()], |limits, _| {
        limits.origin_http2_silence = Duration::from_millis(20);
        limits.origin_connect = Duration::from_millis(300);
    });
    assert_eq!(side.text().await.unwrap(), "ok");
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert_eq!(side.text().await.unwrap(), "ok", "sent again on another connection");
    assert_eq!(origin.seen(), 2);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_waits_within_its_window() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let origin = Script::new(move |_, stream| {
        let sent = Arc::clone(&counted);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let sent = Arc::clone(&sent);
                tokio::spawn(async move {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    for _ in 0..64 {
                        body.reserve_capacity(16 * 1024);
                        while body.capacity() == 0 {
                            std::future::poll_fn(|context| body.poll_capacity(context)).await;
                        }
                        let piece = Bytes::from(vec![b'a'; body.capacity().min(16 * 1024)]);
                        sent.fetch_add(piece.len(), Ordering::SeqCst);
                        body.send_data(piece, false).unwrap();
                    }
                    body.send_data(Bytes::new(), true).unwrap();
                });
            }
        }
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    let slow = side.get().await.unwrap();
    until(|| sent.load(Ordering::SeqCst) >= 64 * 1024).await;
    // One that is not read holds up no other.
    let other = side.get().await.unwrap();
    assert!(!collect(other.body).await.unwrap().is_empty());
    assert_eq!(origin.seen(), 1);
    assert!(!collect(slow.body).await.unwrap().is_empty());
    let most = queued_bytes_max(&side);
    assert!((16 * 1024..=64 * 1024).contains(&most), "{most} bytes waited");
}

fn queued_bytes_max(side: &Side) -> usize {
    let text = side.metrics.render();
    let line = text.lines().find(|line| line.starts_with("atoll_origin_stream_queued_bytes_max{"));
    line.and_then(|line| line.split_whitespace().last()?.parse().ok()).unwrap()
}

#[tokio::test]
async fn an_origin_that_speaks_only_http1_is_an_error_and_not_a_guess() {
    let origin = Script::always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let side = two(&[origin.url()], |limits, _| limits.origin_connect = Duration::from_secs(2));
    assert!(side.get().await.is_err());
    let mut request = get("/");
    request.headers.remove(header::HOST);
    assert!(side.send(request).await.is_err());
}

#[tokio::test]
async fn probes_speak_what_the_origin_speaks() {
    let origin = answering(&[]).await;
    let side = two(&[origin.url()], |_, origin| {
        origin.probe = Some(config::Probe {
            interval: Duration::from_millis(100),
            timeout: Duration::from_millis(90),
            fall: 1,
            ..config::Probe::default()
        });
    })
    .in_background();
    until(|| origin.seen() >= 3).await;
    assert_eq!(side.states(), ["up"]);
    assert_eq!(side.measured().probes_failed.get(), 0);
}
