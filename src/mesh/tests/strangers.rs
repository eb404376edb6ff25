//! Who is no node: wrong authority, wrong name, wrong protocol, no word at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::{Meshwork, number, until};
use crate::clock;
use crate::mesh::frame::{self, FrameReader, Kind};
use crate::mesh::hello::{self, Hello};
use crate::mesh::{Authority, PeerState};
use crate::telemetry::LinkRefused;

/// Somebody who connects by hand.
pub(super) struct Node {
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    version: &'static SupportedProtocolVersion,
    protocol: Option<&'static str>,
    claims: String,
}

/// A connection by hand, after both greetings.
pub(super) struct Stranger(TlsStream<TcpStream>);

impl Node {
    /// Does all right, as the node `name`.
    pub(super) fn new(mesh: &Meshwork, name: &str) -> Self {
        Self::by(&mesh.authorities[0], name)
    }

    fn by(authority: &Authority, name: &str) -> Self {
        let issued = authority.issue(name, "pop", 1, clock::now()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        Self {
            certificate: Some((chain, key)),
            version: &TLS13,
            protocol: Some("atoll-mesh/1"),
            claims: name.to_owned(),
        }
    }

    async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match &self.certificate {
            Some((chain, key)) => {
                config.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocol.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("a").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Connects and greets; `None` if it is not greeted back.
    pub(super) async fn greet(&self, mesh: &Meshwork, to: &str) -> Option<Stranger> {
        static DIALS: AtomicU64 = AtomicU64::new(1);
        let mut stream = self.connect(mesh.address(to)).await.ok()?;
        let hello = Hello {
            name: self.claims.as_str().into(),
            pop: "pop".into(),
            life: 1,
            dial: DIALS.fetch_add(1, Ordering::Relaxed),
            seen: u64::MAX,
            bump: 1,
            // Nobody listens there.
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        let mut out = BytesMut::new();
        frame::write(Kind::Hello, &hello::encode(&hello), &mut out);
        stream.write_all(&out).await.ok()?;
        let mut reader = FrameReader::new(4096);
        loop {
            if let Some(frame) = reader.next().expect("frames") {
                return (frame.kind == Some(Kind::Hello)).then_some(Stranger(stream));
            }
            let read = timeout(Duration::from_secs(20), stream.read_buf(reader.room())).await;
            if !matches!(read, Ok(Ok(1..))) {
                return None;
            }
        }
    }
}

impl Stranger {
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Reads until the other side has closed.
    pub(super) async fn ended(mut self) {
        let read = timeout(Duration::from_secs(20), self.0.read_to_end(&mut Vec::new())).await;
        assert!(read.is_ok(), "it was not closed");
    }
}

/// Believes every server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn refused(mesh: &Meshwork, why: LinkRefused) -> u64 {
    let line = format!("atoll_mesh_handshakes_refused_total{{reason=\"{}\"}}", why.label());
    number(&mesh.metrics("a").render(), &line)
}

#[tokio::test]
async fn who_is_no_node_is_refused_and_counted() {
    let mut mesh = Meshwork::new(&["a", "b", "c"]);
    mesh.open("a", &[]).await;
    let right = || Node::new(&mesh, "b");
    assert!(right().greet(&mesh, "a").await.is_some(), "who does all right gets a link");
    let foreign = Authority::new(clock::now()).unwrap();
    let cases = [
        ("another authority", LinkRefused::Certificate, Node::by(&foreign, "b")),
        ("no certificate", LinkRefused::NoCertificate, Node { certificate: None, ..right() }),
        ("a name outside the roster", LinkRefused::Roster, Node::new(&mesh, "stranger")),
        ("another's name", LinkRefused::Name, Node { claims: "c".to_owned(), ..right() }),
        ("this node's name", LinkRefused::Own, Node::new(&mesh, "a")),
        ("TLS 1.2", LinkRefused::Tls, Node { version: &TLS12, ..right() }),
        ("no ALPN", LinkRefused::Protocol, Node { protocol: None, ..right() }),
        ("another ALPN", LinkRefused::Protocol, Node { protocol: Some("h2"), ..right() }),
    ];
    for (case, why, node) in cases {
        let before = refused(&mesh, why);
        assert!(node.greet(&mesh, "a").await.is_none(), "{case} is greeted");
        until(&format!("{case} is counted"), || refused(&mesh, why) == before + 1).await;
        assert_ne!(mesh.peer("a", "c").state, PeerState::Up, "{case}");
    }
}

#[tokio::test]
async fn what_is_no_tls_or_no_greeting_is_refused() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.open("a", &[]).await;
    let mut plain = TcpStream::connect(mesh.address("a")).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until("plain text is counted", || refused(&mesh, LinkRefused::Tls) == 1).await;
    for greeting in [&[0, 0, 0, 1, 2][..], &[0, 0, 0, 2, 1, 1], &[0, 0, 0x20, 0, 1], &[0, 0, 0, 0]]
    {
        let before = refused(&mesh, LinkRefused::Greeting);
        let mut stream = Node::new(&mesh, "b").connect(mesh.address("a")).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        until("it is counted", || refused(&mesh, LinkRefused::Greeting) == before + 1).await;
    }
}

#[tokio::test]
async fn who_says_nothing_takes_a_place_for_a_while_and_no_more_than_his_share() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.limits.handshake = Duration::from_millis(300);
    mesh.limits.half_open_per_address = 3;
    mesh.open("a", &[]).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(mesh.address("a")).await.unwrap());
    }
    until("two too many are turned away", || refused(&mesh, LinkRefused::Busy) == 2).await;
    until("the others are waited for in vain", || refused(&mesh, LinkRefused::Timeout) == 3).await;
    assert!(Node::new(&mesh, "b").greet(&mesh, "a").await.is_some());
}

#[tokio::test]
async fn a_seed_that_is_not_whom_the_authority_knows_gets_no_word() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    let mut others = Meshwork::new(&["a", "b"]);
    others.open("b", &[]).await;
    // The seed of this mesh's node belongs to another mesh with the same names.
    let address = others.address("b");
    mesh.open_with_seed("b", address).await;
    let refused = || {
        number(
            &mesh.metrics("b").render(),
            "atoll_mesh_handshakes_refused_total{reason=\"certificate\"}",
        )
    };
    until("it is refused", || refused() > 0).await;
    assert_eq!(mesh.peer("b", "a").state, PeerState::Down);
    assert_eq!(number(&others.metrics("b").render(), "atoll_mesh_links_up"), 0);
}
