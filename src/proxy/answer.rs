//! From what is stored, arriving or passing to the answer that a client gets.

use std::collections::VecDeque;
use std::sync::Arc;

use http::header::{AGE, HeaderName, HeaderValue, VIA};
use http::{HeaderMap, Method, StatusCode};

use super::body::Chain;
use super::fields::{CACHE_STATUS, X_REQUEST_ID, add_cache_status, add_date};
use super::segments::Reading;
use super::{Ask, Worker};
use crate::clock::{self, Now};
use crate::listener::Response;
use crate::message::{Added, Body};
use crate::origin::{Answer, Framing};
use crate::semantics::{
    CacheStatus, Forward, Outcome, Part, Shape, TAG_FIELDS, Trust, add_vary, asks_plainly, shape,
};
use crate::store::{Fill, FillHead, Stored, StoredBody};
use crate::telemetry::Record;

const ATOLL_CACHE_CONTROL: HeaderName = HeaderName::from_static("atoll-cache-control");

/// Usual size of what is added to a plain hit.
const ADDED_BYTES: usize = 160;

impl Worker {
    /// Answers from the store.
    pub(super) fn answer_stored(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        stored: &Arc<Stored>,
        outcome: Outcome,
        now: Now,
        record: Box<Record>,
    ) -> Response {
        stored.note_use(now);
        let status = CacheStatus::hit(stored.head().ttl(now));
        self.shaped(ask, stored, status, outcome, now, record)
    }

    /// Answers stale because the origin failed (RFC 5861 section 4).
    pub(super) fn answer_stored_on_error(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        stored: &Arc<Stored>,
        why: Forward,
        now: Now,
        record: Box<Record>,
    ) -> Response {
        let status = CacheStatus {
            forward: Some(why),
            hit: false,
            detail: Some("stale-if-error"),
            ..CacheStatus::hit(stored.head().ttl(now))
        };
        self.shaped(ask, stored, status, Outcome::Stale, now, record)
    }

    fn shaped(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        stored: &Arc<Stored>,
        status: CacheStatus,
        outcome: Outcome,
        now: Now,
        mut record: Box<Record>,
    ) -> Response {
        let head = stored.head();
        record.tagged = head.tagged();
        let offer = self.offer(ask, stored, now);
        // Rules may read and change any field.
        if offer.is_none()
            && head.is_plain
            && ask.policy.rules.is_none()
            && asks_plainly(&ask.request)
            && stored.body().segments().is_none()
        {
            return self.finish_plain(ask, stored, &status, outcome, now, record);
        }
        let coded = offer.as_deref();
        let copy = coded.and_then(|offer| offer.body.as_ref());
        let length = Some(copy.unwrap_or(stored.body()).len());
        let mut shape = shape(
            coded.and_then(|offer| offer.request.as_ref()).unwrap_or(&ask.request),
            head.status,
            coded.and_then(|offer| offer.fields.clone()).unwrap_or_else(|| head.fields.map()),
            length,
            Some(&head.terms),
            &ask.policy,
            now,
        );
        if coded.is_some() {
            add_vary(&mut shape.headers);
        }
        let body = match stored.body().segments() {
            Some(segments) => Reading::new(self, ask, head, segments).part(&shape.part, None),
            None => {
                let whole = || copy.map_or_else(|| stored.whole(), StoredBody::whole);
                let range = |start, length| match copy {
                    Some(copy) => copy.range(start, length),
                    None => stored.range(start, length),
                };
                assemble(&shape.part, whole, range)
            }
        };
        self.finish(ask, shape, body, &status, outcome, now, record)
    }

    /// Answers with what is arriving, to be read along. `own` has all fields of the answer, for the
    /// request that it answers: they are not the stored ones, and have no `Age` of ours.
    #[expect(clippy::too_many_arguments, reason = "each is one independent part of an answer")]
    pub(super) fn answer_arriving(
        &self,
        ask: &Ask,
        fill: &Arc<Fill>,
        arrived: &FillHead,
        own: Option<&HeaderMap>,
        status: CacheStatus,
        outcome: Outcome,
        mut record: Box<Record>,
    ) -> Response {
        let now = clock::now();
        let head = &arrived.head;
        record.tagged = head.tagged();
        let fields = own.cloned().unwrap_or_else(|| head.fields.map());
        let offer = self.offer_arriving(ask, head.status, &fields, arrived.length);
        let coded = offer.as_deref();
        let mut shape = shape(
            coded.and_then(|offer| offer.request.as_ref()).unwrap_or(&ask.request),
            head.status,
            coded.and_then(|offer| offer.fields.clone()).unwrap_or(fields),
            arrived.length,
            own.is_none().then_some(&head.terms),
            &ask.policy,
            now,
        );
        if coded.is_some() {
            add_vary(&mut shape.headers);
        }
        let status = CacheStatus { ttl: Some(head.terms.ttl(now)), ..status };
        let body = assemble(
            &shape.part,
            || fill.read(0, arrived.length).into_body(),
            |start, length| fill.read(start, Some(length)).into_body(),
        );
        self.finish(ask, shape, body, &status, outcome, now, record)
    }

