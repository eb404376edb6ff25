//! Incomplete responses at work: ranges answered from them, and 206 answers kept while they stream
//! to the client that asked (the rules are `semantics::partial`'s).
//!
//! ```text
//! Range --> nothing complete is usable --> a fresh part has it ---> 206, 304 or 416 from memory
//!                                     \--> the same excerpt ------> 206 as it came
//!                                      \-> to the origin as it came; its 206 is copied on the way
//! ```
//!
//! A range request is never made larger, shares nothing while it is under way, and its answer is
//! stored only when all of it has come. A stale part does not ask the origin to confirm it: the
//! range goes on as it came, and the answer's validator tells whether the part still holds. A 304
//! that the client did not ask for can so never arise.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};

use super::arrive::Moments;
use super::body::Chain;
use super::fields::add_date;
use super::{Ask, Worker};
use crate::clock::Now;
use crate::listener::Response;
use crate::message::{Body, BodyError, ResponseHead};
use crate::origin::{Answer, Framing};
use crate::semantics::{
    CacheStatus, ContentRange, Decision, Extent, Forward, HeadVerdict, Outcome, Part as Asked,
    Shape, StrongValidator, Verdict, decide, freshened, judge_head, lookup_allowed,
    may_serve_on_error, shape, shape_part,
};
use crate::store::{Head, NewHead, Part, Room, Stored, StoredBody};
use crate::telemetry::Record;

/// What something incomplete has for a request.
struct Found {
    shape: Shape,
    body: Body,
    ttl: i64,
}

/// A 206 that is copied on its way.
struct Keep {
    worker: Arc<Worker>,
    ask: Arc<Ask>,
    /// As the complete response would be that it is cut from.
    head: ResponseHead,
    range: ContentRange,
    /// Its body is what its `Content-Range` says.
    consistent: bool,
    validator: Option<StrongValidator>,
    moments: Moments,
    born: u64,
    fill: u64,
    /// Memory for the copy.
    _room: Room,
}

impl Worker {
    /// Answers from something incomplete, where that is fresh and holds all that is asked for.
    /// `complete` is what is stored and not usable.
    ///
    /// # Errors
    /// The record back, and a better reason to go forward where there is one.
    pub(super) fn answer_partly(
        &self,
        ask: &Ask,
        complete: Option<&Stored>,
        lease: bool,
        epoch: u64,
        now: Now,
        record: Box<Record>,
    ) -> Result<Response, (Box<Record>, Option<Forward>)> {
        let usable = |head: &Head, verdict| {
            let found = Some((&head.terms, verdict));
            let decision = decide(&ask.request, found, true, &ask.policy, lease, now, 1.0);
            // What is known to have been there later is not answered with what was there before.
            let newest = complete.is_none_or(|complete| {
                complete.head().terms.received.boot <= head.terms.received.boot
            });
            newest && matches!(decision, Decision::Hit { .. })
        };
        match self.partly(ask, epoch, now, usable) {
            Ok(Found { shape, body, ttl }) => {
                let status = CacheStatus::hit(ttl);
                Ok(self.finish(ask, shape, body, &status, Outcome::Hit, now, record))
            }
            Err(why) => Err((record, why)),
        }
    }

    /// Answers from something incomplete because the origin failed (RFC 5861 section 4).
    ///
    /// # Errors
    /// The record back.
    pub(super) fn answer_partly_on_error(
        &self,
        ask: &Ask,
        why: Forward,
        now: Now,
        record: Box<Record>,
    ) -> Result<Response, Box<Record>> {
        if lookup_allowed(&ask.request, &ask.policy).is_err() {
            return Err(record);
        }
        let (lease, epoch) = (self.edge.purges.lease(), self.edge.purges.epoch());
        let named = ask.request.headers.contains_key(header::AUTHORIZATION);
        let usable = |head: &Head, verdict| {
            (head.terms.authorized || !named)
                && may_serve_on_error(&head.terms, verdict, &ask.policy, lease, now)
        };
        let Ok(Found { shape, body, ttl }) = self.partly(ask, epoch, now, usable) else {
            return Err(record);
        };
        let status = CacheStatus {
            forward: Some(why),
            hit: false,
            detail: Some("stale-if-error"),
            ..CacheStatus::hit(ttl)
        };
        Ok(self.finish(ask, shape, body, &status, Outcome::Stale, now, record))
    }

