//! Sends a request while its body may still be arriving.
//!
//! Never more than one piece beyond `QUEUE` lies here: while the origin does not read, the body is
//! not polled, and so whoever sends it waits, too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body::Body as _;

use crate::http1::{LAST_CHUNK, RequestFraming, encode_chunk_head, encode_request};
use crate::message::{Body, BodyError};

use super::Outgoing;
use super::connect::{Connection, slices};

/// Bytes that wait for the socket before the body is asked for more.
const QUEUE: usize = 64 * 1024;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Upload {
    queue: Vec<Bytes>,
    /// `None` once its end is in the queue.
    body: Option<Body>,
    framing: RequestFraming,
    /// Bytes owed under `Content-Length`.
    left: u64,
    unflushed: bool,
    /// Bytes handed to the socket.
    pub(super) written: u64,
    /// Whether the last poll ended because the socket took nothing.
    pub(super) blocked: bool,
}

/// Why a request could not be sent whole.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The connection takes no more.
    Write,
    /// The body broke off or disagrees with its length.
    Body(BodyError),
}

impl Upload {
    /// The request `outgoing` with `body` in place of its own.
    pub(super) fn new(outgoing: &Outgoing, body: Body) -> Self {
        let framing = framing(&outgoing.method, &body);
        let mut head = BytesMut::new();
        encode_request(&outgoing.method, &outgoing.target, &outgoing.headers, framing, &mut head);
        let left = if let RequestFraming::Length(length) = framing { length } else { 0 };
        Self {
            queue: vec![head.freeze()],
            body: (framing != RequestFraming::None && framing != RequestFraming::Length(0))
                .then_some(body),
            framing,
            left,
            unflushed: true,
            written: 0,
            blocked: false,
        }
    }

    /// Sends on. Ready when the whole request is with the socket.
    pub(super) fn poll(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        self.blocked = false;
        loop {
            let waits = self.fill(context)?;
            if self.queue.is_empty() {
                self.flush(connection, context)?;
                let done = self.body.is_none() && !self.unflushed;
                return if done { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            // What is there goes out even while the body waits.
            match self.write(connection, context) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
            if waits && self.queue.is_empty() {
                self.flush(connection, context)?;
                return Poll::Pending;
            }
        }
    }

    /// Takes from the body while it gives and there is room. True: the body waits.
    fn fill(&mut self, context: &mut Context<'_>) -> Result<bool, UploadError> {
        while self.queue.iter().map(Bytes::len).sum::<usize>() < QUEUE {
            let Some(body) = &mut self.body else { return Ok(false) };
            match Pin::new(body).poll_frame(context) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(error))) => return Err(UploadError::Body(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers of a request are dropped.
                    if let Ok(data) = frame.into_data() {
                        self.push(data)?;
                    }
                }
                Poll::Ready(None) => self.end()?,
            }
        }
        Ok(false)
    }

    fn push(&mut self, data: Bytes) -> Result<(), UploadError> {
        if data.is_empty() {
            return Ok(());
        }
        if self.framing == RequestFraming::Chunked {
            let mut size = BytesMut::with_capacity(20);
            encode_chunk_head(data.len(), &mut size);
            self.queue.extend([size.freeze(), data, Bytes::from_static(b"\r\n")]);
            return Ok(());
        }
        let size = data.len() as u64;
        self.left = self.left.checked_sub(size).ok_or(UploadError::Body(BodyError::TooLarge))?;
        self.queue.push(data);
        Ok(())
    }

    fn end(&mut self) -> Result<(), UploadError> {
        if self.left > 0 {
            return Err(UploadError::Body(BodyError::Incomplete));
        }
        self.body = None;
        if self.framing == RequestFraming::Chunked {
            self.queue.push(Bytes::from_static(LAST_CHUNK));
        }
        Ok(())
    }

    fn write(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        let written = ready!(connection.poll_write(&slices(&self.queue), context));
        match written {
            Ok(0) | Err(_) => Poll::Ready(Err(UploadError::Write)),
            Ok(written) => {
                self.unflushed = true;
                self.written += written as u64;
                self.advance(written);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        let mut whole = 0;
        for piece in &mut self.queue {
            if written < piece.len() {
                let _ = piece.split_to(written);
                break;
            }
            written -= piece.len();
            whole += 1;
        }
        self.queue.drain(..whole);
    }

    fn flush(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Result<(), UploadError> {
        if self.unflushed {
            match connection.poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(broken(&error)),
                Poll::Pending => self.blocked = true,
            }
        }
        Ok(())
    }
}

fn broken(_: &io::Error) -> UploadError {
    UploadError::Write
}

/// How the end of a request's body is announced (RFC 9112 section 6.3; RFC 9110 section 8.6).
fn framing(method: &Method, body: &Body) -> RequestFraming {
    match body.exact_size() {
        Some(0) if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            RequestFraming::Length(0)
        }
        Some(0) => RequestFraming::None,
        Some(length) => RequestFraming::Length(length),
        None => RequestFraming::Chunked,
    }
}
