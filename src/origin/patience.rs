//! How long an exchange waits for an origin, up to the final head.
//!
//! While the request is sent, the origin must keep pace. The head has its time from the end of the
//! request, which interim responses and drips do not prolong. A call that streams has neither: it
//! may be silent as long as a tunnel, and whatever moves in its direction begins that time anew.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::SendError;
use super::pace::{Pace, PaceRules, TooSlow};
use crate::clock;
use crate::config::Limits;

/// A timer that is set before it is first waited for.
pub(super) const NEVER: Duration = Duration::from_secs(86400 * 365);

/// How the request goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Going {
    /// Whether there is more of it.
    pub(super) partly: bool,
    /// Bytes that the origin has taken.
    pub(super) written: u64,
    /// Whether it is the origin that takes nothing.
    pub(super) blocked: bool,
}

/// The patience of one exchange.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    limits: &'a Limits,
    streams: bool,
    start: Instant,
    /// What is waited for, and until when before it is judged.
    deadline: Option<(Wait, Instant)>,
    /// Of the request, as the origin takes it.
    pace: Pace,
    /// Bytes of the request that the pace knows of.
    written: u64,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The origin to take more of the request.
    Write,
    /// The head.
    Head,
}

impl<'a> Patience<'a> {
    /// `streams`: silence is no sin.
    pub(super) fn new(limits: &'a Limits, streams: bool) -> Self {
        Self {
            limits,
            streams,
            start: Instant::now(),
            deadline: None,
            pace: Pace::new(PaceRules {
                gap: limits.origin_gap,
                rate: limits.origin_rate,
                window: limits.origin_rate_window,
            }),
            written: 0,
        }
    }

    /// Time since the request's end, or since its beginning where there is more of it.
    pub(super) fn took(&self) -> Duration {
        match self.deadline {
            Some((Wait::Head, deadline)) if !self.streams => {
                (deadline - self.limits.origin_first_byte).elapsed()
            }
            _ => self.start.elapsed(),
        }
    }

    /// Waits, but not for ever.
    pub(super) fn poll(
        &mut self,
        going: Going,
        mut timer: Pin<&mut Sleep>,
        context: &mut Context<'_>,
    ) -> Poll<SendError> {
        loop {
            let waits = if self.streams {
                Ok(self.wait_as_tunnel(going))
            } else if going.partly {
                self.wait_to_write(going)
            } else {
                Ok(Some(self.wait_for_head()))
            };
            let Ok(deadline) = waits else { return Poll::Ready(SendError::HttpResponseTimeout) };
            let Some(deadline) = deadline else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(context));
            if self.streams || !going.partly {
                return Poll::Ready(SendError::HttpResponseTimeout);
            }
            self.deadline = None;
        }
    }

    fn wait_as_tunnel(&mut self, going: Going) -> Option<Instant> {
        if going.written != self.written {
            self.written = going.written;
            self.deadline = None;
        }
        let deadline = match self.deadline {
            Some((_, deadline)) => deadline,
            None => Instant::now() + self.limits.tunnel_idle,
        };
        self.deadline = Some((Wait::Head, deadline));
        Some(deadline)
    }

    fn wait_for_head(&mut self) -> Instant {
        match self.deadline {
            Some((Wait::Head, deadline)) => deadline,
            _ => {
                let deadline = Instant::now() + self.limits.origin_first_byte;
                self.deadline = Some((Wait::Head, deadline));
                deadline
            }
        }
    }

    fn wait_to_write(&mut self, going: Going) -> Result<Option<Instant>, TooSlow> {
        let taken = going.written - self.written;
        if taken > 0 {
            self.written = going.written;
            self.deadline = None;
            let taken = usize::try_from(taken).unwrap_or(usize::MAX);
            self.pace.received(taken, clock::now().boot);
        }
        if !going.blocked {
            self.pace.idle();
            self.deadline = None;
        } else if self.deadline.is_none() {
            let patience = self.pace.wait(clock::now().boot)?;
            self.deadline = Some((Wait::Write, Instant::now() + patience));
        }
        Ok(self.deadline.map(|(_, deadline)| deadline))
    }
}
