//! A request body on its way from the socket to the handler.
//!
//! The task of the connection owns the socket. It moves bytes into a bounded queue while it waits
//! for the handler and while it writes the answer; the handler, or whoever it gave the body to,
//! takes them out. Nothing is read before the body is first asked for, and nothing while the
//! queue is full: a slow origin slows its client down.
//!
//! The door's end always says how the body ended. If it goes away without a word, the body has
//! broken off.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use crate::config::Limits;
use crate::http1::{Chunk, ChunkError, ChunkLimits, ChunkedDecoder, LengthDecoder, RequestFraming};
use crate::listener::Pace;
use crate::message::BodyError;

/// Pieces smaller than this are joined while they wait, so that a body that comes byte by byte
/// keeps neither a handle per byte nor the buffers that they were read into.
const SMALL: usize = 1024;

/// Size at which joining stops.
const JOINED: usize = 4096;

/// The door's end.
pub(super) struct Upload {
    queue: Arc<Mutex<Queue>>,
    decoder: Decoder,
    in_flight_bytes: usize,
    /// The client still waits for `100 Continue`.
    pub(super) expects: bool,
    /// How fast the client sends.
    pub(super) pace: Pace,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    Failed,
}

enum Decoder {
    Length(LengthDecoder),
    Chunked(ChunkedDecoder),
}

/// What the body's reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// It has not asked yet.
    Unasked,
    /// There is room for more.
    More,
    /// The queue is full.
    Full,
    /// Nobody reads any more.
    Gone,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    /// Small pieces joined; come after `chunks`.
    small: BytesMut,
    /// Bytes in both.
    bytes: usize,
    most: usize,
    /// Announced bytes that the reader has not taken yet.
    left: Option<u64>,
    asked: bool,
    gone: bool,
    end: Option<Result<(), BodyError>>,
    reader: Option<Waker>,
    door: Option<Waker>,
}

impl Queue {
    fn put(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        // What is taken at once need not be copied.
        if chunk.len() < SMALL && !self.is_empty() {
            self.small.extend_from_slice(&chunk);
            if self.small.len() >= JOINED {
                self.close_small();
            }
        } else {
            self.close_small();
            self.chunks.push_back(chunk);
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.close_small();
        }
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.small).freeze());
        }
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.small.is_empty()
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.small = BytesMut::new();
        self.bytes = 0;
    }
}

impl Upload {
    /// Both ends for a request with `framing`; `None` where it has no body.
    pub(super) fn new(
        framing: RequestFraming,
        expects: bool,
        limits: &Limits,
    ) -> Option<(Self, RequestBody)> {
        let (decoder, left) = match framing {
            RequestFraming::None | RequestFraming::Length(0) => return None,
            RequestFraming::Length(length) => {
                (Decoder::Length(LengthDecoder::new(length)), Some(length))
            }
            RequestFraming::Chunked => {
                let limits = ChunkLimits {
                    extension_bytes: limits.chunk_extension_bytes,
                    trailer_bytes: limits.trailer_bytes,
                    trailer_fields: limits.trailer_fields,
                };
                (Decoder::Chunked(ChunkedDecoder::new(limits)), None)
            }
        };
        let most = limits.body_in_flight_bytes.max(1);
        let queue = Arc::new(Mutex::new(Queue { left, most, ..Queue::default() }));
        let body = RequestBody { queue: Arc::clone(&queue) };
        let pace = Pace::of_request(limits);
        let state = State::Open;
        Some((Self { queue, decoder, in_flight_bytes: most, expects, pace, state }, body))
    }

    /// What the reader wants; the task is woken when that changes.
    pub(super) fn demand(&self, context: &Context<'_>) -> Demand {
        let mut queue = lock(&self.queue);
        if !queue.door.as_ref().is_some_and(|door| door.will_wake(context.waker())) {
            queue.door = Some(context.waker().clone());
        }
        match () {
            () if queue.gone => Demand::Gone,
            () if !queue.asked => Demand::Unasked,
            () if queue.bytes >= queue.most => Demand::Full,
            () => Demand::More,
        }
    }

