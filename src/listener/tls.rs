//! TLS for clients: versions 1.3 and 1.2 by rustls over aws-lc-rs, ALPN, session tickets.
//!
//! One ticketer serves all listeners, so that a client which comes back to another of them
//! resumes its session; in a mesh its keys are those of all nodes (`tickets`). rustls binds a session to the name it was made for: a ticket of one name
//! presented for another leads to a full handshake. Early data (0-RTT) is never accepted: it can be
//! replayed.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::Certificates;
use super::request::TlsInfo;
use crate::tickets::Tickets;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What the TLS listeners of the process share.
pub struct TlsAcceptorState {
    certificates: Arc<Certificates>,
    with_http2: TlsAcceptor,
    without_http2: TlsAcceptor,
}

impl TlsAcceptorState {
    /// Accepts with the certificates that are in force at each handshake. Session tickets are made with
    /// keys of this process, or with those that the nodes of a mesh `share`.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness for the keys of session tickets.
    pub fn new(
        certificates: Arc<Certificates>,
        share: Option<Arc<Tickets>>,
    ) -> Result<Arc<Self>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.ticketer = match share {
            Some(tickets) => tickets,
            None => rustls::crypto::aws_lc_rs::Ticketer::new()?,
        };
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Each connection brings one for the next; making a second costs every handshake, and clients that
        // open several at once had several before.
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let without_http2 = TlsAcceptor::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        let with_http2 = TlsAcceptor::from(Arc::new(config));
        Ok(Arc::new(Self { certificates, with_http2, without_http2 }))
    }

    /// The certificates in force, to put others in their place. Sessions that were begun under former
    /// ones can still be resumed: the keys of their tickets stay.
    #[must_use]
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Shakes hands. Who calls sets the deadline.
    pub(super) async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
        http2: bool,
    ) -> std::io::Result<TlsStream<IO>> {
        let acceptor = if http2 { &self.with_http2 } else { &self.without_http2 };
        acceptor.accept(io).await
    }
}

impl std::fmt::Debug for TlsAcceptorState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("TlsAcceptorState")
    }
}

/// What the handshake found out, and whether HTTP/2 was agreed on.
pub(super) fn outcome<IO>(stream: &TlsStream<IO>) -> (TlsInfo, bool) {
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    let server_name = session.server_name().map(str::to_ascii_lowercase);
    let http2 = session.alpn_protocol() == Some(HTTP2);
    (TlsInfo { server_name, version, resumed }, http2)
}
