//! Tunnels: after an upgrade was confirmed, bytes go both ways and nobody here reads them.
//!
//! ```text
//! client --- inward --->  one piece  ---> origin
//!        <-- outward ---  one piece  <---
//! ```
//!
//! A way takes the next piece only when the one before has been taken by the other side, so that
//! the slower side sets the pace and a tunnel holds at most a piece each way; one that is silent
//! holds none. When one side ends, its way is carried to the end and the other goes on. When one
//! breaks, the other is broken off, too, so that it does not look like an end.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::context::Context;
use super::timer::Timer;
use crate::clock;
use crate::telemetry::{Metrics, Record};

/// Most bytes that are taken at once.
const PIECE: usize = 16 * 1024;

/// Another protocol that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Its name as the client wrote it: one token, perhaps with a version.
    pub protocol: String,
    /// The request means nothing without it (extended CONNECT, RFC 8441); else it may be
    /// answered as if it had asked for nothing.
    pub required: bool,
    /// The process drains: a tunnel would not live long.
    pub leaving: bool,
}

/// The origin's end of a tunnel.
pub trait Far: AsyncRead + AsyncWrite + Send + Unpin {
    /// Has the connection reset rather than ended when it is dropped.
    fn reset(&self);
}

/// The client's end of a tunnel.
pub(super) trait Near: AsyncRead + AsyncWrite + Unpin {
    /// Ready when the client has given the tunnel up, where reading would not tell.
    fn poll_gone(&mut self, _context: &mut task::Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// What an answer with status 101 opens.
pub struct Tunnel {
    /// The protocol that was agreed upon.
    pub(super) protocol: String,
    far: Box<dyn Far>,
    _held: Box<dyn Any + Send>,
}

impl Tunnel {
    /// A tunnel to `far`, which has confirmed `protocol`. `held` is kept until the tunnel ends.
    #[must_use]
    pub fn new(protocol: String, far: Box<dyn Far>, held: impl Any + Send) -> Self {
        Self { protocol, far, _held: Box::new(held) }
    }

    /// Carries bytes until both sides have ended, or one breaks, or time is over. `head` goes to
    /// the client first.
    pub(super) async fn carry<N: Near>(
        mut self,
        near: &mut N,
        head: BytesMut,
        record: Option<Box<Record>>,
        context: &Context,
    ) -> End {
        let limits = &context.limits;
        let opened = clock::now().boot;
        let mut carrying = Carrying {
            near,
            far: self.far.as_mut(),
            account: Account::new(record, &context.metrics),
            inward: Way::default(),
            outward: Way { uncounted: head.len(), held: head, ..Way::default() },
            most: limits.body_in_flight_bytes.clamp(1, PIECE),
            idle: limits.tunnel_idle,
            moved: opened,
            over: (!limits.tunnel_age.is_zero()).then(|| opened.saturating_add(limits.tunnel_age)),
            timer: Timer::default(),
        };
        let end = poll_fn(|context| carrying.poll(context)).await;
        carrying.account.complete = end == End::Closed;
        drop(carrying);
        if end == End::NearBroke {
            self.far.reset();
        }
        end
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Tunnel({})", self.protocol)
    }
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have said all they had to say.
    Closed,
    /// It was silent for too long, or is too old.
    Over,
    /// The client's side broke.
    NearBroke,
    /// The origin's side broke.
    FarBroke,
}

struct Carrying<'a, N> {
    near: &'a mut N,
    far: &'a mut dyn Far,
    account: Account,
    inward: Way,
    outward: Way,
    most: usize,
    idle: Duration,
    /// Boot clock when something last moved.
    moved: Duration,
    /// Boot clock at which it is too old.
    over: Option<Duration>,
    timer: Timer,
}

impl<N: Near> Carrying<'_, N> {
    fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<End> {
        if self.near.poll_gone(context).is_ready() {
            return Poll::Ready(End::NearBroke);
        }
        let inward = self.inward.poll(&mut *self.near, &mut *self.far, self.most, context);
        let outward = self.outward.poll(&mut *self.far, &mut *self.near, self.most, context);
        let moved = self.account.take(&mut self.inward, &mut self.outward);
        match (inward, outward) {
            (Poll::Ready(Err(Fault::From)), _) | (_, Poll::Ready(Err(Fault::To))) => {
                return Poll::Ready(End::NearBroke);
            }
            (Poll::Ready(Err(Fault::To)), _) | (_, Poll::Ready(Err(Fault::From))) => {
                return Poll::Ready(End::FarBroke);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            (Poll::Pending, _) | (_, Poll::Pending) => {}
        }
        if moved {
            self.moved = clock::now().boot;
        }
        let silent = self.moved.saturating_add(self.idle);
        let deadline = self.over.map_or(silent, |over| over.min(silent));
        ready!(self.timer.poll(context, deadline));
        Poll::Ready(End::Over)
    }
}

/// Which side of a way broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    From,
    To,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Taken from one side, not yet by the other.
    held: BytesMut,
    state: State,
    unflushed: bool,
    /// Of what is held, bytes that are not the tunnel's.
    uncounted: usize,
    /// Bytes that the other side has taken since somebody asked.
    bytes: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// One side has ended, the other is yet to be told.
    Ending,
    Ended,
}

