//! One attempt at one request: a connection to the chosen endpoint, and one exchange on it.
//!
//! Which endpoint is chosen, and whether a failed attempt is repeated, is decided above, in
//! `send.rs`; what that decision needs is in [`Failure`].

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};

use crate::clock;
use crate::health::Observed;
use crate::http1::{ChunkLimits, ResponseFraming, remove_hop_by_hop};
use crate::message::{Body, ResponseHead};

use super::connect::{Connection, connect};
use super::download::{self, Return};
use super::endpoint::{Endpoint, Flight};
use super::pace::PaceRules;
use super::place::Place;
use super::pool::Pool;
use super::roundtrip::{Exchange, Response, Sent};
use super::set::Origin;
use super::upload::Upload;
use super::{Answer, Framing, Head, SendError};

/// One worker's connections.
#[derive(Debug)]
pub(super) struct Transport {
    pool: Arc<Pool>,
}

/// What is sent, and for whom.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    /// Where the endpoint belongs.
    pub(super) origin: &'a Arc<Origin>,
    /// The chosen one; on a new connection another address of its server may win the race.
    pub(super) endpoint: &'a Arc<Endpoint>,
    /// Connections are never shared between two sites.
    pub(super) site: usize,
    /// Not on a connection that lay idle: one of those may just have failed.
    pub(super) fresh: bool,
    /// Head of the request; its body is handed over beside it.
    pub(super) request: &'a Head,
    /// The request's place, held until the answer's body has ended.
    pub(super) place: &'a Arc<Place>,
}

/// Why an attempt gave no usable final head.
#[derive(Debug)]
pub(super) struct Failure {
    /// What went wrong.
    pub(super) error: SendError,
    /// Where it went wrong.
    pub(super) endpoint: Arc<Endpoint>,
    /// What the origin may have made of the request.
    pub(super) reached: Reached,
    /// The request's body, if it can be sent again: nothing of it is lost.
    pub(super) body: Option<Body>,
}

/// How far a failed request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// No connection came about.
    NoConnection,
    /// The origin has said that it did not process the request: a refused stream, or one beyond
    /// those that a GOAWAY still serves. It may be sent again whatever its method (RFC 9113
    /// section 8.7).
    NotProcessed,
    /// The origin may have processed it: no part of a response came.
    Unknown,
    /// Part of a response came, so the origin has seen it.
    Answered,
}

/// Gets the interim responses, as they come.
pub(super) type Interim<'a> = dyn FnMut(ResponseHead) + Send + 'a;

impl Transport {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool: Arc::new(pool) }
    }

    /// Gets a connection and sends the request once, up to its final head. What came of it is told
    /// to the endpoint's health.
    ///
    /// # Errors
    /// When no usable final head came.
    pub(super) async fn attempt(
        &self,
        attempt: &Attempt<'_>,
        body: Body,
        interim: &mut Interim<'_>,
    ) -> Result<Answer, Failure> {
        let Attempt { origin, endpoint, site, request, place, .. } = *attempt;
        let flight = Flight::new(Arc::clone(endpoint));
        let mut connection = match self.connection(attempt).await {
            Ok(connection) => connection,
            Err(error) => {
                return Err(Failure {
                    error,
                    endpoint: Arc::clone(endpoint),
                    reached: Reached::NoConnection,
                    body: Some(body),
                });
            }
        };
        let flight = flight.moved_to(&connection.endpoint);
        let spare = body.replay();
        let mut upload = Upload::new(request, body, origin.limits.body_in_flight_bytes);
        let exchange =
            Exchange::new(&mut connection, &mut upload, &request.method, &origin.limits, interim);
        match exchange.run().await {
            Ok(response) => {
                let status = response.parsed.head.status;
                observe_answer(origin, &connection.endpoint, status, response.took);
                let back = Return {
                    pool: Arc::clone(&self.pool),
                    site,
                    keep_alive: true,
                    place: Arc::clone(place),
                    flight,
                };
                Ok(answer(connection, upload, response, back))
            }
            Err((error, answered)) => {
                observe_failure(origin, &connection.endpoint, &error);
                Err(Failure {
                    error,
                    endpoint: connection.endpoint,
                    reached: if answered { Reached::Answered } else { Reached::Unknown },
                    body: spare,
                })
            }
        }
    }

    /// A connection to `endpoint`: an idle one unless it must be `fresh`, else a new one.
    async fn connection(&self, attempt: &Attempt<'_>) -> Result<Connection, SendError> {
        let Attempt { origin, endpoint, site, fresh, request, .. } = *attempt;
        let now = clock::now().boot;
        if !fresh && let Some(connection) = self.pool.take(endpoint.id, site, now) {
            origin.measure(|metrics| metrics.connections_reused.inc());
            return Ok(connection);
        }
        connect(origin, endpoint, origin.rivals(endpoint, now), request.hop).await
    }

    /// Connections that lie idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.pool.idle()
    }
}

