//! Requests with bodies: framing, back-pressure, early answers, bodies that break off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::support::*;
use crate::message::{Body, BodyError};
use crate::origin::SendError;

/// Hands on the bytes of the first request, then answers once `length` have come.
async fn recorder(length: usize) -> (Script, mpsc::Receiver<String>) {
    let (sender, receiver) = mpsc::channel(1);
    let origin = Script::new(move |_, mut stream| {
        let sender = sender.clone();
        async move {
            let mut all = vec![0; length];
            if stream.read_exact(&mut all).await.is_ok() {
                let _ = sender.send(String::from_utf8(all).unwrap()).await;
                answer(&mut stream, "ok").await;
            }
        }
    })
    .await;
    (origin, receiver)
}

#[tokio::test]
async fn requests_are_framed_by_what_is_known_of_their_body() {
    let cases = [
        (Method::GET, Body::Empty, "GET /p?q HTTP/1.1\r\nhost: site.example\r\n\r\n"),
        (
            Method::POST,
            Body::Empty,
            "POST /p?q HTTP/1.1\r\nhost: site.example\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            Method::PUT,
            Body::from("hello".to_owned()),
            "PUT /p?q HTTP/1.1\r\nhost: site.example\r\ncontent-length: 5\r\n\r\nhello",
        ),
    ];
    for (method, body, expected) in cases {
        let (origin, mut received) = recorder(expected.len()).await;
        let side = side(&[origin.url()]);
        let answer = side.send(request(method, "/p?q", body)).await.unwrap();
        collect(answer.body).await.unwrap();
        assert_eq!(received.recv().await.unwrap(), expected);
        assert_eq!(side.worker.idle(), 1);
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_chunked_as_it_comes() {
    let expected = "POST / HTTP/1.1\r\nhost: site.example\r\ntransfer-encoding: chunked\r\n\r\n\
                    5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let (origin, mut received) = recorder(expected.len()).await;
    let side = side(&[origin.url()]);
    let (sender, body) = by_hand();
    tokio::spawn(async move {
        for piece in ["hello", "", " world"] {
            sender.send(Ok(Bytes::from(piece))).await.unwrap();
        }
    });
    let answer = side.send(request(Method::POST, "/", body)).await.unwrap();
    collect(answer.body).await.unwrap();
    assert_eq!(received.recv().await.unwrap(), expected);
    assert_eq!(side.worker.idle(), 1);
}

#[tokio::test]
async fn an_origin_that_does_not_read_holds_the_sender_back() {
    let origin = Script::new(|_, stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let side = tuned(&[origin.url()], |limits, _| {
        limits.origin_gap = Duration::from_millis(300);
    });
    let (sender, body) = by_hand();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        let piece = Bytes::from(vec![b'a'; 64 * 1024]);
        while sender.send(Ok(piece.clone())).await.is_ok() {
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let error = side.send(request(Method::POST, "/", body)).await.unwrap_err();
    assert_eq!(error, SendError::HttpResponseTimeout);
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken < 16 << 20, "only what the sockets hold was taken, {taken}");
}

#[tokio::test]
async fn an_early_refusal_is_handed_on_and_the_connection_closed() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        let bytes = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
        stream.write_all(bytes).await.unwrap();
        let mut sink = vec![0; 1024];
        while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let side = side(&[origin.url()]);
    let (sender, body) = by_hand();
    sender.send(Ok(Bytes::from("beginning"))).await.unwrap();
    let answer = side.send(request(Method::POST, "/", body)).await.unwrap();
    assert_eq!(answer.head.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(collect(answer.body).await.unwrap(), b"big");
    soon(sender.closed()).await;
    assert_eq!(side.worker.idle(), 0);
}

#[tokio::test]
async fn an_answer_may_flow_while_the_request_still_does() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        let mut echo = vec![0; 10];
        // Chunks of one letter are "1 CRLF letter CRLF" both ways.
        for _ in 0..3 {
            stream.read_exact(&mut echo[..6]).await.unwrap();
            stream.write_all(&echo[..6]).await.unwrap();
        }
        stream.read_exact(&mut echo[..5]).await.unwrap();
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut echo).await;
    })
    .await;
    let side = side(&[origin.url()]);
    let (sender, body) = by_hand();
    sender.send(Ok(Bytes::from("a"))).await.unwrap();
    let mut answer = side.send(request(Method::POST, "/", body)).await.unwrap();
    for letter in ["a", "b", "c"] {
        if letter != "a" {
            sender.send(Ok(Bytes::from(letter))).await.unwrap();
        }
        let frame = soon(answer.body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), letter);
    }
    drop(sender);
    assert!(collect(answer.body).await.unwrap().is_empty());
    assert_eq!(side.worker.idle(), 0, "an early answer ends the connection");
}

