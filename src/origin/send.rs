//! One request to an origin: the beginning of its body, a place, an endpoint, a connection, and
//! once more where that is safe.
//!
//! What may be sent again, once, under the origin's retry budget:
//!
//! - whatever the method, when no connection came about and there is another endpoint: nobody has
//!   seen the request;
//! - whatever the method, when the origin said that it did not process the request;
//! - an idempotent request (RFC 9110 section 9.2.2) whose body can be sent a second time, when the
//!   connection ended before any byte of a response: on another endpoint if there is one, and
//!   never on a connection that lay idle.
//!
//! An answer, even 502 or 503, is an answer and goes to the one who asked. So does a timeout: the
//! origin is at work on the request, and a second copy would only add to that.

use std::sync::Arc;

use http::Method;
use smallvec::SmallVec;

use crate::clock;
use crate::config::Limits;
use crate::message::{Body, ResponseHead};

use super::endpoint::Endpoint;
use super::origins::Origins;
use super::place::Place;
use super::prefixed::begun;
use super::set::Origin;
use super::transport::{Attempt, Failure, Reached, Transport};
use super::{Answer, Outgoing, SendError};

/// One worker's way to the origins: its own connections, everything else shared.
#[derive(Debug)]
pub struct WorkerOrigins {
    origins: Arc<Origins>,
    transport: Transport,
}

impl WorkerOrigins {
    pub(super) fn new(origins: Arc<Origins>, limits: &Arc<Limits>) -> Self {
        Self { origins, transport: Transport::new(limits) }
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
        let (request, body) = request.split();
        let mut body = match request.streams {
            true => body,
            false => begun(body).await.map_err(SendError::RequestBody)?,
        };
        let place = Arc::new(Place::take(origin).await?);
        origin.budget.lock().deposit();
        let mut attempts = Attempts { origin, tried: SmallVec::new(), retries: 0 };
        loop {
            let endpoint = attempts.choose(&self.origins)?;
            let attempt = Attempt {
                origin,
                endpoint: &endpoint,
                site,
                fresh: attempts.retries > 0,
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

/// The attempts at one request.
struct Attempts<'a> {
    origin: &'a Origin,
    tried: SmallVec<[u64; 2]>,
    retries: u32,
}

impl Attempts<'_> {
    fn choose(&self, origins: &Origins) -> Result<Arc<Endpoint>, SendError> {
        let chosen = self.origin.choose(&self.tried, origins.dice(), clock::now().boot);
        let endpoint = chosen.ok_or(SendError::DestinationUnavailable)?;
        self.origin.measure(|metrics| metrics.requests.inc());
        Ok(endpoint)
    }

    /// The attempt failed: the body to send again, or the error if it must not be sent again.
    fn again(&mut self, method: &Method, failure: Failure) -> Result<Body, SendError> {
        self.tried.push(failure.endpoint.id);
        let may = match failure.reached {
            Reached::NoConnection => self.is_another(),
            Reached::NotProcessed => true,
            Reached::Unknown => {
                let ended = matches!(failure.error, SendError::ConnectionTerminated { .. });
                ended && is_idempotent(method)
            }
            Reached::Answered => false,
        };
        match failure.body {
            Some(body) if may && self.may_retry() => {
                let (origin, error) = (&self.origin.config.name, failure.error);
                tracing::debug!(origin, %error, "sent again");
                Ok(body)
            }
            _ => Err(failure.error),
        }
    }

    fn is_another(&self) -> bool {
        self.origin.endpoints().iter().any(|endpoint| !self.tried.contains(&endpoint.id))
    }

    fn may_retry(&mut self) -> bool {
        let may = self.retries < self.origin.limits.retries && self.origin.budget.lock().withdraw();
        if may {
            self.retries += 1;
            self.origin.measure(|metrics| metrics.retries.inc());
        }
        may
    }
}

/// RFC 9110 section 9.2.2, and the safe methods of the registry.
fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent() || matches!(method.as_str(), "PROPFIND" | "REPORT" | "SEARCH" | "QUERY")
}
