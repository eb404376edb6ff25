use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::listener::testing::{Edge, LONG, until};

type Driver = JoinHandle<Result<(), h2::Error>>;

async fn connect(edge: &Edge) -> (SendRequest<Bytes>, Driver) {
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    (client, tokio::spawn(connection))
}

fn request(method: &str, target: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://h.test{target}")).body(()).unwrap()
}

async fn send(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    ends: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut client = timeout(LONG, client.clone().ready()).await.unwrap().unwrap();
    client.send_request(request, ends).unwrap()
}

async fn body_of(response: http::Response<h2::RecvStream>) -> Result<Vec<u8>, h2::Error> {
    let mut stream = response.into_body();
    let mut all = Vec::new();
    while let Some(bytes) = timeout(LONG, stream.data()).await.unwrap() {
        let bytes = bytes?;
        stream.flow_control().release_capacity(bytes.len()).unwrap();
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

async fn get(client: &SendRequest<Bytes>, target: &str) -> (StatusCode, Vec<u8>) {
    let (response, _) = send(client, request("GET", target), true).await;
    let response = timeout(LONG, response).await.unwrap().unwrap();
    (response.status(), body_of(response).await.unwrap())
}

fn reason(error: &h2::Error) -> Option<Reason> {
    error.reason()
}

#[tokio::test]
async fn answers_small_and_large_bodies_side_by_side() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    let big = get(&client, "/big");
    let small = get(&client, "/");
    let (big, small) = tokio::join!(big, small);
    assert_eq!(small, (StatusCode::OK, b"hello".to_vec()));
    assert_eq!(big.0, 200);
    assert!(big.1.len() == 1 << 20 && big.1.iter().all(|byte| *byte == 7));
    assert_eq!(edge.context.metrics.doors.requests_http2.get(), 2);
}

#[tokio::test]
async fn head_and_no_content_have_no_body_and_lengths_are_announced() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    for (method, target, length) in
        [("GET", "/", Some("5")), ("HEAD", "/", None), ("GET", "/empty", None)]
    {
        let (response, _) = send(&client, request(method, target), true).await;
        let response = response.await.unwrap();
        let announced =
            response.headers().get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!(announced, length, "{method} {target}");
        let body = body_of(response).await.unwrap();
        assert_eq!(body.is_empty(), length.is_none());
    }
}

#[tokio::test]
async fn a_body_is_read_with_back_pressure_and_echoed() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    let (response, mut sender) = send(&client, request("POST", "/echo"), false).await;
    let sent = tokio::spawn(async move {
        for round in 0..300_u32 {
            sender.reserve_capacity(1000);
            while sender.capacity() < 1000 {
                std::future::poll_fn(|task| sender.poll_capacity(task)).await.unwrap().unwrap();
            }
            sender.send_data(Bytes::from(vec![1; 1000]), round == 299).unwrap();
        }
    });
    let response = timeout(LONG, response).await.unwrap().unwrap();
    assert_eq!(body_of(response).await.unwrap().len(), 300_000);
    sent.await.unwrap();
}

#[tokio::test]
async fn interim_responses_come_before_the_answer() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    let (mut response, _) = send(&client, request("GET", "/interim"), true).await;
    let interim = std::future::poll_fn(|task| response.poll_informational(task));
    let interim = timeout(LONG, interim).await.unwrap().unwrap().unwrap();
    assert_eq!(interim.status(), 103);
    assert_eq!(interim.headers()["link"], "</a>");
    assert_eq!(body_of(response.await.unwrap()).await.unwrap(), b"after");
}

#[tokio::test]
async fn a_client_that_expects_it_is_told_to_continue() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    let mut head = request("POST", "/echo");
    head.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut response, mut sender) = send(&client, head, false).await;
    let interim = std::future::poll_fn(|task| response.poll_informational(task));
    assert_eq!(timeout(LONG, interim).await.unwrap().unwrap().unwrap().status(), 100);
    sender.send_data(Bytes::from("body"), true).unwrap();
    assert_eq!(body_of(response.await.unwrap()).await.unwrap(), b"body");
}

#[tokio::test]
async fn a_panic_is_an_error_for_that_request_only() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    for (round, target) in ["/panic", "/late-panic"].iter().enumerate() {
        assert_eq!(get(&client, target).await.0, 500);
        assert_eq!(get(&client, "/").await.0, 200);
        assert_eq!(edge.context.metrics.doors.panics.get(), round as u64 + 1);
    }
}

#[tokio::test]
async fn a_broken_body_is_a_reset_and_the_connection_goes_on() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    let (response, _) = send(&client, request("GET", "/broken"), true).await;
    let error = match timeout(LONG, response).await.unwrap() {
        Ok(response) => body_of(response).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(reason(&error), Some(Reason::INTERNAL_ERROR));
    assert_eq!(get(&client, "/").await.0, 200);
}