    /// Hands the origin's answer on as it is.
    pub(super) fn relay(
        &self,
        ask: &Ask,
        answer: Answer,
        status: CacheStatus,
        outcome: Outcome,
        mut record: Box<Record>,
    ) -> Response {
        let now = clock::now();
        record.origin = Some(answer.endpoint);
        let mut headers = self.end_to_end(ask, answer.head.headers);
        add_date(&mut headers, now);
        let head_length = match answer.framing {
            Framing::None => content_length(&headers),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Close => None,
        };
        self.relayed_fields(ask, answer.head.status, &mut headers, head_length);
        let shape = Shape { status: answer.head.status, headers, part: Part::Whole, head_length };
        self.finish(ask, shape, answer.body, &status, outcome, now, record)
    }

    /// Fields of an origin's answer without those that speak to us.
    pub(super) fn end_to_end(&self, ask: &Ask, mut headers: HeaderMap) -> HeaderMap {
        if !ask.policy.keep_tags {
            for name in TAG_FIELDS {
                headers.remove(name);
            }
        }
        headers.remove(ATOLL_CACHE_CONTROL);
        headers
    }

    /// All of what is stored, with its fields as they are and ours behind them: what [`Worker::finish`]
    /// makes of the same, but for the map.
    fn finish_plain(
        &self,
        ask: &Ask,
        stored: &Arc<Stored>,
        status: &CacheStatus,
        outcome: Outcome,
        now: Now,
        mut record: Box<Record>,
    ) -> Response {
        let status = note(&mut record, StatusCode::OK, status, outcome, ask, now);
        let head = stored.head();
        let key = ask.request.asks.key.then(|| ask.readable_key());
        let mut added = Added::with_capacity(ADDED_BYTES);
        let age = head.terms.age(now).as_secs();
        added.add(&AGE, |out| out.push_str(itoa::Buffer::new().format(age)));
        added.add(&VIA, |out| out.push_str(self.edge.via.to_str().unwrap_or_default()));
        added.add(&CACHE_STATUS, |out| status.write(key.as_deref(), out));
        added.add(&X_REQUEST_ID, |out| out.push_str(ask.id.as_str()));
        let mut response = Response::new(StatusCode::OK, stored.whole());
        response.stored = Some((head.fields.clone(), added));
        response.record = Some(record);
        response
    }

    #[expect(clippy::too_many_arguments, reason = "each is one independent part of an answer")]
    pub(super) fn finish(
        &self,
        ask: &Ask,
        shape: Shape,
        body: Body,
        status: &CacheStatus,
        outcome: Outcome,
        now: Now,
        mut record: Box<Record>,
    ) -> Response {
        let status = note(&mut record, shape.status, status, outcome, ask, now);
        let mut headers = shape.headers;
        headers.append(VIA, self.edge.via.clone());
        let key = ask.request.asks.key.then(|| ask.readable_key());
        add_cache_status(&mut headers, &status, key.as_deref());
        if let Ok(id) = HeaderValue::from_str(ask.id.as_str()) {
            headers.insert(X_REQUEST_ID, id);
        }
        let bodiless = ask.request.method == Method::HEAD
            || matches!(shape.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Response {
            status: shape.status,
            stored: None,
            headers,
            body: if bodiless { Body::Empty } else { body },
            head_length: shape.head_length,
            close: false,
            record: Some(record),
            tunnel: None,
        }
    }
}

/// Notes what the answer is; gives what is said of it.
fn note(
    record: &mut Record,
    status: StatusCode,
    cache: &CacheStatus,
    outcome: Outcome,
    ask: &Ask,
    now: Now,
) -> CacheStatus {
    record.status = status.as_u16();
    record.outcome = outcome;
    record.forward = cache.forward;
    record.ttl = cache.ttl;
    record.stored = cache.stored;
    let told = with_trust(*cache, ask.moment.trust);
    record.detail = told.detail;
    record.first_byte = Some(now.since(record.started));
    told
}

/// Says where memory was not trusted, or was all the same, unless something else is to be said.
fn with_trust(status: CacheStatus, trust: Trust) -> CacheStatus {
    let looked = status.hit || status.forward.is_some_and(Forward::has_looked);
    match status.detail {
        None if looked => CacheStatus { detail: trust.detail(), ..status },
        _ => status,
    }
}

/// The body of a part: all, a range, or several ranges behind heads of their own.
pub(super) fn assemble(
    part: &Part,
    whole: impl FnOnce() -> Body,
    mut range: impl FnMut(u64, u64) -> Body,
) -> Body {
    match part {
        Part::None => Body::Empty,
        Part::Whole => whole(),
        Part::Range { start, length } => range(*start, *length),
        Part::Multipart { pieces, tail, length } => {
            let mut row = VecDeque::with_capacity(pieces.len() * 2 + 1);
            for (head, start, length) in pieces {
                row.push_back(Body::Full(head.clone()));
                row.push_back(range(*start, *length));
            }
            row.push_back(Body::Full(tail.clone()));
            Chain::wrap(row, *length)
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
