//! WebSocket over HTTP/2 (RFC 8441): extended CONNECT at the door, an upgrade at the origin.

use bytes::Bytes;
use h2::Reason;

use crate::support::edge::{HOST, Plan};
use crate::support::websocket::{
    BINARY, CLOSE, KEY, Stream, TEXT, accepting, connect, connect_websocket, frame,
};
use crate::support::{Edge, Gate, H2, Origin, Piece, Reply, pattern, until};

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

fn granting(origin: &Origin) -> Plan {
    Edge::before(origin).site("upgrade = [\"websocket\"]").tls(&[&[HOST]])
}

fn origin(then: Vec<Piece>) -> Origin {
    Origin::start(move |seen| match seen.field("upgrade") {
        Some(_) => accepting(seen, then.clone()),
        None => Reply::ok(&seen.target),
    })
}

async fn open(client: &mut H2, path: &str) -> Stream {
    let stream = connect_websocket(client, path).await;
    assert_eq!(stream.status(), 200, "{:?}", stream.head);
    stream
}

#[tokio::test]
async fn frames_go_both_ways_beside_other_requests() {
    let origin = origin(vec![Piece::EchoFrames, Piece::Close]);
    let (plan, log) = granting(&origin).access_log("json");
    let edge = plan.start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let mut stream = open(&mut client, "/chat").await;
    for name in ["sec-websocket-accept", "connection", "upgrade", "content-length"] {
        assert_eq!(stream.field(name), None, "{name}");
    }
    assert_eq!(stream.field("x-own"), Some("origin"));
    assert!(stream.field("cache-status").unwrap().contains("fwd=bypass"));
    let seen = origin.seen("/chat", 1).await.remove(0);
    assert_eq!((seen.method.as_str(), seen.field("upgrade")), ("GET", Some("websocket")));
    assert_eq!(seen.field("sec-websocket-version"), Some("13"));
    assert_ne!(seen.field("sec-websocket-key").unwrap(), KEY);
    let mut second = open(&mut client, "/other").await;
    let keys = [seen, origin.seen("/other", 1).await.remove(0)];
    let [one, two] = keys.each_ref().map(|seen| seen.field("sec-websocket-key").unwrap());
    assert_ne!(one, two, "each has a key of its own");
    assert_eq!(edge.metric("atoll_tunnels").await, 2.0);
    for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let payload = pattern(size);
        stream.send(&frame(BINARY, &payload, MASK)).await;
        second.send(&frame(TEXT, b"mine", MASK)).await;
        assert_eq!(stream.frame().await, (BINARY, payload));
        assert_eq!(second.frame().await, (TEXT, b"mine".to_vec()));
        assert_eq!(client.get("/plain", &[]).await.text(), "/plain");
    }
    stream.send(&frame(CLOSE, b"", MASK)).await;
    assert_eq!(stream.frame().await.0, CLOSE);
    assert_eq!(stream.rest().await, Ok(Bytes::new()), "the origin's end is END_STREAM");
    stream.finish();
    edge.metric_becomes("atoll_tunnels", 1.0).await;
    drop(second);
    edge.metric_becomes("atoll_tunnels", 0.0).await;
    let line = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().find(|line| line.contains("\"/chat\"")).map(str::to_owned)
    };
    until("a line of the access log", || async { line().is_some() }).await;
    let line = line().unwrap();
    assert!(line.contains("\"status\":200") && line.contains("\"http\":\"2\""), "{line}");
    assert!(line.contains("\"bytes_received\":"), "{line}");
}

#[tokio::test]
async fn only_where_policy_grants_it_and_only_websocket() {
    let origin = origin(vec![Piece::Echo]);
    let edge = Edge::before(&origin).tls(&[&[HOST]]).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    client.get("/a", &[]).await;
    assert!(!client.send.is_extended_connect_protocol_enabled(), "it is not offered for nothing");

    let edge = Edge::before(&origin)
        .rule("/ws", "upgrade = [\"websocket\", \"tcp\"]")
        .tls(&[&[HOST]])
        .start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");
    type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], u16);
    let rows: [Row; 7] = [
        ("websocket", "/elsewhere", &[VERSION], 501),
        ("connect-udp", "/ws", &[VERSION], 501),
        ("h2c", "/ws", &[VERSION], 501),
        ("tcp", "/ws", &[], 400),
        ("websocket", "/ws", &[], 400),
        ("websocket", "/ws", &[VERSION, ("content-length", "0")], 400),
        ("websocket", "/ws", &[VERSION, ("expect", "100-continue")], 400),
    ];
    for (protocol, path, fields, status) in rows {
        let stream = connect(&mut client, protocol, path, fields).await.unwrap();
        assert_eq!(stream.status(), status, "{protocol} {path} {fields:?}");
    }
    let plain = http::Request::builder().method("CONNECT").uri("site.test:443").body(()).unwrap();
    let answer = client.ask(plain, true).await.response().await.unwrap();
    assert_eq!(answer.status(), 405);
    assert_eq!(origin.requests(), 1, "none of them got there");
    // The connection has not suffered.
    let mut stream = open(&mut client, "/ws").await;
    stream.send(b"x").await;
    assert_eq!(&*stream.bytes(1).await, b"x");
}

