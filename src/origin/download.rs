//! The body of an answer while it arrives.
//!
//! It owns the connection and the request's place. Both are given up at the body's end: the
//! connection goes back to its pool if the response ended exactly where it said, nothing is
//! unread, and the request had been sent whole; in every other case, a drop included, it is closed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::clock;
use crate::http1::{Chunk, ChunkLimits, ChunkedDecoder, LengthDecoder, ResponseFraming};
use crate::message::{Body, BodyError};

use super::connect::Connection;
use super::endpoint::Flight;
use super::pace::{Pace, PaceRules};
use super::place::Place;
use super::pool::Pool;
use super::upload::Upload;

/// Bytes read at once.
const READ: usize = 48 * 1024;

/// Where a connection goes when its response has ended, and what is given free with it.
#[derive(Debug)]
pub(super) struct Return {
    pub(super) pool: Arc<Pool>,
    pub(super) site: usize,
    /// Whether both sides keep the connection.
    pub(super) keep_alive: bool,
    pub(super) place: Arc<Place>,
    pub(super) flight: Flight,
}

impl Return {
    /// The response has ended: puts the connection back if nothing speaks against it.
    fn give(self, mut connection: Connection) {
        if self.keep_alive && connection.buffer.is_empty() {
            // An idle connection needs no buffer.
            connection.buffer = BytesMut::new();
            self.pool.put(connection, self.site, clock::now().boot);
        }
        drop((self.flight, self.place));
    }
}

/// The body of a response whose head has been read from `connection`. What is already there in
/// full is handed over as it is.
pub(super) fn body(
    mut connection: Connection,
    framing: ResponseFraming,
    upload: Option<Upload>,
    pace: PaceRules,
    chunks: ChunkLimits,
    mut back: Return,
) -> Body {
    back.keep_alive &= framing != ResponseFraming::Close;
    let decoder = match framing {
        ResponseFraming::None => Decoder::Length(LengthDecoder::new(0)),
        ResponseFraming::Length(length) => Decoder::Length(LengthDecoder::new(length)),
        ResponseFraming::Chunked => Decoder::Chunked(ChunkedDecoder::new(chunks)),
        ResponseFraming::Close => Decoder::Close,
    };
    if let (Decoder::Length(length), None) = (&decoder, &upload)
        && length.left() <= connection.buffer.len() as u64
    {
        let size = usize::try_from(length.left()).unwrap_or(0);
        let bytes = connection.buffer.split_to(size).freeze();
        back.give(connection);
        return Body::from(bytes);
    }
    Body::stream(Download {
        open: Some((connection, back)),
        decoder,
        upload,
        pace: Pace::new(pace),
        timer: None,
    })
}

#[derive(Debug)]
enum Decoder {
    Length(LengthDecoder),
    Chunked(ChunkedDecoder),
    Close,
}

impl Decoder {
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Chunk, BodyError> {
        match self {
            Self::Length(length) => Ok(length.decode(buffer)),
            Self::Chunked(chunked) => {
                chunked.decode(buffer).map_err(|error| BodyError::Malformed(error.rule()))
            }
            Self::Close if buffer.is_empty() => Ok(Chunk::More),
            Self::Close => Ok(Chunk::Data(buffer.split().freeze())),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Length(length) => length.is_done(),
            Self::Chunked(chunked) => chunked.is_done(),
            Self::Close => false,
        }
    }

    /// Bytes worth reading at once.
    fn wants(&self) -> usize {
        match self {
            Self::Length(length) => usize::try_from(length.left()).unwrap_or(READ).min(READ),
            Self::Chunked(_) | Self::Close => READ,
        }
        .max(1)
    }
}

/// A body that arrives.
struct Download {
    /// `None` once it has ended or failed.
    open: Option<(Connection, Return)>,
    decoder: Decoder,
    /// The rest of the request, if the answer came before its end.
    upload: Option<Upload>,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Download {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Download({:?}, ended: {})", self.decoder, self.open.is_none())
    }
}

impl Download {
    fn end(&mut self) {
        if let Some((connection, mut back)) = self.open.take() {
            back.keep_alive &= self.upload.is_none();
            back.give(connection);
        }
        self.upload = None;
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.open = None;
        self.upload = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Sends the rest of the request; `Err` when the connection is of no more use.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), BodyError> {
        let (Some(upload), Some((connection, back))) = (&mut self.upload, &mut self.open) else {
            return Ok(());
        };
        let before = upload.written;
        let outcome = upload.poll(connection, context);
        if upload.written > before {
            let taken = usize::try_from(upload.written - before).unwrap_or(usize::MAX);
            self.pace.received(taken, clock::now().boot);
        }
        match outcome {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.upload = None,
            Poll::Ready(Err(super::upload::UploadError::Write)) => {
                // It may have said all it wants to say and still send its answer.
                back.keep_alive = false;
                self.upload = None;
            }
            Poll::Ready(Err(super::upload::UploadError::Body(_))) => {
                return Err(BodyError::Cancelled);
            }
        }
        Ok(())
    }

    /// Waits for the origin, but not for ever. While the rest of the request is still to come, it
    /// is the origin that waits; the door judges whoever sends that rest.
    fn poll_pace(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        if self.upload.as_ref().is_some_and(|upload| !upload.blocked) {
            self.pace.idle();
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
        if let Err(error) = self.poll_upload(context) {
            return self.fail(error);
        }
        loop {
            let this = &mut *self;
            let Some((connection, _)) = &mut this.open else { return Poll::Ready(None) };
            match this.decoder.decode(&mut connection.buffer) {
                Ok(Chunk::Data(data)) => {
                    if this.decoder.is_done() {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Chunk::End) => {
                    this.end();
                    return Poll::Ready(None);
                }
                Ok(Chunk::More) => {}
                Err(error) => return this.fail(error),
            }
            match connection.poll_read(this.decoder.wants(), context) {
                Poll::Ready(Ok(0)) if matches!(this.decoder, Decoder::Close) => {
                    this.end();
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0) | Err(_)) => return this.fail(BodyError::Incomplete),
                Poll::Ready(Ok(read)) => {
                    connection.note_waiting(connection.buffer.len());
                    this.pace.received(read, clock::now().boot);
                }
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
        self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.decoder {
            Decoder::Length(length) => SizeHint::with_exact(length.left()),
            Decoder::Chunked(_) | Decoder::Close => SizeHint::default(),
        }
    }
}
