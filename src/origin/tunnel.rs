//! Upgrades: a request that asks an origin for another protocol (RFC 9110 section 7.8), on an
//! HTTP/1.1 connection of its own.
//!
//! The connection is always a new one and never goes back to the pool: nobody else's answer can
//! ever be read from it, whatever is said on it. It becomes a tunnel when the origin has confirmed
//! with 101 what it was asked for, and not before; any other final answer is an answer like others.
//!
//! The handshake holds a place at the origin as every request does. A tunnel holds none: it lives
//! for hours, and a few hundred of them would leave no place for anybody else. They have a bound of
//! their own, which whoever asks for an upgrade keeps.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderValue, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock;
use crate::config::Limits;
use crate::http1::{
    ParsedResponse, ResponseParser, encode_upgrade_request, remove_hop_by_hop, upgrade_protocol,
};
use crate::message::{Body, ResponseHead};

use super::attempts::Attempts;
use super::connect::Connection;
use super::download::{self, Return};
use super::endpoint::{Endpoint, Flight};
use super::exchange::Head;
use super::place::Place;
use super::roundtrip::head_limits;
use super::send::WorkerOrigins;
use super::set::Origin;
use super::transport::{
    Attempt, Failure, Interim, Reached, chunk_limits, framing, observe_answer, observe_failure,
    pace,
};
use super::{Answer, Manner, Outgoing, SendError};

/// Bytes read at once for a head.
const READ: usize = 8 * 1024;

/// What an origin is to confirm.
#[derive(Debug)]
pub struct Wanted {
    /// The protocol asked for.
    pub protocol: String,
    /// The only `Sec-WebSocket-Accept` that proves that the origin has read our key.
    pub accept: Option<HeaderValue>,
}

/// What came of asking for another protocol.
#[derive(Debug)]
pub enum Upgraded {
    /// The origin confirmed.
    Switched(Switched),
    /// It answered in HTTP.
    Refused(Answer),
}

/// An origin that speaks another protocol now.
#[derive(Debug)]
pub struct Switched {
    /// The 101; hop-by-hop fields are removed.
    pub head: ResponseHead,
    /// What is spoken on.
    pub stream: OriginStream,
    /// Who confirmed.
    pub endpoint: SocketAddr,
}

impl WorkerOrigins {
    /// Asks an origin for another protocol. Arguments as those of [`WorkerOrigins::send`]; the
    /// request has no body.
    ///
    /// # Errors
    /// When no usable final head came, or one that confirms what nobody asked for.
    pub async fn upgrade(
        &self,
        origin: usize,
        site: usize,
        request: Outgoing,
        wanted: &Wanted,
        mut interim: impl FnMut(ResponseHead) + Send,
    ) -> Result<Upgraded, SendError> {
        let origin = self.origins.origin(origin).ok_or(SendError::DestinationUnavailable)?;
        let (request, _, manner) = request.split();
        let asking = Asking { origin, site, request: &request, wanted };
        let outcome = Box::pin(self.ask(&asking, manner, &mut interim)).await;
        if let Err(error) = &outcome {
            origin.measure(|metrics| metrics.failed(error.label()));
        }
        outcome
    }

    async fn ask(
        &self,
        asking: &Asking<'_>,
        manner: Manner,
        interim: &mut Interim<'_>,
    ) -> Result<Upgraded, SendError> {
        let origin = asking.origin;
        origin.ready().await?;
        let place = Arc::new(Place::take(origin, asking.request.hop).await?);
        let mut attempts = Attempts::new(origin, self.origins.dice(), manner);
        loop {
            let endpoint = attempts.choose()?;
            match self.attempt(asking, &endpoint, &place, interim).await {
                Ok(upgraded) => return Ok(upgraded),
                Err(failure) => attempts.again(&asking.request.method, failure).map(drop)?,
            }
        }
    }

    async fn attempt(
        &self,
        asking: &Asking<'_>,
        endpoint: &Arc<Endpoint>,
        place: &Arc<Place>,
        interim: &mut Interim<'_>,
    ) -> Result<Upgraded, Failure> {
        let origin = asking.origin;
        let flight = Flight::new(Arc::clone(endpoint));
        let Asking { site, request, .. } = *asking;
        let attempt = Attempt { origin, endpoint, site, fresh: true, request, place };
        let failed = |error, endpoint: &Arc<Endpoint>, reached| Failure {
            error,
            endpoint: Arc::clone(endpoint),
            reached,
            body: Some(Body::Empty),
        };
        let mut connection = match self.transport.http1(&attempt).await {
            Ok(connection) => connection,
            Err(error) => return Err(failed(error, endpoint, Reached::NoConnection)),
        };
        let flight = flight.moved_to(&connection.endpoint);
        let begun = clock::now();
        let mut shake = Shake { connection: &mut connection, asking, answered: false };
        let patience = origin.limits.origin_first_byte;
        let outcome = tokio::time::timeout(patience, shake.run(interim)).await;
        let answered = shake.answered;
        match outcome.unwrap_or(Err(SendError::HttpResponseTimeout)) {
            Ok(parsed) => {
                let took = clock::now().since(begun);
                observe_answer(origin, &connection.endpoint, parsed.head.status, took);
                Ok(if parsed.head.status == StatusCode::SWITCHING_PROTOCOLS {
                    Upgraded::Switched(switched(connection, parsed))
                } else {
                    let back = Return {
                        pool: self.transport.pool(),
                        site: asking.site,
                        keep_alive: false,
                        place: Arc::clone(place),
                        flight,
                    };
                    Upgraded::Refused(refused(connection, parsed, back))
                })
            }
            Err(error) => {
                observe_failure(origin, &connection.endpoint, &error);
                let reached = if answered { Reached::Answered } else { Reached::Unknown };
                Err(failed(error, &connection.endpoint, reached))
            }
        }
    }
}

