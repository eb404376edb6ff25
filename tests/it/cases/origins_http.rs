//! What an origin may do with HTTP (E01 to E40), as both kinds of clients see it.

use crate::support::edge::HOST;
use crate::support::{Edge, Ended, H2, H2Origin, Origin, Piece, Reply};

/// Asks twice over each version of HTTP: each time the answer begins and is cut off, nothing is
/// stored, and the connection to the origin carries nothing else.
async fn is_cut_off(bytes: &'static str) {
    let origin = Origin::start(move |seen| match &*seen.target {
        "/good" => Reply::ok("good"),
        // It keeps the connection: to use it again would show.
        "/kept" => Reply::script(vec![Piece::data(bytes), Piece::Close]),
        _ => Reply::script(vec![Piece::data(bytes), Piece::Reset]),
    });
    let edge = Edge::before(&origin).tls(&[]).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    for _ in 0..2 {
        let answer = edge.get("/kept").await;
        assert_eq!((answer.status(), answer.ended), (200, Ended::CutOff), "{bytes}");
        match client.whole("GET", "/kept", &[], None).await {
            Ok(answer) => assert_eq!(answer.ended, Ended::CutOff, "{bytes}"),
            Err(reason) => assert_eq!(reason, Some(h2::Reason::INTERNAL_ERROR), "{bytes}"),
        }
        edge.settled().await;
    }
    assert_eq!(origin.count("/kept"), 4, "nothing is stored");
    assert_eq!(edge.get("/good").await.text(), "good");
    let bad: Vec<usize> =
        origin.seen("/kept", 4).await.iter().map(|seen| seen.connection).collect();
    assert!(!bad.contains(&origin.last("/good").await.connection));
}

#[tokio::test]
async fn e01_a_body_shorter_than_its_length() {
    is_cut_off("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nsixty")
        .await;
}

#[tokio::test]
async fn e02_chunks_without_the_last() {
    is_cut_off(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n",
    )
    .await;
}

#[tokio::test]
async fn e07_a_reset_is_no_end() {
    let origin = Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\n";
        Reply::script(vec![Piece::data(head), Piece::data("part"), Piece::Reset])
    });
    let edge = Edge::before(&origin).tls(&[]).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    for _ in 0..2 {
        let answer = edge.get("/a").await;
        assert!(answer.status() == 502 || answer.ended == Ended::CutOff, "{answer:?}");
        match client.whole("GET", "/a", &[], None).await {
            Ok(answer) => assert!(answer.status() == 502 || answer.ended == Ended::CutOff),
            Err(reason) => assert_eq!(reason, Some(h2::Reason::INTERNAL_ERROR)),
        }
        edge.settled().await;
    }
    assert!(origin.requests() >= 4, "nothing is stored");
}