    /// Takes the next part of the body out of `buffer`.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Chunk, ChunkError> {
        match &mut self.decoder {
            Decoder::Length(decoder) => Ok(decoder.decode(buffer)),
            Decoder::Chunked(decoder) => decoder.decode(buffer),
        }
    }

    /// Hands `chunk` to the reader.
    pub(super) fn push(&self, chunk: Bytes, context: &Context<'_>) {
        let mut queue = lock(&self.queue);
        queue.put(chunk);
        wake_reader(queue, context);
    }

    /// Says how the body ended. What is already in the queue can still be taken.
    pub(super) fn finish(&mut self, end: Result<(), BodyError>, context: &Context<'_>) {
        self.state = if end.is_ok() { State::Complete } else { State::Failed };
        let mut queue = lock(&self.queue);
        queue.end = Some(end);
        wake_reader(queue, context);
    }

    /// Whether the end has been said.
    pub(super) fn is_finished(&self) -> bool {
        self.state != State::Open
    }

    /// Whether the body was read to its end, so that the next request begins in the buffer.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Whether what is left of the body may be few enough bytes to be read and dropped. A client
    /// that still waits for `100 Continue` may send the body or leave it out after a final answer;
    /// what comes next would be ambiguous.
    pub(super) fn may_be_drained(&self, drain_bytes: usize) -> bool {
        match (self.state, &self.decoder) {
            (State::Complete, _) => true,
            (State::Failed, _) => false,
            (State::Open, _) if self.expects => false,
            (State::Open, Decoder::Length(decoder)) => decoder.left() <= drain_bytes as u64,
            (State::Open, Decoder::Chunked(_)) => true,
        }
    }

    /// Most bytes worth reading at once.
    pub(super) fn read_bytes(&self) -> usize {
        const PIECE: usize = 16 * 1024;
        let left = match &self.decoder {
            Decoder::Length(decoder) => usize::try_from(decoder.left()).unwrap_or(usize::MAX),
            Decoder::Chunked(_) => usize::MAX,
        };
        PIECE.min(self.in_flight_bytes).min(left).max(512)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let reader = {
            let mut queue = lock(&self.queue);
            queue.end.get_or_insert(Err(BodyError::Cancelled));
            queue.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The handler's end; an [`http_body::Body`].
pub(super) struct RequestBody {
    queue: Arc<Mutex<Queue>>,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut queue = lock(&self.queue);
        let was_full = queue.bytes >= queue.most;
        if let Some(chunk) = queue.take() {
            if let Some(left) = &mut queue.left {
                *left = left.saturating_sub(chunk.len() as u64);
            }
            if was_full && queue.bytes < queue.most {
                wake_door(queue);
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &queue.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error.clone()))),
            None => {
                if !queue.reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
                    queue.reader = Some(context.waker().clone());
                }
                if !queue.asked {
                    queue.asked = true;
                    wake_door(queue);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let queue = lock(&self.queue);
        queue.is_empty() && queue.end == Some(Ok(()))
    }

    fn size_hint(&self) -> SizeHint {
        match lock(&self.queue).left {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut queue = lock(&self.queue);
        queue.gone = true;
        queue.clear();
        wake_door(queue);
    }
}

/// The lock is held for a few lines that cannot panic; were it poisoned, its content is sound.
fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake_door(queue: MutexGuard<'_, Queue>) {
    let door = queue.door.clone();
    drop(queue);
    if let Some(door) = door {
        door.wake();
    }
}

/// A reader within the connection's own task is polled right after; it needs no waking.
fn wake_reader(mut queue: MutexGuard<'_, Queue>, context: &Context<'_>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader.filter(|reader| !reader.will_wake(context.waker())) {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_joined_while_they_wait() {
        let rows: [(&str, usize, usize, usize); 4] = [
            ("byte by byte", 1, 60_000, 20),
            ("just small", SMALL - 1, 60, 20),
            ("large pieces stay as they are", SMALL, 60, 60),
            ("one piece is not copied", 1, 1, 1),
        ];
        for (case, size, count, most) in rows {
            let mut queue = Queue::default();
            let all = Bytes::from_iter((0..=250_u8).cycle().take(size * count));
            for at in 0..count {
                queue.put(all.slice(at * size..(at + 1) * size));
            }
            assert_eq!(queue.bytes, all.len(), "{case}");
            assert!(queue.chunks.len() <= most, "{case}: {}", queue.chunks.len());
            let mut taken = Vec::new();
            while let Some(piece) = queue.take() {
                taken.extend_from_slice(&piece);
            }
            assert_eq!(taken, all, "{case}");
            assert!(queue.is_empty() && queue.bytes == 0, "{case}");
        }
    }
}
