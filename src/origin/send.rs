//! One request to an origin: the beginning of its body, a place, an endpoint, a connection, and
//! once more where that is safe.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};

use crate::clock;
use crate::health::Observed;
use crate::http1::{ChunkLimits, ResponseFraming, remove_hop_by_hop};
use crate::message::{Body, ResponseHead};

use super::attempts::Attempts;
use super::connect::{Connection, connect};
use super::download::{self, Return};
use super::endpoint::{Endpoint, Flight};
use super::origins::Origins;
use super::pace::PaceRules;
use super::place::Place;
use super::pool::Pool;
use super::prefixed::begun;
use super::roundtrip::{Exchange, Response, Sent};
use super::set::Origin;
use super::upload::Upload;
use super::{Answer, Framing, Outgoing, SendError};

/// One worker's way to the origins: its own connections, everything else shared.
#[derive(Debug)]
pub struct WorkerOrigins {
    origins: Arc<Origins>,
    pool: Arc<Pool>,
}

impl WorkerOrigins {
    pub(super) fn new(origins: Arc<Origins>, pool: Pool) -> Self {
        Self { origins, pool: Arc::new(pool) }
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
        mut request: Outgoing,
        mut interim: impl FnMut(ResponseHead) + Send,
    ) -> Result<Answer, SendError> {
        origin.ready().await?;
        let body = std::mem::replace(&mut request.body, Body::Empty);
        let mut body = begun(body).await.map_err(SendError::RequestBody)?;
        let place = Place::take(origin).await?;
        let mut attempts = Attempts::new(origin);
        loop {
            let endpoint = attempts.choose(self.origins.dice())?;
            let flight = Flight::new(Arc::clone(&endpoint));
            let fresh = attempts.has_retried();
            let connected = self.connection(origin, &endpoint, site, fresh).await;
            let mut connection = match connected {
                Ok(connection) => connection,
                Err(error) if attempts.may_go_elsewhere(&endpoint) => {
                    tracing::debug!(origin = origin.config.name, %error, "trying another endpoint");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let flight = flight.moved_to(&connection.endpoint);
            let spare = body.replay();
            let mut upload = Upload::new(&request, body, origin.limits.body_in_flight_bytes);
            let exchange = Exchange::new(
                &mut connection,
                &mut upload,
                &request.method,
                &origin.limits,
                &mut interim,
            );
            match exchange.run().await {
                Ok(response) => {
                    observe_answer(origin, &connection.endpoint, &response);
                    let back = Return {
                        pool: Arc::clone(&self.pool),
                        site,
                        keep_alive: true,
                        place,
                        flight,
                    };
                    return Ok(answer(connection, upload, response, back));
                }
                Err(failure) => {
                    observe_failure(origin, &connection, &failure.error);
                    body = attempts.again(&request.method, &connection.endpoint, failure, spare)?;
                }
            }
        }
    }

    /// A connection to `endpoint`: an idle one unless it must be `fresh`, else a new one.
    async fn connection(
        &self,
        origin: &Arc<Origin>,
        endpoint: &Arc<Endpoint>,
        site: usize,
        fresh: bool,
    ) -> Result<Connection, SendError> {
        let now = clock::now().boot;
        if !fresh && let Some(connection) = self.pool.take(endpoint.id, site, now) {
            origin.measure(|metrics| metrics.connections_reused.inc());
            return Ok(connection);
        }
        connect(origin, endpoint, origin.other_family(endpoint, now)).await
    }

    /// Connections that lie idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.pool.idle()
    }
}

fn observe_answer(origin: &Origin, endpoint: &Endpoint, response: &Response) {
    let observed = match response.parsed.head.status {
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Observed::BadStatus,
        _ => Observed::Success,
    };
    origin.measure(|metrics| metrics.first_byte.observe(response.took.as_secs_f64()));
    origin.observe(endpoint, observed, Some(response.took), clock::now().boot);
}

/// What the origin cannot help is not held against it: a client's broken body, and the end of a
/// connection that lay idle, which any server may close at any time.
fn observe_failure(origin: &Origin, connection: &Connection, error: &SendError) {
    let endpoint = &connection.endpoint;
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