#[tokio::test]
async fn a_body_that_breaks_off_or_lies_about_its_length_ends_the_request() {
    let origin = Script::new(|_, mut stream| async move {
        let mut sink = vec![0; 1024];
        while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let side = side(&[origin.url()]);
    let (sender, body) = by_hand();
    sender.send(Err(BodyError::Incomplete)).await.unwrap();
    let error = side.send(request(Method::PUT, "/", body)).await.unwrap_err();
    assert_eq!(error, SendError::RequestBody(BodyError::Incomplete));
    assert_eq!(side.measured().retries.get(), 0);

    for (announced, expected) in [(3, BodyError::TooLarge), (7, BodyError::Incomplete)] {
        let (sender, body) = by_hand();
        sender.send(Ok(Bytes::from("hello"))).await.unwrap();
        drop(sender);
        let body = Body::stream(Announced(body, announced));
        let error = side.send(request(Method::PUT, "/", body)).await.unwrap_err();
        assert_eq!(error, SendError::RequestBody(expected));
    }
    assert_eq!(side.states(), ["up"]);
}

#[tokio::test]
async fn bodies_that_do_not_begin_hold_no_place() {
    let origin = Script::new(|_, mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let mut body = vec![0; if head.starts_with("POST") { 2 } else { 0 }];
            stream.read_exact(&mut body).await.unwrap();
            answer(&mut stream, "ok").await;
        }
    })
    .await;
    let side = tuned(&[origin.url()], |limits, _| {
        limits.origin_connections = 2;
        limits.origin_queue_wait = Duration::from_millis(50);
    });
    let (one, first) = by_hand();
    let (two, second) = by_hand();
    let post = |body| side.send(request(Method::POST, "/", Body::stream(Announced(body, 2))));
    let others = async {
        until(|| one.capacity() == 1 && two.capacity() == 1).await;
        for _ in 0..10 {
            assert_eq!(side.text().await.unwrap(), "ok");
        }
        assert_eq!(side.origins.status()[0].in_flight, 0);
        for sender in [one, two] {
            for piece in ["", "a", "b"] {
                sender.send(Ok(Bytes::from(piece))).await.unwrap();
            }
        }
    };
    let (first, second, ()) = tokio::join!(post(first), post(second), others);
    for outcome in [first, second] {
        assert_eq!(collect(outcome.unwrap().body).await.unwrap(), b"ok");
    }
}

#[tokio::test]
async fn an_origin_that_takes_too_little_is_given_up() {
    let origin = Script::new(|_, mut stream| async move {
        // Enough at once for the sender to notice, and far below what is asked for.
        let mut sink = vec![0; 1 << 20];
        while stream.read_exact(&mut sink).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let side = tuned(&[origin.url()], |limits, _| {
        limits.origin_gap = Duration::from_secs(600);
        limits.origin_rate = 1 << 40;
        limits.origin_rate_window = Duration::from_millis(300);
    });
    let (sender, body) = by_hand();
    tokio::spawn(async move {
        let piece = Bytes::from(vec![b'a'; 64 * 1024]);
        while sender.send(Ok(piece.clone())).await.is_ok() {}
    });
    let error = side.send(request(Method::POST, "/", body)).await.unwrap_err();
    assert_eq!(error, SendError::HttpResponseTimeout);
}

#[tokio::test]
async fn an_origin_that_waits_for_the_request_may_be_silent() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await.unwrap();
        // Two chunks of one letter and the last one.
        stream.read_exact(&mut [0; 6 + 6 + 5]).await.unwrap();
        stream.write_all(b"ok").await.unwrap();
    })
    .await;
    let side = tuned(&[origin.url()], |limits, _| {
        limits.origin_gap = Duration::from_millis(50);
        limits.origin_rate_window = Duration::from_millis(60);
    });
    let (sender, body) = by_hand();
    sender.send(Ok(Bytes::from("a"))).await.unwrap();
    let answer = side.send(request(Method::POST, "/", body)).await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        sender.send(Ok(Bytes::from("b"))).await.unwrap();
    });
    assert_eq!(collect(answer.body).await.unwrap(), b"ok");
}

/// A body that announces a length of its own.
struct Announced(Body, u64);

impl http_body::Body for Announced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(context)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}
