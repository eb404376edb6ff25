//! All origins of a configuration, shared by the workers.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{self, Limits};
use crate::health::Order;
use crate::store::Events;
use crate::telemetry::Metrics;

use super::dice::Dice;
use super::resolve::{self, Manner, Name};
use super::set::Origin;
use super::tls::{TlsIdentity, TlsSettings};
use super::{OriginStatus, WorkerOrigins, probe};

/// Time between two settings of the gauges that time alone changes.
const MEASURE: Duration = Duration::from_secs(1);

/// Pause before a background task that panicked is started again.
const RESTART: Duration = Duration::from_secs(1);

/// All origins: names, endpoints, health, limits. One value serves all workers.
#[derive(Debug)]
pub struct Origins {
    origins: Vec<Arc<Origin>>,
    limits: Arc<Limits>,
    dice: Arc<Dice>,
}

impl Origins {
    /// Prepares the origins of a configuration; reads certificate authorities, opens no socket.
    /// Changes of their endpoints are told to `events`.
    ///
    /// # Errors
    /// When an origin's `ca` cannot be used, or a server's host cannot be in a certificate.
    pub fn new(
        origins: &[config::Origin],
        limits: Arc<Limits>,
        metrics: &Metrics,
        events: &Arc<Events>,
    ) -> Result<Arc<Self>, OriginConfigError> {
        Self::build(origins, None, limits, metrics, events)
    }

    /// Prepares the origins of a configuration that is to take the place of this one's. An origin of
    /// which nothing changed, its files included, is the same then, with its connections and all that
    /// is under way; where that is all of them, `self` is given back. The others learn what is known
    /// by [`Self::adopt`].
    ///
    /// # Errors
    /// As those of [`Self::new`].
    pub fn succeeded(
        self: &Arc<Self>,
        origins: &[config::Origin],
        limits: &Arc<Limits>,
        metrics: &Metrics,
        events: &Arc<Events>,
    ) -> Result<Arc<Self>, OriginConfigError> {
        let new = Self::build(origins, Some(self), Arc::clone(limits), metrics, events)?;
        let mut pairs = new.origins.iter().zip(&self.origins);
        let same = new.origins.len() == self.origins.len()
            && pairs.all(|(new, old)| Arc::ptr_eq(new, old));
        Ok(if same { Arc::clone(self) } else { new })
    }

    fn build(
        origins: &[config::Origin],
        former: Option<&Self>,
        limits: Arc<Limits>,
        metrics: &Metrics,
        events: &Arc<Events>,
    ) -> Result<Arc<Self>, OriginConfigError> {
        let mut settings = TlsSettings::default();
        // Equal limits are the same ones, so that connections may stay.
        let kept = former.map(|former| &former.limits).filter(|former| ***former == *limits);
        let limits = kept.map_or(limits, Arc::clone);
        let build = |config: &config::Origin| {
            let tls = identities(config, &mut settings)?;
            let files = files(config);
            let same = |old: &&Arc<Origin>| {
                Arc::ptr_eq(&old.limits, &limits) && old.config == *config && old.files == files
            };
            if let Some(same) = former.and_then(|former| former.origins.iter().find(same)) {
                return Ok(Arc::clone(same));
            }
            let told = metrics.origin(&config.name, limits.origin_connections);
            let told = (told, Arc::clone(events));
            Ok(Arc::new(Origin::new(config.clone(), tls, files, Arc::clone(&limits), told)))
        };
        let origins = origins.iter().map(build).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Self { origins, limits, dice: Arc::new(Dice::new()) }))
    }

    /// Resolves names and probes endpoints until `shutdown` resolves. Runs on the control runtime;
    /// requests to names wait for its first answers.
    pub async fn run_background(self: Arc<Self>, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut tasks = JoinSet::new();
        for task in self.tasks() {
            tasks.spawn(supervise(task));
        }
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(MEASURE) => {
                    let now = clock::now().boot;
                    self.origins.iter().for_each(|origin| origin.measure_endpoints(now));
                }
            }
        }
    }

    fn tasks(&self) -> Vec<Task> {
        let mut tasks: Vec<Task> = Vec::new();
        for name in Name::of(&self.origins) {
            let manner = Manner { limits: Arc::clone(&self.limits), dice: Arc::clone(&self.dice) };
            tasks.push(Box::new(move || Box::pin(resolve::run(name.clone(), manner.clone()))));
        }
        for origin in &self.origins {
            if let Some(rules) = origin.config.probe.clone() {
                let (origin, dice) = (Arc::clone(origin), Arc::clone(&self.dice));
                tasks.push(Box::new(move || {
                    Box::pin(probe::run(Arc::clone(&origin), rules.clone(), Arc::clone(&dice)))
                }));
            }
        }
        tasks
    }

    /// Takes over what the origins of a former configuration know of endpoints that stay: health,
    /// latencies and operators' orders, by origin's name, server and address. To be called before
    /// the first request; the same knowledge is then shared by both, so that requests still under
    /// way there count here.
    pub fn adopt(&self, old: &Self) {
        let now = clock::now().boot;
        for origin in &self.origins {
            let same = |other: &&Arc<Origin>| other.config.name == origin.config.name;
            let old = old.origins.iter().find(same);
            if let Some(old) = old.filter(|old| !Arc::ptr_eq(old, origin)) {
                origin.adopt(old, now);
            }
        }
    }

    /// Carries out an operator's word about one address of an origin: of all its servers that have
    /// this address, and also while it is not in use. Gives how the origin stands then.
    ///
    /// # Errors
    /// When there is no such origin, or it has not known the address.
    pub fn order(
        &self,
        origin: &str,
        address: SocketAddr,
        order: Order,
    ) -> Result<OriginStatus, UnknownEndpoint> {
        let now = clock::now().boot;
        let found = self.origins.iter().find(|other| other.config.name == origin);
        let found = found.ok_or(UnknownEndpoint::Origin)?;
        if !found.order(address, order, now) {
            return Err(UnknownEndpoint::Address);
        }
        Ok(found.status(now))
    }

    /// How the origins stand, for people.
    #[must_use]
    pub fn status(&self) -> Vec<OriginStatus> {
        let now = clock::now().boot;
        self.origins.iter().map(|origin| origin.status(now)).collect()
    }

    /// The connections of one worker. Call it once for each worker.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> WorkerOrigins {
        WorkerOrigins::new(Arc::clone(self), &self.limits)
    }

    /// The limits that they hold.
    pub(super) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    pub(super) fn origin(&self, index: usize) -> Option<&Arc<Origin>> {
        self.origins.get(index)
    }

    pub(super) fn dice(&self) -> &Dice {
        &self.dice
    }
}

