//! Bodies that the proxy puts together: a request body under a limit, several bodies in a row.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::message::{Body, BodyError};

/// A body that breaks off when more than `left` bytes come.
pub(super) struct Limited {
    body: Body,
    left: u64,
}

impl Limited {
    /// `body` with at most `most` bytes; as it is where its length is known to fit.
    pub(super) fn wrap(body: Body, most: u64) -> Body {
        match body.exact_size() {
            Some(size) if size <= most => body,
            _ => Body::stream(Self { body, left: most }),
        }
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            match self.left.checked_sub(bytes.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Several bodies, one after the other: the parts of a `multipart/byteranges` answer.
pub(super) struct Chain {
    bodies: VecDeque<Body>,
    length: u64,
}

impl Chain {
    /// `bodies` in a row, `length` bytes in all.
    pub(super) fn wrap(bodies: VecDeque<Body>, length: u64) -> Body {
        Body::stream(Self { bodies, length })
    }
}

impl http_body::Body for Chain {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while let Some(body) = self.bodies.front_mut() {
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(None) => {
                    self.bodies.pop_front();
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let sent = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                    self.length = self.length.saturating_sub(sent);
                    return Poll::Ready(Some(Ok(frame)));
                }
                other => return other,
            }
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
