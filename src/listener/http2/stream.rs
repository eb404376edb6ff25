//! One HTTP/2 stream: a request to the handler, its answer to the client.
//!
//! The work for a stream goes on until the handler has answered, even if the client has reset the
//! stream meanwhile: only then do its places among the streams of connection and client come free.
//! Otherwise resetting would be a way to have any amount of work under way at once.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::body::{RequestBody, TooLate};
use super::head::{Asked, Fault, head_of};
use super::tunnel;
use super::wire::WireState;
use crate::clock;
use crate::listener::clients::StreamSeat;
use crate::listener::lingering::{LOOK, UNKNOWN_REST};
use crate::listener::{
    Client, Context, Handler, Interim, Interims, Pace, Request, Response, Upgrade,
};
use crate::message::{Body, Refusal, RequestHead, ResponseHead, Scheme};
use crate::telemetry::Record;

/// What the streams of a connection share.
pub(super) struct Shared<H> {
    pub(super) handler: Arc<H>,
    pub(super) client: Arc<Client>,
    pub(super) context: Arc<Context>,
    pub(super) scheme: Scheme,
    pub(super) wire: WireState,
    /// Streams whose work has not ended.
    pub(super) working: AtomicUsize,
}

/// Counts a stream as work while it lives.
pub(super) struct Working<H> {
    shared: Arc<Shared<H>>,
    _seat: StreamSeat,
}

impl<H> Working<H> {
    pub(super) fn new(shared: &Arc<Shared<H>>, seat: StreamSeat) -> Self {
        shared.working.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), _seat: seat }
    }
}

impl<H> Drop for Working<H> {
    fn drop(&mut self) {
        self.shared.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Window that is asked for at once; h2 gives as much as windows and buffer allow.
const MOST_RESERVED: usize = 1 << 20;

/// The client does not want the rest, or cannot have it.
struct Gone;

/// Serves one stream to its end.
pub(super) async fn serve<H: Handler>(
    working: Working<H>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let shared = &working.shared;
    let arrived = clock::now();
    shared.context.metrics.doors.requests_http2.inc();
    let (asked, stream) = match head_of(request, shared.scheme, &shared.context.limits) {
        Ok(asked) => asked,
        Err(Fault::Reset(reason)) => return respond.send_reset(reason),
        Err(Fault::Refuse(refusal, head)) => {
            return refuse(shared, refusal, head, respond).await;
        }
    };
    let Asked { head, expects, protocol } = asked;
    let is_head = head.method == Method::HEAD;
    let (interim, interims) = Interim::channel();
    let client = Arc::clone(&shared.client);
    if let Some(protocol) = protocol {
        let leaving = shared.context.draining().is_some();
        let upgrade = Some(Box::new(Upgrade { protocol, required: true, leaving }));
        let request = Request { head, body: Body::Empty, client, interim, arrived, upgrade };
        return match handle(shared, request, &mut respond, &interims).await {
            Err(Gone) => {}
            Ok(mut response) => match response.tunnel.take() {
                Some(tunnel) => {
                    Box::pin(tunnel::serve(shared, response, *tunnel, stream, respond)).await;
                }
                None => answer(shared, response, is_head, respond).await,
            },
        };
    }
    let (body, late) = body_of(&head, stream, (interim.clone(), expects), shared);
    let request = Request { head, body, client, interim, arrived, upgrade: None };
    let handled = handle(shared, request, &mut respond, &interims).await;
    match handled {
        Err(Gone) => {}
        Ok(_) if late.is_some_and(|late| late.load(Ordering::Relaxed)) => {
            shared.context.metrics.doors.timeouts.inc();
            shared.wire.gave_up();
            respond.send_reset(Reason::CANCEL);
        }
        Ok(response) => answer(shared, response, is_head, respond).await,
    }
}

fn body_of<H>(
    head: &RequestHead,
    stream: RecvStream,
    door: (Interim, bool),
    shared: &Shared<H>,
) -> (Body, Option<TooLate>) {
    if stream.is_end_stream() {
        return (Body::Empty, None);
    }
    let late = TooLate::new(AtomicBool::new(false));
    let length =
        head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let limits = &shared.context.limits;
    let body = RequestBody::new(stream, length, door, limits, Arc::clone(&late));
    (Body::stream(body), Some(late))
}

/// Answers a request that is refused. Its head, perhaps the very reason, is gone before the client
/// is waited for.
pub(super) async fn refuse<H: Handler>(
    shared: &Shared<H>,
    refusal: Refusal,
    head: Box<RequestHead>,
    respond: SendResponse<Bytes>,
) {
    shared.context.metrics.doors.refused(refusal);
    if refusal == Refusal::FieldsTooLarge {
        shared.wire.fields_refused();
    }
    let response = shared.handler.refuse(refusal, Some(&head), &shared.client, clock::now());
    let is_head = head.method == Method::HEAD;
    drop(head);
    answer(shared, response, is_head, respond).await;
}

/// Runs the handler, forwards interim responses meanwhile, and watches for a reset.
async fn handle<H: Handler>(
    shared: &Shared<H>,
    request: Request,
    respond: &mut SendResponse<Bytes>,
    interims: &Interims,
) -> Result<Response, Gone> {
    let Ok(future) = catch_unwind(AssertUnwindSafe(|| shared.handler.serve(request))) else {
        return Ok(after_panic(shared));
    };
    let mut future = pin!(future);
    let mut gone = false;
    let outcome = std::future::poll_fn(|task| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(task)));
        gone = gone || forward(respond, interims, task);
        match polled {
            Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
            Ok(Poll::Pending) => {
                gone = gone || respond.poll_reset(task).is_ready();
                Poll::Pending
            }
            Err(_panic) => Poll::Ready(None),
        }
    })
    .await;
    let response = outcome.unwrap_or_else(|| after_panic(shared));
    if gone { Err(Gone) } else { Ok(response) }
}

