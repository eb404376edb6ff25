//! Who may speak on a link: mutual TLS 1.3 against the mesh's own authorities, and nothing else.
//!
//! The system's authorities are not asked; there are no sessions to resume, so that every connection
//! shows its whole certificate. Names are not left to TLS: of a seed only the address is known when it is
//! dialled. Both sides look at the certificate after the handshake: it must bear one name of the roster,
//! and what the greeting says must be that very name.
//!
//! A link lasts no longer than what it was let in by: when an authority is taken out, or a certificate ends,
//! the links that rest on it end, and are made anew by those who have something better to show.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore,
    ServerConfig, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use webpki::{EndEntityCert, KeyUsage};

use crate::clock::{self, Now};
use crate::config::{CertificateFiles, Mesh, MeshCredentials, read_mesh_credentials};
use crate::replication::Name;
use crate::telemetry::LinkRefused;

/// What is spoken, by ALPN.
const PROTOCOL: &[u8] = b"atoll-mesh/1";

/// Time between two looks at the files.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time between two looks at a certificate that was shown, which may end meanwhile.
const JUDGE_EVERY: Duration = Duration::from_secs(10);

/// Both ends' TLS, with one certificate and one set of authorities.
pub(super) struct Credentials {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    roots: Arc<RootCertStore>,
}

/// What the other end of a connection has shown of itself.
pub(super) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    /// As what it was there.
    usage: KeyUsage,
}

/// The credentials in force, read anew when their files change.
pub(super) struct Identity {
    name: String,
    files: CertificateFiles,
    authorities: Vec<PathBuf>,
    current: ArcSwap<Credentials>,
    /// Moves with each change.
    changes: watch::Sender<u64>,
    seen: Mutex<Seen>,
}

/// When the files were looked at, and how they stood.
struct Seen {
    at: Duration,
    stamps: Vec<Option<(SystemTime, u64)>>,
}

impl Identity {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Says which file is wrong, why, and what would be right.
    pub(super) fn open(config: &Mesh, name: &Name, now: Now) -> Result<Self, String> {
        let (files, authorities) = (config.identity.clone(), config.authorities.clone());
        let stamps = stamps(&files, &authorities);
        let read = read_mesh_credentials(&files, &authorities, name.as_str(), now)?;
        Ok(Self {
            name: name.as_str().to_owned(),
            files,
            authorities,
            current: ArcSwap::from_pointee(Credentials::new(read).map_err(|e| e.to_string())?),
            changes: watch::Sender::new(0),
            seen: Mutex::new(Seen { at: now.boot, stamps }),
        })
    }

    /// Reads the files anew. If they cannot be used, those read before stay in force.
    ///
    /// # Errors
    /// Says which file is wrong, why, and what would be right.
    pub(super) fn reload(&self, now: Now) -> Result<(), String> {
        let read = read_mesh_credentials(&self.files, &self.authorities, &self.name, now)?;
        let credentials = Credentials::new(read).map_err(|error| error.to_string())?;
        self.current.store(Arc::new(credentials));
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        Ok(())
    }

    /// Returns once what the other end has shown is not good any more: its authority is not among those
    /// in force, or its certificate has ended.
    pub(super) async fn outlives(&self, shown: &Shown) -> CertificateError {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Err(why) = self.current.load().judge(shown, clock::now()) {
                return why;
            }
            // The sender is here, so the wait for it cannot fail.
            let _ = timeout(JUDGE_EVERY, changes.changed()).await;
        }
    }

    /// What a new connection is to use. The files are looked at, though not at each of many.
    pub(super) fn current(&self, now: Now) -> Arc<Credentials> {
        if self.changed(now) {
            match self.reload(now) {
                Ok(()) => tracing::info!("the mesh's certificate was read anew"),
                Err(error) => tracing::warn!(%error, "the mesh's certificate stays as it was"),
            }
        }
        self.current.load_full()
    }

    fn changed(&self, now: Now) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.boot.saturating_sub(seen.at) < LOOK_EVERY {
            return false;
        }
        let stamps = stamps(&self.files, &self.authorities);
        let changed = stamps != seen.stamps;
        *seen = Seen { at: now.boot, stamps };
        changed
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How each file stands.
fn stamps(files: &CertificateFiles, authorities: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let all = [&files.chain, &files.key].into_iter().chain(authorities);
    all.map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
    .collect()
}

