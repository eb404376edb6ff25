//! What strangers may not do: ambiguous messages, too much, too slow.

use bytes::Bytes;

use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::{Connection, Edge, H2, Origin, Reply, until};

/// Sends bytes, and expects a refusal and the end of the connection.
async fn refused(edge: &Edge, bytes: &[u8], status: u16, case: &str) {
    let mut client = edge.connect().await;
    let _ = client.try_send(bytes).await;
    let answer = client.response("GET").await;
    assert_eq!(answer.status(), status, "{case}: {answer:?}");
    assert_eq!(answer.field("connection"), Some("close"), "{case}");
    client.closed().await;
}

async fn refusals(edge: &Edge) -> f64 {
    let answer = edge.manage_as(None, "GET", "/metrics", None).await;
    let lines = answer.text().lines().filter(|line| line.starts_with("atoll_refusals_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Framing that two parsers could read in two ways: `POST /a`, these fields and bytes.
const AMBIGUOUS: [(&str, &str); 33] = [
    ("A01", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    ("A02", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG"),
    ("A03", "Content-Length: 3\r\nContent-Length: 7\r\n\r\n1234567"),
    ("A04", "Content-Length: 3\r\nContent-Length: 3\r\n\r\n123"),
    ("A05", "Content-Length: 5, 5\r\n\r\n12345"),
    ("A05", "Content-Length: 5, 6\r\n\r\n12345"),
    ("A05", "Content-Length: 5,\r\n\r\n12345"),
    ("A06", "Content-Length: +5\r\n\r\n12345"),
    ("A06", "Content-Length: -1\r\n\r\n12345"),
    ("A06", "Content-Length: -0\r\n\r\n"),
    ("A08", "Content-Length: 010\r\n\r\n1234567890"),
    ("A08", "Content-Length: 00\r\n\r\n"),
    ("A08", "Content-Length: 0x5\r\n\r\n12345"),
    ("A10", "Content-Length:\r\nContent-Length: 31\r\n\r\n"),
    ("A10", "Content-Length:\r\n\r\n"),
    ("A12", "Content-Length: 5\u{b}\r\n\r\n12345"),
    ("A12", "Content-Length: 5\u{c}\r\n\r\n12345"),
    ("A14", "Content-Length : 5\r\n\r\n12345"),
    ("A14", "Content-Length\t: 5\r\n\r\n12345"),
    ("A21", "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    ("A21", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("A21", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("A21", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("A21", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("A23", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("A23", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("A30", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("A31", "Foo: x\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("A31", "Foo: x\n\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("A57", "Foo: x\nContent-Length: 0\n\n"),
    ("A59", "Content-Length: 0\r\n\rX"),
    ("A90", "Connection: upgrade\r\nUpgrade: foo\r\nContent-Length: 5\r\n\r\n12345"),
    ("NUL", "Foo: a\0b\r\nContent-Length: 0\r\n\r\n"),
];

#[tokio::test]
async fn ambiguous_framing_reaches_no_origin() {
    let origin = Origin::start(|seen| Reply::ok(seen.field("x-nonce").unwrap_or("none")));
    let edge = Edge::start(&origin);
    // Whoever comes next over a connection that is shared at the origin gets their own answer.
    let mut other = edge.connect().await;
    let mut good = 0;
    for (case, rest) in AMBIGUOUS {
        let bytes = format!("POST /bad HTTP/1.1\r\nHost: h\r\n{rest}");
        let before = refusals(&edge).await;
        refused(&edge, bytes.as_bytes(), 400, &format!("{case} {rest:?}")).await;
        assert!((refusals(&edge).await - before - 1.0).abs() < 0.5, "{case} counts once");
        good += 1;
        let nonce = good.to_string();
        let answer = other.get(HOST, "/good", &[("X-Nonce", &nonce)]).await;
        assert_eq!(answer.text(), nonce, "after {case}");
    }
    assert_eq!(origin.requests(), good, "only the good ones");
}

#[tokio::test]
async fn malformed_heads_reach_no_origin() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let host = "Host: h\r\n\r\n";
    let rows: [(u16, String); 37] = [
        (400, format!("GET  /a HTTP/1.1\r\n{host}")),
        (400, format!("GET\t/a HTTP/1.1\r\n{host}")),
        (400, format!("GET /a HTTP/1.1 \r\n{host}")),
        (400, format!("GET /a b HTTP/1.1\r\n{host}")),
        (400, format!(" GET /a HTTP/1.1\r\n{host}")),
        (400, "GET /a\r\n".to_owned()),
        (400, format!("get /a HTTP/1.1\r\n{host}")),
        (400, format!("G(T /a HTTP/1.1\r\n{host}")),
        (400, format!("GET /a HTTP/1.1\nHost: h\n\n{host}")),
        (400, format!("GET /a HTP/1.1\r\n{host}")),
        (505, format!("GET /a HTTP/2.0\r\n{host}")),
        (405, format!("FROBNICATE /a HTTP/1.1\r\n{host}")),
        (405, format!("TRACE /a HTTP/1.1\r\n{host}")),
        (405, "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n".to_owned()),
        (400, format!("GET a/b HTTP/1.1\r\n{host}")),
        (400, format!("GET @evil/ HTTP/1.1\r\n{host}")),
        (400, format!("GET :80/ HTTP/1.1\r\n{host}")),
        (400, format!("GET * HTTP/1.1\r\n{host}")),
        (400, format!("GET ftp://h/ HTTP/1.1\r\n{host}")),
        (400, format!("GET https://h/ HTTP/1.1\r\n{host}")),
        (400, format!("GET http://me@h/ HTTP/1.1\r\n{host}")),
        (400, format!("GET http://other/ HTTP/1.1\r\n{host}")),
        (400, format!("GET /a#b HTTP/1.1\r\n{host}")),
        (400, format!("GET /a\\b HTTP/1.1\r\n{host}")),
        (400, format!("GET /a\"b HTTP/1.1\r\n{host}")),
        (400, format!("GET /a<b HTTP/1.1\r\n{host}")),
        (400, format!("GET /\u{e9} HTTP/1.1\r\n{host}")),
        (400, format!("GET /a\u{7f} HTTP/1.1\r\n{host}")),
        (400, format!("GET /a/../b HTTP/1.1\r\n{host}")),
        (400, format!("GET /a/%2e%2E/b HTTP/1.1\r\n{host}")),
        (400, format!("GET /a/./b HTTP/1.1\r\n{host}")),
        (400, "GET /a HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n".to_owned()),
        (400, "GET /a HTTP/1.1\r\nHost: h/evil\r\n\r\n".to_owned()),
        (400, "GET /a HTTP/1.1\r\nHost: me@h\r\n\r\n".to_owned()),
        (
            400,
            "GET /a HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\nRange: bytes=0-1\r\n\r\n".to_owned(),
        ),
        (
            400,
            "POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
    ];
    for (status, bytes) in rows {
        refused(&edge, bytes.as_bytes(), status, &format!("{bytes:?}")).await;
    }
    assert_eq!(origin.requests(), 0);
    assert_eq!(edge.get("/a").await.status(), 200);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_whole() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let long = |count: usize| "x".repeat(count);
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let rows = [
        (414, format!("GET /{}", long(8300))),
        (414, format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", long(8300))),
        (431, format!("GET /a HTTP/1.1\r\nHost: h\r\nX: {}", long(8300))),
        (431, format!("GET /a HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", long(65_536))),
        (431, format!("GET /a HTTP/1.1\r\nHost: h\r\n{}\r\n", fields(101))),
        (431, format!("GET /a HTTP/1.1\r\nHost: h\r\nCookie: a={}", long(17_000))),
        (
            431,
            format!("GET /a HTTP/1.1\r\nHost: h\r\n{}", format!("X: {}\r\n", long(8000)).repeat(5)),
        ),
    ];
    for (status, bytes) in rows {
        refused(&edge, bytes.as_bytes(), status, &format!("{bytes:.60}")).await;
    }
    assert_eq!(origin.requests(), 0);
    let just = request("GET", "h", &format!("/{}", long(8000)), &[("X", &long(8000))]);
    assert_eq!(edge.raw(just, "GET").await.status(), 200);
}

#[tokio::test]
async fn a_body_beyond_the_rule_is_413() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).site("body_bytes = 1000").start();
    let head = request("POST", "h", "/length", &[("Content-Length", "1001")]);
    refused(&edge, head.as_bytes(), 413, "announced").await;
    assert_eq!(origin.requests(), 0);
    let head = request("POST", "h", "/chunked", &[("Transfer-Encoding", "chunked")]);
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let mut client = edge.connect().await;
    client.send(format!("{head}{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(client.response("POST").await.status(), 413);
    assert_eq!(edge.post("/fits", &"x".repeat(1000)).await.status(), 200);
    let whole = origin.seen("/chunked", origin.count("/chunked")).await;
    assert!(whole.iter().all(|seen| seen.body.is_none()), "the origin believes it has it all");
}

#[tokio::test]
async fn broken_chunks_are_never_a_whole_body() {
    let origin = Origin::start(|seen| Reply::ok(seen.field("x-nonce").unwrap_or("none")));
    let edge = Edge::start(&origin);
    let mut other = edge.connect().await;
    let extension = format!("1;{}\r\na\r\n", "e".repeat(5000));
    let rows = [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFED\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
        &extension,
    ];
    for (number, chunks) in rows.iter().enumerate() {
        let head = request("POST", "h", "/bad", &[("Transfer-Encoding", "chunked")]);
        let mut client = edge.connect().await;
        client.send(format!("{head}{chunks}")).await;
        let answer = client.response("POST").await;
        assert_eq!(answer.status(), 400, "{chunks:?}: {answer:?}");
        client.closed().await;
        let nonce = number.to_string();
        let answer = other.get(HOST, "/good", &[("X-Nonce", &nonce)]).await;
        assert_eq!(answer.text(), nonce, "after {chunks:?}");
    }
    let seen = origin.seen("/bad", origin.count("/bad")).await;
    assert!(seen.iter().all(|seen| seen.body.is_none()), "a broken body passed for a whole one");
    let fine = "5;a=\"b c\"\r\nhello\r\n0\r\nA: b\r\n\r\n";
    let head = request("POST", "h", "/fine", &[("Transfer-Encoding", "\tchunked\t")]);
    assert_eq!(edge.raw(head + fine, "POST").await.status(), 200);
    assert_eq!(origin.last("/fine").await.text(), "hello");
}

#[tokio::test]
async fn a_body_that_belongs_to_a_hit_is_not_the_next_request() {
    let origin = Origin::start(|seen| Reply::fresh(&seen.method));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    for method in ["HEAD", "GET", "OPTIONS", "DELETE"] {
        let inner = "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n";
        let length = inner.len().to_string();
        let mut client = edge.connect().await;
        let head = request(method, HOST, "/a", &[("Content-Length", &length)]);
        client.send(head + inner).await;
        client.response(method).await;
        client.send(request("GET", HOST, "/last", &[("Connection", "close")])).await;
        if let Some(head) = client.try_head("GET").await {
            assert_eq!(head.status, 200);
            client.rest().await;
            client.closed().await;
        }
    }
    assert_eq!(origin.count("/evil"), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|seen| Reply::ok(&seen.target));
    let edge = Edge::start(&origin);
    let mut all = String::new();
    for number in 0..10 {
        if number % 2 == 0 {
            all += &request("GET", HOST, &format!("/{number}"), &[]);
        } else {
            all += &request("POST", HOST, &format!("/{number}"), &[("Content-Length", "4")]);
            all += "body";
        }
    }
    let mut client = edge.connect().await;
    client.send(&all).await;
    for number in 0..10 {
        assert_eq!(client.response("GET").await.text(), format!("/{number}"));
    }
    client.send(request("GET", HOST, "/first", &[]) + "GET /bad  HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.response("GET").await.text(), "/first");
    assert_eq!(client.response("GET").await.status(), 400);
    client.closed().await;
    assert_eq!(origin.count("/bad"), 0);
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    let head = request("POST", HOST, "/a", &[("Transfer-Encoding", "chunked")]);
    for byte in (head + "5\r\nhello\r\n0\r\n\r\n").bytes() {
        client.send([byte]).await;
    }
    assert_eq!(client.response("POST").await.text(), "x");
    assert_eq!(origin.last("/a").await.text(), "hello");
}

#[tokio::test]
async fn a_head_has_a_deadline_that_bytes_do_not_move() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).limits("head = \"300ms\"").start();
    let mut client = edge.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: h\r\n").await;
    let drip = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            if client.try_send("X").await.is_err() {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_millis(600), drip).await;
    let answer = client.response("GET").await;
    assert_eq!(answer.status(), 408);
    client.closed().await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).limits("keep_alive = \"200ms\"\nhead = \"200ms\"").start();
    let mut client = edge.connect().await;
    assert_eq!(client.get(HOST, "/a", &[]).await.text(), "x");
    client.closed().await;
    let mut silent = edge.connect().await;
    silent.closed().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).limits("body_gap = \"200ms\"").start();
    let mut client = edge.connect().await;
    client.send(request("POST", HOST, "/a", &[("Content-Length", "10")]) + "half").await;
    assert_eq!(client.response("POST").await.status(), 408);
    client.closed().await;
    let seen = origin.seen("/a", origin.count("/a")).await;
    assert!(seen.iter().all(|seen| seen.body.is_none()));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let origin = Origin::serving(Reply::ok(vec![b'x'; 32 << 20]));
    let edge = Edge::before(&origin).limits("send_gap = \"300ms\"").start();
    let mut client = Connection::open_narrow(edge.plain()).await;
    client.ask(HOST, "/a", &[]).await;
    edge.metric_becomes("atoll_client_timeouts_total", 1.0).await;
    edge.metric_becomes("atoll_connections_open", 0.0).await;
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_others_served() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).limits("connections = 3").start();
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = edge.connect().await;
        assert_eq!(client.get(HOST, "/a", &[]).await.text(), "x");
        open.push(client);
    }
    assert!(!served(&edge).await, "one more than there is room for");
    for client in &mut open {
        assert_eq!(client.get(HOST, "/a", &[]).await.text(), "x");
    }
    drop(open.pop());
    until("room again", || served(&edge)).await;
}

/// Whether a new connection gets an answer.
async fn served(edge: &Edge) -> bool {
    let Ok(mut client) = Connection::try_open(edge.plain()).await else { return false };
    let _ = client.try_send(request("GET", HOST, "/b", &[])).await;
    client.try_head("GET").await.is_some_and(|head| head.status == 200)
}

#[tokio::test]
async fn unknown_hosts_are_misdirected() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin)
        .first_site("name = \"main\"\nhosts = [\"site.test\", \"*.wild.test\"]\norigin = \"main\"")
        .start();
    for (host, status) in [
        ("site.test", 200),
        ("a.wild.test", 200),
        ("a.b.wild.test", 421),
        ("wild.test", 421),
        ("other.test", 421),
        ("127.0.0.1", 421),
    ] {
        assert_eq!(edge.ask("GET", host, "/a", &[]).await.status(), status, "{host}");
    }
}

#[tokio::test]
async fn many_small_chunks_cost_little() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let head = request("POST", HOST, "/a", &[("Transfer-Encoding", "chunked")]);
    let chunks = "1\r\na\r\n".repeat(50_000);
    assert_eq!(edge.raw(head + &chunks + "0\r\n\r\n", "POST").await.text(), "x");
    assert_eq!(origin.last("/a").await.text().len(), 50_000);
}

#[tokio::test]
async fn many_small_data_frames_cost_little() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).plain_h2().start();
    for _ in 0..30 {
        // One connection may not do this for ever: it is odd, if cheap.
        let mut client = H2::plain(edge.plain(), HOST).await;
        let head = client.head("POST", "/a", &[]);
        let mut asked = client.ask(head, true).await;
        for number in 1..=1500 {
            asked.body.send_data(Bytes::from_static(b"a"), number == 1500).unwrap();
        }
        assert_eq!(asked.outcome().await.unwrap().text(), "x");
        assert_eq!(origin.last("/a").await.text().len(), 1500);
    }
}
