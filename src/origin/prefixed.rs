//! A body of which the first bytes are there.
//!
//! A request waits for them before it takes a place at its origin. Otherwise announced bodies that
//! never come would hold all places, and whoever needs the origin would be turned away.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::message::{Body, BodyError};

/// Waits until a body that is still arriving has begun or ended. One that is there as a whole with its
/// first piece is kept as such. How long that may take is up to
/// the body: it fails when its sender is too slow.
pub(super) async fn begun(mut body: Body) -> Result<Body, BodyError> {
    if !matches!(body, Body::Stream(_)) {
        return Ok(body);
    }
    let left = body.exact_size();
    if left == Some(0) || body.is_end_stream() {
        return Ok(body);
    }
    let first = poll_fn(|context| poll_data(&mut body, context)).await.transpose()?;
    if let (Some(whole), Some(left)) = (&first, left)
        && whole.len() as u64 == left
    {
        // All of it is there, so it can be sent again where the origin did not take it.
        return Ok(Body::Full(whole.clone()));
    }
    let rest = first.is_some().then_some(body);
    Ok(Body::stream(Prefixed { first, rest, left }))
}

/// The next bytes that are not none.
fn poll_data(body: &mut Body, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
    loop {
        match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => {
                // Trailers of a request are dropped.
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}

struct Prefixed {
    first: Option<Bytes>,
    /// `None`: there is no more.
    rest: Option<Body>,
    /// Bytes yet to be handed over, where the body said.
    left: Option<u64>,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = match (this.first.take(), &mut this.rest) {
            (Some(first), _) => Poll::Ready(Some(Ok(Frame::data(first)))),
            (None, Some(rest)) => Pin::new(rest).poll_frame(context),
            (None, None) => Poll::Ready(None),
        };
        if let (Poll::Ready(Some(Ok(frame))), Some(left)) = (&polled, &mut this.left) {
            let given = frame.data_ref().map_or(0, Bytes::len);
            *left = left.saturating_sub(given as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
