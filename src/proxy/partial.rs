//! Incomplete responses at work: ranges answered from them (the rules are `semantics::partial`'s;
//! `keep` keeps what comes, `complete` asks for what is missing).
//!
//! ```text
//! Range --> nothing complete is usable --> a fresh part has it ---> 206, 304 or 416 from memory
//!                                     \--> the same excerpt ------> 206 as it came
//!                                     \--> within the newest one -> 206 cut from it
//!                                      \-> to the origin as it came; its 206 is copied on the way
//! ```
//!
//! A range request is never made larger. A stale part does not ask the origin to confirm it: the
//! range goes on as it came, and the answer's validator tells whether the part still holds. A 304
//! that the client did not ask for can so never arise.

use std::collections::VecDeque;

use http::Method;
use http::header::{self, HeaderMap};

use super::answer::assemble;
use super::arrive::Moments;
use super::body::Chain;
use super::{Ask, Worker};
use crate::clock::Now;
use crate::listener::Response;
use crate::message::{Body, ResponseHead};
use crate::semantics::{
    CacheStatus, ContentRange, Decision, Forward, HeadVerdict, Outcome, Part as Asked, Shape,
    Verdict, concerns, decide, judge_head, lookup_allowed, may_serve_on_error, shape,
    shape_excerpt, shape_part,
};
use crate::store::{Head, Part, Stored};
use crate::telemetry::Record;

/// What something incomplete has for a request.
struct Found {
    shape: Shape,
    body: Body,
    ttl: i64,
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
        epoch: u64,
        now: Now,
        record: Box<Record>,
    ) -> Result<Response, (Box<Record>, Option<Forward>)> {
        let usable = |head: &Head, verdict| {
            let found = Some((&head.terms, verdict));
            let trust = ask.moment.trust;
            let decision = decide(&ask.request, found, true, &ask.policy, trust, now, 1.0);
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
        let (trust, epoch) = (ask.moment.trust, self.edge.purges.epoch());
        let usable = |head: &Head, verdict| {
            may_serve_on_error(&ask.request, &head.terms, verdict, &ask.policy, trust, now)
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
        let Some((stored, verdict)) =
            store.lookup_excerpt(part, &request.headers, range, purges, epoch)
        else {
            return self.within_excerpt(ask, part, epoch, now, usable);
        };
        let (head, length) = (stored.head(), Some(stored.body().len()));
        if !usable(head, verdict) {
            return None;
        }
        let terms = Some(&head.terms);
        let shape = shape(request, head.status, &head.headers, length, terms, &ask.policy, now);
        let body = match shape.part {
            Asked::None => Body::Empty,
            Asked::Whole => stored.whole(),
            // Only of a 200 is anything cut.
            Asked::Range { .. } | Asked::Multipart { .. } => return None,
        };
        Some(Found { shape, body, ttl: head.ttl(now) })
    }

    /// Bytes from within the newest 206 that cannot be compared.
    fn within_excerpt(
        &self,
        ask: &Ask,
        note: &Part,
        epoch: u64,
        now: Now,
        usable: impl Fn(&Head, Verdict) -> bool,
    ) -> Option<Found> {
        let (store, purges) = (&self.edge.store, &self.edge.purges);
        let request = &ask.request;
        let held = note.extent().range()?;
        let (stored, verdict) =
            store.lookup_excerpt(note, &request.headers, held.as_bytes(), purges, epoch)?;
        let head = stored.head();
        let range = ContentRange::of(&head.headers)?;
        if range.size() != stored.body().len() || !usable(head, verdict) {
            return None;
        }
        let shape = shape_excerpt(request, &head.headers, &range, &head.terms, &ask.policy, now)?;
        let cut = |start, length| stored.body().range(start - range.first, length);
        let body = assemble(&shape.part, || Body::Empty, cut);
        Some(Found { shape, body, ttl: head.ttl(now) })
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
        if !concerns(&ask.request, &old.terms) {
            return;
        }
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
pub(super) fn lone_range(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::RANGE).iter();
    let line = lines.next()?;
    lines.next().is_none().then_some(line.as_bytes())
}
