//! The body of an answer as it comes over a stream.
//!
//! A stream's window is what may wait of it here; it is given back as the bytes are handed on, so a
//! client that does not read stops its own stream and no other. Only the origin's end of the
//! stream is an end: a reset, whatever its reason, is a body that broke off.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::shelf::Slot;
use super::upload::{Rest, Uploading};
use crate::clock;
use crate::message::BodyError;
use crate::origin::endpoint::Flight;
use crate::origin::pace::{Pace, PaceRules};
use crate::origin::place::Place;
use crate::origin::set::Origin;

/// Time for the end of a stream whose bytes have all come.
const LINGER: Duration = Duration::from_secs(1);

/// What a stream holds until it has ended; given up in this order.
pub(super) struct Held {
    _flight: Flight,
    _slot: Slot,
    place: Arc<Place>,
}

impl Held {
    pub(super) fn new(flight: Flight, slot: Slot, place: Arc<Place>) -> Self {
        Self { _flight: flight, _slot: slot, place }
    }
}

/// A body that arrives.
pub(super) struct Download {
    origin: Arc<Origin>,
    /// `None` once it has ended or failed.
    open: Option<(RecvStream, Held)>,
    /// Bytes to come, where they were announced.
    left: Option<u64>,
    /// Whether trailers go on; else they are dropped.
    trailers: bool,
    /// The rest of the request, if the answer came before its end.
    upload: Option<Uploading>,
    written: u64,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Download {
    pub(super) fn new(
        origin: &Arc<Origin>,
        (stream, held): (RecvStream, Held),
        left: Option<u64>,
        trailers: bool,
        upload: Option<Uploading>,
        pace: PaceRules,
    ) -> Self {
        Self {
            origin: Arc::clone(origin),
            open: Some((stream, held)),
            left,
            trailers,
            written: upload.as_ref().map_or(0, Uploading::written),
            upload,
            pace: Pace::new(pace),
            timer: None,
        }
    }

    fn end(&mut self) {
        self.open = None;
        self.upload = None;
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.end();
        Poll::Ready(Some(Err(error)))
    }

    /// Takes bytes off the stream's queue and gives their window back.
    fn take(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        let Some((stream, _)) = &mut self.open else { return Ok(data) };
        let control = stream.flow_control();
        let waited = control.used_capacity();
        let _ = control.release_capacity(data.len());
        self.origin.measure(|metrics| metrics.stream_waits(waited));
        self.pace.received(data.len(), clock::now().boot);
        if let Some(left) = &mut self.left {
            let after = left.checked_sub(data.len() as u64);
            *left = after.ok_or(BodyError::Malformed("more than its Content-Length"))?;
        }
        Ok(data)
    }

    /// Looks after the rest of the request; `Err` when its sender broke off.
    fn look_after_upload(&mut self, context: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(upload) = &self.upload else { return Ok(()) };
        let written = upload.written();
        if written > self.written {
            let taken = usize::try_from(written - self.written).unwrap_or(usize::MAX);
            self.written = written;
            self.pace.received(taken, clock::now().boot);
        }
        match upload.look(context) {
            // Calls that stream may be silent, but not for ever in both directions.
            Rest::Runs { blocked: false } if !self.trailers => self.pace.idle(),
            Rest::Runs { .. } => {}
            Rest::Done => self.upload = None,
            Rest::Broken => return Err(BodyError::Cancelled),
        }
        Ok(())
    }

    fn waits_for_client(&self, context: &mut Context<'_>) -> bool {
        !self.trailers
            && self
                .upload
                .as_ref()
                .is_some_and(|upload| upload.look(context) == Rest::Runs { blocked: false })
    }

    /// Waits for the origin, but not for ever.
    fn poll_pace(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        if self.waits_for_client(context) {
            return Poll::Pending;
        }
        loop {
            let Ok(wait) = self.pace.wait(clock::now().boot) else {
                return Poll::Ready(BodyError::TooSlow);
            };
            // A timer that fires early is set anew; progress never has to touch it.
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Err(error) = this.look_after_upload(context) {
            return this.fail(error);
        }
        loop {
            let Some((stream, _)) = &mut this.open else { return Poll::Ready(None) };
            match stream.poll_data(context) {
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => {
                    return match this.take(data) {
                        Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                        Err(error) => this.fail(error),
                    };
                }
                Poll::Ready(Some(Err(error))) => return this.fail(broken(&error)),
                Poll::Ready(None) => return this.poll_end(context),
                Poll::Pending => {
                    return match this.poll_pace(context) {
                        Poll::Ready(error) => this.fail(error),
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.as_ref().is_none_or(|(stream, _)| stream.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) if !self.trailers => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

impl Download {
    /// All bytes are there: what follows them.
    fn poll_end(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some((stream, held)) = &mut self.open else { return Poll::Ready(None) };
        let trailers = match stream.poll_trailers(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return self.fail(broken(&error)),
            Poll::Ready(Ok(trailers)) => trailers,
        };
        let most = held.place.limits().trailer_fields;
        if self.left.is_some_and(|left| left > 0) {
            return self.fail(BodyError::Incomplete);
        }
        if trailers.as_ref().is_some_and(|trailers| trailers.len() > most) {
            return self.fail(BodyError::Malformed("too many trailers"));
        }
        self.end();
        Poll::Ready(
            trailers.filter(|_| self.trailers).map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }
}

impl Drop for Download {
    /// Many servers send the end of a stream apart from its last bytes. Whoever has all that was
    /// announced does not wait for it; a reset would look like a refusal.
    fn drop(&mut self) {
        if self.left != Some(0) || self.upload.is_some() {
            return;
        }
        if let Some((mut stream, held)) = self.open.take()
            && !stream.is_end_stream()
        {
            tokio::spawn(async move {
                let _ = tokio::time::timeout(LINGER, stream.data()).await;
                drop((stream, held));
            });
        }
    }
}

fn broken(error: &h2::Error) -> BodyError {
    if error.is_library() {
        BodyError::Malformed("HTTP/2 stream error")
    } else {
        BodyError::Incomplete
    }
}
