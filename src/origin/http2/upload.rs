//! The body of a request as it goes over a stream.
//!
//! The body is not polled while a piece of it waits, and the connection takes no more than half of
//! `body_in_flight_bytes` ahead of its socket: while the origin does not read, neither window nor
//! memory grows, and whoever sends the body waits, too.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use http_body::Body as _;
use tokio::task::AbortHandle;

use super::piece::{Piece, Waiting};
use crate::message::{Body, BodyError};
use crate::origin::lock::Lock;
use crate::origin::set::Origin;

/// A request's body on its way.
pub(super) struct Upload {
    origin: Arc<Origin>,
    stream: SendStream<Piece>,
    /// `None` once its end was sent.
    body: Option<Body>,
    in_hand: Bytes,
    /// Bytes owed under `Content-Length`.
    left: Option<u64>,
    /// Whether trailers go on.
    trailers: bool,
    waiting: Waiting,
    /// Whether anything of the body was taken.
    touched: bool,
    /// Bytes that the connection took.
    pub(super) written: u64,
    /// Whether the last poll ended because it took nothing.
    pub(super) blocked: bool,
}

/// Why a request could not be sent whole.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The stream takes no more.
    Gone,
    /// The body broke off or disagrees with its length.
    Body(BodyError),
}

impl Upload {
    /// What is left to send of a request once its head is on its way; `None` as body: nothing.
    pub(super) fn new(
        origin: &Arc<Origin>,
        stream: SendStream<Piece>,
        body: Option<Body>,
        trailers: bool,
    ) -> Self {
        Self {
            origin: Arc::clone(origin),
            stream,
            left: body.as_ref().and_then(Body::exact_size),
            body,
            in_hand: Bytes::new(),
            trailers,
            waiting: Waiting::default(),
            touched: false,
            written: 0,
            blocked: false,
        }
    }

    /// The body, if nothing of it was taken.
    pub(super) fn untouched(self) -> Option<Body> {
        self.body.filter(|_| !self.touched)
    }

    /// Sends on. Ready when the connection has all of it.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        loop {
            self.blocked = !self.in_hand.is_empty();
            if self.blocked {
                ready!(self.poll_send(context))?;
                continue;
            }
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            let frame = match ready!(Pin::new(body).poll_frame(context)) {
                None => return Poll::Ready(self.end(None)),
                Some(Err(error)) => return Poll::Ready(Err(UploadError::Body(error))),
                Some(Ok(frame)) => frame,
            };
            self.touched = true;
            match frame.into_data() {
                Ok(data) => self.take(data)?,
                Err(frame) if self.trailers => {
                    return Poll::Ready(self.end(frame.into_trailers().ok()));
                }
                Err(_dropped) => {}
            }
        }
    }

    fn take(&mut self, data: Bytes) -> Result<(), UploadError> {
        if let Some(left) = &mut self.left {
            let after = left.checked_sub(data.len() as u64);
            *left = after.ok_or(UploadError::Body(BodyError::TooLarge))?;
        }
        self.in_hand = data;
        let waits = self.in_hand.len() + self.waiting.bytes();
        self.origin.measure(|metrics| metrics.stream_waits(waits));
        Ok(())
    }

    /// Hands on of the piece in hand what the connection takes.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        self.stream.reserve_capacity(self.in_hand.len());
        let room = match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(Err(UploadError::Gone)),
            },
            room => room,
        };
        let piece = self.in_hand.split_to(room.min(self.in_hand.len()));
        self.written += piece.len() as u64;
        let last = self.in_hand.is_empty() && self.is_last();
        if last {
            self.body = None;
        }
        let sent = self.stream.send_data(Piece::new(piece, &self.waiting), last);
        Poll::Ready(sent.map_err(|_gone| UploadError::Gone))
    }

    /// Whether nothing follows what is in hand, as far as is known without asking.
    fn is_last(&self) -> bool {
        let ended = self.body.as_ref().is_none_or(Body::is_end_stream);
        match self.left {
            Some(left) if !self.trailers => left == 0,
            Some(left) => left == 0 && ended,
            None => ended,
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), UploadError> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(UploadError::Body(BodyError::Incomplete));
        }
        self.body = None;
        let sent = match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Piece::new(Bytes::new(), &self.waiting), true),
        };
        sent.map_err(|_gone| UploadError::Gone)
    }
}

/// A request whose rest is sent beside its answer, in a task of its own: each direction has its own
/// pace, and neither waits for the other.
pub(super) struct Uploading {
    progress: Arc<Progress>,
    task: AbortHandle,
}

/// How the rest of a request goes.
#[derive(Debug, Default)]
struct Progress {
    written: AtomicU64,
    blocked: AtomicBool,
    end: AtomicU8,
    reader: Lock<Option<Waker>>,
}

const RUNS: u8 = 0;
const DONE: u8 = 1;
const BROKEN: u8 = 2;

/// How the rest of a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// There is more, and the origin takes it or takes nothing.
    Runs {
        /// Whether it is the origin that is waited for.
        blocked: bool,
    },
    /// All is sent, or the origin takes no more.
    Done,
    /// Its sender broke off.
    Broken,
}

impl Uploading {
    /// Sends the rest of `upload` until this is dropped.
    pub(super) fn start(mut upload: Upload) -> Self {
        let progress = Arc::new(Progress::default());
        progress.written.store(upload.written, Ordering::Relaxed);
        let told = Arc::clone(&progress);
        let task = tokio::spawn(async move {
            let outcome = std::future::poll_fn(|context| {
                let polled = upload.poll(context);
                told.note(upload.written, upload.blocked);
                polled
            });
            let end = match outcome.await {
                Ok(()) | Err(UploadError::Gone) => DONE,
                Err(UploadError::Body(_)) => BROKEN,
            };
            told.end.store(end, Ordering::Relaxed);
            told.wake();
        });
        Self { progress, task: task.abort_handle() }
    }

    /// Bytes that the connection took.
    pub(super) fn written(&self) -> u64 {
        self.progress.written.load(Ordering::Relaxed)
    }

    /// How it goes; the task of `context` is woken when that changes.
    pub(super) fn look(&self, context: &mut Context<'_>) -> Rest {
        let mut reader = self.progress.reader.lock();
        if !reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
            *reader = Some(context.waker().clone());
        }
        drop(reader);
        match self.progress.end.load(Ordering::Relaxed) {
            RUNS => Rest::Runs { blocked: self.progress.blocked.load(Ordering::Relaxed) },
            BROKEN => Rest::Broken,
            _ => Rest::Done,
        }
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Progress {
    fn note(&self, written: u64, blocked: bool) {
        let moved = self.written.swap(written, Ordering::Relaxed) != written;
        let turned = self.blocked.swap(blocked, Ordering::Relaxed) != blocked;
        if moved || turned {
            self.wake();
        }
    }

    fn wake(&self) {
        let reader = self.reader.lock().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}
