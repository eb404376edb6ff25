//! Answers as they should not be: nothing of them reaches anyone but the one who asked, and the
//! connection never carries another request.

use std::time::Duration;

use http::StatusCode;
use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::message::BodyError;
use crate::origin::SendError;

#[tokio::test]
async fn broken_heads_are_errors() {
    let cases: [&[u8]; 10] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 2OO Letters\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ];
    for bytes in cases {
        let origin = Script::once(bytes).await;
        let side = side(&[origin.url()]);
        let error = side.get().await.unwrap_err();
        let text = String::from_utf8_lossy(bytes);
        assert!(matches!(error, SendError::HttpProtocolError(_)), "{text}: {error}");
        assert_eq!(side.worker.idle(), 0);
    }
}

#[tokio::test]
async fn heads_over_their_limits_are_errors() {
    let field = format!("X-Long: {}\r\n", "a".repeat(40 * 1024));
    let fields = "X-Many: 1\r\n".repeat(101);
    let reason = format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(64 * 1024));
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9);
    let cases = [
        format!("HTTP/1.1 200 OK\r\n{field}\r\n"),
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n"),
        format!("HTTP/1.1 103 Early Hints\r\n{field}\r\n"),
        reason,
        format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    for text in cases {
        let origin = Script::once(Box::leak(text.into_boxed_str()).as_bytes()).await;
        let error = side(&[origin.url()]).get().await.unwrap_err();
        assert!(matches!(error, SendError::HttpProtocolError(_)), "{error}");
    }
}

#[tokio::test]
async fn a_missing_reason_is_fine() {
    let origin = Script::once(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(side(&[origin.url()]).text().await.unwrap(), "ok");
}

#[tokio::test]
async fn bodies_that_break_off_end_in_an_error() {
    let cases: [(&[u8], BodyError); 4] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", BodyError::Incomplete),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            BodyError::Incomplete,
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", BodyError::Incomplete),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
            BodyError::Malformed(""),
        ),
    ];
    for (bytes, expected) in cases {
        let origin = Script::once(bytes).await;
        let side = side(&[origin.url()]);
        let error = collect(side.get().await.unwrap().body).await.unwrap_err();
        let kind = std::mem::discriminant::<BodyError>;
        assert_eq!(kind(&error), kind(&expected), "{error}");
        assert_eq!(side.worker.idle(), 0);
    }
}

#[tokio::test]
async fn a_reset_in_a_body_until_close_is_an_error() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    })
    .await;
    let answer = side(&[origin.url()]).get().await;
    // The reset may overtake the bytes before it.
    match answer {
        Ok(answer) => assert_eq!(collect(answer.body).await, Err(BodyError::Incomplete)),
        Err(error) => assert!(matches!(error, SendError::ConnectionTerminated { .. }), "{error}"),
    }
}

#[tokio::test]
async fn bytes_beyond_the_length_close_the_connection() {
    let origin =
        Script::always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n").await;
    let side = side(&[origin.url()]);
    for seen in 1..=3 {
        assert_eq!(side.text().await.unwrap(), "ok");
        assert_eq!(side.worker.idle(), 0);
        assert_eq!(origin.seen(), seen);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_never_delivered() {
    let origin = Script::new(|number, mut stream| async move {
        let mut first = true;
        while read_head(&mut stream).await.is_some() {
            answer(&mut stream, &format!("answer {number}")).await;
            if std::mem::replace(&mut first, false) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                answer(&mut stream, "poison").await;
            }
        }
    })
    .await;
    let side = side(&[origin.url()]);
    assert_eq!(side.text().await.unwrap(), "answer 0");
    // The second one comes while the connection lies idle; no sweep has run yet, or one has.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(side.text().await.unwrap(), "answer 1");
}

#[tokio::test]
async fn silence_before_the_head_and_drips_of_it_time_out() {
    let silent = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let dripping = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'a')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let hinting = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        for _ in 0..3 {
            let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    for origin in [silent, dripping, hinting] {
        let side = tuned(&[origin.url()], |limits, _| {
            limits.origin_first_byte = Duration::from_millis(150);
        });
        let outcome = side.get().await;
        assert_eq!(outcome.unwrap_err(), SendError::HttpResponseTimeout);
        assert_eq!(origin.seen(), 1, "not asked twice");
    }
}

#[tokio::test]
async fn silence_in_a_body_and_drips_of_it_are_too_slow() {
    let silent = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let dripping = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for origin in [silent, dripping] {
        let side = tuned(&[origin.url()], |limits, _| {
            limits.origin_gap = Duration::from_millis(150);
            limits.origin_rate = 1000;
            limits.origin_rate_window = Duration::from_millis(300);
        });
        let answer = side.get().await.unwrap();
        assert_eq!(collect(answer.body).await, Err(BodyError::TooSlow));
    }
}

#[tokio::test]
async fn event_streams_may_be_silent() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            stream.write_all(b"data: x\n\n").await.unwrap();
        }
    })
    .await;
    let side = tuned(&[origin.url()], |limits, _| {
        limits.origin_gap = Duration::from_millis(20);
        limits.origin_rate = 1_000_000;
        limits.origin_rate_window = Duration::from_millis(100);
    });
    let body = collect(side.get().await.unwrap().body).await.unwrap();
    assert_eq!(body.len(), 45);
}

#[tokio::test]
async fn a_dropped_body_closes_its_connection() {
    let origin = Script::new(|_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let _ = stream.write_all(&[b'a'; 100_000]).await;
        }
    })
    .await;
    let side = side(&[origin.url()]);
    let answer = side.get().await.unwrap();
    assert_eq!(answer.head.status, StatusCode::OK);
    drop(answer);
    assert_eq!(side.worker.idle(), 0);
    let metrics = side.measured();
    assert_eq!((metrics.connections_open.get(), metrics.in_flight.get()), (0, 0));
    assert_eq!(side.origins.status()[0].endpoints[0].in_flight, 0);
}
