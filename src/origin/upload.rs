//! Sends a request while its body may still be arriving.
//!
//! Never more than one piece beyond the `body_in_flight_bytes` of the configuration lies here:
//! while the origin does not read, the body is not polled, and so whoever sends it waits, too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body::Body as _;

use crate::http1::{LAST_CHUNK, RequestFraming, encode_chunk_head, encode_request};
use crate::message::{Body, BodyError};

use super::Head;
use super::connect::Connection;
use super::pieces::Pieces;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Upload {
    queue: Pieces,
    /// Bytes that may wait for the socket before the body is asked for more.
    most: usize,
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
    /// The request `outgoing` with its `body`, of which `most` bytes may wait for
    /// the socket.
    pub(super) fn new(outgoing: &Head, body: Body, most: usize) -> Self {
        let framing = framing(&outgoing.method, &body);
        let mut head = BytesMut::new();
        encode_request(&outgoing.method, &outgoing.target, &outgoing.headers, framing, &mut head);
        let left = if let RequestFraming::Length(length) = framing { length } else { 0 };
        Self {
            queue: Pieces::new(head),
            most,
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
        while self.queue.len() < self.most.max(1) {
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
            self.queue.gather(|queue| encode_chunk_head(data.len(), queue));
            self.queue.push(data);
            self.queue.gather(|queue| queue.extend_from_slice(b"\r\n"));
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
            self.queue.gather(|queue| queue.extend_from_slice(LAST_CHUNK));
        }
        Ok(())
    }

    fn write(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        let written = ready!(connection.poll_write(&self.queue.slices(), context));
        match written {
            Ok(0) | Err(_) => Poll::Ready(Err(UploadError::Write)),
            Ok(written) => {
                self.unflushed = true;
                self.written += written as u64;
                self.queue.advance(written);
                Poll::Ready(Ok(()))
            }
        }
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    /// Gives the same piece as often as it is asked, and counts.
    struct Endless(Bytes);

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
            Poll::Ready(Some(Ok(http_body::Frame::data(self.0.clone()))))
        }
    }

    #[test]
    fn no_more_waits_than_is_configured() {
        let outgoing = Head {
            method: Method::POST,
            target: "/".to_owned(),
            headers: HeaderMap::new(),
            hop: None,
        };
        for most in [0, 4096, 64 * 1024] {
            for piece in [1, 1000, 5000] {
                let body = Body::stream(Endless(Bytes::from(vec![b'a'; piece])));
                let mut upload = Upload::new(&outgoing, body, most);
                let mut context = Context::from_waker(std::task::Waker::noop());
                assert!(!upload.fill(&mut context).unwrap(), "the body never waits");
                let waits = upload.queue.len();
                // The request's head, and a chunk with its frame.
                assert!((most..most + piece + 100).contains(&waits), "{most} {piece}: {waits}");
            }
        }
    }
}
