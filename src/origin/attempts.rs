//! The attempts at one request: where to, and whether once more.
//!
//! What may be sent again, once unless configured otherwise, under the origin's retry budget:
//!
//! - whatever the method, when no connection came about and there is another endpoint: nobody has
//!   seen the request;
//! - whatever the method, when the origin said that it did not process the request;
//! - an idempotent request (RFC 9110 section 9.2.2) whose body can be sent a second time, when the
//!   connection ended before any byte of a response: on another endpoint if there is one, and
//!   never on a connection that lay idle;
//! - the same, when the answer has a status that the path's policy names (`retry_on_status`), and
//!   only to another endpoint. If that gives no answer at all, the first one stands.
//!
//! Else an answer, even 502 or 503, is an answer and goes to the one who asked. So does a timeout:
//! the origin is at work on the request, and a second copy would only add to that. Where the policy
//! thinks otherwise, a request may be [hedged](super::hedge), which takes the place of a retry.

use std::sync::Arc;

use http::{Method, StatusCode, header};
use smallvec::SmallVec;

use crate::clock;
use crate::message::Body;
use crate::semantics::is_idempotent;

use super::dice::Dice;
use super::endpoint::Endpoint;
use super::place::Place;
use super::set::Origin;
use super::transport::{Attempt, Failure, Reached};
use super::{Head, Manner, SendError};

/// The attempts at one request.
pub(super) struct Attempts<'a> {
    origin: &'a Arc<Origin>,
    dice: &'a Dice,
    manner: Manner,
    tried: SmallVec<[u64; 2]>,
    /// Chosen already for the next one.
    next: Option<Arc<Endpoint>>,
    retries: u32,
}

/// Where a request that failed may be sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Nowhere,
    /// To another endpoint, if there is one.
    Elsewhere,
    /// To another endpoint, or to the same one if it is alone.
    Anywhere,
}

impl<'a> Attempts<'a> {
    /// None yet. The request counts towards the budget of the origin's retries.
    pub(super) fn new(origin: &'a Arc<Origin>, dice: &'a Dice, manner: Manner) -> Self {
        origin.budget.lock().deposit();
        Self { origin, dice, manner, tried: SmallVec::new(), next: None, retries: 0 }
    }

    /// Whether the next one is a second one.
    pub(super) fn has_retried(&self) -> bool {
        self.retries > 0
    }

    /// The endpoint of the next one.
    pub(super) fn choose(&mut self) -> Result<Arc<Endpoint>, SendError> {
        let chosen = self.next.take().or_else(|| self.pick());
        let endpoint = chosen.ok_or(SendError::DestinationUnavailable)?;
        self.origin.measure(|metrics| metrics.requests.inc());
        Ok(endpoint)
    }

    fn pick(&self) -> Option<Arc<Endpoint>> {
        self.origin.choose(&self.tried, self.manner.affinity, self.dice, clock::now().boot)
    }

    /// An endpoint that takes traffic and has not been tried.
    fn pick_other(&self) -> Option<Arc<Endpoint>> {
        self.pick().filter(|endpoint| !self.tried.contains(&endpoint.id))
    }

    fn is_another(&self) -> bool {
        self.origin.endpoints().iter().any(|endpoint| !self.tried.contains(&endpoint.id))
    }

