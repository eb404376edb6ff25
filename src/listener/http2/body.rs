//! A request body that arrives over HTTP/2: gives the window back as it is read, and gives up on
//! a client that does not keep pace.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::clock;
use crate::config::Limits;
use crate::listener::{Interim, Pace};
use crate::message::{BodyError, ResponseHead};

/// Set once the client was given up for slowness; the stream is reset then.
pub(super) type TooLate = Arc<AtomicBool>;

/// The body of one request.
pub(super) struct RequestBody {
    stream: RecvStream,
    left: Option<u64>,
    /// Taken with the first wait: the client waits for 100 (Continue), which goes this way.
    expects: Option<Interim>,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
    late: TooLate,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        expects: Option<Interim>,
        limits: &Limits,
        late: TooLate,
    ) -> Self {
        let mut pace = Pace::of_request(limits);
        pace.cap_gap(limits.stream_idle);
        Self { stream, left: length, expects, pace, timer: None, late, ended: false }
    }

    /// Nothing has come: asks the client to go on where it waits for that, and judges its pace.
    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        if let Some(interim) = self.expects.take() {
            interim.send(ResponseHead::new(StatusCode::CONTINUE));
        }
        loop {
            let Ok(patience) = self.pace.wait(clock::now()) else {
                self.late.store(true, Ordering::Relaxed);
                return Poll::Ready(BodyError::TooSlow);
            };
            let due = tokio::time::Instant::now() + patience;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(due),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(due))),
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(context));
            }
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let outcome = match this.stream.poll_data(context) {
            Poll::Pending => Err(ready!(this.poll_slow(context))),
            Poll::Ready(None) => {
                this.ended = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Ok(bytes))) => {
                // The window goes back as the handler takes the bytes: never more than one window
                // of a body is ours to keep.
                let _ = this.stream.flow_control().release_capacity(bytes.len());
                this.pace.moved(bytes.len(), clock::now());
                this.left = this.left.map(|left| left.saturating_sub(bytes.len() as u64));
                Ok(Frame::data(bytes))
            }
            Poll::Ready(Some(Err(_reset_or_gone))) => Err(BodyError::Incomplete),
        };
        this.ended = outcome.is_err();
        Poll::Ready(Some(outcome))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
