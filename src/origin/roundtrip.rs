//! A request on one connection: sends it, and reads up to the final head.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::{Instant, Sleep};

use crate::clock;
use crate::config::Limits;
use crate::http1::{HeadLimits, ParsedResponse, ResponseParser, remove_hop_by_hop};

use super::SendError;
use super::connect::Connection;
use super::pace::{Pace, PaceRules, TooSlow};
use super::transport::Interim;
use super::upload::{Upload, UploadError};

/// Bytes read at once for a head.
const READ: usize = 8 * 1024;

/// A timer that is set before it is first waited for.
const NEVER: Duration = Duration::from_secs(86400 * 365);

/// Bounds on a response head.
pub(super) fn head_limits(limits: &Limits) -> HeadLimits {
    HeadLimits {
        head_bytes: limits.origin_head_bytes,
        field_bytes: limits.origin_head_bytes,
        cookie_bytes: limits.origin_head_bytes,
        fields: limits.origin_fields,
        target_bytes: limits.origin_head_bytes,
    }
}

/// One request and the way to its final head.
pub(super) struct Exchange<'a> {
    connection: &'a mut Connection,
    upload: &'a mut Upload,
    method: &'a Method,
    limits: &'a Limits,
    interim: &'a mut Interim<'a>,
    parser: ResponseParser,
    interims: u32,
    answered: bool,
    sent: Sent,
    /// What is waited for, and until when before it is judged.
    deadline: Option<(Wait, Instant)>,
    /// Of the request, as the origin takes it.
    pace: Pace,
    /// Bytes of the request that the pace knows of.
    written: u64,
}

/// How far a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is with the socket as a whole.
    Whole,
    /// There is more of it.
    Partly,
    /// The socket takes no more.
    Lost,
}

/// A final head.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) parsed: ParsedResponse,
    /// How far the request got before it: an origin may answer early.
    pub(super) sent: Sent,
    /// Time from the request's end to it.
    pub(super) took: Duration,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The origin to take more of the request.
    Write,
    /// The head.
    Head,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        connection: &'a mut Connection,
        upload: &'a mut Upload,
        method: &'a Method,
        limits: &'a Limits,
        interim: &'a mut Interim<'a>,
    ) -> Self {
        Self {
            connection,
            upload,
            method,
            limits,
            interim,
            parser: ResponseParser::default(),
            interims: 0,
            answered: false,
            sent: Sent::Partly,
            deadline: None,
            pace: Pace::new(PaceRules {
                gap: limits.origin_gap,
                rate: limits.origin_rate,
                window: limits.origin_rate_window,
            }),
            written: 0,
        }
    }

    /// Sends and reads at once until the final head is there.
    ///
    /// # Errors
    /// When none came, and whether any part of a response did.
    pub(super) async fn run(mut self) -> Result<Response, (SendError, bool)> {
        let start = Instant::now();
        let mut timer = pin!(tokio::time::sleep(NEVER));
        let outcome = poll_fn(|context| {
            if let Poll::Ready(outcome) = self.poll_progress(context) {
                return Poll::Ready(outcome);
            }
            self.poll_patience(timer.as_mut(), context).map(Err)
        })
        .await;
        match outcome {
            Ok(parsed) => {
                let since = match self.deadline {
                    Some((Wait::Head, deadline)) => deadline - self.limits.origin_first_byte,
                    _ => start,
                };
                Ok(Response { parsed, sent: self.sent, took: since.elapsed() })
            }
            Err(error) => Err((error, self.answered)),
        }
    }

    fn poll_progress(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ParsedResponse, SendError>> {
        if self.sent == Sent::Partly {
            match self.upload.poll(self.connection, context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.sent = Sent::Whole,
                // There may still be an answer to read.
                Poll::Ready(Err(UploadError::Write)) => self.sent = Sent::Lost,
                Poll::Ready(Err(UploadError::Body(error))) => {
                    return Poll::Ready(Err(SendError::RequestBody(error)));
                }
            }
        }
        loop {
            match self.parse() {
                Ok(Some(response)) => return Poll::Ready(Ok(response)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            match self.connection.poll_read(READ, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(read)) if read > 0 => self.answered = true,
                Poll::Ready(_) => {
                    let reused = self.connection.reused;
                    return Poll::Ready(Err(SendError::ConnectionTerminated { reused }));
                }
            }
        }
    }

    /// The final head, if it is there; interim ones before it are handed on.
    fn parse(&mut self) -> Result<Option<ParsedResponse>, SendError> {
        loop {
            let limits = head_limits(self.limits);
            let parsed = self.parser.parse(&mut self.connection.buffer, self.method, &limits);
            let Some(mut response) = parsed.map_err(SendError::HttpProtocolError)? else {
                return Ok(None);
            };
            if !response.head.status.is_informational() {
                return Ok(Some(response));
            }
            self.parser = ResponseParser::default();
            self.interims += 1;
            if self.interims > self.limits.origin_interims {
                return Err(SendError::HttpProtocolError("too many interim responses"));
            }
            match response.head.status {
                StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(SendError::HttpProtocolError("switches protocols unasked"));
                }
                StatusCode::CONTINUE => {}
                _ => {
                    remove_hop_by_hop(&mut response.head.headers);
                    (self.interim)(response.head);
                }
            }
        }
    }

    /// Waits, but not for ever. The head has its time from the end of the request, which interim
    /// responses and drips do not prolong. While the request is sent, the origin must keep pace.
    fn poll_patience(
        &mut self,
        mut timer: Pin<&mut Sleep>,
        context: &mut Context<'_>,
    ) -> Poll<SendError> {
        loop {
            let waits = if self.sent == Sent::Partly {
                self.wait_to_write()
            } else {
                Ok(self.wait_for_head())
            };
            let Ok(deadline) = waits else { return Poll::Ready(SendError::HttpResponseTimeout) };
            let Some(deadline) = deadline else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(context));
            if self.sent != Sent::Partly {
                return Poll::Ready(SendError::HttpResponseTimeout);
            }
            self.deadline = None;
        }
    }

    fn wait_for_head(&mut self) -> Option<Instant> {
        match self.deadline {
            Some((Wait::Head, deadline)) => Some(deadline),
            _ => {
                let deadline = Instant::now() + self.limits.origin_first_byte;
                self.deadline = Some((Wait::Head, deadline));
                Some(deadline)
            }
        }
    }

    fn wait_to_write(&mut self) -> Result<Option<Instant>, TooSlow> {
        let taken = self.upload.written - self.written;
        if taken > 0 {
            self.written = self.upload.written;
            self.deadline = None;
            let taken = usize::try_from(taken).unwrap_or(usize::MAX);
            self.pace.received(taken, clock::now().boot);
        }
        if !self.upload.blocked {
            self.pace.idle();
            self.deadline = None;
        } else if self.deadline.is_none() {
            let patience = self.pace.wait(clock::now().boot)?;
            self.deadline = Some((Wait::Write, Instant::now() + patience));
        }
        Ok(self.deadline.map(|(_, deadline)| deadline))
    }
}
