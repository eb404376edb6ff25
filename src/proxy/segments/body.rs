//! A body that goes from block to block, fetching a little ahead of its reader.
//!
//! What is ahead is bounded twice: by the policy's number of segments, and by what the request
//! asks for. Nothing is begun but when the reader takes bytes, so a client that stops reading stops
//! the origin, too. One that leaves lets what is under way come to its end, for others.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::fetch::Source;
use super::{Reading, Trouble};
use crate::listener::Pressure;
use crate::message::{Body, BodyError};
use crate::semantics::Slice;

/// Bytes of a body in segments, in a row.
pub(in crate::proxy) struct SegmentBody {
    reading: Arc<Reading>,
    /// First and last block to fetch.
    wanted: (u64, u64),
    /// Blocks that are begun and not yet read.
    begun: VecDeque<(Slice, Source)>,
    /// First byte of what is not begun yet, and how many there are.
    rest: (u64, u64),
    state: State,
    /// The segment that is being read.
    segment: u64,
    /// Bytes still to come of the block that is being read.
    of_block: u64,
    /// Bytes still to come in all.
    left: u64,
}

enum State {
    /// Between two blocks.
    Between,
    /// Waiting for the origin.
    Opening(Pin<Box<dyn Future<Output = Result<Body, Trouble>> + Send>>),
    /// Handing on the bytes of a block.
    Sending(Body),
    /// It has ended, one way or the other.
    Over,
}

impl SegmentBody {
    /// The `length` bytes from `start` on; nothing is fetched yet.
    pub(super) fn new(reading: &Arc<Reading>, start: u64, length: u64) -> Self {
        Self {
            wanted: reading.segments.wanted(start, length),
            reading: Arc::clone(reading),
            begun: VecDeque::new(),
            rest: (start, length),
            state: State::Between,
            segment: 0,
            of_block: 0,
            left: length,
        }
    }

    /// Waits until the first bytes are to be had. Whether they were in the store already.
    pub(super) async fn begin(&mut self) -> Result<bool, Trouble> {
        if self.left == 0 {
            return Ok(true);
        }
        self.advance()?;
        let stored = matches!(self.state, State::Sending(_));
        poll_fn(|context| self.poll_open(context)).await?;
        Ok(stored)
    }

    /// Goes on to the next block.
    fn advance(&mut self) -> Result<(), Trouble> {
        let next = self.begun.pop_front().or_else(|| self.begin_block(u64::MAX));
        let Some((slice, source)) = next else { return Err(Trouble::Changed) };
        self.of_block = slice.length;
        self.segment = self.reading.segments.segment_of(slice.block);
        self.state = match source {
            Source::Stored(body) => State::Sending(body.range(slice.offset, slice.length)),
            source => State::Opening(Box::pin(Arc::clone(&self.reading).open(slice, source))),
        };
        if matches!(self.state, State::Sending(_)) {
            self.look_ahead();
        }
        Ok(())
    }

    /// Begins the next block that is not begun yet, up to a segment.
    fn begin_block(&mut self, most: u64) -> Option<(Slice, Source)> {
        let (start, left) = self.rest;
        let slice = self.reading.segments.slice(start, left)?;
        if self.reading.segments.segment_of(slice.block) > most {
            return None;
        }
        let source = self.reading.source(slice, self.wanted);
        self.rest = (start + slice.length, left - slice.length);
        // What lies behind has been read and is not fetched again.
        self.wanted.0 = slice.block + 1;
        Some((slice, source))
    }

    /// Begins what the policy wants to have ahead of the block that is being read.
    fn look_ahead(&mut self) {
        let worker = &self.reading.worker;
        let short = worker.edge.pressure.step() >= Pressure::Shed;
        let ahead = if short { 0 } else { self.reading.ask.policy.segment_ahead };
        let most = self.segment.saturating_add(ahead);
        while let Some(begun) = self.begin_block(most) {
            self.begun.push_back(begun);
        }
    }

    /// Waits for the block that is being opened.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        let State::Opening(opening) = &mut self.state else { return Poll::Ready(Ok(())) };
        match ready!(opening.as_mut().poll(context)) {
            Ok(body) => {
                self.state = State::Sending(body);
                self.look_ahead();
                Poll::Ready(Ok(()))
            }
            Err(trouble) => {
                self.state = State::Over;
                Poll::Ready(Err(trouble))
            }
        }
    }

    /// Counts bytes of the block that is being read. More than it has are not its bytes.
    fn count(&mut self, bytes: &Bytes) -> Result<(), BodyError> {
        let size = bytes.len() as u64;
        self.of_block =
            self.of_block.checked_sub(size).ok_or(BodyError::Malformed("more than the range"))?;
        self.left = self.left.saturating_sub(size);
        if self.of_block == 0 {
            self.state = State::Between;
        }
        Ok(())
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Between if self.left == 0 => return Poll::Ready(None),
                State::Between => {
                    if self.advance().is_err() {
                        return Poll::Ready(Some(Err(BodyError::Incomplete)));
                    }
                }
                State::Opening(_) => {
                    if ready!(self.poll_open(context)).is_err() {
                        return Poll::Ready(Some(Err(BodyError::Incomplete)));
                    }
                }
                State::Sending(body) => match ready!(Pin::new(body).poll_frame(context)) {
                    None => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                    Some(Err(why)) => return Poll::Ready(Some(Err(why))),
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            return Poll::Ready(Some(self.count(&bytes).map(|()| bytes)));
                        }
                    }
                },
            }
        }
    }
}

impl http_body::Body for SegmentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let bytes = ready!(self.poll_bytes(context));
        if matches!(bytes, Some(Err(_))) {
            self.state = State::Over;
        }
        Poll::Ready(bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