#[tokio::test]
async fn a_refusal_of_the_origin_is_handed_back_and_the_connection_goes_on() {
    let rows = [
        ("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", 403, "no"),
        // To whom asks by CONNECT a 2xx says that a tunnel stands.
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret", 502, ""),
        ("HTTP/1.1 204 No\r\n\r\n", 502, ""),
        ("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nsecret", 502, ""),
        ("", 502, ""),
    ];
    for (answer, status, body) in rows {
        let origin = Origin::start(move |seen| match seen.field("upgrade") {
            Some(_) => Reply::script(vec![Piece::data(answer), Piece::Close]),
            None => Reply::ok("plain"),
        });
        let edge = granting(&origin).start();
        let mut client = H2::tls(edge.tls(), HOST).await;
        let mut stream = connect_websocket(&mut client, "/a").await;
        assert_eq!(stream.status(), status, "{answer}");
        let rest = stream.rest().await.unwrap();
        assert!(
            if body.is_empty() { !rest.starts_with(b"secret") } else { rest == body },
            "{rest:?}"
        );
        assert_eq!(client.get("/a", &[]).await.text(), "plain");
        assert_eq!(edge.metric("atoll_tunnels").await, 0.0);
    }
}

#[tokio::test]
async fn ends_and_breaks_are_carried_over() {
    let origin = origin(vec![Piece::ReadAll, Piece::data("bye"), Piece::Close]);
    let edge = granting(&origin).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let mut stream = open(&mut client, "/half").await;
    stream.send(b"hello").await;
    stream.finish();
    assert_eq!(stream.rest().await, Ok(Bytes::from("bye")));
    assert_eq!(origin.received(), 5);
    edge.metric_becomes("atoll_tunnels", 0.0).await;

    let mut stream = open(&mut client, "/reset").await;
    stream.send.send_reset(Reason::CANCEL);
    edge.metric_becomes("atoll_tunnels", 0.0).await;
    // The same after the client has ended its side.
    let hung = self::origin(vec![Piece::Hang]);
    let edge = granting(&hung).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let mut stream = open(&mut client, "/a").await;
    stream.finish();
    stream.send.send_reset(Reason::CANCEL);
    edge.metric_becomes("atoll_tunnels", 0.0).await;
    edge.metric_becomes("atoll_origin_connections_open{origin=\"main\"}", 0.0).await;

    let gate = Gate::new();
    let origin = self::origin(vec![Piece::gate(&gate), Piece::Reset]);
    let edge = granting(&origin).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let mut stream = open(&mut client, "/a").await;
    gate.open();
    assert_eq!(stream.rest().await, Err(Some(Reason::CANCEL)));
    edge.metric_becomes("atoll_tunnels", 0.0).await;
}

#[tokio::test]
async fn silence_ends_a_stream_and_not_its_connection() {
    let origin = origin(vec![Piece::Hang]);
    let edge = granting(&origin).limits("tunnel_idle = \"150ms\"").start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let mut stream = open(&mut client, "/a").await;
    assert_eq!(stream.rest().await, Ok(Bytes::new()));
    edge.metric_becomes("atoll_tunnels", 0.0).await;
    assert_eq!(client.get("/b", &[]).await.text(), "/b");
}

#[tokio::test]
async fn tiny_frames_and_large_amounts_go_through_within_the_windows() {
    let origin = origin(vec![Piece::Echo, Piece::Close]);
    let edge = granting(&origin).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let mut stream = open(&mut client, "/a").await;
    for _ in 0..3000 {
        stream.send(b"x").await;
        stream.bytes(1).await;
    }
    // Far more than all windows together, a piece at a time.
    let piece = pattern(256 << 10);
    for _ in 0..64 {
        stream.send(&piece[..piece.len() / 8]).await;
        assert!(stream.bytes(piece.len() / 8).await == piece[..piece.len() / 8]);
    }
    stream.finish();
    assert_eq!(stream.rest().await, Ok(Bytes::new()));
}

#[tokio::test]
async fn a_client_that_reads_nothing_stops_the_origin_and_nobody_else() {
    let endless = vec![Piece::data(pattern(32 << 20)), Piece::Close];
    let origin = origin(endless);
    let edge = granting(&origin).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let mut slow = open(&mut client, "/slow").await;
    // The client's window of the stream is 1 MiB, that of the connection 4 MiB.
    edge.metric_becomes("atoll_tunnel_bytes_total{direction=\"sent\"}", f64::from(1 << 20)).await;
    assert_eq!(client.get("/plain", &[]).await.text(), "/plain");
    let sent = edge.metric("atoll_tunnel_bytes_total{direction=\"sent\"}").await;
    assert_eq!(sent, f64::from(1 << 20), "no more is taken from the origin");
    assert!(slow.rest().await == Ok(Bytes::from(pattern(32 << 20))));
}
