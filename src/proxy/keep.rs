//! Keeping 206 answers: copied while they stream to the client that asked, stored once all has come,
//! together with what is there already under the same validator.
//!
//! ```text
//! origin --206--> Tee --> client
//!                  '--> copy --end--> part, joined to the stored one --all there--> complete response
//!                                 \--> excerpt, where nothing can be compared
//! ```
//!
//! A range request shares nothing while it is under way. One that breaks off, or whose client
//! leaves, has nothing stored. Where both have a validator and it differs, the newer takes the
//! place of the older; a complete response is never touched by what is incomplete.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap};
use http_body::{Frame, SizeHint};

use super::arrive::Moments;
use super::fields::add_date;
use super::partial::lone_range;
use super::{Ask, Worker};
use crate::message::{Body, BodyError, ResponseHead};
use crate::origin::{Answer, Framing};
use crate::semantics::{
    CacheStatus, ContentRange, Extent, StrongValidator, Verdict, freshened, strip_set_cookie,
};
use crate::store::{Head, NewHead, Part, Passing, Room, StoredBody};

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
    passing: Passing,
    /// Memory for the copy.
    _room: Room,
}

impl Worker {
    /// Has a 206 copied while it streams, where it may be stored.
    pub(super) fn copy_206(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        mut answer: Answer,
        passing: Passing,
        moments: Moments,
        mut status: CacheStatus,
    ) -> (Answer, CacheStatus) {
        let Some((keep, length, ttl)) = self.to_keep(ask, &answer, passing, moments) else {
            return (answer, status);
        };
        // The client that brought it gets what all get.
        strip_set_cookie(&mut answer.head.headers, &ask.policy);
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
        passing: Passing,
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
        let number = passing.number;
        let kept = self.judge(ask, request, &head, Some(length), moments, number).ok()?;
        let keep = Keep {
            worker: Arc::clone(self),
            ask: Arc::clone(ask),
            head,
            range,
            consistent,
            validator,
            moments,
            passing,
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
        let stored = old.fields.map();
        let same = stored
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .eq(new.get_all(header::CONTENT_ENCODING));
        // An answer to `If-Range` may leave it away.
        if !(same || may_be_left_away && !new.contains_key(header::CONTENT_ENCODING)) {
            return None;
        }
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers = freshened(&stored, new);
        // Bytes that came with a cookie are judged with it, and whoever asked for them gets it.
        if !stored.contains_key(header::SET_COOKIE) {
            for cookie in new.get_all(header::SET_COOKIE) {
                head.headers.append(header::SET_COOKIE, cookie.clone());
            }
        }
        let mut joined = judged(&head)?;
        if joined.vary != old.vary || joined.terms.authorized != old.terms.authorized {
            return None;
        }
        let most = self.edge.config.limits.tags.saturating_mul(2).saturating_add(8);
        joined.selectors = joined.selectors.joined(&old.selectors, most)?;
        Some((joined, head.headers))
    }
}

impl Keep {
    /// Stores it, all of it being there.
    fn store(self, body: &StoredBody) {
        let old = self.worker.part(&self.ask);
        match self.validator.clone() {
            Some(validator) if self.consistent => self.store_part(&validator, old.as_ref(), body),
            Some(_) | None => self.store_excerpt(old.map(|(part, _)| part), body),
        }
    }

    /// Stores a part, together with what is there already where both have one validator.
    fn store_part(
        &self,
        validator: &StrongValidator,
        old: Option<&(Part, Verdict)>,
        body: &StoredBody,
    ) {
        let store = &self.worker.edge.store;
        let together = match old {
            Some((old, Verdict::Alive)) => self.join(old, validator, body),
            _ => None,
        };
        if let Some((head, extent, body)) = together {
            return self.insert(head, body, extent);
        }
        let received = self.moments.received.boot;
        let outrun = old.is_some_and(|(old, _)| old.head().terms.received.boot > received);
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
        // Under what it holds, too: ranges within are looked for there.
        let held = Extent::excerpt(self.consistent.then_some(&self.range)).range();
        let held = held.as_deref().map(str::as_bytes).filter(|held| *held != range);
        for name in std::iter::once(range).chain(held) {
            let key = edge.store.excerpt_key(&part_key, lineage, name);
            let head = Arc::new(Head::new(NewHead { key, ..head.clone() }));
            let stored = edge.store.stored(head, body.clone());
            edge.store.insert(&stored, &edge.purges);
        }
    }

    fn new_head(&self, head: &ResponseHead, length: u64) -> Option<NewHead> {
        let (worker, ask) = (&self.worker, &self.ask);
        let (length, born, number) = (Some(length), self.passing.born, self.passing.number);
        let kept = worker.judge(ask, &ask.request, head, length, self.moments, number).ok()?;
        Some(worker.new_head(ask, head, kept, born, number, None))
    }
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
