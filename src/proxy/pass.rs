//! Streaming through: never stored, never shared, back-pressure end to end.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use super::arrive::{Moments, is_error};
use super::body::Limited;
use super::{Ask, Worker};
use crate::clock;
use crate::listener::{Pressure, Response};
use crate::message::{Body, BodyError, Refusal};
use crate::origin::{Framing, SendError};
use crate::semantics::{CacheStatus, Forward, Outcome, is_unsafe, lookup_allowed};
use crate::store::Stored;
use crate::telemetry::Record;

impl Worker {
    /// Sends the request on as it came and hands the answer back.
    pub(super) async fn pass(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        body: Body,
        status: CacheStatus,
        record: Box<Record>,
    ) -> Response {
        self.send_on(ask, body, None, status, record).await
    }

    /// As [`Worker::pass`], for a request without a body that could not be answered from `stale`:
    /// where the origin fails, that may still stand in.
    pub(super) async fn alone(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        stale: Option<Arc<Stored>>,
        status: CacheStatus,
        record: Box<Record>,
    ) -> Response {
        self.send_on(ask, Body::Empty, stale, status, record).await
    }

    async fn send_on(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        body: Body,
        stale: Option<Arc<Stored>>,
        status: CacheStatus,
        mut record: Box<Record>,
    ) -> Response {
        let now = clock::now();
        if self.edge.pressure.step() >= Pressure::Shed {
            let why = status.forward.unwrap_or(Forward::Bypass);
            return match &stale {
                Some(stale) if self.may_stand_in(ask, stale, now) => {
                    self.answer_stored_on_error(ask, stale, why, now, record)
                }
                _ => match self.answer_partly_on_error(ask, why, now, record) {
                    Ok(response) => response,
                    Err(record) => self.refusal(Refusal::Overload, record, now),
                },
            };
        }
        let alone = matches!(body, Body::Empty)
            && ask.request.has_range()
            && lookup_allowed(&ask.request, &ask.policy).is_ok();
        let body = Limited::wrap(body, ask.policy.body_bytes);
        let outgoing = self.outgoing(ask, self.passed_fields(ask), body);
        let origin = self.edge.origin_of(ask.site, &ask.policy);
        let site = self.edge.number_of(ask.site);
        let interim = ask.interim.clone();
        let passing =
            alone.then(|| self.edge.fills.passing(ask.key.hash, || self.edge.purges.epoch()));
        let epoch = self.edge.purges.epoch();
        let last_fill = self.edge.fills.next_number().saturating_sub(1);
        let requested = clock::now();
        let sent = self.origins.send(origin, site, outgoing, move |head| interim.send(head)).await;
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(SendError::RequestBody(BodyError::TooLarge)) => {
                return self.refusal(Refusal::BodyTooLarge, record, clock::now());
            }
            Err(error) => {
                tracing::debug!(%error, origin, "origin gave no answer");
                let (code, word) = super::error::status_of(&error);
                let why = status.forward.unwrap_or(Forward::Bypass);
                return self.failed(ask, stale.as_ref(), why, code, word, record);
            }
        };
        let received = clock::now();
        if answer.head.status == StatusCode::NOT_MODIFIED && !is_conditional(&ask.request.headers) {
            // It confirms something that nobody asked about.
            let why = status.forward.unwrap_or(Forward::Bypass);
            let (code, word) = (StatusCode::BAD_GATEWAY, "http_protocol_error");
            return self.failed(ask, stale.as_ref(), why, code, word, record);
        }
        if is_error(answer.head.status) {
            let why = status.forward.unwrap_or(Forward::Bypass);
            if let Some(stale) = &stale
                && self.may_stand_in(ask, stale, received)
            {
                return self.answer_stored_on_error(ask, stale, why, received, record);
            }
            match self.answer_partly_on_error(ask, why, received, record) {
                Ok(response) => return response,
                Err(back) => record = back,
            }
        }
        let moments = Moments { requested, received };
        if let Some(passing) = passing
            && answer.head.status == StatusCode::PARTIAL_CONTENT
        {
            let (answer, status) = self.copy_206(ask, answer, passing, moments, status);
            let outcome = if status.stored { Outcome::Miss } else { Outcome::Pass };
            return self.relay(ask, answer, status, outcome, record);
        }
        if ask.request.method == http::Method::HEAD {
            self.head_seen(ask, epoch, &answer.head, moments);
            self.part_head_seen(ask, &answer.head, moments);
        } else if is_unsafe(&ask.request.method) {
            let moments = Moments { requested, received };
            if let Some(posted) = self.changed(ask, (epoch, last_fill), &mut answer, moments) {
                return self.answer_posted(ask, answer, posted, status, record);
            }
        } else if status.detail == Some("uncacheable") && answer.framing != Framing::Close {
            // What it was remembered for may be over.
            let length = match answer.framing {
                Framing::Length(length) => Some(length),
                Framing::None | Framing::Chunked | Framing::Close => None,
            };
            if self.judge(ask, &ask.request, &answer.head, length, moments, 0).is_ok() {
                let key = self.edge.store.fill_key(&ask.key, &ask.request.headers);
                self.edge.store.forget_uncacheable(key);
            }
        }
        self.relay(ask, answer, status, Outcome::Pass, record)
    }
}

/// Whether a 304 may answer it (RFC 9110 section 13.1).
pub(super) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_NONE_MATCH) || headers.contains_key(header::IF_MODIFIED_SINCE)
}