#[tokio::test]
async fn cookie_crumbs_are_joined_and_too_many_fields_are_refused() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    let mut crumbs = request("GET", "/cookie");
    for crumb in ["a=1", "b=2"] {
        crumbs.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    let (response, _) = send(&client, crumbs, true).await;
    assert_eq!(body_of(response.await.unwrap()).await.unwrap(), b"a=1; b=2");
    let mut many = request("GET", "/");
    for _ in 0..101 {
        many.headers_mut().append("x", "y".parse().unwrap());
    }
    let (response, _) = send(&client, many, true).await;
    assert_eq!(response.await.unwrap().status(), 431);
    let mut large = request("GET", "/");
    for number in 0..5 {
        let name = http::HeaderName::from_bytes(format!("x{number}").as_bytes()).unwrap();
        large.headers_mut().insert(name, "z".repeat(8000).parse().unwrap());
    }
    let (response, _) = send(&client, large, true).await;
    assert_eq!(response.await.unwrap().status(), 431);
    assert_eq!(get(&client, "/").await.0, 200);
    assert_eq!(edge.script.seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_malformed_is_reset() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    let mut wrong_scheme = request("GET", "/");
    *wrong_scheme.uri_mut() = "https://h.test/".parse().unwrap();
    let mut two_lengths = request("POST", "/echo");
    for _ in 0..2 {
        two_lengths.headers_mut().append("content-length", "5".parse().unwrap());
    }
    for request in [wrong_scheme, two_lengths] {
        let (response, _sender) = send(&client, request, false).await;
        let error = timeout(LONG, response).await.unwrap().unwrap_err();
        assert_eq!(reason(&error), Some(Reason::PROTOCOL_ERROR));
    }
    assert_eq!(edge.script.seen.load(Ordering::SeqCst), 0);
    assert_eq!(get(&client, "/").await.0, 200);
}

#[tokio::test]
async fn rapid_resets_close_the_connection_and_work_never_exceeds_the_streams() {
    let edge = Edge::plain(Edge::limits());
    let (client, driver) = connect(&edge).await;
    for _ in 0..60 {
        let Ok(mut ready) = client.clone().ready().await else { break };
        let Ok((response, mut sender)) = ready.send_request(request("GET", "/wait"), false) else {
            break;
        };
        // Let the request reach the handler before it is reset.
        let seen = edge.script.seen.load(Ordering::SeqCst);
        let arrived = || edge.script.seen.load(Ordering::SeqCst) > seen;
        until(|| arrived() || driver.is_finished()).await;
        sender.send_reset(Reason::CANCEL);
        drop(response);
        assert!(edge.script.working.load(Ordering::SeqCst) <= 100);
    }
    let error = timeout(LONG, driver).await.unwrap().unwrap().unwrap_err();
    assert_eq!(reason(&error), Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(edge.script.seen.load(Ordering::SeqCst), 50);
    assert_eq!(edge.context.metrics.strain.glitch_closes.get(), 1);
}

#[tokio::test]
async fn the_place_of_a_stream_is_free_only_when_its_work_has_ended() {
    let limits = Limits { http2_streams: 3, ..Edge::limits() };
    let edge = Edge::plain(limits);
    let (client, _driver) = connect(&edge).await;
    for round in 1..=3 {
        let (response, mut sender) = send(&client, request("GET", "/wait"), false).await;
        until(|| edge.script.working.load(Ordering::SeqCst) == round).await;
        sender.send_reset(Reason::CANCEL);
        drop(response);
    }
    let (response, _) = send(&client, request("GET", "/"), true).await;
    let error = timeout(LONG, response).await.unwrap().unwrap_err();
    assert_eq!(reason(&error), Some(Reason::REFUSED_STREAM));
    edge.script.release.notify_waiters();
    until(|| edge.script.working.load(Ordering::SeqCst) == 0).await;
    assert_eq!(get(&client, "/").await.0, 200);
}

#[tokio::test]
async fn draining_finishes_what_was_asked_and_then_ends() {
    let edge = Edge::plain(Edge::limits());
    let (client, driver) = connect(&edge).await;
    let (response, _) = send(&client, request("GET", "/wait"), true).await;
    until(|| edge.script.working.load(Ordering::SeqCst) == 1).await;
    edge.drain.send(Drain::Draining { since: clock::now() }).unwrap();
    until(|| {
        client
            .clone()
            .poll_ready(&mut std::task::Context::from_waker(std::task::Waker::noop()))
            .is_ready()
    })
    .await;
    edge.script.release.notify_one();
    let response = timeout(LONG, response).await.unwrap().unwrap();
    assert_eq!(body_of(response).await.unwrap(), b"waited");
    drop(client);
    timeout(LONG, driver).await.unwrap().unwrap().unwrap();
    timeout(LONG, edge.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_end_of_the_drain_time_cuts_the_rest_off() {
    let limits = Limits { drain: Duration::from_millis(50), ..Edge::limits() };
    let edge = Edge::plain(limits);
    let (client, driver) = connect(&edge).await;
    let (response, _) = send(&client, request("GET", "/wait"), true).await;
    until(|| edge.script.working.load(Ordering::SeqCst) == 1).await;
    edge.drain.send(Drain::Draining { since: clock::now() }).unwrap();
    timeout(LONG, edge.running).await.unwrap().unwrap();
    assert!(timeout(LONG, response).await.unwrap().is_err());
    let _ = timeout(LONG, driver).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_asked_to_leave() {
    let limits = Limits { http2_idle: Duration::from_millis(10), ..Edge::limits() };
    let edge = Edge::plain(limits);
    let (client, driver) = connect(&edge).await;
    assert_eq!(get(&client, "/").await.0, 200);
    timeout(LONG, driver).await.unwrap().unwrap().unwrap();
}

/// Writes raw bytes after preface and SETTINGS; returns everything that came back.
async fn raw(edge: &Edge, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn what_is_announced_is_what_is_configured() {
    let edge = Edge::plain(Edge::limits());
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut head = [0; 9];
    timeout(LONG, stream.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!((head[3], head[4]), (4, 0), "SETTINGS come first");
    let mut settings = vec![0; usize::from(head[2])];
    timeout(LONG, stream.read_exact(&mut settings)).await.unwrap().unwrap();
    let announced = |name: u8| {
        let row = settings.chunks(6).find(|row| row[1] == name)?;
        Some(u32::from_be_bytes(row[2..6].try_into().unwrap()))
    };
    // Table, streams, window, frame, fields; push is never spoken of by a server.
    let rows = [(1, 4096), (3, 100), (4, 65_536), (5, 16_384), (6, 32_768)];
    for (name, value) in rows {
        assert_eq!(announced(name), Some(value), "setting {name}");
    }
}

/// The error code of the last GOAWAY among frames.
fn goaway(mut frames: &[u8]) -> Option<u32> {
    let mut code = None;
    while let [high, middle, low, kind, _, _, _, _, _, rest @ ..] = frames {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        if *kind == 7 {
            code = rest.get(4..8).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        }
        frames = rest.get(length..).unwrap_or_default();
    }
    code
}

#[tokio::test]
async fn frames_that_break_a_rule_close_the_connection_with_its_reason() {
    let edge = Edge::plain(Edge::limits());
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let rows: [(&str, Vec<u8>, u32); 6] = [
        ("PING flood", ping.repeat(20), 11),
        ("PING of wrong length", vec![0, 0, 1, 6, 0, 0, 0, 0, 0, 1], 6),
        ("DATA on an idle stream", vec![0, 0, 1, 0, 0, 0, 0, 0, 1, 1], 1),
        (
            "DATA after unfinished HEADERS",
            vec![0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1],
            1,
        ),
        ("frame of 17 KiB", vec![0, 0x44, 0, 0, 0, 0, 0, 0, 1], 6),
        ("WINDOW_UPDATE flood", [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(200), 11),
    ];
    for (case, bytes, expected) in rows {
        assert_eq!(goaway(&raw(&edge, &bytes).await), Some(expected), "{case}");
    }
}

#[tokio::test]
async fn frames_that_make_us_reset_close_the_connection_before_work_piles_up() {
    let edge = Edge::plain(Edge::limits());
    let bytes: Vec<u8> = (0..1000_u32)
        .flat_map(|round| {
            let stream = (round * 2 + 1).to_be_bytes();
            // POST http /wait with a body of one byte; then two come.
            let head = [0, 0, 13, 1, 4];
            let block = *b"\x83\x86\x04\x05/wait\x0f\x0d\x011";
            let data = [0, 0, 2, 0, 0];
            [&head[..], &stream, &block, &data, &stream, &[1, 1]].concat()
        })
        .collect();
    assert_eq!(goaway(&raw(&edge, &bytes).await), Some(11));
    assert!(edge.script.working.load(Ordering::SeqCst) <= 100);
}

#[tokio::test]
async fn fields_without_end_close_the_connection() {
    let edge = Edge::plain(Edge::limits());
    let bytes: Vec<u8> = (0..100_u32)
        .flat_map(|round| {
            let stream = (round * 2 + 1).to_be_bytes();
            // GET http / of h, then references to an empty field.
            let block = [b"\x82\x86\x84\x01\x01h".as_slice(), &[0x8f; 194]].concat();
            [&[0, 0, 200, 1, 5], stream.as_slice(), &block].concat()
        })
        .collect();
    assert_eq!(goaway(&raw(&edge, &bytes).await), Some(11));
    assert_eq!(edge.script.seen.load(Ordering::SeqCst), 0);
}

/// The bytes of a field that tell when they are gone.
struct Held {
    _count: Arc<()>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        b"value"
    }
}

#[tokio::test]
async fn a_refused_head_is_gone_while_its_answer_waits_for_the_window() {
    let edge = Edge::plain(Edge::limits());
    let (near, far) = tokio::io::duplex(1 << 16);
    let (connected, server) = tokio::join!(
        h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(near),
        h2::server::handshake(far)
    );
    let (mut client, connection) = connected.unwrap();
    let _driver = tokio::spawn(connection);
    let _asked = client.send_request(request("GET", "/"), true).unwrap();
    let mut server = server.unwrap();
    let accepted = timeout(LONG, server.accept()).await.unwrap();
    let (asked, respond) = accepted.unwrap().unwrap();
    let held = Arc::new(());
    let value = Bytes::from_owner(Held { _count: Arc::clone(&held) });
    let mut headers = http::HeaderMap::new();
    headers.insert("x", http::HeaderValue::from_maybe_shared(value).unwrap());
    let head = crate::message::RequestHead {
        method: asked.method().clone(),
        scheme: Scheme::Http,
        authority: None,
        target: "/".to_owned(),
        version: asked.version(),
        headers,
    };
    let client = Client {
        address: edge.address,
        local: edge.address,
        tls: None,
        trusted_hop: false,
        told_by: crate::semantics::ToldBy::default(),
    };
    let shared = Shared {
        handler: Arc::clone(&edge.script),
        client: Arc::new(client),
        context: Arc::clone(&edge.context),
        scheme: Scheme::Http,
        wire: WireState::new(&edge.context.limits),
        working: AtomicUsize::new(0),
    };
    let refusal = crate::message::Refusal::FieldsTooLarge;
    let mut refused = pin!(stream::refuse(&shared, refusal, Box::new(head), respond));
    assert_eq!(Arc::strong_count(&held), 2);
    let waits = std::future::poll_fn(|task| Poll::Ready(refused.as_mut().poll(task).is_pending()));
    assert!(waits.await);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test]
async fn a_client_without_settings_or_preface_is_closed_in_time() {
    let limits = Limits { handshake: Duration::from_millis(50), ..Edge::limits() };
    let edge = Edge::plain(limits);
    for bytes in [&b""[..], b"PRI * HT", PREFACE] {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_field_block_that_does_not_end_is_cut_off() {
    let limits = Limits { head: Duration::from_millis(50), ..Edge::limits() };
    let edge = Edge::plain(limits);
    let answer = raw(&edge, &[0, 0, 9, 1, 4, 0, 0, 0, 1, 0x82]).await;
    assert_eq!(goaway(&answer), Some(0));
}

#[tokio::test]
async fn a_window_that_does_not_open_ends_the_stream() {
    let limits = Limits { send_gap: Duration::from_millis(50), ..Edge::limits() };
    let edge = Edge::plain(limits);
    let (client, _driver) = connect(&edge).await;
    let (response, _) = send(&client, request("GET", "/big"), true).await;
    let response = response.await.unwrap();
    let mut stream = response.into_body();
    let error = timeout(LONG, async move {
        loop {
            // The window is never given back.
            match stream.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("the answer ended"),
            }
        }
    });
    assert_eq!(reason(&error.await.unwrap()), Some(Reason::CANCEL));
    assert_eq!(edge.context.metrics.doors.timeouts.get(), 1);
    assert_eq!(get(&client, "/").await.0, 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_stream() {
    let limits = Limits { stream_idle: Duration::from_millis(50), ..Edge::limits() };
    let edge = Edge::plain(limits);
    let (client, _driver) = connect(&edge).await;
    let (response, _sender) = send(&client, request("POST", "/echo"), false).await;
    let error = timeout(LONG, response).await.unwrap().unwrap_err();
    assert_eq!(reason(&error), Some(Reason::CANCEL));
}

#[tokio::test]
async fn methods_that_are_not_forwarded_are_refused() {
    let edge = Edge::plain(Edge::limits());
    let (client, _driver) = connect(&edge).await;
    let mut connect = Request::new(());
    *connect.method_mut() = Method::CONNECT;
    *connect.uri_mut() = "h.test:443".parse().unwrap();
    let (response, _sender) = send(&client, connect, false).await;
    assert_eq!(timeout(LONG, response).await.unwrap().unwrap().status(), 405);
}