/// What is asked, of whom, and for whom.
struct Asking<'a> {
    origin: &'a Arc<Origin>,
    site: usize,
    request: &'a Head,
    wanted: &'a Wanted,
}

fn switched(connection: Connection, mut parsed: ParsedResponse) -> Switched {
    remove_hop_by_hop(&mut parsed.head.headers);
    let endpoint = connection.endpoint.address;
    Switched { head: parsed.head, stream: OriginStream { connection }, endpoint }
}

fn refused(connection: Connection, mut parsed: ParsedResponse, back: Return) -> Answer {
    let rules = pace(back.place.limits(), &parsed.head, false);
    let chunks = chunk_limits(&back.place);
    remove_hop_by_hop(&mut parsed.head.headers);
    let endpoint = connection.endpoint.address;
    Answer {
        head: parsed.head,
        framing: framing(parsed.framing),
        body: download::body(connection, parsed.framing, None, rules, chunks, back),
        endpoint,
    }
}

/// The request out, the final head in.
struct Shake<'a> {
    connection: &'a mut Connection,
    asking: &'a Asking<'a>,
    /// Whether any part of a response came.
    answered: bool,
}

impl Shake<'_> {
    async fn run(&mut self, interim: &mut Interim<'_>) -> Result<ParsedResponse, SendError> {
        let Asking { request, wanted, origin, .. } = self.asking;
        let mut head = BytesMut::new();
        let Head { method, target, headers, streams: _, hop: _ } = request;
        encode_upgrade_request(method, target, headers, &wanted.protocol, &mut head);
        // Should the origin take no more, it may still say why.
        let _ = poll_fn(|context| poll_send(self.connection, &mut head, context)).await;
        let mut interims = 0;
        loop {
            let mut parsed = self.head(&origin.limits).await?;
            match parsed.head.status {
                StatusCode::SWITCHING_PROTOCOLS => {
                    return match confirms(&parsed.head, wanted) {
                        Ok(()) => Ok(parsed),
                        Err(rule) => Err(SendError::HttpProtocolError(rule)),
                    };
                }
                status if !status.is_informational() => return Ok(parsed),
                StatusCode::CONTINUE => {}
                _ => {
                    remove_hop_by_hop(&mut parsed.head.headers);
                    interim(parsed.head);
                }
            }
            interims += 1;
            if interims > origin.limits.origin_interims {
                return Err(SendError::HttpProtocolError("too many interim responses"));
            }
        }
    }

    /// The next head, interim or final.
    async fn head(&mut self, limits: &Limits) -> Result<ParsedResponse, SendError> {
        let (method, limits) = (&self.asking.request.method, head_limits(limits));
        let mut parser = ResponseParser::default();
        loop {
            let parsed = parser.parse(&mut self.connection.buffer, method, &limits);
            if let Some(parsed) = parsed.map_err(SendError::HttpProtocolError)? {
                return Ok(parsed);
            }
            match poll_fn(|context| self.connection.poll_read(READ, context)).await {
                Ok(0) | Err(_) => return Err(SendError::ConnectionTerminated { reused: false }),
                Ok(_) => self.answered = true,
            }
        }
    }
}

fn poll_send(
    connection: &mut Connection,
    head: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !head.is_empty() {
        match ready!(connection.poll_write(&[IoSlice::new(head)], context))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => head.advance(written),
        }
    }
    connection.poll_flush(context)
}

/// Whether a 101 confirms what was asked for and nothing else. An origin that confirms something
/// else would speak a protocol that the client does not expect, or has not read our request.
fn confirms(head: &ResponseHead, wanted: &Wanted) -> Result<(), &'static str> {
    if head.version != Version::HTTP_11 {
        return Err("switches protocols in HTTP/1.0");
    }
    let protocol = upgrade_protocol(&head.headers);
    if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(&wanted.protocol)) {
        return Err("switches to another protocol than was asked for");
    }
    let mut given = head.headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    match &wanted.accept {
        Some(accept) if given.next() != Some(accept) || given.next().is_some() => {
            Err("does not accept the key of the WebSocket handshake")
        }
        Some(_) | None => Ok(()),
    }
}

/// A connection on which an origin speaks another protocol.
#[derive(Debug)]
pub struct OriginStream {
    connection: Connection,
}

impl OriginStream {
    /// Has the connection reset rather than ended when it is dropped.
    pub fn reset(&self) {
        self.connection.reset();
    }
}

impl AsyncRead for OriginStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = &mut self.get_mut().connection;
        if connection.buffer.is_empty() {
            // What came with the 101 has been read; the buffer is not needed any more.
            connection.buffer = BytesMut::new();
            return connection.poll_read_into(room, context);
        }
        let piece = connection.buffer.split_to(connection.buffer.len().min(room.remaining()));
        room.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OriginStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().connection.poll_write(&[IoSlice::new(bytes)], context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().connection.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().connection.poll_shutdown(context)
    }
}
