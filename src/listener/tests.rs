//! The door as a whole: sockets, TLS, PROXY headers, caps, draining. Requests go over HTTP/2; what
//! the protocols do is tested beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::testing::{Edge, LONG, listener};
use super::*;
use crate::clock;
use crate::config::{Limits, Listener};

async fn ask<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: IO, uri: &str) -> String {
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::get(uri).body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = timeout(LONG, response).await.unwrap().unwrap().into_body();
    let mut text = Vec::new();
    while let Some(bytes) = body.data().await {
        text.extend_from_slice(&bytes.unwrap());
    }
    drop((client, body));
    timeout(LONG, driver).await.unwrap().unwrap().unwrap();
    String::from_utf8(text).unwrap()
}

/// A client that trusts one certificate and keeps its sessions.
fn tls_client(made: &SelfMade, protocols: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(made.der.clone())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn shake_hands(
    edge: &Edge,
    client: &TlsConnector,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(edge.address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    timeout(LONG, client.connect(name, stream)).await.unwrap()
}

/// Whether the other side closes without a word.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(timeout(LONG, stream.read(&mut byte)).await.unwrap(), Ok(0) | Err(_))
}

#[tokio::test]
async fn http2_is_spoken_over_tls_and_sessions_resume_for_their_name_only() {
    let names = ["a.test", "b.test"].map(str::to_owned);
    let made = Certificates::self_made(&names).unwrap();
    let client = tls_client(&made, &[b"h2", b"http/1.1"]);
    let edge = Edge::start(listener(true, true, false), Edge::limits(), Some(made.certificates));
    let mut told = Vec::new();
    for name in ["a.test", "a.test", "b.test"] {
        let stream = shake_hands(&edge, &client, name).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        told.push(ask(stream, &format!("https://{name}/client")).await);
    }
    let expected = ["a.test TLSv1.3 false", "a.test TLSv1.3 true", "b.test TLSv1.3 false"];
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told}");
    }
    let doors = &edge.context.metrics.doors;
    assert_eq!((doors.handshakes.get(), doors.handshakes_resumed.get()), (3, 1));
}

/// Hands the sessions of any name to every name.
#[derive(Debug)]
struct Careless(rustls::client::ClientSessionMemoryCache);

impl Careless {
    fn name() -> ServerName<'static> {
        ServerName::try_from("any.test").unwrap()
    }
}

impl rustls::client::ClientSessionStore for Careless {
    fn set_kx_hint(&self, _name: ServerName<'static>, group: rustls::NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }

    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        self.0.kx_hint(&Self::name())
    }

    fn set_tls12_session(
        &self,
        _name: ServerName<'static>,
        value: rustls::client::Tls12ClientSessionValue,
    ) {
        self.0.set_tls12_session(Self::name(), value);
    }

    fn tls12_session(
        &self,
        _name: &ServerName<'_>,
    ) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }

    fn insert_tls13_ticket(
        &self,
        _name: ServerName<'static>,
        value: rustls::client::Tls13ClientSessionValue,
    ) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }

    fn take_tls13_ticket(
        &self,
        _name: &ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}

#[tokio::test]
async fn a_ticket_of_one_name_does_not_resume_another() {
    let names = ["a.test", "b.test"].map(str::to_owned);
    let made = Certificates::self_made(&names).unwrap();
    let mut config = ClientConfig::clone(tls_client(&made, &[b"h2"]).config());
    let store = Careless(rustls::client::ClientSessionMemoryCache::new(8));
    config.resumption = rustls::client::Resumption::store(Arc::new(store));
    let client = TlsConnector::from(Arc::new(config));
    let edge = Edge::start(listener(true, true, false), Edge::limits(), Some(made.certificates));
    for (name, expected) in [("a.test", "false"), ("a.test", "true"), ("b.test", "false")] {
        let stream = shake_hands(&edge, &client, name).await.unwrap();
        let told = ask(stream, &format!("https://{name}/client")).await;
        assert!(told.contains(&format!("TLSv1.3 {expected}")), "{name}: {told}");
    }
}

#[tokio::test]
async fn strangers_are_refused_only_when_told() {
    for strict in [false, true] {
        let made = Certificates::self_made(&["a.test".to_owned()]).unwrap();
        let client = tls_client(&made, &[b"h2"]);
        let certificates = made.certificates.refuse_unknown(strict);
        let edge = Edge::start(listener(true, true, false), Edge::limits(), Some(certificates));
        let error = shake_hands(&edge, &client, "stranger.test").await.unwrap_err();
        // Without strictness the client gets a certificate, which it then does not like.
        let alert = error.to_string().contains("alert");
        assert_eq!(alert, strict, "{error}");
        assert!(shake_hands(&edge, &client, "a.test").await.is_ok());
    }
}

