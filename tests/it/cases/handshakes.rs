//! TLS on both sides: handshakes that are old, broken, cut up or without end, floods within a
//! session, and certificates of origins (C06 to C25).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::support::certificate::{Certificate, Folder, pem, trusting_client};
use crate::support::client::{request, tls};
use crate::support::edge::{HOST, Plan};
use crate::support::{Binary, Connection, Edge, Origin, Reply, until, within};

/// Case, what it is about, and the tests that prove it: file and name.
pub(super) const PROOFS: [(&str, &str, &[&str]); 15] = [
    (
        "C06",
        "a certificate that has expired, on a reload",
        &["it/reload/certificates c06_c08_one_pair_that_cannot_be_used_keeps_all_as_they_were"],
    ),
    ("C07", "a certificate that ends while in use", &["it/reload/certificates c07_"]),
    (
        "C08",
        "pairs that cannot be used, on a reload",
        &[
            "it/reload/certificates c06_c08_one_pair_that_cannot_be_used_keeps_all_as_they_were",
            "it/reload/certificates a_broken_pair_leaves_the_one_before_in_use_and_is_told_once",
        ],
    ),
    (
        "C10",
        "tickets of another name",
        &[
            "src/listener/tests a_ticket_of_one_name_does_not_resume_another",
            "src/listener/tests http2_is_spoken_over_tls_and_sessions_resume_for_their_name_only",
        ],
    ),
    ("C12", "early data", &["it/cases/handshakes c12_"]),
    ("C13", "what is old or weak", &["it/cases/handshakes c13_"]),
    ("C14", "a ClientHello in odd pieces and sizes", &["it/cases/handshakes c14_"]),
    (
        "C15",
        "handshakes that stand still",
        &[
            "it/cases/handshakes c15_",
            "src/listener/tests a_handshake_that_does_not_come_is_cut_off",
        ],
    ),
    (
        "C16",
        "handshakes over and over",
        &[
            "it/cases/handshakes c16_",
            "src/listener/clients rates_of_accepts_and_handshakes_are_capped_and_refill",
        ],
    ),
    ("C17", "floods beneath HTTP", &["it/cases/handshakes c17_"]),
    (
        "C18",
        "an end without close_notify",
        &[
            "it/cases/handshakes c18_",
            "src/origin/tests/connections a_cut_of_tls_without_its_end_is_no_end",
        ],
    ),
    ("C19", "protocols on offer", &["it/cases/handshakes c19_", "it/tls protocols_are_agreed_on"]),
    (
        "C20",
        "certificates of origins",
        &["it/cases/handshakes c20_", "it/failover an_origin_over_tls_must_be_who_it_says"],
    ),
    ("C21", "protocols of origins", &["it/h2_origins what_tls_agrees_on_is_spoken"]),
    ("C23", "thousands of certificates", &["it/cases/handshakes c23_"]),
];

/// Alert and handshake records.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

fn secure(origin: &Origin) -> Plan {
    Edge::before(origin).tls(&[&["a.test"], &["b.test"]])
}

/// Sends bytes and reads to the end; what came back.
async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    within("the end", async {
        // Whoever closes meanwhile may reset what was not read.
        let (_, _) = tokio::join!(write.write_all(bytes), read.read_to_end(&mut answer));
    })
    .await;
    answer
}

/// The ClientHello of an honest client, as one record.
fn hello(config: ClientConfig) -> Vec<u8> {
    let name = ServerName::try_from("a.test").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// One for TLS 1.2 alone.
fn hello_of_tls12() -> Vec<u8> {
    let mut config = trusting_client();
    config.resumption = rustls::client::Resumption::disabled();
    let provider = Arc::clone(config.crypto_provider());
    let dangerous = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    hello(dangerous)
}

/// A record with its head.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 1], &length[..], payload].concat()
}

/// A ClientHello without extensions.
fn bare_hello(version: [u8; 2], suites: &[u16]) -> Vec<u8> {
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let length = u16::try_from(suites.len()).unwrap().to_be_bytes();
    let body = [&version[..], &[7; 32], &[0], &length, &suites, &[1, 0]].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    record(HANDSHAKE, &[&[1], &length[1..], &body].concat())
}

/// Where the compression methods of a ClientHello begin, with their number.
fn compression_of(hello: &[u8]) -> usize {
    let session = 5 + 4 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]))
}