    fn partly(
        &self,
        ask: &Ask,
        epoch: u64,
        now: Now,
        usable: impl Fn(&Head, Verdict) -> bool,
    ) -> Result<Found, Option<Forward>> {
        let request = &ask.request;
        if request.method != Method::GET {
            return Err(None);
        }
        let (store, purges) = (&self.edge.store, &self.edge.purges);
        let Some((part, verdict)) = store.lookup_part(&ask.key, &request.headers, purges, epoch)
        else {
            return Err(None);
        };
        let head = part.head();
        let fits = usable(head, verdict);
        let (fields, extent) = (&head.headers, part.extent());
        let shape = shape_part(request, fields, extent, &head.terms, &ask.policy, now);
        let has_it = shape.is_some();
        if fits
            && let Some(shape) = shape
            && let Some(body) = cut(&part, &shape.part)
        {
            return Ok(Found { shape, body, ttl: head.ttl(now) });
        }
        if let Some(found) = self.excerpt(ask, &part, epoch, now, usable) {
            return Ok(found);
        }
        let why = match (fits, has_it) {
            (true, _) => Forward::Partial,
            (false, true) => Forward::Stale,
            (false, false) => return Err(None),
        };
        let is_part = part.extent().validator().is_some();
        Err((is_part && request.has_range()).then_some(why))
    }

    /// A 206 as it came, for the very same `Range`.
    fn excerpt(
        &self,
        ask: &Ask,
        part: &Part,
        epoch: u64,
        now: Now,
        usable: impl Fn(&Head, Verdict) -> bool,
    ) -> Option<Found> {
        let request = &ask.request;
        // Nothing strong enough for the comparison that `If-Range` asks for.
        if request.headers.contains_key(header::IF_RANGE) {
            return None;
        }
        let range = lone_range(&request.headers)?;
        let (store, purges) = (&self.edge.store, &self.edge.purges);
        let (stored, verdict) =
            store.lookup_excerpt(part, &request.headers, range, purges, epoch)?;
        let (head, length) = (stored.head(), Some(stored.body().len()));
        if !usable(head, verdict) {
            return None;
        }
        let terms = Some(&head.terms);
        let shape = shape(request, head.status, &head.headers, length, terms, &ask.policy, now);
        let body = match shape.part {
            Asked::None => Body::Empty,
            Asked::Whole => stored.body().whole(),
            // Only of a 200 is anything cut.
            Asked::Range { .. } | Asked::Multipart { .. } => return None,
        };
        Some(Found { shape, body, ttl: head.ttl(now) })
    }

    /// Has a 206 copied while it streams, where it may be stored. `born` and `fill` were read
    /// before the request was sent.
    pub(super) fn copy_206(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        mut answer: Answer,
        born: u64,
        fill: u64,
        moments: Moments,
        mut status: CacheStatus,
    ) -> (Answer, CacheStatus) {
        let Some((keep, length, ttl)) = self.to_keep(ask, &answer, born, fill, moments) else {
            return (answer, status);
        };
        status.stored = true;
        status.ttl = Some(ttl);
        let by_length = matches!(answer.framing, Framing::Length(_));
        let body = std::mem::replace(&mut answer.body, Body::Empty);
        let chunks = Vec::new();
        answer.body =
            Body::stream(Tee { body, chunks, left: length, by_length, keep: Some(Box::new(keep)) });
        (answer, status)
    }

    /// What is needed to keep a 206, its length and its time to live; `None` where it is not kept.
    fn to_keep(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        answer: &Answer,
        born: u64,
        fill: u64,
        moments: Moments,
    ) -> Option<(Keep, u64, i64)> {
        let (request, headers) = (&ask.request, &answer.head.headers);
        let asked = request.has_range() && lone_range(&request.headers).is_some();
        if !asked || answer.head.status != StatusCode::PARTIAL_CONTENT || is_multipart(headers) {
            return None;
        }
        let range = ContentRange::of(headers)?;
        let length = match answer.framing {
            Framing::Length(length) => length,
            // One that grows longer or ends sooner is not kept at all.
            Framing::Chunked => range.size(),
            Framing::None | Framing::Close => return None,
        };
        let consistent = length == range.size();
        let validator = StrongValidator::of(headers, moments.received.wall);
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers = headers.clone();
        add_date(&mut head.headers, moments.received);
        if length == 0 || !self.is_self_contained(ask, validator.as_ref()) {
            return None;
        }
        let kept = self.judge(ask, request, &head, Some(length), moments, fill).ok()?;
        let keep = Keep {
            worker: Arc::clone(self),
            ask: Arc::clone(ask),
            head,
            range,
            consistent,
            validator,
            moments,
            born,
            fill,
            _room: self.edge.fills.room(length)?,
        };
        Some((keep, length, kept.terms.ttl(moments.received)))
    }

    /// Whether a 206 has all the fields of its response. To a request with `If-Range` an origin may
    /// leave away what the client has already (RFC 9110 section 15.3.7): that is of use only
    /// together with what has them here.
    fn is_self_contained(&self, ask: &Ask, validator: Option<&StrongValidator>) -> bool {
        if !ask.request.headers.contains_key(header::IF_RANGE) {
            return true;
        }
        let own = self.part(ask).and_then(|(part, _)| part.extent().validator().cloned());
        matches!((own, validator), (Some(own), Some(new)) if own.matches(new))
    }

