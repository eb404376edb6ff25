//! Request bodies: read on demand, in step with their reader, dropped where nobody reads them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use super::super::Connection;
use super::support::{Edge, answers_to, bodies, context, quick, somebody};
use crate::config::Limits;
use crate::listener::socket::Taken;

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn broken_bodies_are_answered_and_end_the_connection() {
    let rows = [
        ("5\nhello\r\n0\r\n\r\n", "chunk-syntax"),
        ("5\r\nhelloX\r\n0\r\n\r\n", "chunk-syntax"),
        ("5\r\nhello\r\n0\r\nbad\r\n\r\n", "trailers"),
        ("5\r\nhel", "body-incomplete"),
    ];
    for (body, label) in rows {
        let bytes = post("/echo", "Transfer-Encoding: chunked\r\n", body);
        let answers = answers_to(&bytes).await;
        assert_eq!(bodies(&answers)[0].0, 400, "{body:?}");
        assert!(answers.contains("connection: close"));
        let mut edge = Edge::new(quick());
        edge.send(&bytes).await;
        let _ = edge.client.shutdown().await;
        edge.rest().await;
        assert_eq!(edge.refusals(label), 1, "{body:?}");
    }
    let answers = answers_to(&post("/echo", "Content-Length: 9\r\n", "short")).await;
    assert_eq!(bodies(&answers)[0].0, 400);
}

#[tokio::test]
async fn an_unread_body_is_never_taken_for_the_next_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = format!("Content-Length: {}\r\n", smuggled.len());
    let next = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    let bytes = post("/ignored", &length, smuggled) + next;
    assert_eq!(bodies(&answers_to(&bytes).await), [(200, "/ignored"), (200, "/next")]);
    let chunked = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    let bytes = post("/ignored", "Transfer-Encoding: chunked\r\n", &chunked) + next;
    assert_eq!(bodies(&answers_to(&bytes).await), [(200, "/ignored"), (200, "/next")]);
}

#[tokio::test]
async fn an_unread_body_that_is_too_long_to_drop_ends_the_connection() {
    let mut edge = Edge::new(quick());
    edge.send(post("/ignored", "Content-Length: 100000\r\n", "x")).await;
    let answer = edge.until("/ignored").await;
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(edge.rest().await, "");
    let mut edge = Edge::new(Limits { drain_bytes: 10, ..quick() });
    let body = "14\r\n01234567890123456789\r\n0\r\n\r\n";
    edge.send(post("/ignored", "Transfer-Encoding: chunked\r\n", body)).await;
    edge.send("GET /never HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(bodies(&edge.rest().await), [(200, "/ignored")]);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_after_the_answer() {
    let mut edge = Edge::new(quick());
    edge.send(post("/ignored", "Content-Length: 5\r\n", "")).await;
    assert_eq!(bodies(&edge.rest().await), [(200, "/ignored")]);
}

#[tokio::test]
async fn continue_is_said_when_the_body_is_asked_for() {
    let mut edge = Edge::new(quick());
    edge.send(post("/echo", "Content-Length: 5\r\nExpect: 100-continue\r\n", "")).await;
    assert_eq!(edge.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    edge.send("hello").await;
    assert_eq!(bodies(&edge.until("hello").await), [(200, "hello")]);
    edge.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(bodies(&edge.until("/next").await), [(200, "/next")]);
}

#[tokio::test]
async fn continue_is_not_said_to_a_client_that_did_not_wait() {
    let mut edge = Edge::new(quick());
    edge.send(post("/echo", "Content-Length: 5\r\nExpect: 100-continue\r\n", "hello")).await;
    edge.client.shutdown().await.unwrap();
    assert_eq!(bodies(&edge.rest().await), [(200, "hello")]);
}

#[tokio::test]
async fn a_final_answer_instead_of_continue_ends_the_connection() {
    for rest in ["", "hello", "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"] {
        let mut edge = Edge::new(quick());
        let fields = "Content-Length: 5\r\nExpect: 100-continue\r\n";
        edge.send(post("/ignored", fields, rest)).await;
        let answer = edge.rest().await;
        assert_eq!(bodies(&answer), [(200, "/ignored")]);
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(edge.player.served(), 1);
    }
}

#[tokio::test]
async fn a_body_can_flow_back_while_it_arrives() {
    let mut edge = Edge::with_pipe(quick(), 512);
    edge.send(post("/stream-echo", "Transfer-Encoding: chunked\r\n", "")).await;
    edge.until("\r\n\r\n").await;
    for round in 0..50 {
        edge.send(format!("7\r\nround{round:02}\r\n")).await;
        edge.until(&format!("round{round:02}\r\n")).await;
    }
    edge.send("0\r\n\r\n").await;
    edge.until("0\r\n\r\n").await;
    edge.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(bodies(&edge.until("/next").await), [(200, "/next")]);
}

#[tokio::test]
async fn a_long_body_flows_through_a_short_queue() {
    let limits = Limits { body_in_flight_bytes: 1000, ..quick() };
    let mut edge = Edge::with_pipe(limits, 4096);
    let body = "0123456789abcdef".repeat(16 * 1024);
    edge.send(post("/echo", &format!("Content-Length: {}\r\n", body.len()), "")).await;
    edge.send(&body).await;
    edge.client.shutdown().await.unwrap();
    assert_eq!(bodies(&edge.rest().await), [(200, body.as_str())]);
}

#[tokio::test]
async fn nothing_is_read_while_nobody_asks() {
    let mut edge = Edge::with_pipe(quick(), 1024);
    edge.send(post("/gated", "Content-Length: 100000\r\n", "")).await;
    edge.until("\r\n\r\n").await;
    let flood = vec![b'x'; 100_000];
    let written = tokio::time::timeout(Duration::from_millis(50), edge.client.write_all(&flood));
    assert!(written.await.is_err(), "the pipe should be full");
    edge.player.gate.add_permits(1);
    assert_eq!(bodies(&edge.rest().await), [(200, "opened")]);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_given_up() {
    let limits = Limits {
        body_gap: Duration::from_millis(30),
        rate_window: Duration::from_secs(1),
        ..quick()
    };
    let mut edge = Edge::new(limits);
    edge.send(post("/echo", "Content-Length: 5\r\n", "he")).await;
    let answer = edge.rest().await;
    assert_eq!(bodies(&answer)[0].0, 408);
    assert_eq!(edge.refusals("body-timeout"), 1);
}

#[tokio::test]
async fn bytes_that_come_one_by_one_share_a_buffer() {
    let (mut client, server) = tokio::io::duplex(1);
    let (context, _drain) = context(quick());
    let mut connection =
        Connection::new(server, Taken::default(), BytesMut::new(), somebody(), context);
    let mut kept: Vec<Bytes> = Vec::new();
    for byte in 0..100 {
        client.write_all(&[byte]).await.unwrap();
        let read = std::future::poll_fn(|task| connection.poll_read_more(16 * 1024, task));
        assert_eq!(read.await, 1);
        kept.push(connection.read.split().freeze());
    }
    // Only in the same buffer they all lie side by side.
    assert!(kept.windows(2).all(|pair| pair[0].as_ptr().wrapping_add(1) == pair[1].as_ptr()));
}
