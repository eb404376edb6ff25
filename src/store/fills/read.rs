//! The readers of a fill: each with a place of its own among those that are woken, and a body that
//! reads along from the first byte.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Fill, FillEnd, State, lock};
use crate::message::{Body, BodyError};

/// A place among the readers of a fill.
#[derive(Debug)]
pub(super) struct Slot {
    fill: Arc<Fill>,
    index: Option<usize>,
}

impl Slot {
    pub(super) fn new(fill: Arc<Fill>) -> Self {
        lock(&fill.state).readers += 1;
        fill.readers.fetch_add(1, Ordering::AcqRel);
        Self { fill, index: None }
    }

    pub(super) fn wait(&mut self, state: &mut State, context: &Context<'_>) {
        let waker = context.waker();
        match self.index.and_then(|index| state.wakers.get_mut(index)) {
            Some(Some(there)) if there.will_wake(waker) => {}
            Some(place) => *place = Some(waker.clone()),
            None => match state.free.pop() {
                Some(index) => {
                    self.index = Some(index);
                    if let Some(place) = state.wakers.get_mut(index) {
                        *place = Some(waker.clone());
                    }
                }
                None => {
                    self.index = Some(state.wakers.len());
                    state.wakers.push(Some(waker.clone()));
                }
            },
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let writer = {
            let mut state = lock(&self.fill.state);
            state.readers -= 1;
            if let Some(index) = self.index {
                if let Some(place) = state.wakers.get_mut(index) {
                    *place = None;
                }
                state.free.push(index);
            }
            if state.readers == 0 { state.writer.take() } else { None }
        };
        self.fill.readers.fetch_sub(1, Ordering::AcqRel);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

/// A body that reads a fill along, from its first byte, at its reader's pace.
#[derive(Debug)]
pub struct FillBody {
    slot: Slot,
    /// Number of the next chunk.
    next: usize,
    /// Bytes of the fill that this reader has passed.
    position: u64,
    skip: u64,
    left: Option<u64>,
    ended: bool,
}

impl FillBody {
    /// Reads `fill` from byte `start` on, `length` bytes or to the end.
    pub(super) fn new(fill: Arc<Fill>, start: u64, length: Option<u64>) -> Self {
        Self {
            slot: Slot::new(fill),
            next: 0,
            position: 0,
            skip: start,
            left: length,
            ended: false,
        }
    }

    /// As a message body.
    #[must_use]
    pub fn into_body(self) -> Body {
        Body::stream(self)
    }

    /// The part of a chunk that is wanted.
    fn cut(&mut self, mut chunk: Bytes) -> Bytes {
        let size = chunk.len() as u64;
        let skip = usize::try_from(self.skip.min(size)).unwrap_or(chunk.len());
        self.skip -= skip as u64;
        let _ = chunk.split_to(skip);
        if let Some(left) = &mut self.left {
            let keep = usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len());
            chunk.truncate(keep);
            *left -= keep as u64;
        }
        chunk
    }

    fn poll_chunk(&mut self, context: &Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let fill = Arc::clone(&self.slot.fill);
        let mut state = lock(&fill.state);
        let Some(index) = self.next.checked_sub(state.dropped) else {
            // This reader fell behind what is kept of a body that is too large to keep.
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        };
        if let Some(chunk) = state.chunks.get(index).cloned() {
            self.next += 1;
            self.position += chunk.len() as u64;
            let writer = if self.position > state.read_bytes {
                state.read_bytes = self.position;
                state.writer.take()
            } else {
                None
            };
            drop(state);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
        match &state.end {
            Some(FillEnd::Complete) => Poll::Ready(None),
            Some(FillEnd::Broken(why)) => Poll::Ready(Some(Err(why.clone()))),
            None => {
                self.slot.wait(&mut state, context);
                Poll::Pending
            }
        }
    }
}

impl http_body::Body for FillBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.ended || self.left == Some(0) {
                return Poll::Ready(None);
            }
            match self.poll_chunk(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => {
                    let chunk = self.cut(chunk);
                    if !chunk.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(chunk))));
                    }
                }
                Poll::Ready(Some(Err(why))) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(why)));
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    // A length was promised: an end before it is not an end.
                    let short = self.left.is_some_and(|left| left > 0);
                    return Poll::Ready(short.then_some(Err(BodyError::Incomplete)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
