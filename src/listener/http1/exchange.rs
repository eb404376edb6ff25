//! One request and its answer.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_TYPE, EXPECT, UPGRADE};
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::{Answer, Filled, Terms};
use super::upload::Upload;
use super::{Connection, Flow};
use crate::clock::Now;
use crate::http1::{Chunk, ParsedRequest, encode_interim, upgrade_protocol};
use crate::listener::lingering::{LOOK, UNKNOWN_REST};
use crate::listener::{Handler, Interim, Interims, Pace, Request, Response, Upgrade};
use crate::message::Body;

/// Unsent bytes of interim responses beyond which no more are taken.
const INTERIM_BYTES: usize = 16 * 1024;

/// Why an answer was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The body broke off.
    Body,
    /// The client went away.
    Client,
    /// The client does not take the answer.
    Slow,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Connection<IO> {
    /// Has one request answered.
    pub(super) async fn exchange<H: Handler>(
        &mut self,
        parsed: ParsedRequest,
        handler: &H,
    ) -> Flow {
        let ParsedRequest { mut head, framing, keep_alive, expect_continue, upgrade } = parsed;
        let arrived = crate::clock::now();
        self.requests += 1;
        self.context.metrics.doors.requests_http1.inc();
        let terms = Terms {
            version: head.version,
            head_only: head.method == Method::HEAD,
            // What follows a wish for another protocol may be written in it.
            keep_alive: keep_alive && !upgrade && self.may_go_on(arrived),
        };
        // Both are settled here, on this hop.
        if expect_continue {
            head.headers.remove(EXPECT);
        }
        let asked = if upgrade { self.asked(&head.headers) } else { None };
        if upgrade {
            head.headers.remove(UPGRADE);
        }
        let (upload, body) = match Upload::new(framing, expect_continue, &self.context.limits) {
            Some((upload, body)) => (Some(upload), Body::stream(body)),
            None => (None, Body::Empty),
        };
        let (interim, interims) = if terms.version == Version::HTTP_11 {
            let (interim, interims) = Interim::channel();
            (interim, Some(interims))
        } else {
            (Interim::default(), None)
        };
        let client = Arc::clone(&self.client);
        let request = Request { head, body, client, interim, arrived, upgrade: asked };
        self.serve(request, handler, terms, upload, interims).await
    }

    /// The protocol that a request asks for. The parser has seen to it that it has no body.
    fn asked(&self, headers: &HeaderMap) -> Option<Box<Upgrade>> {
        let protocol = upgrade_protocol(headers)?.to_owned();
        let leaving = self.context.draining().is_some();
        Some(Box::new(Upgrade { protocol, required: false, leaving }))
    }

    async fn serve<H: Handler>(
        &mut self,
        request: Request,
        handler: &H,
        terms: Terms,
        mut upload: Option<Upload>,
        interims: Option<Interims>,
    ) -> Flow {
        // On the heap only while it runs: an idle connection is small.
        let mut serving = Box::pin(async move { handler.serve(request).await });
        let response = poll_fn(|context| {
            self.poll_serving(serving.as_mut(), upload.as_mut(), interims.as_ref(), context)
        })
        .await;
        drop(serving);
        let mut response = response.unwrap_or_else(|| {
            self.context.metrics.doors.panics.inc();
            let mut response = Response::new(StatusCode::INTERNAL_SERVER_ERROR, Body::Empty);
            response.close = true;
            response
        });
        match response.tunnel.take() {
            Some(tunnel) => Box::pin(self.tunnel(response, *tunnel)).await,
            None => self.answer(response, terms, upload).await,
        }
    }

    /// Whether another request may follow one that arrived at `now`.
    fn may_go_on(&self, now: Now) -> bool {
        let most = self.context.limits.connection_requests;
        let salt =
            u64::from(self.client.address.port()) ^ u64::from(self.opened.boot.subsec_nanos());
        (most == 0 || self.requests < most)
            && now.since(self.opened) < self.context.connection_age(salt)
    }

    /// Polls the handler, moves its body in and its interim responses out. `None`: it panicked.
    fn poll_serving<F: Future<Output = Response>>(
        &mut self,
        serving: Pin<&mut F>,
        upload: Option<&mut Upload>,
        interims: Option<&Interims>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Response>> {
        if let Some(upload) = upload {
            self.move_upload(upload, context);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| serving.poll(context)));
        let waits = matches!(polled, Ok(Poll::Pending));
        if let Some(interims) = interims {
            self.take_interims(interims, waits.then_some(&mut *context));
        }
        match polled {
            Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
            Err(_panic) => Poll::Ready(None),
            Ok(Poll::Pending) => {
                // Should the client be gone, the answer will find out.
                while !self.output.is_empty() {
                    match self.output.poll_write(&mut self.io, context) {
                        Poll::Ready(Ok(written)) => self.count_sent(written),
                        Poll::Ready(Err(_)) => self.output.clear(),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                let _ = Pin::new(&mut self.io).poll_flush(context);
                Poll::Pending
            }
        }
    }

    /// Writes interim responses before the answer, and asks to be woken for more in a `context` only. 100
    /// is ours to send, 101 nobody's.
    fn take_interims(&mut self, interims: &Interims, mut context: Option<&mut Context<'_>>) {
        while self.output.head.len() < INTERIM_BYTES {
            let next = match &mut context {
                None => interims.take(),
                Some(context) => match interims.poll_next(context) {
                    Poll::Ready(head) => Some(head),
                    Poll::Pending => None,
                },
            };
            let Some(head) = next else { return };
            if (102..=199).contains(&head.status.as_u16()) {
                encode_interim(&head, &mut self.output.head);
            }
        }
    }

    /// Sends an answer and says how the connection goes on.
    pub(super) async fn answer(
        &mut self,
        response: Response,
        mut terms: Terms,
        mut upload: Option<Upload>,
    ) -> Flow {
        let drain_bytes = self.context.limits.drain_bytes;
        terms.keep_alive &= !self.drain.closing()
            && upload.as_ref().is_none_or(|upload| upload.may_be_drained(drain_bytes));
        if let Some(upload) = &mut upload {
            // After the head of an answer it is too late for 100 Continue.
            upload.expects = false;
        }
        let mut pace = if is_event_stream(&response.headers) {
            Pace::of_tunnel(&self.context.limits)
        } else {
            Pace::of_answer(&self.context.limits)
        };
        let mut answer = Answer::begin(response, terms, &mut self.output);
        let sent = poll_fn(|context| {
            if let Some(upload) = &mut upload {
                self.move_upload(upload, context);
            }
            self.poll_answer(&mut answer, &mut pace, context)
        })
        .await;
        self.last = crate::clock::now();
        if let Some(record) = answer.record.take() {
            let sent_bytes = answer.taken().saturating_sub(self.output.data_bytes() as u64);
            record.finish(sent_bytes, sent.is_ok(), self.last);
        }
        self.output.clear();
        match (sent, upload) {
            (Err(cut), _) => {
                if cut == Cut::Slow {
                    self.context.metrics.doors.timeouts.inc();
                }
                if answer.ends_with_connection() { Flow::Reset } else { Flow::Abort }
            }
            (Ok(()), _) if !answer.keep_alive => Flow::Linger,
            (Ok(()), None) => Flow::Next,
            (Ok(()), Some(upload)) => self.drop_rest(upload).await,
        }
    }

    /// Moves the answer from its body through the output to the client.
    fn poll_answer(
        &mut self,
        answer: &mut Answer,
        pace: &mut Pace,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Cut>> {
        loop {
            let mut filled = Poll::Ready(Filled::More);
            while self.output.has_room() && filled == Poll::Ready(Filled::More) {
                filled = answer.poll_fill(context, &mut self.output);
            }
            if self.output.is_empty() {
                let flushed = Pin::new(&mut self.io).poll_flush(context);
                self.note_progress(pace);
                match (filled, flushed) {
                    (_, Poll::Ready(Err(_))) => return Poll::Ready(Err(Cut::Client)),
                    (Poll::Ready(Filled::Failed), _) => return Poll::Ready(Err(Cut::Body)),
                    (Poll::Ready(Filled::Complete), Poll::Ready(Ok(()))) => {
                        return Poll::Ready(Ok(()));
                    }
                    (Poll::Ready(Filled::More), _) => continue,
                    (Poll::Pending, Poll::Ready(Ok(()))) => {
                        pace.idle();
                        return Poll::Pending;
                    }
                    (_, Poll::Pending) => {}
                }
            } else {
                let written = self.output.poll_write(&mut self.io, context);
                // TLS that is full may send something and still take nothing.
                self.note_progress(pace);
                if let Poll::Ready(written) = written {
                    let Ok(written) = written else { return Poll::Ready(Err(Cut::Client)) };
                    self.count_sent(written);
                    continue;
                }
            }
            // The client does not take what lies ready.
            let now = crate::clock::now();
            let Ok(left) = pace.wait(now) else { return Poll::Ready(Err(Cut::Slow)) };
            let unsent = answer.left().unwrap_or(UNKNOWN_REST) + self.output.data_bytes() as u64;
            if self.context.thinning.lingering.ends(pace.needs(unsent, now)) {
                return Poll::Ready(Err(Cut::Slow));
            }
            ready!(self.timer.poll(context, now.boot.saturating_add(left.min(LOOK))));
        }
    }

    /// Tells `pace` what the client's socket has taken. An answer that is taken as it comes needs
    /// no look at the clock.
    fn note_progress(&mut self, pace: &mut Pace) {
        let bytes = self.progress.look();
        if bytes > 0 && (pace.is_waiting() || !self.output.is_empty()) {
            pace.moved(bytes, crate::clock::now());
        }
    }

    fn count_sent(&self, written: usize) {
        self.context.metrics.doors.bytes_sent.inc_by(written as u64);
    }

    /// Reads what nobody read of a request body and drops it, so that the next request is found;
    /// gives up where that is too much or takes too long.
    async fn drop_rest(&mut self, mut upload: Upload) -> Flow {
        let mut left = self.context.limits.drain_bytes;
        let deadline = self.last.boot.saturating_add(self.context.limits.linger);
        if upload.is_finished() {
            return if upload.is_complete() { Flow::Next } else { Flow::Linger };
        }
        loop {
            match upload.decode(&mut self.read) {
                Ok(Chunk::End) => return Flow::Next,
                Ok(Chunk::Data(data)) if data.len() <= left => left -= data.len(),
                Ok(Chunk::More) if !self.ended => {
                    let most = upload.read_bytes();
                    let read = poll_fn(|context| match self.poll_read_more(most, context) {
                        Poll::Ready(read) => Poll::Ready(Some(read)),
                        Poll::Pending => self.timer.poll(context, deadline).map(|()| None),
                    });
                    if read.await.is_none() {
                        return Flow::Linger;
                    }
                }
                Ok(Chunk::Data(_) | Chunk::More) | Err(_) => return Flow::Linger,
            }
        }
    }
}

/// Whether an answer may be silent for long, on either side.
fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..EVENTS.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}