    /// The part stored for a request.
    pub(super) fn part(&self, ask: &Ask) -> Option<(Part, Verdict)> {
        let (store, purges) = (&self.edge.store, &self.edge.purges);
        store.lookup_part(&ask.key, &ask.request.headers, purges, purges.epoch())
    }

    /// Forgets what is incomplete: there is something better.
    pub(super) fn forget_part(&self, ask: &Ask) {
        if let Some((part, _)) = self.part(ask) {
            self.edge.store.remove_part(&part);
        }
    }

    /// What a HEAD says of the resource holds for a part, too (RFC 9111 section 4.3.5). It may only
    /// be told to be out of date: a head alone does not freshen what is incomplete.
    pub(super) fn part_head_seen(&self, ask: &Ask, head: &ResponseHead, moments: Moments) {
        let Some((part, _)) = self.part(ask) else { return };
        let (old, total) = (part.head(), part.extent().total());
        let mut headers = head.headers.clone();
        if total.is_none() {
            headers.remove(header::CONTENT_LENGTH);
        }
        let verdict = judge_head(&old.headers, total.unwrap_or(0), head.status, &headers);
        if verdict == HeadVerdict::Invalidates {
            old.make_stale(moments.received.boot);
        }
    }
}

impl Keep {
    /// Stores it, all of it being there.
    fn store(self, body: &StoredBody) {
        let old = self.worker.part(&self.ask);
        match self.validator.clone() {
            Some(validator) if self.consistent => self.store_part(&validator, old, body),
            Some(_) | None => self.store_excerpt(old.map(|(part, _)| part), body),
        }
    }

    /// Stores a part, together with what is there already where both have one validator.
    fn store_part(
        &self,
        validator: &StrongValidator,
        old: Option<(Part, Verdict)>,
        body: &StoredBody,
    ) {
        let store = &self.worker.edge.store;
        let together = match &old {
            Some((old, Verdict::Alive)) => self.join(old, validator, body),
            _ => None,
        };
        if let Some((head, extent, body)) = together {
            return self.insert(head, body, extent);
        }
        let received = self.moments.received.boot;
        let outrun = old.as_ref().is_some_and(|(old, _)| old.head().terms.received.boot > received);
        // One that needs the fields of another, or that another has outrun, is nothing by itself.
        if outrun || self.ask.request.headers.contains_key(header::IF_RANGE) {
            return;
        }
        let Some(mut head) = self.new_head(&self.head, body.len()) else { return };
        head.headers.remove(header::CONTENT_RANGE);
        debug_assert!(body.len() <= store.largest_body(), "judged before it was copied");
        self.insert(head, body.clone(), Extent::part(&self.range, validator.clone()));
    }

    /// The part that it makes together with a stored one (RFC 9110 section 15.3.7.3); `None` where
    /// they must stay apart. Its purge fate: it answers to the rows of both, and since the old part
    /// was alive at an epoch no older than `born`, from `born` on.
    fn join(
        &self,
        old: &Part,
        validator: &StrongValidator,
        body: &StoredBody,
    ) -> Option<(NewHead, Extent, StoredBody)> {
        let worker = &self.worker;
        let most = worker.edge.store.largest_body();
        let combined = old.extent().combined(&self.range, validator, most)?;
        let body = old.joined(&combined, body);
        let conditional = self.ask.request.headers.contains_key(header::IF_RANGE);
        let (mut head, _) = worker.joined_head(old, &self.head.headers, conditional, |head| {
            self.new_head(head, body.len())
        })?;
        head.lineage = Some(old.head().lineage);
        Some((head, combined.extent, body))
    }

    /// Stores it as the whole where nothing is missing, else as a part.
    fn insert(&self, mut head: NewHead, body: StoredBody, extent: Extent) {
        let edge = &self.worker.edge;
        if extent.is_complete() {
            head.lineage = None;
            let whole = edge.store.stored(Arc::new(Head::new(head)), body);
            if edge.store.insert(&whole, &edge.purges) {
                self.worker.forget_part(&self.ask);
            }
            return;
        }
        head.key = edge.store.part_key(&head.key);
        head.status = StatusCode::PARTIAL_CONTENT;
        edge.store.insert_part(Arc::new(Head::new(head)), body, extent, &edge.purges);
    }

