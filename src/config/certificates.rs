//! What can be known of certificates without starting: readable, in order, in time, for the hosts.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

use crate::clock::Now;

use super::CertificateFiles;

/// Largest PEM file that is read.
const LARGEST_PEM_BYTES: u64 = 4 << 20;

/// What a certificate chain says of itself.
#[derive(Clone, Debug)]
pub struct CertificateFacts {
    /// DNS names it is for.
    pub names: Vec<String>,
    /// End of its validity.
    pub not_after: SystemTime,
    /// Whether its validity has ended.
    pub expired: bool,
    /// Whether its validity has not begun.
    pub not_yet: bool,
}

/// Reads a certificate chain and its key, and checks that they belong together.
///
/// # Errors
/// Says which file is wrong, why, and what would be right.
pub fn inspect_certificate(files: &CertificateFiles, now: Now) -> Result<CertificateFacts, String> {
    let (chain, _) = read_pair(files)?;
    let leaf = chain.first().ok_or("the chain is empty")?;
    facts(leaf, now).map_err(|error| format!("{}: {error}", files.chain.display()))
}

/// Reads a certificate that origins are shown, and checks that it can be used.
pub(super) fn check_client_certificate(files: &CertificateFiles) -> Result<(), String> {
    read_pair(files).map(drop)
}

/// A certificate chain and its key, which belong together.
///
/// # Errors
/// Says which file is wrong, why, and what would be right.
pub fn read_pair(
    files: &CertificateFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = read_certificates(&files.chain)?;
    let key_bytes = read_file(&files.key, LARGEST_PEM_BYTES)?;
    let key = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|error| {
        let name = files.key.display();
        if contains(&key_bytes, b"ENCRYPTED") {
            format!("{name}: the key is encrypted; decrypt it first: openssl pkey -in {name} -out new.key")
        } else if contains(&key_bytes, b"BEGIN CERTIFICATE") {
            format!("{name}: holds a certificate instead of a private key")
        } else {
            format!("{name}: holds no private key in PEM form ({error})")
        }
    })?;
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "{}: the key does not belong to the first certificate of {} (the server's own comes first)",
            files.key.display(),
            files.chain.display(),
        ),
        other => format!("{}: {other}", files.chain.display()),
    })?;
    Ok((chain, key))
}

/// Reads certificate authorities and checks that each can be trusted as one.
pub(super) fn check_authorities(path: &Path) -> Result<(), String> {
    for (i, certificate) in read_certificates(path)?.iter().enumerate() {
        webpki::anchor_from_trusted_cert(certificate).map_err(|error| {
            format!("{}: certificate {} is unusable: {error}", path.display(), i + 1)
        })?;
    }
    Ok(())
}

/// Reads a regular file of bounded size.
pub(super) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let explain = |error: std::io::Error| format!("{}: {}", path.display(), reason(&error));
    let metadata = fs::metadata(path).map_err(explain)?;
    if !metadata.is_file() {
        return Err(format!("{}: is not a regular file", path.display()));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(explain)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(explain)?;
    if bytes.len() as u64 > most {
        return Err(format!("{}: is larger than {most} bytes", path.display()));
    }
    Ok(bytes)
}

/// Why a file cannot be read, without the number of the error.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read_file(path, LARGEST_PEM_BYTES)?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let list = list.map_err(|error| format!("{}: not in PEM form: {error}", path.display()))?;
    if !list.is_empty() {
        return Ok(list);
    }
    let what = if contains(&bytes, b"PRIVATE KEY") {
        "holds a private key instead of a certificate"
    } else {
        "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
    };
    Err(format!("{}: {what}", path.display()))
}

fn facts(leaf: &CertificateDer<'_>, now: Now) -> Result<CertificateFacts, String> {
    let certificate = EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    let names = certificate.valid_dns_names().map(str::to_owned).collect();
    let since_epoch = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let today = validity(&certificate, since_epoch);
    // Asked for a moment beyond any end, the check tells the end.
    let not_after = match validity(&certificate, Duration::from_secs(u64::MAX)) {
        Some(webpki::Error::CertExpired { not_after, .. }) => {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    };
    let not_after = not_after.ok_or("its validity cannot be read")?;
    Ok(CertificateFacts {
        names,
        not_after,
        expired: matches!(today, Some(webpki::Error::CertExpired { .. })),
        not_yet: matches!(today, Some(webpki::Error::CertNotValidYet { .. })),
    })
}

/// What is wrong with a certificate at a moment, issuers left aside.
fn validity(certificate: &EndEntityCert<'_>, since_epoch: Duration) -> Option<webpki::Error> {
    certificate
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[],
            &[],
            UnixTime::since_unix_epoch(since_epoch),
            KeyUsage::server_auth(),
            None,
            None,
        )
        .err()
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(bytes, word).is_some()
}

/// What a node of a mesh shows and whom it trusts, read and found to fit together.
#[derive(Debug)]
pub struct MeshCredentials {
    /// Its certificate, the node's own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Certificates of the authorities that peers' must come from.
    pub authorities: Vec<CertificateDer<'static>>,
    /// End of the certificate's validity.
    pub not_after: SystemTime,
}

/// Reads what a node of a mesh shows and whom it trusts.
///
/// # Errors
/// Says which file is wrong, why, and what would be right.
pub fn read_mesh_credentials(
    files: &CertificateFiles,
    authorities: &[PathBuf],
    name: &str,
    now: Now,
) -> Result<MeshCredentials, String> {
    let (chain, key) = read_pair(files)?;
    let mut trusted = Vec::new();
    for path in authorities {
        check_authorities(path)?;
        trusted.extend(read_certificates(path)?);
    }
    let shown = files.chain.display();
    let leaf = chain.first().ok_or("the chain is empty")?;
    let known = facts(leaf, now).map_err(|error| format!("{shown}: {error}"))?;
    if !known.names.iter().any(|known| known == name) {
        let names = known.names.join(", ");
        return Err(format!("{shown}: is for {names}, not for the node \"{name}\""));
    }
    if known.expired {
        let end = httpdate::fmt_http_date(known.not_after);
        return Err(format!("{shown}: it ended on {end}; peers will refuse it"));
    }
    check_issued(&chain, &trusted, now).map_err(|error| {
        format!("{shown}: does not come from any of the authorities in `ca`, or not for both ends of a link ({error})")
    })?;
    Ok(MeshCredentials { chain, key, authorities: trusted, not_after: known.not_after })
}

/// Whether a chain leads to one of the authorities, for a server and for a client.
fn check_issued(
    chain: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'_>],
    now: Now,
) -> Result<(), webpki::Error> {
    let (leaf, rest) = chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
    let anchors: Result<Vec<_>, _> =
        authorities.iter().map(webpki::anchor_from_trusted_cert).collect();
    let (anchors, leaf) = (anchors?, EndEntityCert::try_from(leaf)?);
    let since_epoch = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            rest,
            UnixTime::since_unix_epoch(since_epoch),
            usage,
            None,
            None,
        )?;
    }
    Ok(())
}