/// Each of these answers is a 502 for both kinds of clients, and ends its connection.
async fn are_refused(rows: Vec<String>) {
    let replies = rows.clone();
    let origin = Origin::start(move |seen| {
        let number: Result<usize, _> = seen.target[1..].parse();
        number.map_or_else(
            |_| Reply::ok("good"),
            |number| Reply::script(vec![Piece::data(&replies[number]), Piece::Hang]),
        )
    });
    let edge = Edge::before(&origin).limits("origin_first_byte = \"1s\"").tls(&[]).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    for (number, row) in rows.iter().enumerate() {
        let target = format!("/{number}");
        assert_eq!(edge.get(&target).await.status(), 502, "{row:.80}");
        assert_eq!(client.get(&target, &[]).await.status(), 502, "{row:.80}");
        let bad = origin.last(&target).await.connection;
        assert_eq!(edge.get("/good").await.text(), "good", "after {row:.80}");
        assert_ne!(origin.last("/good").await.connection, bad);
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[tokio::test]
async fn e04_framing_that_can_be_read_in_two_ways() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    are_refused(vec![
        format!("{OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        format!("{OK}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
        format!("{OK}Transfer-Encoding: gzip\r\n\r\nhello"),
        format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
    ])
    .await;
}

#[tokio::test]
async fn e13_interim_responses_that_are_too_much() {
    let large = "x".repeat(40_000);
    are_refused(vec![
        format!("HTTP/1.1 103 Early Hints\r\nLink: {large}\r\n\r\n{OK}Content-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 100 Continue\r\nX: {large}\r\n\r\n{OK}Content-Length: 0\r\n\r\n"),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
    ])
    .await;
}

#[tokio::test]
async fn e14_heads_without_measure() {
    are_refused(vec![
        format!("{OK}{}\r\n", format!("X: {}\r\n", "y".repeat(1000)).repeat(1000)),
        format!("{OK}{}\r\n", "X: y\r\n".repeat(10_000)),
        format!("{OK}X: {}\r\n\r\n", "y".repeat(1 << 20)),
        format!("{OK}{}", "X: y\r\n".repeat(101)),
    ])
    .await;
}

#[tokio::test]
async fn e15_status_lines() {
    let line = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 5\r\n\r\nhello");
    are_refused(vec![
        line("99 Low"),
        line("1000 High"),
        line("2OO Letters"),
        line("200 N\0L"),
        line(&format!("200 {}", "x".repeat(64 * 1024))),
    ])
    .await;
    let origin = Origin::serving(Reply::raw("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"));
    assert_eq!(Edge::start(&origin).get("/a").await.text(), "ok");
}

#[tokio::test]
async fn e23_a_location_is_passed_on_and_not_read() {
    are_refused(vec![
        format!("{OK}Location: /a\rX: y\r\nContent-Length: 0\r\n\r\n"),
        format!("{OK}Location: /a\nX: y\r\nContent-Length: 0\r\n\r\n"),
    ])
    .await;
    for location in ["ftp://elsewhere/a", "javascript:alert(1)", "//x/%0d%0aX: y", "http://["] {
        let origin = Origin::serving(Reply::new(302).field("Location", location));
        let answer = Edge::start(&origin).get("/a").await;
        assert_eq!((answer.status(), answer.field("location")), (302, Some(location)));
    }
}

#[tokio::test]
async fn e36_a_stream_that_is_refused_is_sent_once_more() {
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let origin = H2Origin::start(None, move |call| {
        let refuse = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        async move { if refuse { call.refuse(h2::Reason::REFUSED_STREAM) } else { call.text("x") } }
    });
    let port = origin.address.port();
    let keys = format!("name = \"main\"\nservers = [\"http://127.0.0.1:{port}\"]\nhttp = \"2\"");
    let edge = Edge::before_servers(&[]).no_origins().origin_keys(&keys).start();
    assert_eq!(edge.post("/a", "x").await.text(), "x");
    assert!((edge.metric("atoll_origin_retries_total{origin=\"main\"}").await - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn e40_two_sites_at_one_address_never_meet_on_a_connection() {
    // It answers each connection for the site that spoke on it first, whatever is asked later.
    let owners = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashMap::new()));
    let origin = H2Origin::start(None, move |call| {
        let asked = call.request.uri.authority().unwrap().to_string();
        let mut owners = owners.lock().unwrap();
        let owner: String = owners.entry(call.connection).or_insert(asked).clone();
        drop(owners);
        async move { call.text(&owner) }
    });
    let port = origin.address.port();
    let server = format!("servers = [\"http://127.0.0.1:{port}\"]\nhttp = \"2\"");
    let edge = Edge::before_servers(&[])
        .no_origins()
        .origin_keys(&format!("name = \"main\"\n{server}"))
        .first_site("name = \"a\"\nhosts = [\"a.test\"]\norigin = \"main\"\npass = true")
        .another_site("name = \"b\"\nhosts = [\"b.test\"]\norigin = \"main\"\npass = true")
        .start();
    let mut client = edge.connect().await;
    for _ in 0..10 {
        for host in ["a.test", "b.test"] {
            assert_eq!(client.get(host, "/x", &[]).await.text(), host);
        }
    }
    assert!(origin.connections() >= 2);
}