#[tokio::test]
async fn protocols_that_are_not_spoken_are_refused() {
    let made = Certificates::self_made(&[]).unwrap();
    let only_http2 = tls_client(&made, &[b"h2"]);
    let edge = Edge::start(listener(true, false, false), Edge::limits(), Some(made.certificates));
    let error = shake_hands(&edge, &only_http2, "localhost").await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    assert_eq!(edge.context.metrics.doors.handshake_failures.get(), 1);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut_off() {
    let limits = Limits { handshake: Duration::from_millis(50), ..Edge::limits() };
    for (tls, proxy_protocol) in [(true, false), (true, true), (false, true)] {
        let made = Certificates::self_made(&[]).unwrap();
        let listener = listener(tls, true, proxy_protocol);
        let edge = Edge::start(listener, limits.clone(), Some(made.certificates));
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(if proxy_protocol { b"P" } else { b"\x16" }).await.unwrap();
        assert!(is_closed(&mut stream).await);
        testing::until(|| edge.context.metrics.doors.connections_open.get() == 0).await;
        assert_eq!(edge.context.clients.open(), 0);
    }
}

#[tokio::test]
async fn a_proxy_header_tells_the_client_also_before_tls() {
    let made = Certificates::self_made(&[]).unwrap();
    let client = tls_client(&made, &[b"h2"]);
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
    let edge = Edge::start(listener(false, true, true), Edge::limits(), None);
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(header).await.unwrap();
    let told = ask(stream, "http://h.test/client").await;
    assert!(told.starts_with("192.0.2.7:56324 "), "{told}");
    let edge = Edge::start(listener(true, true, true), Edge::limits(), Some(made.certificates));
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(header).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = client.connect(name, stream).await.unwrap();
    let told = ask(stream, "https://localhost/client").await;
    assert!(told.starts_with("192.0.2.7:56324 "), "{told}");
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut stream).await, "no header, no service");
}

/// A header of version 2 and what stands behind the addresses.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

#[tokio::test]
async fn a_header_says_who_speaks_and_that_one_alone_may_be_a_trusted_hop() {
    let edge = Edge::start(listener(false, true, true), Edge::limits(), None);
    let from = |client: [u8; 4]| [&client[..], &[198, 51, 100, 1, 0, 9, 1, 187]].concat();
    let rows = [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 9 443\r\n".to_vec(), "192.0.2.7:9 "),
        // A proxy of ours behind a balancer of ours.
        (b"PROXY TCP4 127.0.0.9 198.51.100.1 9 443\r\n".to_vec(), "127.0.0.9:9 trusted "),
        (version_2(0x21, 0x11, &from([192, 0, 2, 7])), "192.0.2.7:9 "),
        (version_2(0x21, 0x11, &from([127, 0, 0, 9])), "127.0.0.9:9 trusted "),
        // Nobody is named: the balancer's address, but not its standing.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1:"),
        (version_2(0x21, 0x00, b""), "127.0.0.1:"),
        (version_2(0x20, 0x11, &from([192, 0, 2, 7])), "127.0.0.1:"),
        (version_2(0x21, 0x31, &[0; 216]), "127.0.0.1:"),
    ];
    for (header, expected) in rows {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let told = ask(stream, "http://h.test/client").await;
        assert!(told.starts_with(expected), "{told} is not {expected}");
        assert_eq!(told.contains("trusted"), expected.contains("trusted"), "{told}");
    }
    let direct = Edge::plain(Edge::limits());
    let stream = TcpStream::connect(direct.address).await.unwrap();
    let told = ask(stream, "http://h.test/client").await;
    assert!(told.contains("trusted"), "without the protocol the socket's address counts: {told}");
}

