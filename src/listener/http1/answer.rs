//! An answer on its way from the handler to the output: framing, counting, and how it can break.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{StatusCode, Version};

use super::output::Output;
use crate::http1::{BodyFraming, encode_chunk_head, encode_response};
use crate::listener::Response;
use crate::message::Body;
use crate::telemetry::Record;

/// What the request says about its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Version of the request.
    pub(super) version: Version,
    /// The request was HEAD.
    pub(super) head_only: bool,
    /// Whether the connection may go on, as far as the request is concerned.
    pub(super) keep_alive: bool,
}

/// An answer being sent.
pub(super) struct Answer {
    body: Body,
    framing: BodyFraming,
    state: State,
    /// Body bytes that were put into the output.
    taken: u64,
    /// Whether the connection goes on after this answer.
    pub(super) keep_alive: bool,
    /// Line of the access log.
    pub(super) record: Option<Box<Record>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    Failed,
}

/// What a look at the body brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// There may be more.
    More,
    /// The body is in the output to its end.
    Complete,
    /// The body broke off: the client must be cut off.
    Failed,
}

impl Answer {
    /// Decides the framing of `response` and writes its head into `output`. Length wherever it is
    /// known; else chunked; else, for HTTP/1.0, the end of the connection.
    pub(super) fn begin(response: Response, terms: Terms, output: &mut Output) -> Self {
        let Response { status, stored, headers, body, head_length, close, record, tunnel: _ } =
            response;
        let framing = framing(status, &body, head_length, terms);
        let sends_body = !terms.head_only && !has_no_body(status);
        let keep_alive = terms.keep_alive && !close && framing != BodyFraming::Close;
        let fields = (stored.as_ref(), &headers);
        encode_response(terms.version, status, fields, framing, keep_alive, &mut output.head);
        let (body, state) = if sends_body && framing != BodyFraming::Length(0) {
            (body, State::Open)
        } else {
            (Body::Empty, State::Complete)
        };
        Self { body, framing, state, taken: 0, keep_alive, record }
    }

    /// Whether only the end of the connection tells the client that the body is complete.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.framing == BodyFraming::Close
    }

    /// Body bytes put into the output so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Body bytes that are still to come into the output, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.body.exact_size()
    }

    /// Puts the next piece of the body into `output`.
    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        output: &mut Output,
    ) -> Poll<Filled> {
        match self.state {
            State::Open => {}
            State::Complete => return Poll::Ready(Filled::Complete),
            State::Failed => return Poll::Ready(Filled::Failed),
        }
        let body = Pin::new(&mut self.body);
        // A body that panics has broken off.
        let frame = catch_unwind(AssertUnwindSafe(|| http_body::Body::poll_frame(body, context)));
        let piece = match frame {
            Ok(poll) => ready!(poll),
            Err(_panic) => return Poll::Ready(self.fail()),
        };
        Poll::Ready(match piece.map(|frame| frame.map(http_body::Frame::into_data)) {
            None => self.complete(output),
            Some(Err(_)) => self.fail(),
            Some(Ok(Ok(piece))) if !piece.is_empty() => self.put(piece, output),
            // Trailers are not forwarded.
            Some(Ok(_)) => Filled::More,
        })
    }

    fn put(&mut self, piece: Bytes, output: &mut Output) -> Filled {
        self.taken = self.taken.saturating_add(piece.len() as u64);
        let last = http_body::Body::is_end_stream(&self.body);
        match self.framing {
            BodyFraming::Length(length) if self.taken > length => return self.fail(),
            BodyFraming::Chunked => {
                encode_chunk_head(piece.len(), &mut output.head);
                output.push(piece);
                output.end(if last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
                self.state = if last { State::Complete } else { State::Open };
            }
            _ => {
                output.push(piece);
                if last {
                    return self.complete(output);
                }
            }
        }
        if last { Filled::Complete } else { Filled::More }
    }

    fn complete(&mut self, output: &mut Output) -> Filled {
        match self.framing {
            BodyFraming::Length(length) if self.taken < length => return self.fail(),
            BodyFraming::Chunked => output.end(crate::http1::LAST_CHUNK),
            _ => {}
        }
        self.state = State::Complete;
        Filled::Complete
    }

    fn fail(&mut self) -> Filled {
        self.body = Body::Empty;
        self.state = State::Failed;
        Filled::Failed
    }
}

/// RFC 9110 sections 15.3.5 and 15.4.5.
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

fn framing(status: StatusCode, body: &Body, head_length: Option<u64>, terms: Terms) -> BodyFraming {
    if has_no_body(status) {
        return BodyFraming::None;
    }
    if terms.head_only {
        let known = match body {
            Body::Empty => head_length,
            body => head_length.or(body.exact_size()),
        };
        return known.map_or(BodyFraming::None, BodyFraming::Length);
    }
    match body.exact_size() {
        Some(length) => BodyFraming::Length(length),
        None if terms.version == Version::HTTP_10 => BodyFraming::Close,
        None => BodyFraming::Chunked,
    }
}
