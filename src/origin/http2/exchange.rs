//! One request on one stream, up to its final head.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::client::ResponseFuture;
use http::StatusCode;

use super::download::{Download, Held};
use super::head;
use super::shelf::Slot;
use super::upload::{Upload, UploadError, Uploading};
use crate::clock;
use crate::http1::remove_hop_by_hop;
use crate::message::{Body, ResponseHead};
use crate::origin::endpoint::Flight;
use crate::origin::patience::{Going, NEVER, Patience};
use crate::origin::place::Place;
use crate::origin::set::Origin;
use crate::origin::transport::{Failure, Interim, Reached, observe_answer, observe_failure, pace};
use crate::origin::{Answer, Framing, Head, SendError};

/// One request and the stream that it goes over.
pub(in crate::origin) struct Asked<'a> {
    pub(in crate::origin) origin: &'a Arc<Origin>,
    pub(in crate::origin) head: &'a Head,
    pub(in crate::origin) slot: Slot,
    pub(in crate::origin) flight: Flight,
    pub(in crate::origin) place: Arc<Place>,
}

/// Sends a request and waits for its final head.
pub(in crate::origin) async fn attempt(
    asked: Asked<'_>,
    body: Body,
    interim: &mut Interim<'_>,
) -> Result<Answer, Failure> {
    let Asked { origin, head, slot, flight, place } = asked;
    let endpoint = Arc::clone(&slot.session.endpoint);
    let spare = body.replay();
    let fails = |error: SendError, reached: Reached, body: Option<Body>| {
        observe_failure(origin, &endpoint, &error);
        Failure { error, endpoint: Arc::clone(&endpoint), reached, body }
    };
    let begun = clock::now().boot;
    let length = body.exact_size();
    let request = match head::request(head, endpoint.tls.is_some(), length) {
        Ok(request) => request,
        Err(error) => return Err(fails(error, Reached::Answered, None)),
    };
    let (mut send, reused) = slot.session.begin(begun);
    let nothing = length == Some(0);
    let (response, stream) = match send.send_request(request, nothing) {
        Ok(parts) => parts,
        Err(error) if error.is_go_away() || error.is_io() => {
            slot.session.retire();
            return Err(fails(SendError::NotProcessed, Reached::NotProcessed, Some(body)));
        }
        Err(_unsayable) => {
            let error = SendError::HttpProtocolError("request cannot be said in HTTP/2");
            return Err(fails(error, Reached::Answered, None));
        }
    };
    drop(send);
    let upload = Upload::new(origin, stream, (!nothing).then_some(body), head.streams);
    let mut exchange = Exchange {
        origin,
        head,
        response,
        upload,
        sent: if nothing { Sent::Whole } else { Sent::Partly },
        interim,
        interims: 0,
        reused,
    };
    let mut patience = Patience::new(&origin.limits, head.streams);
    let outcome = exchange.run(&mut patience).await;
    let Exchange { upload, sent, .. } = exchange;
    let (parts, stream) = match outcome {
        Ok(response) => response.into_parts(),
        Err((error, reached)) => {
            if error == SendError::HttpResponseTimeout && slot.session.is_silent_since(begun) {
                // Nothing at all has come since: others would only wait for it, too.
                slot.session.retire();
            }
            let spare = match reached {
                Reached::NotProcessed => spare.or_else(|| upload.untouched()),
                _ => spare,
            };
            return Err(fails(error, reached, spare));
        }
    };
    let status = parts.status;
    let ends = stream.is_end_stream();
    let (found, framing) = match head::response(parts, &head.method, ends, &origin.limits) {
        Ok(sound) => sound,
        Err(rule) => {
            return Err(fails(SendError::HttpProtocolError(rule), Reached::Answered, None));
        }
    };
    observe_answer(origin, &endpoint, status, patience.took());
    let pace = pace(&origin.limits, &found, head.streams);
    let held = Held::new(flight, slot, place);
    let (framing, left) = match framing {
        Framing::Length(length) if head.streams && length > 0 => (Framing::Chunked, Some(length)),
        Framing::Length(length) => (framing, Some(length)),
        _ => (framing, None),
    };
    let body = if ends || matches!(framing, Framing::None | Framing::Length(0)) {
        Body::Empty
    } else {
        // An origin that refuses has no use for the rest of the request.
        let wanted = sent == Sent::Partly && status.is_success();
        let upload = wanted.then(|| Uploading::start(upload));
        Body::stream(Download::new(origin, (stream, held), left, head.streams, upload, pace))
    };
    Ok(Answer { head: found, body, framing, endpoint: endpoint.address })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    Partly,
    /// The stream takes no more.
    Lost,
}