impl Way {
    /// Moves what can be moved. Ready when the end has been passed on.
    fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        most: usize,
        context: &mut task::Context<'_>,
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        loop {
            while !self.held.is_empty() {
                match ready!(Pin::new(&mut *to).poll_write(context, &self.held)) {
                    Ok(0) | Err(_) => return Poll::Ready(Err(Fault::To)),
                    Ok(written) => {
                        self.held.advance(written);
                        self.wrote(written);
                    }
                }
            }
            self.held = BytesMut::new();
            match self.state {
                State::Open => {}
                State::Ending => {
                    let told = ready!(Pin::new(&mut *to).poll_shutdown(context));
                    self.state = State::Ended;
                    return Poll::Ready(told.map_err(|_broken| Fault::To));
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
            let mut space = [const { MaybeUninit::uninit() }; PIECE];
            let mut space = ReadBuf::uninit(space.get_mut(..most).unwrap_or_default());
            match Pin::new(&mut *from).poll_read(context, &mut space) {
                Poll::Ready(Ok(())) if space.filled().is_empty() => self.state = State::Ending,
                Poll::Ready(Ok(())) => self.pass(space.filled(), to, context)?,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::From)),
                Poll::Pending => {
                    self.flush(to, context)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Passes a piece on; what is not taken at once is held.
    fn pass<W: AsyncWrite + Unpin + ?Sized>(
        &mut self,
        piece: &[u8],
        to: &mut W,
        context: &mut task::Context<'_>,
    ) -> Result<(), Fault> {
        let written = match Pin::new(to).poll_write(context, piece) {
            Poll::Ready(Ok(0) | Err(_)) => return Err(Fault::To),
            Poll::Ready(Ok(written)) => written,
            Poll::Pending => 0,
        };
        self.held.extend_from_slice(piece.get(written..).unwrap_or_default());
        self.wrote(written);
        Ok(())
    }

    fn flush<W: AsyncWrite + Unpin + ?Sized>(
        &mut self,
        to: &mut W,
        context: &mut task::Context<'_>,
    ) -> Result<(), Fault> {
        if self.unflushed {
            match Pin::new(to).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(Fault::To),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    fn wrote(&mut self, written: usize) {
        let other = written.min(self.uncounted);
        self.uncounted -= other;
        self.bytes += (written - other) as u64;
        self.unflushed |= written > 0;
    }
}

/// Counts one tunnel, and closes its line of the access log whatever becomes of it.
struct Account {
    metrics: Arc<Metrics>,
    record: Option<Box<Record>>,
    sent: u64,
    complete: bool,
}

impl Account {
    fn new(mut record: Option<Box<Record>>, metrics: &Arc<Metrics>) -> Self {
        metrics.doors.tunnels.inc();
        if let Some(record) = &mut record {
            record.bytes_received = Some(0);
        }
        Self { metrics: Arc::clone(metrics), record, sent: 0, complete: false }
    }

    /// Takes over what has moved; whether anything has.
    fn take(&mut self, inward: &mut Way, outward: &mut Way) -> bool {
        let (received, sent) =
            (std::mem::take(&mut inward.bytes), std::mem::take(&mut outward.bytes));
        self.metrics.doors.tunnel_bytes_received.inc_by(received);
        self.metrics.doors.tunnel_bytes_sent.inc_by(sent);
        self.sent += sent;
        if let Some(bytes) = self.record.as_mut().and_then(|record| record.bytes_received.as_mut())
        {
            *bytes += received;
        }
        received > 0 || sent > 0
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.metrics.doors.tunnels.dec();
        if let Some(record) = self.record.take() {
            record.finish(self.sent, self.complete, clock::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;

    use proptest::prelude::*;

    use super::*;

    /// What a side does when it is asked.
    #[derive(Clone, Debug)]
    enum Step {
        Give(Vec<u8>),
        /// Takes at most so many bytes.
        Take(usize),
        Wait,
    }

    /// A side that gives, and takes, as its script says; at the script's end it gives its end, and
    /// takes everything.
    struct Side {
        steps: VecDeque<Step>,
        taken: Vec<u8>,
        shut: bool,
    }

    impl Side {
        fn new(steps: Vec<Step>) -> Self {
            Self { steps: steps.into(), taken: Vec::new(), shut: false }
        }
    }

    impl AsyncRead for Side {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
            room: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.steps.pop_front() {
                Some(Step::Give(mut bytes)) => {
                    let rest = bytes.split_off(bytes.len().min(room.remaining()));
                    room.put_slice(&bytes);
                    if !rest.is_empty() {
                        self.steps.push_front(Step::Give(rest));
                    }
                    Poll::Ready(Ok(()))
                }
                Some(Step::Take(_) | Step::Wait) => Poll::Pending,
                None => Poll::Ready(Ok(())),
            }
        }
    }

    impl AsyncWrite for Side {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            assert!(!self.shut, "nothing comes behind the end");
            let most = match self.steps.pop_front() {
                Some(Step::Take(most)) => most,
                Some(Step::Give(_) | Step::Wait) => return Poll::Pending,
                None => usize::MAX,
            };
            let taken = bytes.len().min(most);
            self.taken.extend_from_slice(bytes.get(..taken).unwrap());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<io::Result<()>> {
            assert!(!self.shut, "it ends once");
            self.shut = true;
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn everything_arrives_in_order_and_no_more_than_a_piece_is_held(
            given in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 1..40_000).prop_map(Step::Give),
                    Just(Step::Wait),
                ],
                0..12,
            ),
            taken in prop::collection::vec(
                prop_oneof![(1..20_000_usize).prop_map(Step::Take), Just(Step::Wait)],
                0..40,
            ),
            most in 1..=PIECE,
        ) {
            let all: Vec<u8> = given
                .iter()
                .flat_map(|step| if let Step::Give(bytes) = step { bytes.clone() } else { vec![] })
                .collect();
            let (mut from, mut to) = (Side::new(given), Side::new(taken));
            let mut way = Way { uncounted: 5, held: b"head,"[..].into(), ..Way::default() };
            let mut context = task::Context::from_waker(task::Waker::noop());
            let mut counted = 0;
            loop {
                let polled = way.poll(&mut from, &mut to, most, &mut context);
                prop_assert!(way.held.len() <= most.max(5));
                counted += std::mem::take(&mut way.bytes);
                if polled.is_ready() {
                    prop_assert_eq!(polled, Poll::Ready(Ok(())));
                    break;
                }
            }
            prop_assert!(to.shut && way.held.is_empty());
            prop_assert_eq!(counted, all.len() as u64);
            prop_assert_eq!(to.taken, [&b"head,"[..], &all].concat());
        }
    }
}