fn after_panic<H>(shared: &Shared<H>) -> Response {
    shared.context.metrics.doors.panics.inc();
    Response::new(StatusCode::INTERNAL_SERVER_ERROR, Body::Empty)
}

/// Sends the interim responses that wait. Tells whether the stream is gone.
fn forward(respond: &mut SendResponse<Bytes>, interims: &Interims, task: &mut Task<'_>) -> bool {
    while let Poll::Ready(ResponseHead { status, headers, .. }) = interims.poll_next(task) {
        let mut interim = http::Response::new(());
        *interim.status_mut() = status;
        *interim.headers_mut() = headers;
        if respond.send_informational(interim).is_err() {
            return true;
        }
    }
    false
}

/// Sends an answer and completes its record.
async fn answer<H>(
    shared: &Shared<H>,
    mut response: Response,
    is_head: bool,
    mut respond: SendResponse<Bytes>,
) {
    response.join_fields();
    let Response { status, mut headers, mut body, head_length, record, .. } = response;
    let bodiless = is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = body.exact_size();
    let announced =
        if bodiless { head_length.filter(|_| status != StatusCode::NO_CONTENT) } else { length };
    if let Some(announced) = announced {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(announced));
    }
    let pace = pace_of(&headers, &body, shared);
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = headers;
    let ends = bodiless || length == Some(0);
    let Ok(stream) = respond.send_response(head, ends) else {
        // The client is gone, or the head holds what HTTP/2 forbids.
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    if ends {
        return finish(record, 0, true);
    }
    let mut sender = Sender { stream, pace, sent: 0, length };
    let complete = match sender.send(&mut body, length, shared).await {
        Ok(()) => true,
        Err(reason) => {
            if let Some(reason) = reason {
                sender.stream.send_reset(reason);
            }
            false
        }
    };
    finish(record, sender.sent, complete);
}

/// Event streams and gRPC may be silent for long; everything else keeps the pace of an answer.
fn pace_of<H>(headers: &HeaderMap, body: &Body, shared: &Shared<H>) -> Pace {
    let limits = &shared.context.limits;
    let long_lived = matches!(body, Body::Stream(_))
        && headers.get(CONTENT_TYPE).is_some_and(|value| {
            let value = value.as_bytes();
            value.starts_with(b"text/event-stream") || value.starts_with(b"application/grpc")
        });
    if long_lived { Pace::of_tunnel(limits) } else { Pace::of_answer(limits) }
}

fn finish(record: Option<Box<Record>>, sent: u64, complete: bool) {
    if let Some(record) = record {
        record.finish(sent, complete, clock::now());
    }
}

/// Sends a body at the client's pace.
struct Sender {
    stream: SendStream<Bytes>,
    pace: Pace,
    sent: u64,
    /// All of it, where that is known.
    length: Option<u64>,
}

