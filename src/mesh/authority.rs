//! The mesh's own certificate authority: a folder with a certificate and a key, that says who is a node.
//!
//! Its subject is always the same, so that a certificate can be issued with the key alone; which of two
//! authorities of that subject issued one shows by the signature. Files with keys are for their
//! owner only, and nothing is ever written over.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::pki_types::DnsName;

use crate::clock::Now;

/// Name of the authority's certificate in its folder.
pub const AUTHORITY_FILE: &str = "mesh-ca.pem";
/// Name of the authority's key in its folder.
pub const AUTHORITY_KEY_FILE: &str = "mesh-ca.key";

/// How long an authority is good for, in days.
const AUTHORITY_DAYS: u32 = 3650;

/// Machines whose clock is a little behind take a new certificate at once.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Those who may be nodes, by who signs their certificates.
pub struct Authority {
    certificate: String,
    key: KeyPair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A node's certificate and its key, in PEM form.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issued")
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(now: Now) -> Result<Self, String> {
        let key = key()?;
        let certificate = authority_params(now).self_signed(&key).map_err(|e| e.to_string())?;
        Ok(Self { certificate: certificate.pem(), key })
    }

    /// Reads the one in a folder.
    ///
    /// # Errors
    /// Says which file is wrong.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|error| explain(&path, &error))
        };
        let (certificate, key) = (read(AUTHORITY_FILE)?, read(AUTHORITY_KEY_FILE)?);
        let key = KeyPair::from_pem(&key).map_err(|error| {
            format!(
                "{}: no private key in PEM form: {error}",
                folder.join(AUTHORITY_KEY_FILE).display()
            )
        })?;
        Ok(Self { certificate, key })
    }

    /// Writes it into a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When a file of it is there already, or cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), String> {
        fs::create_dir_all(folder).map_err(|error| explain(folder, &error))?;
        let (certificate, key) = (folder.join(AUTHORITY_FILE), folder.join(AUTHORITY_KEY_FILE));
        refuse_to_replace(&[&certificate, &key])?;
        write_new(&key, &self.key.serialize_pem(), 0o600)?;
        write_new(&certificate, &self.certificate, 0o644)
    }

    /// The authority's certificate in PEM form.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Makes the certificate of a node, for both ends of a link.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate, or the system has no randomness.
    pub fn issue(&self, name: &str, pop: &str, days: u32, now: Now) -> Result<Issued, String> {
        if DnsName::try_from(name).is_err() {
            return Err(format!(
                "\"{name}\" cannot stand in a certificate: use letters, digits, '-' and '.', as in the name of a host"
            ));
        }
        let mut params =
            CertificateParams::new(vec![name.to_owned()]).map_err(|error| error.to_string())?;
        lasting(&mut params, days, now);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationalUnitName, pop);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::new(authority_params(now), &self.key);
        let key = key()?;
        let certificate = params.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` into a folder, and tells where they are.
    ///
    /// # Errors
    /// When one of them is there already, or cannot be written.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf), String> {
        fs::create_dir_all(folder).map_err(|error| explain(folder, &error))?;
        let (certificate, key) =
            (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        refuse_to_replace(&[&certificate, &key])?;
        write_new(&key, &self.key, 0o600)?;
        write_new(&certificate, &self.certificate, 0o644)?;
        Ok((certificate, key))
    }
}

fn key() -> Result<KeyPair, String> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())
}

/// What is the same of every authority but its key.
fn authority_params(now: Now) -> CertificateParams {
    let mut params = CertificateParams::default();
    lasting(&mut params, AUTHORITY_DAYS, now);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "atoll mesh CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn lasting(params: &mut CertificateParams, days: u32, now: Now) {
    let since_epoch = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATED);
    params.not_after = epoch + since_epoch + Duration::from_secs(u64::from(days) * 86_400);
}

fn refuse_to_replace(paths: &[&Path]) -> Result<(), String> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Err(format!("{}: is there already, and is not written over", path.display())),
        None => Ok(()),
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| explain(path, &error))
}

fn explain(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::clock;
    use crate::config::{CertificateFiles, read_mesh_credentials};

    /// An empty folder of this test's own.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("atoll-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn what_an_authority_issues_can_be_used_and_is_nobody_elses_to_read() {
        let folder = folder("authority");
        let now = clock::now();
        Authority::new(now).unwrap().save(&folder).unwrap();
        let authority = Authority::open(&folder).unwrap();
        let issued = authority.issue("edge-1", "fra", 30, now).unwrap();
        let (chain, key) = issued.save(&folder, "edge-1").unwrap();
        for secret in [&key, &folder.join(AUTHORITY_KEY_FILE)] {
            assert_eq!(fs::metadata(secret).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (files, trusted) = (CertificateFiles { chain, key }, [folder.join(AUTHORITY_FILE)]);
        let read = read_mesh_credentials(&files, &trusted, "edge-1", now).unwrap();
        let left = read.not_after.duration_since(now.wall).unwrap();
        assert!(
            left <= Duration::from_secs(30 * 86_400) && left > Duration::from_secs(29 * 86_400)
        );
        let error = read_mesh_credentials(&files, &trusted, "edge-2", now).unwrap_err();
        assert!(error.contains("is for edge-1, not for the node \"edge-2\""), "{error}");
        let later = now.plus(Duration::from_secs(31 * 86_400));
        let error = read_mesh_credentials(&files, &trusted, "edge-1", later).unwrap_err();
        assert!(error.contains("it ended on"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn nothing_is_written_over() {
        let folder = folder("authority-twice");
        let now = clock::now();
        let authority = Authority::new(now).unwrap();
        authority.save(&folder).unwrap();
        let before = fs::read(folder.join(AUTHORITY_KEY_FILE)).unwrap();
        let error = Authority::new(now).unwrap().save(&folder).unwrap_err();
        assert!(error.contains("is not written over"), "{error}");
        assert_eq!(fs::read(folder.join(AUTHORITY_KEY_FILE)).unwrap(), before);
        authority.issue("a", "p", 1, now).unwrap().save(&folder, "a").unwrap();
        assert!(authority.issue("a", "p", 1, now).unwrap().save(&folder, "a").is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn another_authoritys_certificate_is_refused() {
        let folder = folder("authority-other");
        let now = clock::now();
        let (ours, theirs) = (Authority::new(now).unwrap(), Authority::new(now).unwrap());
        ours.save(&folder).unwrap();
        let issued = theirs.issue("a", "p", 1, now).unwrap();
        let (chain, key) = issued.save(&folder, "a").unwrap();
        let trusted = [folder.join(AUTHORITY_FILE)];
        let files = CertificateFiles { chain, key };
        let error = read_mesh_credentials(&files, &trusted, "a", now).unwrap_err();
        assert!(error.contains("does not come from any of the authorities"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_that_no_certificate_can_bear_are_refused() {
        let authority = Authority::new(clock::now()).unwrap();
        for name in ["", "a b", "-a", "a..b", "*.a", "ä"] {
            assert!(authority.issue(name, "p", 1, clock::now()).is_err(), "{name}");
        }
    }
}