#[tokio::test]
async fn c12_no_data_is_taken_before_the_handshake() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = secure(&origin).start();
    let mut config = trusting_client();
    config.enable_early_data = true;
    let config = Arc::new(config);
    let name = ServerName::try_from("a.test").unwrap();
    for resumed in [false, true] {
        let tcp = TcpStream::connect(edge.tls()).await.unwrap();
        let connector = TlsConnector::from(Arc::clone(&config));
        let mut stream = within("a handshake", connector.connect(name.clone(), tcp)).await.unwrap();
        stream.write_all(request("GET", "a.test", "/a", &[]).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 1024];
        // Tickets come with the first bytes.
        within("an answer", stream.read(&mut answer)).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), resumed, "{kind:?}");
    }
    let mut next = ClientConnection::new(config, name).unwrap();
    assert!(next.early_data().is_none(), "no ticket allows any");
}

#[tokio::test]
async fn c13_what_is_old_or_weak_is_refused() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = secure(&origin).start();
    let good = hello_of_tls12();
    assert_eq!(say_hello(edge.tls(), &good).await, HANDSHAKE, "the honest one is answered");
    let mut compressed = good.clone();
    let place = compression_of(&good);
    assert_eq!(compressed[place..place + 2], [1, 0]);
    compressed[place + 1] = 1;
    let strong: &[u16] = &[0xc02b, 0xc02f, 0xcca9];
    let rows = [
        ("SSL 2", b"\x80\x2e\x01\x03\x00\x00\x15\x00\x00\x00\x10\x01\x00\x80".to_vec()),
        ("SSL 3", bare_hello([3, 0], strong)),
        ("TLS 1.0", bare_hello([3, 1], strong)),
        ("TLS 1.1", bare_hello([3, 2], strong)),
        ("export suites", bare_hello([3, 3], &[0x0003, 0x0006, 0x0008, 0x0014])),
        ("RC4 and 3DES", bare_hello([3, 3], &[0x0005, 0x000a, 0xc011])),
        ("no forward secrecy", bare_hello([3, 3], &[0x002f, 0x0035, 0x009c])),
        ("no encryption", bare_hello([3, 3], &[0x0000, 0x0001, 0x003b])),
        ("compression alone", compressed),
    ];
    for (case, bytes) in rows {
        let answer = say(edge.tls(), &bytes).await;
        assert!(matches!(answer.first(), None | Some(&ALERT)), "{case}: {answer:?}");
    }
    assert_eq!(origin.requests(), 0);
}

/// The kind of the first record that answers a hello.
async fn say_hello(address: SocketAddr, bytes: &[u8]) -> u8 {
    let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    within("an answer", stream.read_u8()).await.unwrap()
}

#[tokio::test]
async fn c14_a_hello_in_odd_pieces_is_answered_or_refused_and_never_hoarded() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = secure(&origin).limits("handshake = \"1s\"").start();
    let whole = hello(trusting_client());
    let single: Vec<u8> = whole[5..].iter().flat_map(|byte| record(HANDSHAKE, &[*byte])).collect();
    let kind = say_hello(edge.tls(), &single).await;
    assert!([ALERT, HANDSHAKE].contains(&kind), "one byte in each record: {kind}");
    let long = [&[1, 1, 0, 0][..], &[0; 16_000]].concat();
    let rows = [
        ("a record beyond 16 KiB", [&[HANDSHAKE, 3, 1, 0x48, 0x01][..], &[1; 20_000]].concat()),
        ("64 KiB announced", record(HANDSHAKE, &long).repeat(8)),
        ("16 MiB announced", record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]).repeat(1)),
        ("an alert as the first word", record(ALERT, &[2, 40])),
        ("application data first", record(23, &[0; 100])),
    ];
    for (case, bytes) in rows {
        let begun = Instant::now();
        let answer = say(edge.tls(), &bytes).await;
        assert!(matches!(answer.first(), None | Some(&ALERT)), "{case}: {answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{case}");
    }
    let extensions: Vec<u8> = (0..200_u16)
        .flat_map(|number| [&(0x7000 + number).to_be_bytes()[..], &[0, 2, 1, 1]].concat())
        .collect();
    assert!([ALERT, HANDSHAKE].contains(&say_hello(edge.tls(), &with(&whole, &extensions)).await));
    edge.metric_becomes("atoll_connections_open", 0.0).await;
    assert_eq!(edge.metric("atoll_panics_total").await, 0.0);
}

/// A hello with further extensions at its end.
fn with(hello: &[u8], extensions: &[u8]) -> Vec<u8> {
    let mut body = hello[9..].to_vec();
    let place = compression_of(hello) - 9 + 2;
    let before = u16::from_be_bytes([body[place], body[place + 1]]);
    let after = before + u16::try_from(extensions.len()).unwrap();
    body[place..place + 2].copy_from_slice(&after.to_be_bytes());
    // A pre-shared key would have to stay the last; a first hello has none.
    body.extend_from_slice(extensions);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    record(HANDSHAKE, &[&[1], &length[1..], &body].concat())
}