/// What comes next of a body.
enum Next {
    Chunk(Bytes),
    /// Nothing, or trailers: only bodies whose policy lets them on have any.
    End(Option<HeaderMap>),
}

/// How a stream ends before its body: with a reset, or by itself.
type Cut = Option<Reason>;

impl Sender {
    async fn send<H>(
        &mut self,
        body: &mut Body,
        length: Option<u64>,
        shared: &Shared<H>,
    ) -> Result<(), Cut> {
        loop {
            let chunk = match self.next_chunk(body).await? {
                Next::Chunk(chunk) => chunk,
                Next::End(trailers) => {
                    // A body that is shorter than announced has not ended.
                    if length.is_some_and(|length| length != self.sent) {
                        return Err(Some(Reason::INTERNAL_ERROR));
                    }
                    let ended = match trailers {
                        Some(trailers) => self.stream.send_trailers(trailers),
                        None => self.stream.send_data(Bytes::new(), true),
                    };
                    return ended.map_err(|_gone| None);
                }
            };
            let after = self.sent + chunk.len() as u64;
            if length.is_some_and(|length| after > length) {
                return Err(Some(Reason::INTERNAL_ERROR));
            }
            let last = length.map_or_else(|| body.is_end_stream(), |length| after == length);
            self.send_chunk(chunk, last, shared).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// The next bytes of the body that are not empty, or its end.
    async fn next_chunk(&mut self, body: &mut Body) -> Result<Next, Cut> {
        std::future::poll_fn(|task| {
            loop {
                match Pin::new(&mut *body).poll_frame(task) {
                    Poll::Ready(None) => return Poll::Ready(Ok(Next::End(None))),
                    Poll::Ready(Some(Err(_broken))) => {
                        return Poll::Ready(Err(Some(Reason::INTERNAL_ERROR)));
                    }
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(bytes) if !bytes.is_empty() => {
                            return Poll::Ready(Ok(Next::Chunk(bytes)));
                        }
                        Ok(_nothing) => {}
                        Err(frame) => {
                            return Poll::Ready(Ok(Next::End(frame.into_trailers().ok())));
                        }
                    },
                    Poll::Pending => {
                        let reset = self.stream.poll_reset(task);
                        return if reset.is_ready() {
                            Poll::Ready(Err(None))
                        } else {
                            Poll::Pending
                        };
                    }
                }
            }
        })
        .await
    }

    /// Hands a chunk to h2 piece by piece, as windows and the buffer allow.
    async fn send_chunk<H>(
        &mut self,
        mut chunk: Bytes,
        last: bool,
        shared: &Shared<H>,
    ) -> Result<(), Cut> {
        while !chunk.is_empty() {
            self.stream.reserve_capacity(chunk.len().min(MOST_RESERVED));
            let room = match self.stream.capacity() {
                0 => self.wait_for_room(shared).await?,
                room => room,
            };
            let piece = chunk.split_to(room.min(chunk.len()));
            self.sent += piece.len() as u64;
            let ends = last && chunk.is_empty();
            self.stream.send_data(piece, ends).map_err(|_gone| None)?;
        }
        Ok(())
    }

    /// Waits until the client takes more, as long as it keeps pace.
    async fn wait_for_room<H>(&mut self, shared: &Shared<H>) -> Result<usize, Cut> {
        loop {
            let Ok(patience) = self.pace.wait(clock::now()) else {
                shared.context.metrics.doors.timeouts.inc();
                shared.wire.gave_up();
                return Err(Some(Reason::CANCEL));
            };
            let unsent =
                self.length.map_or(UNKNOWN_REST, |length| length.saturating_sub(self.sent));
            if shared.context.thinning.lingering.ends(self.pace.needs(unsent, clock::now())) {
                shared.context.metrics.doors.timeouts.inc();
                return Err(Some(Reason::CANCEL));
            }
            let due = Instant::now() + patience.min(LOOK);
            let more = std::future::poll_fn(|task| self.stream.poll_capacity(task));
            match tokio::time::timeout_at(due, more).await {
                Ok(Some(Ok(0))) | Err(_) => {}
                Ok(Some(Ok(room))) => {
                    self.pace.moved(room, clock::now());
                    return Ok(room);
                }
                Ok(Some(Err(_)) | None) => return Err(None),
            }
        }
    }
}
