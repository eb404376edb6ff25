//! The attempts at one request: where to, and whether once more.
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
use crate::message::Body;
use crate::semantics::is_idempotent;

use super::SendError;
use super::dice::Dice;
use super::endpoint::Endpoint;
use super::set::Origin;
use super::transport::{Failure, Reached};

/// The attempts at one request.
pub(super) struct Attempts<'a> {
    origin: &'a Origin,
    affinity: Option<u64>,
    tried: SmallVec<[u64; 2]>,
    retries: u32,
}

impl<'a> Attempts<'a> {
    /// None yet. The request counts towards the budget of the origin's retries.
    pub(super) fn new(origin: &'a Origin, affinity: Option<u64>) -> Self {
        origin.budget.lock().deposit();
        Self { origin, affinity, tried: SmallVec::new(), retries: 0 }
    }

    /// Whether the next one is a second one.
    pub(super) fn has_retried(&self) -> bool {
        self.retries > 0
    }

    /// The endpoint of the next one.
    pub(super) fn choose(&self, dice: &Dice) -> Result<Arc<Endpoint>, SendError> {
        let chosen = self.origin.choose(&self.tried, self.affinity, dice, clock::now().boot);
        let endpoint = chosen.ok_or(SendError::DestinationUnavailable)?;
        self.origin.measure(|metrics| metrics.requests.inc());
        Ok(endpoint)
    }

    /// The attempt failed: the body to send again, or the error if it must not be sent again.
    pub(super) fn again(&mut self, method: &Method, failure: Failure) -> Result<Body, SendError> {
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