impl Credentials {
    fn new(read: MeshCredentials) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in read.authorities {
            roots.add(authority)?;
        }
        let roots = Arc::new(roots);
        let server = server(&provider, &roots, read.chain.clone(), read.key.clone_key())?;
        let client = client(&provider, Arc::clone(&roots), read.chain, read.key)?;
        let (server, client) = (Arc::new(server), Arc::new(client));
        let (acceptor, connector) = (TlsAcceptor::from(server), TlsConnector::from(client));
        Ok(Self { acceptor, connector, roots })
    }

    /// Whether a handshake would still take what was shown in one.
    fn judge(&self, shown: &Shown, now: Now) -> Result<(), CertificateError> {
        let (leaf, rest) = shown.chain.split_first().ok_or(CertificateError::UnknownIssuer)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|_bad| CertificateError::BadEncoding)?;
        let since_epoch = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(since_epoch);
        let known = webpki::ALL_VERIFICATION_ALGS;
        let roots = &self.roots.roots;
        let verified = leaf.verify_for_usage(known, roots, rest, time, shown.usage, None, None);
        verified.map(|_path| ()).map_err(|error| match error {
            webpki::Error::CertExpired { .. } => CertificateError::Expired,
            _ => CertificateError::UnknownIssuer,
        })
    }

    /// Shakes hands with who has connected.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, LinkRefused> {
        let stream = self.acceptor.accept(stream).await.map_err(|error| refused(&error))?;
        agreed(TlsStream::Server(stream))
    }

    /// Shakes hands with whom we have connected to.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, LinkRefused> {
        // No server is asked for by name: the certificate's is looked at afterwards.
        let nobody = ServerName::try_from("mesh.invalid").map_err(|_never| LinkRefused::Tls)?;
        let stream =
            self.connector.connect(nobody, stream).await.map_err(|error| refused(&error))?;
        agreed(TlsStream::Client(stream))
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyNode { roots, algorithms }))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Accepts every certificate of the mesh's authorities; which node it is, is asked afterwards.
#[derive(Debug)]
struct AnyNode {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Shown {
    /// What the other end has shown on a connection.
    pub(super) fn on(stream: &TlsStream<TcpStream>) -> Self {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let usage = match stream {
            TlsStream::Client(_) => KeyUsage::server_auth(),
            TlsStream::Server(_) => KeyUsage::client_auth(),
        };
        Self { chain, usage }
    }
}

/// A handshake may end well without a protocol, if the other side named none.
fn agreed(stream: TlsStream<TcpStream>) -> Result<TlsStream<TcpStream>, LinkRefused> {
    let spoken = stream.get_ref().1.alpn_protocol();
    if spoken == Some(PROTOCOL) { Ok(stream) } else { Err(LinkRefused::Protocol) }
}

/// Why a handshake failed.
fn refused(error: &io::Error) -> LinkRefused {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        None => LinkRefused::Network,
        Some(rustls::Error::NoApplicationProtocol) => LinkRefused::Protocol,
        Some(rustls::Error::NoCertificatesPresented) => LinkRefused::NoCertificate,
        Some(rustls::Error::InvalidCertificate(CertificateError::BadEncoding)) => LinkRefused::Tls,
        Some(rustls::Error::InvalidCertificate(_)) => LinkRefused::Certificate,
        Some(rustls::Error::AlertReceived(_)) => LinkRefused::Peer,
        Some(_) => LinkRefused::Tls,
    }
}

/// The one name of the roster that the peer's certificate bears. Names are compared byte for byte,
/// so that no wildcard and no spelling speaks for two nodes.
///
/// # Errors
/// When it bears none of them, or several.
pub(super) fn certified(
    stream: &TlsStream<TcpStream>,
    known: impl Fn(&str) -> bool,
) -> Result<Name, LinkRefused> {
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.ok_or(LinkRefused::NoCertificate)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|_unreadable| LinkRefused::Certificate)?;
    let mut names = leaf.valid_dns_names().filter(|name| known(name));
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.into()),
        _ => Err(LinkRefused::Roster),
    }
}