struct Exchange<'a, 'b> {
    origin: &'a Origin,
    head: &'a Head,
    response: ResponseFuture,
    upload: Upload,
    sent: Sent,
    interim: &'a mut Interim<'b>,
    interims: u32,
    reused: bool,
}

type Response = http::Response<h2::RecvStream>;

impl Exchange<'_, '_> {
    async fn run(&mut self, patience: &mut Patience<'_>) -> Result<Response, (SendError, Reached)> {
        let mut timer = pin!(tokio::time::sleep(NEVER));
        poll_fn(|context| {
            if let Poll::Ready(outcome) = self.poll_progress(context) {
                return Poll::Ready(outcome);
            }
            let going = Going {
                partly: self.sent == Sent::Partly,
                written: self.upload.written,
                blocked: self.upload.blocked,
            };
            let patience = patience.poll(going, timer.as_mut(), context);
            patience.map(|error| Err((error, Reached::Unknown)))
        })
        .await
    }

    fn poll_progress(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response, (SendError, Reached)>> {
        if self.sent == Sent::Partly {
            match self.upload.poll(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.sent = Sent::Whole,
                // There may still be an answer to read.
                Poll::Ready(Err(UploadError::Gone)) => self.sent = Sent::Lost,
                Poll::Ready(Err(UploadError::Body(error))) => {
                    let error = SendError::RequestBody(error);
                    return Poll::Ready(Err((error, Reached::Unknown)));
                }
            }
        }
        while let Poll::Ready(Some(interim)) = self.response.poll_informational(context) {
            let outcome = match interim {
                Ok(interim) => self.hand_on(interim),
                Err(error) => Err(self.failed(&error)),
            };
            if let Err(failed) = outcome {
                return Poll::Ready(Err(failed));
            }
        }
        let response = Pin::new(&mut self.response).poll(context);
        response.map(|outcome| outcome.map_err(|error| self.failed(&error)))
    }

    fn hand_on(&mut self, interim: http::Response<()>) -> Result<(), (SendError, Reached)> {
        let breaks = |rule| (SendError::HttpProtocolError(rule), Reached::Answered);
        self.interims += 1;
        if self.interims > self.origin.limits.origin_interims {
            return Err(breaks("too many interim responses"));
        }
        let (parts, ()) = interim.into_parts();
        let status = parts.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(breaks("switches protocols unasked"));
        }
        if parts.headers.len() > self.origin.limits.origin_fields {
            return Err(breaks("head over its limits"));
        }
        if status != StatusCode::CONTINUE {
            let mut headers = parts.headers;
            remove_hop_by_hop(&mut headers);
            (self.interim)(ResponseHead { status, version: parts.version, headers });
        }
        Ok(())
    }

    /// What an error says about the request.
    fn failed(&self, error: &h2::Error) -> (SendError, Reached) {
        tracing::debug!(origin = self.origin.config.name, %error, path = self.head.target, "stream");
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        // h2 tells a GOAWAY only to streams beyond the last that it names.
        if error.is_remote() && (refused || error.is_go_away()) && self.interims == 0 {
            return (SendError::NotProcessed, Reached::NotProcessed);
        }
        if error.is_library() {
            let error = SendError::HttpProtocolError("HTTP/2 protocol error");
            return (error, Reached::Answered);
        }
        let reached = if self.interims == 0 { Reached::Unknown } else { Reached::Answered };
        (SendError::ConnectionTerminated { reused: self.reused && !error.is_reset() }, reached)
    }
}
