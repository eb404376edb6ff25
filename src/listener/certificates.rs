//! The certificates of the TLS listeners, and which of them answers for a name.
//!
//! An exact name beats a wildcard, which covers one label (RFC 6125 section 6.4.3). Clients that
//! name nobody get the first certificate; those that name a stranger do, too, unless strangers are
//! to be refused, which makes sense only where sites name their hosts. The table is immutable and
//! swapped as a whole: all of a new set is in force or none of it.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::x509;
use crate::config::CertificateFiles;

/// Largest certificate or key file that is read, in bytes.
const LARGEST_FILE: u64 = 1024 * 1024;
/// Life of a self-made certificate; browsers accept no more than 398 days.
const SELF_MADE_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// Why certificates cannot be used; each problem names its file and what to do.
#[derive(Debug)]
pub struct CertificateError {
    /// All problems found, not the first only.
    pub problems: Vec<CertificateProblem>,
}

/// One problem with one file.
#[derive(Debug)]
pub struct CertificateProblem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// What would be right.
    pub remedy: &'static str,
}

/// What is known of a certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// DNS names that it stands for, wildcards included.
    pub names: Vec<String>,
    /// When it ends.
    pub expires: SystemTime,
    /// File that it came from; `None` if it is self-made.
    pub file: Option<PathBuf>,
}

/// The certificates in force; picks one for each handshake.
pub struct Certificates {
    table: ArcSwap<Table>,
}

/// A certificate made here, with what a person needs to recognise it.
#[derive(Debug)]
pub struct SelfMade {
    /// Ready for use.
    pub certificates: Certificates,
    /// The certificate in DER; its SHA-256 is the fingerprint that tools show.
    pub der: Vec<u8>,
    /// The certificate in PEM, for those who want to trust it.
    pub pem: String,
}

#[derive(Clone, Default)]
struct Table {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
    refuse_unknown: bool,
    keys: Vec<Arc<CertifiedKey>>,
    status: Vec<CertificateStatus>,
}

impl Certificates {
    /// Reads and checks certificate files. The first one answers clients without a name.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or parsed, a chain is out of order, a key does not fit its
    /// certificate, or a certificate is not valid now.
    pub fn load(files: &[CertificateFiles]) -> Result<Self, CertificateError> {
        let now = crate::clock::now().wall;
        let mut table = Table::default();
        let mut problems = Vec::new();
        for files in files {
            match load_one(files, now) {
                Ok((key, status)) => table.add(key, status),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(Self::of(table)) } else { Err(CertificateError { problems }) }
    }

    /// Makes a certificate for `names`, `localhost` and the loopback addresses that nobody vouches
    /// for, valid for a year. Wildcards may be among the names; `*` and what is no name is left out.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn self_made(names: &[String]) -> Result<SelfMade, CertificateError> {
        make(names, crate::clock::now().wall).map_err(|reason| CertificateError {
            problems: vec![CertificateProblem {
                file: PathBuf::from("(self-made)"),
                reason,
                remedy: "give a certificate and its key instead",
            }],
        })
    }

    /// Refuses handshakes for names that no certificate stands for. Only where sites name their
    /// hosts: elsewhere every name is meant to be answered.
    #[must_use]
    pub fn refuse_unknown(self, refuse: bool) -> Self {
        let table = Table::clone(&self.table.load());
        Self::of(Table { refuse_unknown: refuse, ..table })
    }

    /// Puts the certificates of `other` in force, for new handshakes.
    pub fn replace(&self, other: &Self) {
        self.table.store(other.table.load_full());
    }

    /// The certificates of the same files, read anew. A pair that cannot be used is told, and the one in
    /// force stays in its place. `None` where there is nothing new that could be used.
    #[must_use]
    pub fn renewed(&self, files: &[CertificateFiles]) -> (Option<Self>, Vec<CertificateProblem>) {
        let now = crate::clock::now().wall;
        let old = self.table.load();
        let mut table = Table { refuse_unknown: old.refuse_unknown, ..Table::default() };
        let (mut problems, mut usable) = (Vec::new(), false);
        for files in files {
            let before = || {
                let mut known = old.status.iter().zip(&old.keys);
                known.find(|(status, _)| status.file.as_ref() == Some(&files.chain))
            };
            match load_one(files, now) {
                Ok((key, status)) => {
                    usable = true;
                    table.add(key, status);
                }
                Err(problem) => {
                    problems.push(problem);
                    if let Some((status, key)) = before() {
                        table.add(Arc::clone(key), status.clone());
                    }
                }
            }
        }
        (usable.then(|| Self::of(table)), problems)
    }