#[tokio::test]
async fn only_trusted_networks_may_send_a_header_and_only_one() {
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 9 443\r\n";
    let request = b"GET /client HTTP/1.1\r\nHost: h\r\n\r\n";
    let elsewhere = Listener {
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()],
        ..listener(false, false, true)
    };
    let edge = Edge::start(elsewhere, Edge::limits(), None);
    for bytes in [&[&header[..], request].concat()[..], request] {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        assert!(is_closed(&mut stream).await);
    }
    testing::until(|| edge.context.metrics.doors.connections_refused.get() == 2).await;
    assert_eq!(edge.context.metrics.doors.requests_http1.get(), 0);

    let edge = Edge::start(listener(false, false, true), Edge::limits(), None);
    let garbage = version_2(0x21, 0x11, &[0; 13]);
    let oversized = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
    for bytes in [&garbage[..], &oversized, b"PROXY TCP4 1 2 3 4\r\n", request] {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        let _ = stream.write_all(&[bytes, request].concat()).await;
        assert!(is_closed(&mut stream).await, "{:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(edge.context.metrics.doors.requests_http1.get(), 0);
    // What stands behind a header is the client's, a second header, too.
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(&[&header[..], header, request].concat()).await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(edge.context.metrics.doors.requests_http1.get(), 0);
}

#[tokio::test]
async fn caps_of_a_client_and_of_the_process_hold_at_the_door() {
    let of_client =
        Limits { connections_per_client: 1, exempt_networks: Vec::new(), ..Edge::limits() };
    let of_all = Limits { connections: 1, ..Edge::limits() };
    for limits in [of_client, of_all] {
        let edge = Edge::plain(limits);
        let first = TcpStream::connect(edge.address).await.unwrap();
        testing::until(|| edge.context.metrics.doors.connections_open.get() == 1).await;
        let mut second = TcpStream::connect(edge.address).await.unwrap();
        assert!(is_closed(&mut second).await);
        assert_eq!(edge.context.metrics.doors.connections_refused.get(), 1);
        drop(first);
        testing::until(|| edge.context.clients.open() == 0).await;
        let third = TcpStream::connect(edge.address).await.unwrap();
        assert_eq!(ask(third, "http://h.test/").await, "hello");
    }
}

#[tokio::test]
async fn without_memory_nobody_is_let_in() {
    let edge = Edge::plain(Edge::limits());
    edge.context.pressure.set(Pressure::Refuse);
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    assert!(is_closed(&mut stream).await);
    edge.context.pressure.set(Pressure::None);
    let stream = TcpStream::connect(edge.address).await.unwrap();
    assert_eq!(ask(stream, "http://h.test/").await, "hello");
}

#[tokio::test]
async fn workers_share_a_port_that_the_system_chose_on_both_families() {
    let on = |address: &str| Listener {
        address: address.parse().unwrap(),
        ..listener(false, true, false)
    };
    let all = bind(&[on("127.0.0.1:0"), on("[::1]:0"), on("[::]:0")], 3).unwrap();
    let addresses: Vec<Vec<SocketAddr>> = all.iter().map(WorkerSockets::addresses).collect();
    assert!(addresses.iter().all(|of_worker| *of_worker == addresses[0]));
    assert!(addresses[0].iter().all(|address| address.port() != 0));
    let (_drain, receiver) = tokio::sync::watch::channel(Drain::Open);
    let context = Edge::plain(Edge::limits()).context;
    let context = Context::new(Arc::clone(&context.limits), Arc::clone(&context.metrics), receiver);
    let script = Arc::<testing::Script>::default();
    for sockets in all {
        tokio::spawn(run(sockets, None, Arc::clone(&script), Arc::clone(&context)));
    }
    let both = addresses[0][2].port();
    let by_ipv4 = SocketAddr::from(([127, 0, 0, 1], both));
    for address in [addresses[0][0], addresses[0][1], by_ipv4] {
        let stream = TcpStream::connect(address).await.unwrap();
        let told = ask(stream, "http://h.test/client").await;
        assert!(
            told.starts_with(if address.is_ipv4() { "127.0.0.1:" } else { "[::1]:" }),
            "{told}"
        );
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_named_with_a_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(&[Listener { address, ..listener(false, true, false) }], 1).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("choose another port"), "{text}");
}

#[tokio::test]
async fn draining_accepts_for_the_notice_and_then_no_more() {
    let limits = Limits { drain_notice: Duration::from_millis(300), ..Limits::default() };
    let edge = Edge::plain(limits);
    edge.drain.send(Drain::Draining { since: clock::now() }).unwrap();
    let stream = TcpStream::connect(edge.address).await.unwrap();
    assert_eq!(ask(stream, "http://h.test/").await, "hello");
    timeout(LONG, edge.running).await.unwrap().unwrap();
    assert!(TcpStream::connect(edge.address).await.is_err());
}

#[tokio::test]
async fn whoever_is_in_the_queue_when_accepting_ends_is_still_served() {
    use std::io::Write;
    let notice = Duration::from_secs(1);
    let edge = Edge::plain(Limits { drain_notice: notice, ..Limits::default() });
    // More than one turn of a task takes in. The door has not had a turn yet.
    let mut clients = Vec::new();
    for _ in 0..400 {
        let mut client = std::net::TcpStream::connect(edge.address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push(TcpStream::from_std(client).unwrap());
    }
    let now = clock::now();
    let since = clock::Now { boot: now.boot.saturating_sub(2 * notice), ..now };
    edge.drain.send(Drain::Draining { since }).unwrap();
    for mut client in clients {
        let mut answer = String::new();
        timeout(LONG, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.ends_with("hello"), "{answer:?}");
    }
    timeout(LONG, edge.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_abort_ends_everything_at_once() {
    let edge = Edge::plain(Limits::default());
    let mut idle = TcpStream::connect(edge.address).await.unwrap();
    testing::until(|| edge.context.metrics.doors.connections_open.get() == 1).await;
    edge.drain.send(Drain::Abort).unwrap();
    timeout(LONG, edge.running).await.unwrap().unwrap();
    assert!(is_closed(&mut idle).await);
}
