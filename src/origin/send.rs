//! One request to an origin: the beginning of its body, a place, an endpoint, a connection, and
//! once more where that is safe.

use std::sync::Arc;

use crate::config::Limits;
use crate::message::ResponseHead;

use super::attempts::Attempts;
use super::hedge::hedged;
use super::origins::Origins;
use super::place::Place;
use super::prefixed::begun;
use super::set::Origin;
use super::transport::{Attempt, Transport};
use super::{Answer, Outgoing, SendError};

/// One worker's way to the origins: its own connections, everything else shared.
#[derive(Debug)]
pub struct WorkerOrigins {
    pub(super) origins: Arc<Origins>,
    pub(super) transport: Arc<Transport>,
}

impl WorkerOrigins {
    pub(super) fn new(origins: Arc<Origins>, limits: &Arc<Limits>) -> Self {
        Self { origins, transport: Arc::new(Transport::new(limits)) }
    }

    /// The same worker's way to the origins of the next configuration. Connections stay where the
    /// limits do: those to an origin that changed are never asked for again, and go.
    #[must_use]
    pub fn succeeded(&self, origins: &Arc<Origins>) -> Self {
        if Arc::ptr_eq(self.origins.limits(), origins.limits()) {
            return Self { origins: Arc::clone(origins), transport: Arc::clone(&self.transport) };
        }
        origins.worker()
    }

    /// Sends a request to an origin and waits for the head of its final answer. `origin` is the
    /// position in the configuration; connections are never shared between two `site`s, whose numbers
    /// are theirs for the life of the process. Interim
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
        let mut body = match request.streams {
            true => body,
            false => begun(body).await.map_err(SendError::RequestBody)?,
        };
        let place = Arc::new(Place::take(origin, request.hop).await?);
        let mut attempts = Attempts::new(origin, self.origins.dice(), manner);
        // An answer that policy does not want stands until there is another one.
        let mut unwanted = None;
        loop {
            let endpoint = match attempts.choose() {
                Ok(endpoint) => endpoint,
                Err(error) => return unwanted.ok_or(error),
            };
            let attempt = Attempt {
                origin,
                endpoint: &endpoint,
                site,
                fresh: attempts.has_retried(),
                request: &request,
                place: &place,
            };
            let spare = attempts.spare(&request.method, &body);
            let outcome = if attempts.may_hedge(&request, &body) {
                Box::pin(hedged(&self.transport, &mut attempts, &attempt, &mut interim)).await
            } else {
                self.transport.attempt(&attempt, body, &mut interim).await
            };
            body = match outcome {
                Ok(answer) => match attempts.again_after(answer.head.status, &endpoint, spare) {
                    None => return Ok(answer),
                    Some(again) => {
                        unwanted = Some(answer);
                        again
                    }
                },
                Err(failure) => match attempts.again(&request.method, failure) {
                    Ok(again) => again,
                    Err(error) => return unwanted.ok_or(error),
                },
            };
        }
    }

    /// Connections that lie idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.transport.idle()
    }
}
