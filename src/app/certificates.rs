//! The certificates of the TLS listeners: those of the configuration, and what becomes of their files.
//!
//! Whoever renews certificates replaces files and tells nobody. So their times and sizes are looked at
//! every few seconds, and what changed is read anew. A pair that cannot be used, since it is broken or
//! only half of it is there, leaves the one before in force; each state of the files is tried once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Shared, StartError};
use crate::config::{CertificateFiles, Config};
use crate::listener::{Certificates, TlsAcceptorState};

/// How the files stand: their times and sizes, in the order of their names in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched(Vec<(PathBuf, Option<Stamp>)>);

/// What changes with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    changed: Option<SystemTime>,
    bytes: u64,
    /// A file that was renamed to this name may be as old and as long.
    number: u64,
}

impl Watched {
    /// How they stand now; to be asked before they are read.
    pub(super) fn of(files: &[CertificateFiles]) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let stamp = |file: &PathBuf| {
            let found = std::fs::metadata(file).ok().map(|found| Stamp {
                changed: found.modified().ok(),
                bytes: found.len(),
                number: found.ino(),
            });
            (file.clone(), found)
        };
        Self(files.iter().flat_map(|files| [&files.chain, &files.key]).map(stamp).collect())
    }
}

/// What a TLS listener shows: the certificates given, else one made here with its fingerprint.
pub(super) fn first(config: &Config) -> Result<(Certificates, Option<String>), StartError> {
    let named: Vec<String> = config.sites.iter().flat_map(|site| site.hosts.clone()).collect();
    let open = named.iter().any(|host| host == "*");
    let (certificates, fingerprint) = if config.certificates.is_empty() {
        let made = Certificates::self_made(&named).map_err(StartError::Certificate)?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &made.der);
        (made.certificates, Some(super::hex(digest.as_ref())))
    } else {
        (Certificates::load(&config.certificates).map_err(StartError::Certificate)?, None)
    };
    Ok((certificates.refuse_unknown(!open), fingerprint))
}

/// The certificates of a configuration that is to take the place of `old`; `None` where the one that
/// was made here can stay.
pub(super) fn of(config: &Config, old: &Config) -> Result<Option<Certificates>, StartError> {
    let hosts = |config: &Config| -> Vec<String> {
        config.sites.iter().flat_map(|site| site.hosts.clone()).collect()
    };
    let made = config.certificates.is_empty() && old.certificates.is_empty();
    if made && hosts(config) == hosts(old) {
        return Ok(None);
    }
    first(config).map(|(certificates, _)| Some(certificates))
}

/// Publishes when the first of them ends.
pub(super) fn measure(shared: &Shared, certificates: &Certificates) {
    let ends = certificates.status().into_iter().map(|status| status.expires).min();
    let since = ends.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
    let seconds = since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    shared.metrics.node.certificate_expires.set(seconds);
}

/// Looks at the files for as long as the process lives.
pub(super) async fn watch(shared: Arc<Shared>, tls: Arc<TlsAcceptorState>) {
    let mut tried = Watched::default();
    loop {
        let pause = shared.in_force().config.limits.certificate_check;
        if pause.is_zero() {
            // Switched off, as long as no reload says otherwise.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            continue;
        }
        tokio::time::sleep(pause).await;
        let (state, acceptor, before) = (Arc::clone(&shared), Arc::clone(&tls), tried.clone());
        let looked = tokio::task::spawn_blocking(move || look(&state, &acceptor, before)).await;
        match looked {
            Ok(now) => tried = now,
            Err(error) => tracing::error!(%error, "looking at certificates ended by a panic"),
        }
    }
}

/// Takes up what changed since it was read or tried; gives what was seen.
fn look(shared: &Shared, tls: &TlsAcceptorState, tried: Watched) -> Watched {
    // A reload must not come in between: it would be undone.
    let _alone = shared.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let in_force = shared.in_force();
    let files = &in_force.config.certificates;
    let now = Watched::of(files);
    if now == in_force.certificates || now == tried {
        return if now == tried { tried } else { now };
    }
    let (certificates, problems) = tls.certificates().renewed(files);
    for problem in &problems {
        tracing::error!("a changed certificate cannot be used, the one before stays: {problem}");
        shared.metrics.node.certificates_refused.inc();
    }
    if let Some(certificates) = certificates {
        tls.certificates().replace(&certificates);
        shared.metrics.node.certificates_changed.inc();
        measure(shared, &certificates);
        tracing::info!("changed certificates are in use");
    }
    now
}