#[tokio::test]
async fn c15_a_handshake_may_stand_still_nowhere() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = secure(&origin).limits("handshake = \"500ms\"").start();
    let whole = hello(trusting_client());
    let rows = [
        ("nothing", 0),
        ("a record's head", 5),
        ("half a hello", whole.len() / 2),
        ("no answer to the server's flight", whole.len()),
    ];
    for (case, length) in rows {
        let begun = Instant::now();
        say(edge.tls(), &whole[..length]).await;
        let took = begun.elapsed();
        assert!(
            took > Duration::from_millis(400) && took < Duration::from_secs(3),
            "{case}: {took:?}"
        );
    }
    edge.metric_becomes("atoll_connections_open", 0.0).await;
    assert_eq!(edge.metric("atoll_tls_handshake_failures_total").await, rows.len() as f64);
}

#[tokio::test]
async fn c16_one_client_may_not_shake_hands_all_the_time_and_others_may() {
    let origin = Origin::serving(Reply::ok("x"));
    let plan = secure(&origin).limits("exempt_networks = []\nhandshakes_per_client = 5");
    let edge = plan.start();
    let begun = Instant::now();
    let mut done = 0;
    for _ in 0..60 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let tcp = within("a connection", socket.connect(edge.tls())).await.unwrap();
        let connector = TlsConnector::from(Arc::new(trusting_client()));
        let name = ServerName::try_from("a.test").unwrap();
        done += u64::from(within("an end", connector.connect(name, tcp)).await.is_ok());
    }
    let allowed = 5 + 5 * (begun.elapsed().as_secs() + 1);
    assert!(done >= 1 && done <= allowed, "{done} of 60 in {:?}", begun.elapsed());
    let other = Connection::open_tls(edge.tls(), Some("a.test"), &[]).await;
    assert!(other.is_ok(), "another client is not affected");
}

#[tokio::test]
async fn c17_floods_beneath_http_end_the_connection() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = secure(&origin).limits("handshake = \"2s\"").start();
    let whole = hello(trusting_client());
    let flood = |bytes: &[u8]| bytes.repeat(20_000);
    let rows = [
        ("empty handshake records", flood(&record(HANDSHAKE, &[]))),
        ("warning alerts", flood(&record(ALERT, &[1, 90]))),
        ("changes of the cipher", [&whole[..], &flood(&record(20, &[1]))].concat()),
    ];
    for (case, bytes) in rows {
        let begun = Instant::now();
        say(edge.tls(), &bytes).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{case}");
    }
    let mut stream = tls(edge.tls(), Some("a.test"), &[]).await.unwrap();
    let mut updates = 0;
    while updates < 100_000 {
        let (_, session) = stream.get_mut();
        if session.refresh_traffic_keys().is_err() {
            break;
        }
        updates += 1;
        let sent = within("an end or room", stream.flush()).await;
        let mut nothing = [0; 16];
        let ended = std::future::poll_fn(|task| {
            let mut buffer = tokio::io::ReadBuf::new(&mut nothing);
            let read = std::pin::Pin::new(&mut stream);
            let polled = tokio::io::AsyncRead::poll_read(read, task, &mut buffer);
            std::task::Poll::Ready(polled.is_ready())
        })
        .await;
        if sent.is_err() || ended {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(updates < 100_000, "keys were renewed without end");
    edge.metric_becomes("atoll_connections_open", 0.0).await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn c18_a_body_cut_without_a_goodbye_is_not_complete() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = secure(&origin).start();
    for framing in [("Content-Length", "10"), ("Transfer-Encoding", "chunked")] {
        let mut stream = tls(edge.tls(), Some("a.test"), &[]).await.unwrap();
        let head = request("POST", "a.test", "/a", &[framing]);
        let part = if framing.1 == "10" { "half" } else { "4\r\nhalf\r\n" };
        stream.write_all((head + part).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let (mut tcp, _) = stream.into_inner();
        tcp.shutdown().await.unwrap();
        edge.metric_becomes("atoll_connections_open", 0.0).await;
    }
    let seen = origin.seen("/a", origin.count("/a")).await;
    assert!(seen.iter().all(|seen| seen.body.is_none()), "{seen:?}");
}

#[tokio::test]
async fn c19_whoever_agreed_on_http_1_speaks_it() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = secure(&origin).start();
    for offer in [&["http/1.1"][..], &[]] {
        let (mut client, _) =
            Connection::open_tls(edge.tls(), Some("a.test"), offer).await.unwrap();
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert_eq!(client.response("GET").await.status(), 505, "{offer:?}");
        client.closed().await;
    }
    assert_eq!(origin.requests(), 0);
}

/// An authority, and what it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: std::path::PathBuf,
}

