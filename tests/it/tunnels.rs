//! Upgrades over HTTP/1.1: WebSocket through the edge, and everything that may not get through.

use std::time::Duration;

use crate::support::client::request;
use crate::support::edge::{HOST, Plan};
use crate::support::websocket::{
    BINARY, CLOSE, HANDSHAKE, KEY, TEXT, accept, accepting, frame, handshake, switching,
};
use crate::support::{
    Connection, Edge, Ended, Gate, Origin, Piece, Reply, pattern, side_by_side, until,
};

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// An edge whose site grants WebSocket.
fn granting(origin: &Origin) -> Plan {
    Edge::before(origin).site("upgrade = [\"websocket\"]")
}

/// An origin that accepts every handshake, goes on as told, and answers everything else with its
/// target.
fn origin(then: Vec<Piece>) -> Origin {
    Origin::start(move |seen| match seen.field("upgrade") {
        Some(_) => accepting(seen, then.clone()),
        None => Reply::ok(&seen.target),
    })
}

/// A connection that has become a tunnel.
async fn open(edge: &Edge, target: &str) -> Connection {
    let mut client = edge.connect().await;
    client.send(handshake(target, &[])).await;
    assert_eq!(client.head("GET").await.status, 101);
    client
}

#[tokio::test]
async fn frames_go_both_ways_over_tls() {
    let origin = origin(vec![Piece::EchoFrames, Piece::Close]);
    let (plan, log) = granting(&origin).tls(&[&[HOST]]).access_log("json");
    let edge = plan.start();
    let (mut client, _) =
        Connection::open_tls(edge.tls(), Some(HOST), &["http/1.1"]).await.unwrap();
    client.send(handshake("/chat?room=1", &[("Cookie", "a=b"), ("Origin", "https://o")])).await;
    let head = client.head("GET").await;
    assert_eq!(head.status, 101);
    assert_eq!(head.field("sec-websocket-accept"), Some(&*accept(KEY)));
    assert_eq!(
        (head.field("connection"), head.field("upgrade")),
        (Some("upgrade"), Some("websocket"))
    );
    assert_eq!((head.field("x-own"), head.field("via")), (Some("origin"), Some("1.1 atoll")));
    assert!(head.field("cache-status").unwrap().contains("fwd=bypass"), "{head:?}");
    assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (None, None));
    let seen = origin.seen("/chat?room=1", 1).await.remove(0);
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-version", "13"),
        ("cookie", "a=b"),
        ("origin", "https://o"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("host", HOST),
    ] {
        assert_eq!(seen.field(name), Some(value), "{name}");
    }
    assert_eq!(edge.metric("atoll_tunnels").await, 1.0);
    for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let payload = pattern(size);
        client.send(frame(BINARY, &payload, MASK)).await;
        assert_eq!(client.frame().await, (BINARY, payload));
    }
    client.send(frame(CLOSE, &1000_u16.to_be_bytes(), MASK)).await;
    assert_eq!(client.frame().await.0, CLOSE);
    assert!(client.ends_in_order().await);
    client.finish().await;
    edge.metric_becomes("atoll_tunnels", 0.0).await;
    let received = edge.metric("atoll_tunnel_bytes_total{direction=\"received\"}").await;
    let sent = edge.metric("atoll_tunnel_bytes_total{direction=\"sent\"}").await;
    // Seven masked frames and the close frame, and the same without their masks.
    assert!((received - sent - 8.0 * 4.0).abs() < 0.5, "{received} {sent}");
    let line = logged(&log).await;
    assert_eq!((line["status"].as_u64(), line["fwd"].as_str()), (Some(101), Some("bypass")));
    assert_eq!(line["bytes"].as_f64(), Some(sent));
    assert_eq!(line["bytes_received"].as_f64(), Some(received));
    assert_eq!(line["incomplete"].as_bool(), None, "{line}");
}

