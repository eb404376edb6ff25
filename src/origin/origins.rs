//! All origins of a configuration, shared by the workers, and each worker's own connections.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{self, Limits};
use crate::message::ResponseHead;
use crate::telemetry::Metrics;

use super::{Answer, OriginStatus, Outgoing, SendError};

/// All origins: names, endpoints, health, limits. One value serves all workers.
pub struct Origins {
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
}

impl Origins {
    /// Prepares the origins of a configuration; reads certificate authorities, opens no socket.
    ///
    /// # Errors
    /// When an origin's `ca` cannot be used.
    pub fn new(
        origins: &[config::Origin],
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OriginConfigError> {
        let _ = origins;
        Ok(Arc::new(Self { limits, metrics }))
    }

    /// Resolves names and probes endpoints until `shutdown` resolves. Runs on the control runtime.
    pub async fn run_background(self: Arc<Self>, shutdown: impl Future<Output = ()> + Send) {
        shutdown.await;
    }

    /// How the origins stand, for people.
    #[must_use]
    pub fn status(&self) -> Vec<OriginStatus> {
        let _ = (&self.limits, &self.metrics);
        Vec::new()
    }

    /// The connections of one worker. Call it once for each worker.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> WorkerOrigins {
        WorkerOrigins { origins: Arc::clone(self) }
    }
}

/// One worker's way to the origins: its own connections, everything else shared.
pub struct WorkerOrigins {
    origins: Arc<Origins>,
}

impl WorkerOrigins {
    /// Sends a request to an origin and waits for the head of its final answer. `origin` is the
    /// position in the configuration; connections are never shared between two `site`s. Interim
    /// responses (1xx other than 100 and 101) go to `interim` as they come.
    ///
    /// # Errors
    /// When no usable final head came; everything that is safe to retry has been retried.
    pub async fn send(
        &self,
        origin: usize,
        site: usize,
        request: Outgoing,
        interim: impl FnMut(ResponseHead) + Send,
    ) -> Result<Answer, SendError> {
        let _ = (&self.origins, origin, site, request, interim);
        Err(SendError::DestinationUnavailable)
    }
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
