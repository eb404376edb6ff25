//! The client's side over TLS and HTTP/2. What HTTP/2 cannot carry (a reason phrase, fields of the
//! connection) no test needs of a client.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::wire::{Fields, PATIENCE, Response, from_latin1, latin1};

/// One connection, which lives as long as a test.
pub(crate) struct Http2 {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    authority: String,
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let send = runtime.block_on(async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::IpAddress(address.ip().into());
            let stream = tokio_rustls::TlsConnector::from(tls()).connect(name, tcp).await?;
            let (send, connection) =
                h2::client::handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok::<_, io::Error>(send)
        })?;
        Ok(Self { runtime, send, authority: address.to_string() })
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) fn exchange(
        &mut self,
        method: &str,
        target: &str,
        fields: &Fields,
        body: Option<&str>,
    ) -> io::Result<Response> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{target}", self.authority))
            .body(())
            .map_err(io::Error::other)?;
        for (name, value) in &fields.0 {
            let name = HeaderName::try_from(name.as_str()).map_err(io::Error::other)?;
            // HTTP/2 carries values without the blanks around them (RFC 9113 section 8.2.1).
            let value =
                HeaderValue::from_bytes(latin1(value).trim_ascii()).map_err(io::Error::other)?;
            request.headers_mut().append(name, value);
        }
        let send = self.send.clone();
        let body = body.map(str::to_owned);
        self.runtime.block_on(async {
            match tokio::time::timeout(PATIENCE, whole(send, request, body)).await {
                Ok(outcome) => outcome.map_err(io::Error::other),
                Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

async fn whole(
    send: SendRequest<Bytes>,
    request: Request<()>,
    body: Option<String>,
) -> Result<Response, h2::Error> {
    let mut send = send.ready().await?;
    let (mut answer, mut upload) = send.send_request(request, body.is_none())?;
    if let Some(body) = body {
        upload.send_data(body.into(), true)?;
    }
    let mut interim = Vec::new();
    let head = head(&mut answer, &mut interim).await?;
    let (head, mut stream) = head.into_parts();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(Response {
        status: head.status.as_u16(),
        fields: fields(&head.headers),
        body: String::from_utf8_lossy(&bytes).into_owned(),
        interim,
    })
}

/// Waits for the final head; gathers the interim ones before it.
async fn head(
    answer: &mut ResponseFuture,
    interim: &mut Vec<(u16, Fields)>,
) -> Result<http::Response<h2::RecvStream>, h2::Error> {
    poll_fn(|context| {
        while let Poll::Ready(Some(early)) = answer.poll_informational(context) {
            let early = early?;
            interim.push((early.status().as_u16(), fields(early.headers())));
        }
        std::pin::Pin::new(&mut *answer).poll(context)
    })
    .await
}

fn fields(headers: &HeaderMap) -> Fields {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), from_latin1(value.as_bytes()))
    };
    Fields(headers.iter().map(line).collect())
}

/// TLS that takes any certificate: what is tried here is the cache.
fn tls() -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
