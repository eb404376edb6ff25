//! All origins of a configuration, shared by the workers.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{self, Limits};
use crate::store::Events;
use crate::telemetry::Metrics;

use super::dice::Dice;
use super::pool::Pool;
use super::resolve::{self, Name};
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
        metrics: Arc<Metrics>,
        events: Arc<Events>,
    ) -> Result<Arc<Self>, OriginConfigError> {
        let mut settings = TlsSettings::default();
        let shared = Arc::clone(&limits);
        let build = move |(index, config): (usize, &config::Origin)| {
            let tls = identities(config, &mut settings)?;
            let told = (Arc::clone(&metrics), Arc::clone(&events));
            Ok(Arc::new(Origin::new(index, config.clone(), tls, Arc::clone(&shared), told)))
        };
        let origins = origins.iter().enumerate().map(build).collect::<Result<Vec<_>, _>>()?;
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
            let (limits, dice) = (Arc::clone(&self.limits), Arc::clone(&self.dice));
            tasks.push(Box::new(move || {
                Box::pin(resolve::run(name.clone(), Arc::clone(&limits), Arc::clone(&dice)))
            }));
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

    /// How the origins stand, for people.
    #[must_use]
    pub fn status(&self) -> Vec<OriginStatus> {
        let now = clock::now().boot;
        self.origins.iter().map(|origin| origin.status(now)).collect()
    }

    /// The connections of one worker. Call it once for each worker.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> WorkerOrigins {
        WorkerOrigins::new(Arc::clone(self), Pool::new(Arc::clone(&self.limits)))
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

fn identities(
    config: &config::Origin,
    settings: &mut TlsSettings,
) -> Result<Vec<Option<TlsIdentity>>, OriginConfigError> {
    let mut shared = None;
    let mut identity = |server: &config::Server| {
        if !server.tls {
            return Ok(None);
        }
        let config_of_origin = match &shared {
            Some(shared) => Arc::clone(shared),
            None => Arc::clone(shared.insert(settings.of(config)?)),
        };
        let name = ServerName::try_from(server.domain().to_owned()).map_err(|_invalid| {
            OriginConfigError::Host { origin: config.name.clone(), host: server.host.clone() }
        })?;
        Ok(Some(TlsIdentity { config: config_of_origin, name }))
    };
    config.servers.iter().map(&mut identity).collect()
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
            Self::Tls(why) => write!(out, "TLS to origins: {why}"),
            Self::Host { origin, host } => {
                write!(out, "origin {origin}: `{host}` is not a host name or address")
            }
        }
    }
}

impl std::error::Error for OriginConfigError {}