/// Starts something that never ends.
type Task = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Starts a task anew when it panics: a fault in one answer must not end the watching for good.
async fn supervise(task: Task) {
    loop {
        let mut running = JoinSet::new();
        running.spawn(task());
        if let Some(Err(error)) = running.join_next().await
            && error.is_panic()
        {
            tracing::error!(%error, "a task that watches origins panicked and is started again");
        }
        tokio::time::sleep(RESTART).await;
    }
}

/// Why an operator's word cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownEndpoint {
    /// There is no origin of this name.
    Origin,
    /// The origin has no such address, and has not had it lately.
    Address,
}

fn identities(
    config: &config::Origin,
    settings: &mut TlsSettings,
) -> Result<Vec<Option<TlsIdentity>>, OriginConfigError> {
    let mut shared = None;
    let mut identity = |server: &config::Server| {
        if !server.tls {
            return Ok(None);
        }
        let (own, http1) = match &shared {
            Some(shared) => shared,
            None => shared.insert(settings.of(config)?),
        };
        let host = config.tls_name.as_deref().unwrap_or(server.domain());
        let name = ServerName::try_from(host.to_owned()).map_err(|_invalid| {
            OriginConfigError::Host { origin: config.name.clone(), host: host.to_owned() }
        })?;
        Ok(Some(TlsIdentity { config: Arc::clone(own), http1: Arc::clone(http1), name }))
    };
    config.servers.iter().map(&mut identity).collect()
}

/// SHA-256 of each file that an origin's TLS is made of: they may change under their names.
fn files(config: &config::Origin) -> Vec<u8> {
    let certificate = config.client_certificate.iter().flat_map(|own| [&own.chain, &own.key]);
    let digest = |file: &PathBuf| {
        let bytes = std::fs::read(file).unwrap_or_default();
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes)
    };
    let digests: Vec<_> = config.ca.iter().chain(certificate).map(digest).collect();
    digests.iter().flat_map(AsRef::as_ref).copied().collect()
}

/// Why an origin's configuration cannot be used.
#[derive(Debug)]
pub enum OriginConfigError {
    /// The file of certificate authorities cannot be read or holds no certificate.
    Authorities {
        /// Name of the origin.
        origin: String,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate to be shown cannot be used.
    Certificate {
        /// Name of the origin.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS cannot be set up; says why.
    Tls(String),
    /// A server's host is not a name that a certificate could bear.
    Host {
        /// Name of the origin.
        origin: String,
        /// The host as written.
        host: String,
    },
}

impl fmt::Display for OriginConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorities { origin, file, why } => {
                write!(out, "origin {origin}: certificate authorities in {}: {why}", file.display())
            }
            Self::Certificate { origin, why } => write!(out, "origin {origin}: {why}"),
            Self::Tls(why) => write!(out, "TLS to origins: {why}"),
            Self::Host { origin, host } => {
                write!(out, "origin {origin}: `{host}` is not a host name or address")
            }
        }
    }
}

impl std::error::Error for OriginConfigError {}
