//! One request to an origin: the beginning of its body, a place, an endpoint, a connection, and
//! once more where that is safe.

use std::sync::Arc;

use crate::message::ResponseHead;

use super::attempts::Attempts;
use super::origins::Origins;
use super::place::Place;
use super::pool::Pool;
use super::prefixed::begun;
use super::set::Origin;
use super::transport::{Attempt, Transport};
use super::{Answer, Outgoing, SendError};

/// One worker's way to the origins: its own connections, everything else shared.
#[derive(Debug)]
pub struct WorkerOrigins {
    origins: Arc<Origins>,
    transport: Transport,
}

impl WorkerOrigins {
    pub(super) fn new(origins: Arc<Origins>, pool: Pool) -> Self {
        Self { origins, transport: Transport::new(pool) }
    }

    /// Sends a request to an origin and waits for the head of its final answer. `origin` is the
    /// position in the configuration; connections are never shared between two `site`s. Interim
    /// responses (1xx other than 100) go to `interim` as they come.
    ///
    /// # Errors
    /// When no usable final head came; what is safe to retry has been retried.
    pub async fn send(
        &self,
        origin: usize,
        site: usize,
        request: Outgoing,
        interim: impl FnMut(ResponseHead) + Send,
    ) -> Result<Answer, SendError> {
        let origin = self.origins.origin(origin).ok_or(SendError::DestinationUnavailable)?;
        let outcome = Box::pin(self.attempts(origin, site, request, interim)).await;
        if let Err(error) = &outcome {
            origin.measure(|metrics| metrics.failed(error.label()));
        }
        outcome
    }

    async fn attempts(
        &self,
        origin: &Arc<Origin>,
        site: usize,
        request: Outgoing,
        mut interim: impl FnMut(ResponseHead) + Send,
    ) -> Result<Answer, SendError> {
        origin.ready().await?;
        let (request, body, manner) = request.split();
        let mut body = begun(body).await.map_err(SendError::RequestBody)?;
        let place = Arc::new(Place::take(origin).await?);
        let mut attempts = Attempts::new(origin, manner.affinity);
        loop {
            let endpoint = attempts.choose(self.origins.dice())?;
            let attempt = Attempt {
                origin,
                endpoint: &endpoint,
                site,
                fresh: attempts.has_retried(),
                request: &request,
                place: &place,
            };
            match self.transport.attempt(&attempt, body, &mut interim).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => body = attempts.again(&request.method, failure)?,
            }
        }
    }

    /// Connections that lie idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.transport.idle()
    }
}
