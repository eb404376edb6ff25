//! Answers: framing, order, refusals, and how they break off.

use std::sync::Arc;

use super::support::{Edge, answers_to, bodies, quick};
use crate::message::Refusal;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

#[tokio::test]
async fn requests_in_one_segment_are_answered_in_order() {
    let mut bytes = String::new();
    for number in 0..10 {
        bytes += &match number % 3 {
            0 => get(&format!("/{number}")),
            1 => "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            _ => "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                  2\r\nto\r\n1;x=y\r\no\r\n0\r\nt: v\r\n\r\n"
                .to_owned(),
        };
    }
    let answers = answers_to(&bytes).await;
    let expected: Vec<_> = ["/0", "hello", "too", "/3", "hello", "too", "/6", "hello", "too", "/9"]
        .map(|body| (200, body))
        .into();
    assert_eq!(bodies(&answers), expected);
}

#[tokio::test]
async fn an_answer_is_framed_as_its_body_and_its_client_allow() {
    let head = |head: &str| head.replace('\n', "\r\n");
    let rows = [
        ("GET /a", "1.1", "", head("HTTP/1.1 200 OK\ncontent-length: 2\n\n/a")),
        ("HEAD /a", "1.1", "", head("HTTP/1.1 200 OK\ncontent-length: 2\n\n")),
        ("HEAD /length", "1.1", "", head("HTTP/1.1 200 OK\ncontent-length: 12\n\n")),
        ("HEAD /chunks", "1.1", "", head("HTTP/1.1 200 OK\n\n")),
        ("GET /empty", "1.1", "", head("HTTP/1.1 204 No Content\n\n")),
        (
            "GET /chunks",
            "1.1",
            "",
            head("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2\nab\n2\ncd\n0\n\n"),
        ),
        ("GET /known", "1.1", "", head("HTTP/1.1 200 OK\ncontent-length: 4\n\nabcd")),
        ("GET /chunks", "1.0", "", head("HTTP/1.1 200 OK\nconnection: close\n\nabcd")),
        (
            "GET /a",
            "1.0",
            "Connection: keep-alive\r\n",
            head("HTTP/1.1 200 OK\ncontent-length: 2\nconnection: keep-alive\n\n/a"),
        ),
        ("GET /a", "1.0", "", head("HTTP/1.1 200 OK\ncontent-length: 2\nconnection: close\n\n/a")),
        (
            "GET /close",
            "1.1",
            "",
            head("HTTP/1.1 200 OK\ncontent-length: 3\nconnection: close\n\nbye"),
        ),
        (
            "GET /a",
            "1.1",
            "Connection: close\r\n",
            head("HTTP/1.1 200 OK\ncontent-length: 2\nconnection: close\n\n/a"),
        ),
    ];
    for (line, version, fields, expected) in rows {
        let bytes = format!("{line} HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
        assert_eq!(answers_to(&bytes).await, expected, "{line} {version} {fields}");
    }
}

#[tokio::test]
async fn nothing_is_answered_after_a_goodbye() {
    let bytes = get("/close") + &get("/never");
    let answers = answers_to(&bytes).await;
    assert_eq!(bodies(&answers), [(200, "bye")]);
}

#[tokio::test]
async fn a_refusal_follows_the_answers_before_it_and_ends_the_connection() {
    let rows = [
        ("GET / HTTP/1.1\r\n\r\n", Refusal::Host),
        ("GET / HTTP/1.1\nHost: h\n\n", Refusal::RequestLine),
        ("get / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::MethodSyntax),
        ("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::MethodNotAllowed),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::Version),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\nG",
            Refusal::FramingConflict,
        ),
    ];
    for (bad, refusal) in rows {
        let bytes = get("/first") + bad + &get("/never");
        let answers = answers_to(&bytes).await;
        let expected = [(200, "/first"), (refusal.status().as_u16(), refusal.label())];
        assert_eq!(bodies(&answers), expected);
        assert!(answers.contains("connection: close"));
    }
}

#[tokio::test]
async fn a_refusal_is_counted_once_and_closes_while_the_client_goes_on() {
    let mut edge = Edge::new(quick());
    edge.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(bodies(&edge.rest().await), [(400, "host")]);
    assert_eq!(edge.refusals("host"), 1);
    assert_eq!(edge.player.served(), 0);
    assert!((&mut edge.task).await.unwrap().is_none());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_cut_off_visibly() {
    let rows = [
        ("/broken", "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n"),
        ("/short", "content-length: 4\r\n\r\nab"),
        ("/long", "content-length: 4\r\n\r\nabc"),
        ("/panic-body", "transfer-encoding: chunked\r\n\r\n"),
    ];
    for (path, expected) in rows {
        let bytes = get(path) + &get("/never");
        let answers = answers_to(&bytes).await;
        assert_eq!(answers, format!("HTTP/1.1 200 OK\r\n{expected}"), "{path}");
    }
}

#[tokio::test]
async fn where_only_the_end_says_that_a_body_is_complete_a_broken_one_is_reset() {
    let mut edge = Edge::new(quick());
    edge.send("GET /broken HTTP/1.0\r\n\r\n").await;
    edge.until("\r\n\r\nab").await;
    assert!((&mut edge.task).await.unwrap().is_some());
}

#[tokio::test]
async fn a_panic_costs_its_own_connection_only() {
    let mut edge = Edge::new(quick());
    edge.send(get("/panic")).await;
    let answer = edge.rest().await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("connection: close"));
    assert_eq!(edge.metrics.doors.panics.get(), 1);
}

#[tokio::test]
async fn interim_responses_go_before_the_answer_and_not_to_http_1_0() {
    let answers = answers_to(&get("/hints")).await;
    let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
                    HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhinted";
    assert_eq!(answers, expected);
    let answers = answers_to("GET /hints HTTP/1.0\r\n\r\n").await;
    assert_eq!(bodies(&answers), [(200, "hinted")]);
}

#[tokio::test]
async fn interim_responses_do_not_wait_for_the_answer() {
    let mut edge = Edge::new(quick());
    edge.send(get("/gated")).await;
    assert_eq!(edge.until("\r\n\r\n").await, "HTTP/1.1 103 Early Hints\r\n\r\n");
    edge.player.gate.add_permits(1);
    assert_eq!(bodies(&edge.until("opened").await), [(200, "opened")]);
}

#[tokio::test]
async fn a_client_that_said_goodbye_is_answered() {
    let answers = answers_to(&get("/big")).await;
    let (head, body) = answers.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: 4194304"));
    assert_eq!(body.len(), 4 << 20);
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte_through_a_narrow_pipe() {
    let (answers, _) = Edge::with_pipe(quick(), 1000).talk(get("/big").as_bytes(), 100).await;
    assert_eq!(answers.len() - answers.find("\r\n\r\n").unwrap() - 4, 4 << 20);
}

#[tokio::test]
async fn a_wish_for_another_protocol_is_dropped_and_ends_the_connection() {
    let bytes = "GET /fields HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n\
                 \0\x01raw bytes";
    let answers = answers_to(bytes).await;
    assert_eq!(bodies(&answers), [(200, "host,connection")]);
    assert!(answers.contains("connection: close"));
}

#[tokio::test]
async fn the_number_of_requests_of_a_connection_can_be_capped() {
    let limits = crate::config::Limits { connection_requests: 2, ..quick() };
    let bytes = get("/1") + &get("/2") + &get("/3");
    let (answers, player) = Edge::new(limits).talk(bytes.as_bytes(), 5).await;
    assert_eq!(bodies(&answers), [(200, "/1"), (200, "/2")]);
    assert_eq!(answers.matches("connection: close").count(), 1);
    assert_eq!(Arc::clone(&player).served(), 2);
}