    /// The attempt failed: the body to send again, or the error if it must not be sent again.
    pub(super) fn again(&mut self, method: &Method, failure: Failure) -> Result<Body, SendError> {
        self.tried.push(failure.endpoint.id);
        let may = match again(method, failure.reached, &failure.error) {
            Again::Nowhere => false,
            Again::Elsewhere => {
                self.next = self.pick_other();
                self.next.is_some()
            }
            Again::Anywhere => true,
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

    /// What an answer of `endpoint` with this status makes of `spare`, the body to send again where
    /// that is safe: it, if the answer is one that policy tries again after, elsewhere.
    pub(super) fn again_after(
        &mut self,
        status: StatusCode,
        endpoint: &Endpoint,
        spare: Option<Body>,
    ) -> Option<Body> {
        let body = spare.filter(|_| self.manner.retry_on.covers(status))?;
        self.tried.push(endpoint.id);
        let next = self.pick_other()?;
        if !self.may_retry() {
            return None;
        }
        tracing::debug!(origin = self.origin.config.name, %status, "sent again");
        self.next = Some(next);
        Some(body)
    }

    /// The body to send again after an answer that policy does not want, where that is safe.
    pub(super) fn spare(&self, method: &Method, body: &Body) -> Option<Body> {
        let wanted = !self.manner.retry_on.is_empty() && is_idempotent(method);
        if wanted { body.replay() } else { None }
    }

    /// Whether a second attempt may join the first one while that is under way.
    pub(super) fn may_hedge(&self, request: &Head, body: &Body) -> bool {
        self.manner.hedge
            && !self.has_retried()
            && matches!(body, Body::Empty)
            && is_idempotent(&request.method)
            && !request.headers.contains_key(header::UPGRADE)
    }

    /// Endpoint and place for a second attempt while the `first` one is under way. There
    /// is none without a free place: a hedge waits in no queue, and takes nobody's turn.
    pub(super) fn hedge(&mut self, first: &Attempt<'_>) -> Option<(Arc<Endpoint>, Arc<Place>)> {
        self.tried.push(first.endpoint.id);
        let endpoint = self.pick_other()?;
        let place = Place::take_spare(self.origin, first.request.hop)?;
        if !self.withdraw() {
            return None;
        }
        self.tried.push(endpoint.id);
        self.origin.measure(|metrics| {
            metrics.requests.inc();
            metrics.hedges.inc();
        });
        Some((endpoint, Arc::new(place)))
    }

    fn may_retry(&mut self) -> bool {
        // One on trial is one request: it is not repeated where it has just failed.
        let trial = self.origin.breaker.is_open() && !self.is_another();
        let may = !trial && self.withdraw();
        if may {
            self.origin.measure(|metrics| metrics.retries.inc());
        }
        may
    }

    /// Takes the right to one more attempt, if there is one.
    fn withdraw(&mut self) -> bool {
        let may = self.retries < self.origin.limits.retries && self.origin.budget.lock().withdraw();
        self.retries += u32::from(may);
        may
    }
}

/// Where a request may be sent again that came so far and failed so.
fn again(method: &Method, reached: Reached, error: &SendError) -> Again {
    match reached {
        Reached::NoConnection => Again::Elsewhere,
        Reached::NotProcessed => Again::Anywhere,
        Reached::Unknown => match error {
            SendError::ConnectionTerminated { .. } if is_idempotent(method) => Again::Anywhere,
            _ => Again::Nowhere,
        },
        Reached::Answered => Again::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_sent_again_and_where() {
        use Again::{Anywhere, Elsewhere, Nowhere};
        use Reached::{Answered, NoConnection, NotProcessed, Unknown};
        let (get, post) = (Method::GET, Method::POST);
        let ended = SendError::ConnectionTerminated { reused: false };
        let (silent, refused) = (SendError::HttpResponseTimeout, SendError::ConnectionRefused);
        for (method, reached, error, expected) in [
            (&post, NoConnection, &refused, Elsewhere),
            (&get, NoConnection, &refused, Elsewhere),
            (&post, NotProcessed, &ended, Anywhere),
            (&get, Unknown, &ended, Anywhere),
            (&post, Unknown, &ended, Nowhere),
            (&get, Unknown, &silent, Nowhere),
            (&get, Answered, &ended, Nowhere),
            (&post, Answered, &ended, Nowhere),
        ] {
            assert_eq!(again(method, reached, error), expected, "{method} {reached:?} {error}");
        }
    }
}
