//! A request on one connection: sends it, and reads up to the final head.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::config::Limits;
use crate::http1::{HeadLimits, ParsedResponse, ResponseParser, remove_hop_by_hop};

use super::SendError;
use super::connect::Connection;
use super::patience::{Going, NEVER, Patience};
use super::transport::Interim;
use super::upload::{Upload, UploadError};

/// Bytes read at once for a head.
const READ: usize = 8 * 1024;

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
    patience: Patience<'a>,
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
            patience: Patience::new(limits, false),
        }
    }

    /// Sends and reads at once until the final head is there.
    ///
    /// # Errors
    /// When none came, and whether any part of a response did.
    pub(super) async fn run(mut self) -> Result<Response, (SendError, bool)> {
        let mut timer = pin!(tokio::time::sleep(NEVER));
        let outcome = poll_fn(|context| {
            if let Poll::Ready(outcome) = self.poll_progress(context) {
                return Poll::Ready(outcome);
            }
            let going = Going {
                partly: self.sent == Sent::Partly,
                written: self.upload.written,
                blocked: self.upload.blocked,
            };
            self.patience.poll(going, timer.as_mut(), context).map(Err)
        })
        .await;
        match outcome {
            Ok(parsed) => Ok(Response { parsed, sent: self.sent, took: self.patience.took() }),
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
}