impl Authority {
    fn new(folder: &Folder, name: &str, refine: impl Fn(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        refine(&mut params);
        let own = params.self_signed(&key).unwrap();
        let file = folder.path().join(format!("{name}.pem"));
        std::fs::write(&file, pem("CERTIFICATE", own.der())).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    fn sign(
        &self,
        folder: &Folder,
        stem: &str,
        names: &[&str],
        refine: impl Fn(&mut CertificateParams),
    ) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        refine(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = folder.path().join(format!("{stem}.chain"));
        let file = folder.path().join(format!("{stem}.key"));
        std::fs::write(&chain, pem("CERTIFICATE", leaf.der())).unwrap();
        std::fs::write(&file, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        Certificate { chain, key: file }
    }
}

#[tokio::test]
async fn c20_an_origin_that_cannot_prove_itself_is_not_asked() {
    let folder = Folder::new();
    let trusted = Authority::new(&folder, "trusted", |_| {});
    let stranger = Authority::new(&folder, "stranger", |_| {});
    let narrow = Authority::new(&folder, "narrow", |params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other.test".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let here = ["localhost"];
    let sound = |_: &mut CertificateParams| {};
    let past = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    let future = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    };
    let client_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    };
    let rows = [
        ("sound", trusted.sign(&folder, "sound", &here, sound), &trusted),
        ("another name", trusted.sign(&folder, "name", &["other.test"], sound), &trusted),
        ("a wildcard for all", trusted.sign(&folder, "wild", &["*"], sound), &trusted),
        ("signed by a stranger", stranger.sign(&folder, "stranger-leaf", &here, sound), &trusted),
        ("signed by itself", Certificate::new(&folder, &here), &trusted),
        ("expired", trusted.sign(&folder, "past", &here, past), &trusted),
        ("not yet valid", trusted.sign(&folder, "future", &here, future), &trusted),
        ("for clients alone", trusted.sign(&folder, "purpose", &here, client_only), &trusted),
        ("beyond what its issuer may", narrow.sign(&folder, "narrow-leaf", &here, sound), &narrow),
    ];
    for (case, shown, authority) in rows {
        let origin = Origin::start_tls(&shown, |_| Reply::ok("x"));
        let keys = format!(
            "name = \"main\"\nservers = [\"https://localhost:{}\"]\nca = {:?}",
            origin.address.port(),
            authority.file.display().to_string()
        );
        let edge = Edge::before(&origin).no_origins().origin_keys(&keys).start();
        let answer = edge.get("/a").await;
        let failures =
            "atoll_origin_failures_total{error=\"tls_certificate_error\",origin=\"main\"}";
        if case == "sound" {
            assert_eq!(answer.status(), 200, "{case}: {answer:?}");
            continue;
        }
        assert_eq!(answer.status(), 502, "{case}: {answer:?}");
        assert!(edge.metric(failures).await >= 1.0, "{case}");
        assert_eq!(origin.requests(), 0, "{case}: nor in plain");
    }
}

#[tokio::test]
async fn c23_thousands_of_certificates_delay_neither_start_nor_handshake() {
    // Making and reading so many takes an unoptimised build too long.
    let (count, most) = if cfg!(debug_assertions) { (300, 15) } else { (10_000, 5) };
    let origin = Origin::serving(Reply::ok("x"));
    let folder = Folder::new();
    let mut plan = Edge::before(&origin).tls(&[]);
    for number in 0..count {
        let name = format!("n{number}.test");
        plan = plan.certificate(&Certificate::new(&folder, &[name.as_str()]));
    }
    let begun = Instant::now();
    let edge = Binary::start(plan, "");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(most), "{took:?}");
    let address = edge.tls.unwrap();
    for number in [0, count / 2, count - 1] {
        let name = format!("n{number}.test");
        let (_, negotiated) = Connection::open_tls(address, Some(&name), &[]).await.unwrap();
        let shown = negotiated.certificate;
        assert!(memchr::memmem::find(&shown, name.as_bytes()).is_some(), "{name}");
    }
    let begun = Instant::now();
    for _ in 0..20 {
        let name = format!("n{}.test", count - 1);
        Connection::open_tls(address, Some(&name), &[]).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    until("it to answer", || async { edge.get(HOST, "/a").await.status() == 200 }).await;
}
