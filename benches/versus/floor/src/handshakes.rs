//! `floor handshakes`: full TLS 1.3 handshakes, each on a connection of its own, never resumed.
//!
//! Each connection asks for one small answer, which proves that the server saw the end of the
//! handshake, and is then reset, so that no port waits in TIME_WAIT. The generator checks no
//! signature: its own work is not what is measured.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

use crate::Failure;
use crate::arguments::Arguments;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path: String = arguments.need("path")?;
    let work = Rc::new(Work {
        to: arguments.need("to")?,
        request: format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\n\r\n"),
        connector: TlsConnector::from(Arc::new(client()?)),
        until: Instant::now() + Duration::from_secs_f64(arguments.need("seconds")?),
    });
    let connections: usize = arguments.or("connections", 16)?;
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, failed) = LocalSet::new().block_on(&runtime, all(&work, connections))?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{{\"done\": {done}, \"bad\": {failed}, \"seconds\": {seconds:.3}}}");
    Ok(())
}

async fn all(work: &Rc<Work>, connections: usize) -> Result<(u64, u64), Failure> {
    let tasks: Vec<_> =
        (0..connections).map(|_| tokio::task::spawn_local(repeat(work.clone()))).collect();
    let (mut done, mut failed) = (0, 0);
    for task in tasks {
        let (more_done, more_failed) = task.await?;
        done += more_done;
        failed += more_failed;
    }
    Ok((done, failed))
}

struct Work {
    to: SocketAddr,
    request: String,
    connector: TlsConnector,
    until: Instant,
}

async fn repeat(work: Rc<Work>) -> (u64, u64) {
    let (mut done, mut failed) = (0, 0);
    while Instant::now() < work.until {
        match once(&work).await {
            Ok(()) => done += 1,
            Err(_) => failed += 1,
        }
    }
    (done, failed)
}

async fn once(work: &Work) -> Result<(), Failure> {
    let stream = TcpStream::connect(work.to).await?;
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let mut stream = work.connector.connect(ServerName::try_from("bench.test")?, stream).await?;
    stream.write_all(work.request.as_bytes()).await?;
    let mut bytes = [0; 2048];
    let read = stream.read(&mut bytes).await?;
    let fine = bytes.get(..read).is_some_and(|bytes| bytes.starts_with(b"HTTP/1.1 200"));
    fine.then_some(()).ok_or_else(|| "not answered with 200".into())
}

/// TLS 1.3 with one suite and one group, so that all servers do the same work.
fn client() -> Result<ClientConfig, Failure> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes every certificate: the servers are on this machine and were started by the comparison.
#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
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
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
