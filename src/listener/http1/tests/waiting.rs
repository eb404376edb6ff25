//! Deadlines, idleness, draining.

use std::time::Duration;

use super::support::{Edge, PATIENCE, bodies, quick};
use crate::clock;
use crate::config::Limits;
use crate::listener::Drain;

const SOON: Duration = Duration::from_millis(30);

#[tokio::test]
async fn a_head_has_an_absolute_deadline() {
    let mut edge = Edge::new(Limits { head: SOON, ..quick() });
    // Every byte is progress, and none moves the deadline.
    for byte in b"GET / HTTP/1.1\r\nHost: h\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
        edge.send([*byte]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        if edge.refusals("head-timeout") > 0 {
            break;
        }
    }
    assert_eq!(bodies(&edge.rest().await), [(408, "head-timeout")]);
}

#[tokio::test]
async fn silence_is_closed_without_a_word() {
    for (said, limits) in [
        ("", Limits { handshake: SOON, ..quick() }),
        ("\r\n", Limits { head: SOON, ..quick() }),
        ("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", Limits { keep_alive: SOON, ..quick() }),
    ] {
        let mut edge = Edge::new(limits);
        edge.send(said).await;
        let answers = edge.rest().await;
        assert_eq!(bodies(&answers).len(), usize::from(said.starts_with("GET")), "{said:?}");
        assert!(!answers.contains("connection: close"));
    }
}

#[tokio::test]
async fn a_head_that_has_begun_has_its_own_time() {
    let mut edge = Edge::new(Limits { handshake: SOON, ..quick() });
    edge.send("G").await;
    tokio::time::sleep(3 * SOON).await;
    edge.send("ET /a HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(bodies(&edge.until("/a").await), [(200, "/a")]);
}

#[tokio::test]
async fn a_connection_that_was_promised_to_go_on_gets_time_for_its_next_request() {
    let asks = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    // A new connection, and one whose answer ends after all others have been asked to leave.
    for first in ["", asks] {
        let mut edge = Edge::with_pipe(Limits { drain_notice: PATIENCE, ..quick() }, 16);
        if !first.is_empty() {
            edge.send(first).await;
            assert_eq!(edge.first().await, "HTTP/1.1");
        }
        edge.drain_is_over();
        if !first.is_empty() {
            edge.until("/a").await;
        }
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        edge.send(asks.replace("/a", "/b")).await;
        let answer = edge.rest().await;
        assert_eq!(bodies(&answer), [(200, "/b")]);
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn the_time_for_a_next_request_is_bounded() {
    let mut edge = Edge::new(Limits { drain_notice: SOON, ..quick() });
    edge.drain_is_over();
    assert_eq!(edge.rest().await, "");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let limits = Limits { send_gap: SOON, ..quick() };
    let mut edge = Edge::with_pipe(limits, 1000);
    edge.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await;
    tokio::time::timeout(PATIENCE, &mut edge.task).await.unwrap().unwrap();
    assert_eq!(edge.metrics.doors.timeouts.get(), 1);
    assert!(edge.rest().await.len() < 4 << 20);
}

#[tokio::test]
async fn an_idle_connection_ends_when_the_process_drains() {
    let mut edge = Edge::new(Limits { drain_notice: SOON, ..quick() });
    edge.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await;
    edge.until("/a").await;
    edge.drain.send_replace(Drain::Draining { since: clock::now() });
    assert_eq!(edge.rest().await, "");
}

#[tokio::test]
async fn a_request_under_way_is_answered_with_a_goodbye_when_the_process_drains() {
    let mut edge = Edge::new(quick());
    edge.send("GET /gated HTTP/1.1\r\nHost: h\r\n\r\n").await;
    edge.until("\r\n\r\n").await;
    edge.drain.send_replace(Drain::Draining { since: clock::now() });
    edge.player.gate.add_permits(1);
    let answer = edge.rest().await;
    assert_eq!(bodies(&answer), [(200, "opened")]);
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_request_that_comes_while_the_process_drains_is_still_answered() {
    let mut edge = Edge::new(quick());
    edge.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await;
    edge.until("/a").await;
    edge.drain.send_replace(Drain::Draining { since: clock::now() });
    edge.send("GET /b HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = edge.rest().await;
    assert_eq!(bodies(&answer), [(200, "/b")]);
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn an_old_connection_ends_after_its_request() {
    let mut edge = Edge::new(Limits { connection_age: Duration::ZERO, ..quick() });
    edge.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = edge.rest().await;
    assert!(answer.contains("connection: close"), "{answer}");
}