    /// What is known of the certificates in force, in their order.
    #[must_use]
    pub fn status(&self) -> Vec<CertificateStatus> {
        self.table.load().status.clone()
    }

    fn of(table: Table) -> Self {
        Self { table: ArcSwap::from_pointee(table) }
    }

    fn pick(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let found = match name {
            None => table.first.as_ref(),
            Some(name) => table
                .find(name)
                .or_else(|| if table.refuse_unknown { None } else { table.first.as_ref() }),
        };
        found.map(Arc::clone)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pick(hello.server_name())
    }
}

impl Table {
    /// Adds a certificate. Where several stand for a name, the first one keeps it.
    fn add(&mut self, key: Arc<CertifiedKey>, status: CertificateStatus) {
        for name in &status.names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.into()).or_insert_with(|| Arc::clone(&key));
        }
        self.first.get_or_insert_with(|| Arc::clone(&key));
        self.keys.push(key);
        self.status.push(status);
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            lower.as_str()
        } else {
            name
        };
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(parent)
    }
}

fn load_one(
    files: &CertificateFiles,
    now: SystemTime,
) -> Result<(Arc<CertifiedKey>, CertificateStatus), CertificateProblem> {
    let chain = read_chain(&files.chain)?;
    let key = read_key(&files.key)?;
    let problem = |reason: String, remedy| problem(&files.chain, reason, remedy);
    check_order(&chain).map_err(|place| {
        problem(
            format!("certificate {} is not issued by certificate {}", place, place + 1),
            "put the server's certificate first, then the one that issued it, and so on",
        )
    })?;
    let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
    let names = names_of(leaf)
        .map_err(|reason| problem(reason, "use an X.509 version 3 certificate for a server"))?;
    if names.is_empty() {
        let remedy =
            "use a certificate with DNS names in subjectAltName; the common name is not read";
        return Err(problem("certificate names no host".to_owned(), remedy));
    }
    let validity = x509::validity(leaf).ok_or_else(|| {
        problem("certificate has no readable validity dates".to_owned(), "issue it anew")
    })?;
    if validity.until < now {
        let reason = format!("certificate expired at {}", httpdate::fmt_http_date(validity.until));
        return Err(problem(reason, "renew it"));
    }
    if validity.from > now {
        let reason =
            format!("certificate is valid from {}", httpdate::fmt_http_date(validity.from));
        return Err(problem(reason, "wait until then, or set this machine's clock right"));
    }
    let key = certified(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => problem_of_key(
            files,
            format!("key does not belong to the certificate in {}", files.chain.display()),
            "give the key that the certificate was requested with",
        ),
        error => problem_of_key(
            files,
            format!("key cannot be used: {error}"),
            "use an ECDSA P-256 or P-384, Ed25519, or RSA key of at least 2048 bits",
        ),
    })?;
    let status =
        CertificateStatus { names, expires: validity.until, file: Some(files.chain.clone()) };
    Ok((key, status))
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map(Arc::new)
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
    let remedy = "give a PEM file with the server's certificate first, then its intermediates";
    let text = read(file)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| problem(file, describe(&error), remedy))?;
    if chain.is_empty() {
        return Err(problem(file, "no certificate in this file".to_owned(), remedy));
    }
    Ok(chain)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateProblem> {
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let encrypted = memchr::memmem::find(&text, b"ENCRYPTED").is_some();
        if encrypted {
            let remedy = "decrypt it (openssl pkey -in FILE -out FILE) and guard the file instead";
            return problem(file, "key is encrypted with a passphrase".to_owned(), remedy);
        }
        problem(
            file,
            describe(&error),
            "give a PEM file with one private key (PKCS#8, PKCS#1 or SEC1)",
        )
    })
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateProblem> {
    let unreadable = |error: std::io::Error| {
        problem(file, format!("cannot read it: {error}"), "check path and permissions")
    };
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > LARGEST_FILE {
        let reason = format!("{size} bytes are too many for a certificate or key");
        return Err(problem(file, reason, "give a PEM file of at most 1 MiB"));
    }
    std::fs::read(file).map_err(unreadable)
}

fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "nothing that is needed stands in this file".to_owned(),
        pem::Error::MissingSectionEnd { .. } => {
            "the file is cut short: an END line is missing".to_owned()
        }
        other => format!("not sound PEM: {other}"),
    }
}

fn problem(file: &Path, reason: String, remedy: &'static str) -> CertificateProblem {
    CertificateProblem { file: file.to_owned(), reason, remedy }
}

fn problem_of_key(
    files: &CertificateFiles,
    reason: String,
    remedy: &'static str,
) -> CertificateProblem {
    problem(&files.key, reason, remedy)
}

/// Whether each certificate is issued by the next one. The error is the place, from 1, of the
/// first that is not.
fn check_order(chain: &[CertificateDer<'static>]) -> Result<(), usize> {
    let chain: Vec<_> = chain.iter().map(webpki::EndEntityCert::try_from).collect();
    for (place, pair) in chain.windows(2).enumerate() {
        let [Ok(subject), Ok(issuer)] = pair else { return Err(place + 1) };
        if subject.issuer() != issuer.subject() {
            return Err(place + 1);
        }
    }
    Ok(())
}

fn names_of(leaf: &[u8]) -> Result<Vec<String>, String> {
    let leaf = CertificateDer::from(leaf);
    let leaf = webpki::EndEntityCert::try_from(&leaf)
        .map_err(|error| format!("certificate cannot be read: {error}"))?;
    Ok(leaf.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

fn make(names: &[String], now: SystemTime) -> Result<SelfMade, String> {
    let mut all: Vec<String> = names
        .iter()
        .filter(|name| rcgen::string::Ia5String::try_from(name.as_str()).is_ok())
        .filter(|name| *name != "*" && !name.is_empty())
        .map(|name| name.to_ascii_lowercase())
        .chain(["localhost", "127.0.0.1", "::1"].map(str::to_owned))
        .collect();
    all.sort_unstable_by_key(|name| std::cmp::Reverse(names.contains(name)));
    all.dedup();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| error.to_string())?;
    let mut parameters = rcgen::CertificateParams::new(all).map_err(|error| error.to_string())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "atoll self-made certificate");
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let date = |at| {
        let (year, month, day) = x509::civil_from_time(at);
        rcgen::date_time_ymd(year, month, day)
    };
    parameters.not_before = date(now - Duration::from_secs(86_400));
    parameters.not_after = date(now + SELF_MADE_LIFE);
    let made = parameters.self_signed(&key).map_err(|error| error.to_string())?;
    let der = made.der().to_vec();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let names = names_of(&der)?;
    let expires = x509::validity(&der).map_or(now + SELF_MADE_LIFE, |validity| validity.until);
    let certified =
        certified(vec![made.der().clone()], private).map_err(|error| error.to_string())?;
    let mut table = Table::default();
    table.add(certified, CertificateStatus { names, expires, file: None });
    let pem = to_pem(&der);
    Ok(SelfMade { certificates: Certificates::of(table), der, pem })
}

/// A certificate in PEM (RFC 7468).
fn to_pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32, shift: u32| {
        ALPHABET.get((bits >> shift & 63) as usize).copied().map_or('=', char::from)
    };
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = [16, 8, 0]
                .iter()
                .zip(group)
                .fold(0, |bits, (shift, byte)| bits | u32::from(*byte) << shift);
            text.push(digit(bits, 18));
            text.push(digit(bits, 12));
            text.push(if group.len() > 1 { digit(bits, 6) } else { '=' });
            text.push(if group.len() > 2 { digit(bits, 0) } else { '=' });
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

impl fmt::Debug for Certificates {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.table.load().status.iter().map(|one| &one.names)).finish()
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            if place > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}; {}", self.file.display(), self.reason, self.remedy)
    }
}

impl std::error::Error for CertificateError {}

#[cfg(test)]
mod tests;