fn observe_answer(origin: &Origin, endpoint: &Endpoint, status: StatusCode, took: Duration) {
    let observed = match status {
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Observed::BadStatus,
        _ => Observed::Success,
    };
    origin.measure(|metrics| metrics.first_byte.observe(took.as_secs_f64()));
    origin.observe(endpoint, observed, Some(took), clock::now().boot);
}

/// What the origin cannot help is not held against it: a client's broken body, and the end of a
/// connection that lay idle, which any server may close at any time.
fn observe_failure(origin: &Origin, endpoint: &Endpoint, error: &SendError) {
    let latency: Option<Duration> = match error {
        SendError::RequestBody(_) | SendError::ConnectionTerminated { reused: true } => return,
        SendError::HttpResponseTimeout => Some(origin.limits.origin_first_byte),
        _ => None,
    };
    endpoint.note_error(error);
    origin.observe(endpoint, Observed::Failure, latency, clock::now().boot);
}

fn answer(connection: Connection, upload: Upload, response: Response, mut back: Return) -> Answer {
    let mut parsed = response.parsed;
    back.keep_alive = parsed.keep_alive && response.sent == Sent::Whole;
    // An origin that refuses, or does not stay, has no use for the rest of the request.
    let wanted = parsed.keep_alive && parsed.head.status.is_success();
    let upload = (response.sent == Sent::Partly && wanted).then_some(upload);
    let pace = pace(&back.place, &parsed.head);
    let chunks = chunk_limits(&back.place);
    remove_hop_by_hop(&mut parsed.head.headers);
    let endpoint = connection.endpoint.address;
    Answer {
        head: parsed.head,
        body: download::body(connection, parsed.framing, upload, pace, chunks, back),
        framing: match parsed.framing {
            ResponseFraming::None => Framing::None,
            ResponseFraming::Length(length) => Framing::Length(length),
            ResponseFraming::Chunked => Framing::Chunked,
            ResponseFraming::Close => Framing::Close,
        },
        endpoint,
    }
}

/// Event streams and remote calls are silent for as long as nothing happens.
fn pace(place: &Place, head: &ResponseHead) -> PaceRules {
    let limits = place.limits();
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let begins = |prefix: &[u8]| {
        kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if begins(b"text/event-stream") || begins(b"application/grpc") {
        return PaceRules { gap: limits.tunnel_idle, rate: 0, window: limits.origin_rate_window };
    }
    PaceRules {
        gap: limits.origin_gap,
        rate: limits.origin_rate,
        window: limits.origin_rate_window,
    }
}

fn chunk_limits(place: &Place) -> ChunkLimits {
    let limits = place.limits();
    ChunkLimits {
        extension_bytes: limits.chunk_extension_bytes,
        trailer_bytes: limits.trailer_bytes,
        trailer_fields: limits.trailer_fields,
    }
}