/// The only line of an access log.
async fn logged(path: &std::path::Path) -> serde_json::Value {
    until("a line of the access log", || async {
        std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn what_is_sent_before_the_confirmation_waits_for_it() {
    let gate = Gate::new();
    let at_the_gate = gate.clone();
    let origin = Origin::start(move |seen| {
        let head = Piece::data(switching(seen));
        Reply::script(vec![Piece::gate(&at_the_gate), head, Piece::EchoFrames])
    });
    let edge = granting(&origin).start();
    let mut client = edge.connect().await;
    let early = [frame(TEXT, b"early", MASK), frame(TEXT, b"bird", MASK)].concat();
    client.send([handshake("/a", &[]).into_bytes(), early].concat()).await;
    gate.reached(1).await;
    client.send(frame(TEXT, b"later", MASK)).await;
    gate.open();
    assert_eq!(client.head("GET").await.status, 101);
    for text in ["early", "bird", "later"] {
        assert_eq!(client.frame().await, (TEXT, text.as_bytes().to_vec()));
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer_and_what_follows_is_no_request() {
    for status in [200, 302, 403, 404, 426, 500, 503] {
        let answer = format!(
            "HTTP/1.1 {status} No\r\nContent-Length: 3\r\nCache-Control: max-age=60\r\n\
             Connection: keep-alive\r\nUpgrade: h2c\r\n\r\nno\n"
        );
        let steps = vec![Piece::data(answer), Piece::ReadAll];
        let origin = Origin::start(move |seen| match seen.field("upgrade") {
            Some(_) => Reply::script(steps.clone()),
            None => Reply::ok("plain"),
        });
        let edge = granting(&origin).start();
        let mut client = edge.connect().await;
        client.send(handshake("/a", &[]) + &request("GET", HOST, "/evil", &[])).await;
        let answer = client.response("GET").await;
        assert_eq!((answer.status(), answer.text()), (status, "no\n"));
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(answer.field("upgrade"), None);
        assert!(answer.says("fwd=bypass") && !answer.says("stored"), "{answer:?}");
        client.closed().await;
        // Not stored, and the connection to the origin served nobody else.
        assert_eq!(edge.get("/a").await.text(), "plain");
        assert_eq!((origin.count("/evil"), origin.received()), (0, 0), "{status}");
        assert_eq!(origin.connections(), 2);
        edge.metric_becomes("atoll_tunnels", 0.0).await;
    }
}

#[tokio::test]
async fn an_origin_that_confirms_something_else_is_not_believed() {
    let rows = [
        (
            "another key's",
            "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n",
        ),
        ("none", "Upgrade: websocket\r\n"),
        ("no protocol", "Sec-WebSocket-Accept: ACCEPT\r\n"),
        ("another protocol", "Upgrade: h2c\r\nSec-WebSocket-Accept: ACCEPT\r\n"),
        ("two", "Upgrade: websocket, h2c\r\nSec-WebSocket-Accept: ACCEPT\r\n"),
        (
            "two accepts",
            "Upgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Accept: ACCEPT\r\n",
        ),
        ("a body", "Upgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\nContent-Length: 3\r\n"),
    ];
    for (case, fields) in rows {
        let fields = fields.replace("ACCEPT", &accept(KEY));
        let head = format!("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\n{fields}\r\n");
        let steps = vec![Piece::data(head + "secret"), Piece::ReadAll];
        let origin = Origin::start(move |_| Reply::script(steps.clone()));
        let edge = granting(&origin).start();
        let mut client = edge.connect().await;
        client.send([handshake("/a", &[]).into_bytes(), frame(TEXT, b"x", MASK)].concat()).await;
        let answer = client.response("GET").await;
        assert_eq!(answer.status(), 502, "{case}");
        assert!(!answer.text().contains("secret"), "{case}");
        client.closed().await;
        assert_eq!((origin.received(), edge.metric("atoll_tunnels").await), (0, 0.0), "{case}");
    }
}

#[tokio::test]
async fn without_a_policy_an_upgrade_is_passed_over() {
    let origin = Origin::start(|seen| Reply::fresh(&seen.target));
    let edge = Edge::before(&origin).rule("/ws", "upgrade = [\"websocket\"]").start();
    let plain = handshake("/a", &[]);
    let h2c = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABk"),
    ];
    let two = [("Upgrade", "h2c"), HANDSHAKE[0], HANDSHAKE[1], HANDSHAKE[2], HANDSHAKE[3]];
    let list = [("Upgrade", "websocket, h2c"), HANDSHAKE[0], HANDSHAKE[2], HANDSHAKE[3]];
    let rows = [
        ("no policy there", plain),
        ("h2c", request("GET", HOST, "/ws/1", &h2c)),
        ("two lines", request("GET", HOST, "/ws/2", &two)),
        ("a list", request("GET", HOST, "/ws/3", &list)),
        ("not of this connection", request("GET", HOST, "/ws/4", &HANDSHAKE[1..])),
        ("HTTP/1.0", handshake("/ws/5", &[]).replace("HTTP/1.1", "HTTP/1.0")),
    ];
    for (case, head) in rows {
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let mut client = edge.connect().await;
        client.send(head + &request("GET", HOST, "/evil", &[])).await;
        let answer = client.response("GET").await;
        assert_eq!((answer.status(), answer.text()), (200, &*target), "{case}");
        client.closed().await;
        let seen = origin.last(&target).await;
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(seen.field(name), None, "{case}");
        }
    }
    assert_eq!(origin.count("/evil"), 0);
}

#[tokio::test]
async fn handshakes_that_are_not_sound_reach_no_origin() {
    let origin = origin(vec![Piece::Echo]);
    let edge = granting(&origin).start();
    let [connection, upgrade, version, key] = HANDSHAKE;
    let get = |fields: &[(&str, &str)]| request("GET", HOST, "/a", fields);
    let rows = [
        (400, get(&[connection, upgrade, ("Sec-WebSocket-Version", "8"), key])),
        (400, get(&[connection, upgrade, key])),
        (400, get(&[connection, upgrade, version])),
        (400, get(&[connection, upgrade, version, ("Sec-WebSocket-Key", "c2hvcnQ=")])),
        (400, get(&[connection, upgrade, version, key, key])),
        (400, get(&[("Connection", "Upgrade, Sec-WebSocket-Key"), upgrade, version, key])),
        (400, request("POST", HOST, "/a", &HANDSHAKE)),
        (400, handshake("/a", &[("Content-Length", "5")]) + "12345"),
        (400, handshake("/a", &[("Transfer-Encoding", "chunked")]) + "0\r\n\r\n"),
        (400, handshake("/a", &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")])),
        (405, handshake("/a", &[]).replace("GET /a", "CONNECT h:1")),
    ];
    for (status, bytes) in rows {
        let mut client = edge.connect().await;
        client.send(&bytes).await;
        let answer = client.response("GET").await;
        assert_eq!(answer.status(), status, "{bytes}");
        let sound = bytes.contains("Sec-WebSocket-Version: 13\r\n");
        let version = (!sound).then_some("13");
        assert_eq!(answer.field("sec-websocket-version"), version, "{bytes}");
        client.closed().await;
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn one_side_may_end_before_the_other() {
    let bye = Piece::data("bye");
    let origin = origin(vec![Piece::ReadAll, bye.clone(), Piece::Close]);
    let edge = granting(&origin).start();
    let mut client = open(&edge, "/a").await;
    client.send("hello").await;
    client.finish().await;
    assert_eq!(&*client.bytes(3).await, b"bye");
    assert!(client.ends_in_order().await);
    assert_eq!(origin.received(), 5);
    edge.metric_becomes("atoll_tunnels", 0.0).await;

    let origin = self::origin(vec![bye, Piece::Close]);
    let edge = granting(&origin).start();
    let mut client = open(&edge, "/a").await;
    assert_eq!(&*client.bytes(3).await, b"bye");
    assert!(client.ends_in_order().await);
    client.finish().await;
    edge.metric_becomes("atoll_tunnels", 0.0).await;
}

#[tokio::test]
async fn when_one_side_breaks_the_other_is_broken_off() {
    let gate = Gate::new();
    let reset = origin(vec![Piece::data("x"), Piece::gate(&gate), Piece::Reset]);
    let (plan, log) = granting(&reset).access_log("json");
    let edge = plan.start();
    let mut client = open(&edge, "/a").await;
    client.bytes(1).await;
    gate.open();
    assert!(!client.ends_in_order().await, "a reset, not an end");
    edge.metric_becomes("atoll_tunnels", 0.0).await;
    assert_eq!(logged(&log).await["incomplete"].as_bool(), Some(true));

    // A socket that is closed over unread bytes resets its connection.
    let origin = origin(vec![Piece::data(pattern(8 << 20)), Piece::Hang]);
    let edge = granting(&origin).start();
    drop(open(&edge, "/a").await);
    edge.metric_becomes("atoll_tunnels", 0.0).await;
    edge.metric_becomes("atoll_origin_connections_open{origin=\"main\"}", 0.0).await;
}

#[tokio::test]
async fn silence_and_age_end_a_tunnel() {
    let origin = origin(vec![Piece::data("x"), Piece::Hang]);
    for limit in ["tunnel_idle = \"150ms\"", "tunnel_age = \"150ms\""] {
        let edge = granting(&origin).limits(limit).start();
        let mut client = open(&edge, "/a").await;
        client.bytes(1).await;
        client.any_end().await;
        edge.metric_becomes("atoll_tunnels", 0.0).await;
        edge.metric_becomes("atoll_origin_connections_open{origin=\"main\"}", 0.0).await;
    }
    // What moves now and then is not silent.
    let now_and_then = [Piece::data("x"), Piece::Pause(Duration::from_millis(50))];
    let origin = self::origin([vec![now_and_then; 30].concat(), vec![Piece::Close]].concat());
    let edge = granting(&origin).limits("tunnel_idle = \"1s\"").start();
    let mut client = open(&edge, "/a").await;
    client.bytes(30).await;
    assert!(client.ends_in_order().await);
}

#[tokio::test]
async fn much_goes_through_and_nothing_is_lost() {
    let origin = origin(vec![Piece::Echo, Piece::Close]);
    let edge = granting(&origin).start();
    let mut client = open(&edge, "/a").await;
    let bytes = pattern(64 << 20);
    assert!(client.swap(&bytes).await == bytes);
    assert_eq!(origin.received(), bytes.len() as u64);
    client.finish().await;
    assert!(client.ends_in_order().await);
}

#[tokio::test]
async fn tunnels_have_a_cap_and_take_no_place_of_requests() {
    let origin = origin(vec![Piece::Echo]);
    let edge =
        granting(&origin).limits("tunnels = 2\norigin_connections = 1\norigin_queue = 0").start();
    let mut first = open(&edge, "/1").await;
    let _second = open(&edge, "/2").await;
    let mut third = edge.connect().await;
    third.send(handshake("/3", &[])).await;
    let answer = third.response("GET").await;
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
    third.closed().await;
    assert_eq!(origin.count("/3"), 0);
    assert_eq!(edge.get("/plain").await.text(), "/plain");
    first.finish().await;
    assert!(first.ends_in_order().await);
    edge.metric_becomes("atoll_tunnels", 1.0).await;
    open(&edge, "/4").await;
}

#[tokio::test]
async fn a_tunnel_lives_until_the_drain_is_over_and_none_begins_meanwhile() {
    let origin = origin(vec![Piece::Echo]);
    let edge = granting(&origin).limits("drain = \"1s\"").drain_notice("500ms").start();
    let mut client = open(&edge, "/a").await;
    let mut late = edge.connect().await;
    assert_eq!(late.get(HOST, "/plain", &[]).await.status(), 200);
    edge.drain();
    late.send(handshake("/late", &[])).await;
    assert_eq!(late.response("GET").await.status(), 503);
    client.send("still here").await;
    assert_eq!(&*client.bytes(10).await, b"still here");
    edge.drained().await;
    client.any_end().await;
    assert_eq!(origin.count("/late"), 0);
}

#[tokio::test]
async fn nobody_gets_what_was_said_in_a_tunnel() {
    let origin = Origin::start(|seen| match seen.field("upgrade") {
        Some(_) if seen.target.ends_with('0') => {
            Reply::new(403).body(format!("no {}", seen.target))
        }
        Some(_) => accepting(seen, vec![Piece::Echo, Piece::Close]),
        None => Reply::ok(&seen.target),
    });
    let edge = granting(&origin).start();
    let address = edge.plain();
    let plain = (0..40).map(|number| (number, false));
    let upgraded = (0..40).map(|number| (number, true));
    side_by_side(plain.chain(upgraded).map(|(number, upgrade)| async move {
        let mut client = Connection::open(address).await;
        let target = format!("/{number}");
        if !upgrade {
            for _ in 0..5 {
                let answer = client.get(HOST, &target, &[]).await;
                assert_eq!(
                    (answer.status(), answer.text(), answer.ended),
                    (200, &*target, Ended::Clean)
                );
            }
            return;
        }
        client.send(handshake(&target, &[]) + &request("GET", HOST, "/evil", &[])).await;
        let head = client.head("GET").await;
        if number % 10 == 0 {
            assert_eq!(head.status, 403);
            assert_eq!(client.rest().await.0, format!("no {target}"));
            return client.closed().await;
        }
        assert_eq!(head.status, 101);
        let evil = request("GET", HOST, "/evil", &[]);
        assert_eq!(client.bytes(evil.len()).await, evil);
        client.finish().await;
        assert!(client.ends_in_order().await);
    }))
    .await;
    assert_eq!(origin.count("/evil"), 0);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_passed_over() {
    let origin = origin(vec![Piece::Echo]);
    let dead = Origin::dead().await;
    for servers in [[dead, origin.address], [origin.address, dead]] {
        let edge = Edge::before_servers(&servers).site("upgrade = [\"websocket\"]").start();
        for _ in 0..3 {
            let mut client = open(&edge, "/a").await;
            client.send("x").await;
            client.bytes(1).await;
        }
    }
    let edge = Edge::before_servers(&[dead]).site("upgrade = [\"websocket\"]").start();
    assert_eq!(edge.raw(handshake("/a", &[]), "GET").await.status(), 503);
}

#[tokio::test]
async fn other_protocols_are_carried_where_they_are_named() {
    let origin = Origin::start(|seen| {
        let name = seen.field("upgrade").unwrap_or_default();
        let head = format!("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: {name}\r\n\r\n");
        Reply::script(vec![Piece::data(head), Piece::Echo])
    });
    let edge = Edge::before(&origin).site("upgrade = [\"TCP\", \"spdy/3.1\"]").start();
    for protocol in ["tcp", "SPDY/3.1"] {
        let mut client = edge.connect().await;
        let fields = [("Connection", "Upgrade"), ("Upgrade", protocol)];
        client.send(request("POST", HOST, "/attach", &fields)).await;
        let head = client.head("POST").await;
        assert_eq!((head.status, head.field("upgrade")), (101, Some(protocol)));
        client.send("bytes").await;
        assert_eq!(&*client.bytes(5).await, b"bytes");
    }
}
