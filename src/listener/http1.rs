//! HTTP/1.1 with one client: heads in, handler, answers out, one after the other.
//!
//! ```text
//!   .-> wait for a head --> handler --> answer --> rest of the body dropped --.
//!   |        |                 |           |                                  |
//!   |     refused          interim      broken off                            |
//!   |        v             answers         v                                  |
//!   |   answer, FIN,                   cut off, so that                       |
//!   |   read a while                   the client sees it                     |
//!   '-------------------------------------------------------------------------'
//! ```
//!
//! The task of the connection does everything: while a request is being handled nothing is read
//! but its body, and that only as fast as the body is taken. A connection that waits for its next
//! request holds no read buffer.
//!
//! The state of the connection is polled by hand in `poll_serving` and `poll_answer`,
//! since a body may have to move in one direction while it is blocked
//! in the other.

mod answer;
mod drain;
mod exchange;
mod output;
mod receive;
#[cfg(test)]
mod tests;
mod tunnel;
mod upload;

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::answer::Terms;
use self::drain::DrainWatch;
use self::output::Output;
use super::socket::{Progress, Taken};
use super::timer::Timer;
use super::{Client, Context, Handler};
use crate::clock::Now;
use crate::http1::{HeadLimits, ParsedRequest, RequestParser};
use crate::message::{Refusal, Scheme};

/// Most bytes of a head that are read at once; they pass over the stack, so that the buffer that
/// the fields are slices of is as big as the head and no bigger.
const HEAD_PIECE: usize = 8 * 1024;

/// Serves one connection until it ends. `taken` counts what the client's socket takes of `io`;
/// `first` are bytes that have already been read.
///
/// Gives the transport back where the client must see a reset: a body whose end only the end of
/// the connection tells has broken off, so a FIN would look like its completion.
pub(super) async fn serve_http1<IO, H>(
    io: IO,
    taken: Taken,
    first: BytesMut,
    client: Arc<Client>,
    handler: Arc<H>,
    context: Arc<Context>,
) -> Option<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    H: Handler,
{
    let mut connection = Connection::new(io, taken, first, client, context);
    let flow = loop {
        let flow = match connection.next_head().await {
            Ok(parsed) => connection.exchange(parsed, handler.as_ref()).await,
            Err(NoHead::Refused(refusal)) => connection.refuse(refusal, handler.as_ref()).await,
            Err(NoHead::Closed) => Flow::Close,
        };
        if flow != Flow::Next {
            break flow;
        }
    };
    connection.end(flow).await
}

/// How the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Another request may come.
    Next,
    /// The last answer is out: say goodbye, drop what still comes for a while, close.
    Linger,
    /// Nothing is under way: say goodbye and close.
    Close,
    /// An answer broke off: close without a goodbye.
    Abort,
    /// As `Abort`, but a FIN would be taken for the end of the answer.
    Reset,
}

/// Why there is no head.
enum NoHead {
    Refused(Refusal),
    Closed,
}

/// What came of waiting for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrived {
    Bytes,
    End,
    Deadline,
    Drained,
}