    /// Stores it for the very same `Range`, beneath what lies under the part's key: a note, where
    /// nothing does.
    fn store_excerpt(&self, old: Option<Part>, body: &StoredBody) {
        let edge = &self.worker.edge;
        let asked = &self.ask.request.headers;
        let Some(range) = lone_range(asked).filter(|_| !asked.contains_key(header::IF_RANGE))
        else {
            return;
        };
        let Some(mut head) = self.new_head(&self.head, body.len()) else { return };
        head.status = StatusCode::PARTIAL_CONTENT;
        let part_key = edge.store.part_key(&head.key);
        let lineage = match old {
            Some(part) if part.extent().validator().is_some() => part.head().lineage,
            note => {
                let lineage = note.map(|note| note.head().lineage);
                let note = NewHead { key: part_key.clone(), lineage, ..head.clone() };
                let note = Arc::new(Head::new(note));
                let extent = Extent::excerpt(self.consistent.then_some(&self.range));
                let nothing = StoredBody::One(Bytes::new());
                let lineage = note.lineage;
                if !edge.store.insert_part(note, nothing, extent, &edge.purges) {
                    return;
                }
                lineage
            }
        };
        head.key = edge.store.excerpt_key(&part_key, lineage, range);
        let stored = edge.store.stored(Arc::new(Head::new(head)), body.clone());
        edge.store.insert(&stored, &edge.purges);
    }

    fn new_head(&self, head: &ResponseHead, length: u64) -> Option<NewHead> {
        let (worker, ask) = (&self.worker, &self.ask);
        let length = Some(length);
        let kept = worker.judge(ask, &ask.request, head, length, self.moments, self.fill).ok()?;
        Some(worker.new_head(ask, head, kept, self.born, self.fill, None))
    }
}

impl Worker {
    /// Head of what is put together from a stored part and a 206 with these fields, which replace
    /// the stored ones (RFC 9111 section 3.4), as `judged` judges it; and all its fields. `None`
    /// where the two do not go together although their validators say so: then one of them is wrong,
    /// or it was not for the same requests.
    pub(super) fn joined_head(
        &self,
        old: &Part,
        new: &HeaderMap,
        may_be_left_away: bool,
        judged: impl FnOnce(&ResponseHead) -> Option<NewHead>,
    ) -> Option<(NewHead, HeaderMap)> {
        let old = old.head();
        let same = old
            .headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .eq(new.get_all(header::CONTENT_ENCODING));
        // An answer to `If-Range` may leave it away.
        if !(same || may_be_left_away && !new.contains_key(header::CONTENT_ENCODING)) {
            return None;
        }
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers = freshened(&old.headers, new);
        let mut joined = judged(&head)?;
        if joined.vary != old.vary || joined.terms.authorized != old.terms.authorized {
            return None;
        }
        let most = self.edge.config.limits.tags.saturating_mul(2).saturating_add(8);
        joined.selectors = joined.selectors.joined(&old.selectors, most)?;
        Some((joined, head.headers))
    }
}

/// The bytes that a shape wants of a part.
fn cut(part: &Part, wanted: &Asked) -> Option<Body> {
    match wanted {
        Asked::None => Some(Body::Empty),
        Asked::Whole => None,
        Asked::Range { start, length } => part.range(*start, *length),
        Asked::Multipart { pieces, tail, length } => {
            let mut row = VecDeque::with_capacity(pieces.len() * 2 + 1);
            for (head, start, length) in pieces {
                row.push_back(Body::Full(head.clone()));
                row.push_back(part.range(*start, *length)?);
            }
            row.push_back(Body::Full(tail.clone()));
            Some(Chain::wrap(row, *length))
        }
    }
}

/// The value of the only `Range` field.
fn lone_range(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::RANGE).iter();
    let line = lines.next()?;
    lines.next().is_none().then_some(line.as_bytes())
}

fn is_multipart(headers: &HeaderMap) -> bool {
    const MULTIPART: &[u8] = b"multipart/byteranges";
    headers.get_all(header::CONTENT_TYPE).iter().any(|value| {
        let kind = value.as_bytes().trim_ascii_start().get(..MULTIPART.len());
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(MULTIPART))
    })
}

/// A body that is copied while it passes, and stored at its end. Whoever drops it before, or lets
/// it break off, has nothing stored.
struct Tee {
    body: Body,
    chunks: Vec<Bytes>,
    /// Bytes that are still to come.
    left: u64,
    /// It ends with its last byte: nothing more has to come to prove it.
    by_length: bool,
    keep: Option<Box<Keep>>,
}

impl Tee {
    fn copy(&mut self, bytes: &Bytes) {
        if self.keep.is_none() {
            return;
        }
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                self.chunks.push(Bytes::copy_from_slice(bytes));
            }
            None => self.give_up(),
        }
        if self.left == 0 && (self.by_length || http_body::Body::is_end_stream(&self.body)) {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(keep) = self.keep.take()
            && self.left == 0
        {
            keep.store(&StoredBody::of(&self.chunks));
        }
        self.chunks = Vec::new();
    }

    fn give_up(&mut self) {
        self.keep = None;
        self.chunks = Vec::new();
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(_))) => self.give_up(),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    self.copy(bytes);
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
