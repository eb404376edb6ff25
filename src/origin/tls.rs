//! TLS towards origins: whose word is taken for a certificate, and which name it must bear.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{self, HttpVersions};

use super::{OriginConfigError, SendError};

/// Protocol names in ALPN.
const HTTP_1_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// How to speak TLS to one server.
#[derive(Clone)]
pub(super) struct TlsIdentity {
    /// Roots, versions, sessions: one for each origin, so that a session that one origin's rules
    /// allowed is never resumed under another's.
    pub(super) config: Arc<ClientConfig>,
    /// The same, for connections that must speak HTTP/1.1.
    pub(super) http1: Arc<ClientConfig>,
    /// Name for SNI and for the certificate; an address sends no SNI.
    pub(super) name: ServerName<'static>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TlsIdentity({:?})", self.name)
    }
}

/// Makes the TLS settings of origins; reads the system's roots once.
#[derive(Default)]
pub(super) struct TlsSettings {
    system: Option<Arc<RootCertStore>>,
}

impl TlsSettings {
    /// Settings for one origin: of the versions of HTTP that it is configured for, and of HTTP/1.1
    /// alone. Roots are its own `ca`, else the system's, else Mozilla's.
    pub(super) fn of(
        &mut self,
        origin: &config::Origin,
    ) -> Result<(Arc<ClientConfig>, Arc<ClientConfig>), OriginConfigError> {
        let roots = match &origin.ca {
            Some(file) => Arc::new(own_roots(&origin.name, file)?),
            None => Arc::clone(self.system.get_or_insert_with(|| Arc::new(system_roots()))),
        };
        let own = client_config(roots, origin)?;
        let mut http1 = own.clone();
        http1.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok((Arc::new(own), Arc::new(http1)))
    }
}

fn client_config(
    roots: Arc<RootCertStore>,
    origin: &config::Origin,
) -> Result<ClientConfig, OriginConfigError> {
    let fails = |error: String| OriginConfigError::Tls(error);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| fails(error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fails(error.to_string()))?
        .with_webpki_verifier(verifier);
    let mut config = match &origin.client_certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let wrong =
                |why: String| OriginConfigError::Certificate { origin: origin.name.clone(), why };
            let (chain, key) = config::read_pair(files).map_err(wrong)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong(error.to_string()))?
        }
    };
    config.alpn_protocols = match origin.http {
        HttpVersions::One => vec![HTTP_1_1.to_vec()],
        HttpVersions::Two => vec![HTTP_2.to_vec()],
        HttpVersions::Auto => vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()],
    };
    Ok(config)
}

fn own_roots(origin: &str, file: &Path) -> Result<RootCertStore, OriginConfigError> {
    read_roots(file).map_err(|why| OriginConfigError::Authorities {
        origin: origin.to_owned(),
        file: file.to_owned(),
        why,
    })
}

/// The authorities in a file; without one the system's, else Mozilla's.
///
/// # Errors
/// When the file cannot be used, in words that name it.
pub fn authorities(file: Option<&Path>) -> Result<RootCertStore, String> {
    let named = |file: &Path| read_roots(file).map_err(|why| format!("{}: {why}", file.display()));
    file.map_or_else(|| Ok(system_roots()), named)
}

fn read_roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::info!("the system has no certificate authorities; Mozilla's are used");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// What a failed handshake means: a certificate that is not accepted, or anything else.
pub(super) fn handshake_error(error: &std::io::Error) -> SendError {
    use rustls::Error;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(
            Error::InvalidCertificate(_)
            | Error::NoCertificatesPresented
            | Error::UnsupportedNameType
            | Error::InvalidCertRevocationList(_),
        ) => SendError::TlsCertificateError(error.to_string()),
        _ => SendError::TlsProtocolError(error.to_string()),
    }
}