struct Connection<IO> {
    io: IO,
    client: Arc<Client>,
    context: Arc<Context>,
    scheme: Scheme,
    head_limits: HeadLimits,
    parser: RequestParser,
    read: BytesMut,
    /// The client has sent everything it will send.
    ended: bool,
    /// The connection is broken: nothing can be said on it.
    lost: bool,
    output: Output,
    progress: Progress,
    timer: Timer,
    drain: DrainWatch,
    opened: Now,
    /// End of the last exchange.
    last: Now,
    requests: u64,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Connection<IO> {
    fn new(
        io: IO,
        taken: Taken,
        first: BytesMut,
        client: Arc<Client>,
        context: Arc<Context>,
    ) -> Self {
        let limits = &context.limits;
        let head_limits = HeadLimits {
            head_bytes: limits.head_bytes,
            field_bytes: limits.field_bytes,
            cookie_bytes: limits.cookie_bytes,
            fields: limits.fields,
            target_bytes: limits.target_bytes,
        };
        let now = crate::clock::now();
        context.metrics.doors.bytes_received.inc_by(first.len() as u64);
        Self {
            io,
            scheme: if client.tls.is_some() { Scheme::Https } else { Scheme::Http },
            drain: DrainWatch::new(&context),
            client,
            context,
            head_limits,
            parser: RequestParser::default(),
            read: first,
            ended: false,
            lost: false,
            output: Output::default(),
            progress: Progress::of(taken),
            timer: Timer::default(),
            opened: now,
            last: now,
            requests: 0,
        }
    }

    /// Waits for the head of the next request.
    async fn next_head(&mut self) -> Result<ParsedRequest, NoHead> {
        let limits = &self.context.limits;
        let head = limits.head;
        // Nothing has come on a new connection: it has no longer than for a handshake.
        let idle = if self.requests == 0 { limits.handshake } else { limits.keep_alive };
        let mut deadline = self.last.boot.saturating_add(idle);
        let mut begun = false;
        loop {
            if !self.read.is_empty() {
                match self.parser.parse(&mut self.read, self.scheme, &self.head_limits) {
                    Ok(Some(parsed)) => return Ok(parsed),
                    Err(refusal) => return Err(NoHead::Refused(refusal)),
                    Ok(None) if !begun => {
                        begun = true;
                        deadline = crate::clock::now().boot.saturating_add(head);
                    }
                    Ok(None) => {}
                }
            }
            if self.ended {
                return Err(NoHead::Closed);
            }
            match poll_fn(|context| self.poll_head_bytes(context, deadline, !begun)).await {
                Arrived::Bytes => {}
                Arrived::End => self.ended = true,
                // An empty line is not the beginning of a request.
                Arrived::Deadline if begun && self.read != b"\r\n"[..] => {
                    return Err(NoHead::Refused(Refusal::HeadTimeout));
                }
                Arrived::Deadline | Arrived::Drained => return Err(NoHead::Closed),
            }
        }
    }

    fn poll_head_bytes(
        &mut self,
        context: &mut std::task::Context<'_>,
        deadline: Duration,
        idle: bool,
    ) -> Poll<Arrived> {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        let mut space = [const { MaybeUninit::uninit() }; HEAD_PIECE];
        let mut space = ReadBuf::uninit(&mut space);
        match Pin::new(&mut self.io).poll_read(context, &mut space) {
            Poll::Ready(Ok(())) if !space.filled().is_empty() => {
                self.read.extend_from_slice(space.filled());
                self.context.metrics.doors.bytes_received.inc_by(space.filled().len() as u64);
                return Poll::Ready(Arrived::Bytes);
            }
            Poll::Ready(read) => {
                self.lost = read.is_err();
                return Poll::Ready(Arrived::End);
            }
            Poll::Pending => {}
        }
        if idle && self.drain.is_over(context) {
            let grace = self.drain_grace();
            ready!(self.timer.poll(context, deadline.min(grace)));
            return Poll::Ready(Arrived::Drained);
        }
        if idle && self.drain.is_in_the_way(self.last.boot) {
            self.context.metrics.strain.idle_closed.inc();
            return Poll::Ready(Arrived::Drained);
        }
        ready!(self.timer.poll(context, deadline));
        Poll::Ready(Arrived::Deadline)
    }

    /// Boot clock until which an idle connection waits for one more request although the process
    /// drains. The client of an answer that began before the draining was promised that it may
    /// go on; closing as soon as such an answer ends would meet its next request halfway.
    fn drain_grace(&self) -> Duration {
        let notice = self.context.limits.drain_notice.saturating_mul(2);
        self.last.boot.saturating_add(notice)
    }

    /// Answers for a message that is no request, and ends.
    async fn refuse<H: Handler>(&mut self, refusal: Refusal, handler: &H) -> Flow {
        let now = crate::clock::now();
        self.context.metrics.doors.refused(refusal);
        if refusal == Refusal::HeadTimeout {
            self.context.metrics.doors.timeouts.inc();
        }
        let response = handler.refuse(refusal, None, &self.client, now);
        let terms = Terms { version: Version::HTTP_11, head_only: false, keep_alive: false };
        self.answer(response, terms, None).await
    }

    /// Ends the connection.
    async fn end(mut self, flow: Flow) -> Option<IO> {
        match flow {
            Flow::Next | Flow::Close if self.lost => None,
            Flow::Next | Flow::Close => {
                // A TLS client is told; one that does not take it is not waited for.
                poll_fn(|context| {
                    let _ = Pin::new(&mut self.io).poll_shutdown(context);
                    Poll::Ready(())
                })
                .await;
                None
            }
            Flow::Linger => {
                self.linger().await;
                None
            }
            Flow::Abort => None,
            Flow::Reset => Some(self.io),
        }
    }

    /// FIN, then what the client still sends is dropped for a while: closing with unread bytes
    /// would reset the connection, and the client might lose the answer. A client that never stops
    /// sending leaves the timer no turn, so the clock is asked before every read.
    async fn linger(&mut self) {
        let deadline = self.last.boot.saturating_add(self.context.limits.linger);
        let mut said = false;
        self.read = BytesMut::new();
        poll_fn(|context| {
            if !said {
                match Pin::new(&mut self.io).poll_shutdown(context) {
                    Poll::Ready(Ok(())) => said = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            while !self.ended && crate::clock::now().boot < deadline {
                let mut space = [const { MaybeUninit::uninit() }; HEAD_PIECE];
                let mut space = ReadBuf::uninit(&mut space);
                match Pin::new(&mut self.io).poll_read(context, &mut space) {
                    Poll::Ready(Ok(())) if !space.filled().is_empty() => {}
                    Poll::Ready(_) => self.ended = true,
                    Poll::Pending => {
                        return self.timer.poll(context, deadline);
                    }
                }
            }
            if said { Poll::Ready(()) } else { self.timer.poll(context, deadline) }
        })
        .await;
    }
}
