//! Completing a stored part: a request for the whole asks the origin only for what is missing.
//!
//! ```text
//! stored part, one gap --Range, If-Range--> 206, the gap, same validator --> stored + rest + stored
//!                                       \-> 206, anything else; 304, 412, 416 --> ask for the whole
//!                                        \-> 200 and all others -------------> the answer
//! ```
//!
//! It is a fill like any other: others join it, purges reach it, and what breaks off is not stored.
//! `If-Range` rather than `If-Match`: an origin that has another version by now sends that at once
//! instead of a refusal, and the validator of a 206 is compared in any case. An excerpt has nothing
//! to compare; its rest is asked for all the same, since many origins answer 200 and a 206 costs one
//! further request, once, because the excerpt is forgotten with it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};

use super::arrive::{Job, Moments, Own};
use super::body::Chain;
use super::fields::add_date;
use super::{Ask, Worker};
use crate::clock;
use crate::message::{Body, BodyError, ResponseHead};
use crate::origin::{Answer, Framing};
use crate::semantics::{
    ContentRange, Decision, Forward, Gap, NotStored, StrongValidator, Verdict, decide,
    strip_set_cookie,
};
use crate::store::{FillHead, FillWriter, Head, NewHead, Part, Stored};

/// A 206 that fits the part, put together with it.
struct Whole {
    head: NewHead,
    /// All fields, for the request that asked.
    fields: HeaderMap,
}

/// Why a 206 is not put together with the part.
enum Misfit {
    /// It is something else, or cannot be compared.
    Other,
    /// It fits, but the whole may not be stored. Its head.
    NotStored(NotStored, ResponseHead),
}

impl Worker {
    /// The part that a fill for this request completes, and what it lacks: alive, younger than any
    /// complete response, and fresh or with a validator by which the origin's answer confirms it.
    pub(super) fn completable(&self, ask: &Ask, stale: Option<&Stored>) -> Option<(Part, Gap)> {
        if ask.request.method != Method::GET || ask.request.has_range() {
            return None;
        }
        let (part, verdict) = self.part(ask)?;
        let gap = part.extent().gap()?;
        let head = part.head();
        let received = head.terms.received.boot;
        let outdated = stale.is_some_and(|stale| stale.head().terms.received.boot > received);
        if outdated || verdict != Verdict::Alive || gap.total > self.edge.store.largest_body() {
            return None;
        }
        let (found, trust) = (Some((&head.terms, verdict)), ask.moment.trust);
        let decision = decide(&ask.request, found, true, &ask.policy, trust, clock::now(), 1.0);
        let confirmed = part.extent().validator().is_some();
        match decision {
            Decision::Hit { .. } => Some((part, gap)),
            Decision::HitStale | Decision::Revalidate(Forward::Stale) if confirmed => {
                Some((part, gap))
            }
            Decision::HitStale
            | Decision::Revalidate(_)
            | Decision::Fill(_)
            | Decision::Pass(_)
            | Decision::OnlyIfCached => None,
        }
    }

    /// Completes a part. Gives writer and job back where the whole must be asked for.
    pub(super) async fn complete(
        self: &Arc<Self>,
        writer: FillWriter,
        job: Job,
        part: Part,
        gap: Gap,
    ) -> Option<(FillWriter, Job)> {
        let (sent, moments) = self.ask_with(&job, question(&part, &gap)).await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                self.no_answer(writer, &error);
                return None;
            }
        };
        match answer.head.status {
            StatusCode::PARTIAL_CONTENT => {
                self.rest_arrived(writer, job, &part, &gap, answer, moments).await
            }
            StatusCode::NOT_MODIFIED
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::RANGE_NOT_SATISFIABLE => {
                self.edge.store.remove_part(&part);
                Some((writer, job))
            }
            status => {
                if status.is_success() {
                    self.edge.store.remove_part(&part);
                }
                self.arrived(writer, job, answer, moments).await;
                None
            }
        }
    }

    async fn rest_arrived(
        self: &Arc<Self>,
        writer: FillWriter,
        job: Job,
        part: &Part,
        gap: &Gap,
        answer: Answer,
        moments: Moments,
    ) -> Option<(FillWriter, Job)> {
        match self.put_together(&writer, &job, part, gap, &answer, moments) {
            Ok(Whole { head, mut fields }) => {
                let head = Arc::new(Head::new(head));
                self.learn_search(&job.ask, &head);
                strip_set_cookie(&mut fields, &job.ask.policy);
                let _ = job.own.send(Own::Fields(fields));
                if let Some(variant) = self.edge.store.learn_variant(&head) {
                    writer.varies(variant);
                }
                let body = row(part, gap, answer.body)?;
                let length = Some(gap.total);
                writer.head(FillHead {
                    head: Arc::clone(&head),
                    length,
                    confirmed: false,
                    segments: None,
                });
                self.keep(writer, &job.ask, head, body).await;
                None
            }
            Err(Misfit::NotStored(why, head)) => {
                let Some(body) = row(part, gap, answer.body) else { return Some((writer, job)) };
                let framing = Framing::Length(gap.total);
                let answer = Answer { head, body, framing, endpoint: answer.endpoint };
                self.edge.store.remove_part(part);
                self.hand_over(writer, job, answer, why, false);
                None
            }
            Err(Misfit::Other) => {
                self.edge.store.remove_part(part);
                Some((writer, job))
            }
        }
    }

    /// Head of the whole. The part is judged by the purges once more, now that the new head is
    /// there: until then its rows are its own, from then on the whole answers to them.
    fn put_together(
        &self,
        writer: &FillWriter,
        job: &Job,
        part: &Part,
        gap: &Gap,
        answer: &Answer,
        moments: Moments,
    ) -> Result<Whole, Misfit> {
        let mut new = answer.head.headers.clone();
        let validator = StrongValidator::of(&new, moments.received.wall);
        let same = matches!(
            (part.extent().validator(), &validator),
            (Some(own), Some(other)) if own.matches(other)
        );
        let fits = ContentRange::of(&new).is_some_and(|range| gap.is_filled_by(&range));
        let framed = match answer.framing {
            Framing::Length(length) => length == gap.last - gap.first + 1,
            Framing::Chunked => true,
            Framing::None | Framing::Close => false,
        };
        let purges = &self.edge.purges;
        let alive = purges.verdict(part.head(), purges.epoch()) == Some(Verdict::Alive);
        if !(same && fits && framed && alive) {
            return Err(Misfit::Other);
        }
        add_date(&mut new, moments.received);
        let mut misfit = Misfit::Other;
        let (born, number) = (writer.fill().born, writer.fill().number);
        let judged = self.joined_head(part, &new, true, |head| {
            let length = Some(gap.total);
            match self.judge(&job.ask, &job.ask.request, head, length, moments, number) {
                Ok(kept) => Some(self.new_head(&job.ask, head, kept, born, number, None)),
                Err(why) => {
                    let mut own = ResponseHead::new(head.status);
                    own.headers = head.headers.clone();
                    misfit = Misfit::NotStored(why, own);
                    None
                }
            }
        });
        judged.map(|(head, fields)| Whole { head, fields }).ok_or(misfit)
    }
}

/// The fields that ask for the rest.
fn question(part: &Part, gap: &Gap) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    if let Ok(range) = HeaderValue::try_from(gap.range()) {
        fields.insert(header::RANGE, range);
    }
    if let Some(validator) = part.extent().validator() {
        fields.insert(header::IF_RANGE, validator.condition().clone());
    }
    fields
}

/// The body of the whole: what is stored before the gap, what arrives, what is stored behind it.
fn row(part: &Part, gap: &Gap, rest: Body) -> Option<Body> {
    let behind = gap.last + 1;
    let mut row = VecDeque::with_capacity(3);
    if gap.first > 0 {
        row.push_back(part.range(0, gap.first)?);
    }
    row.push_back(Body::stream(Exact { body: rest, left: gap.last - gap.first + 1 }));
    if behind < gap.total {
        row.push_back(part.range(behind, gap.total - behind)?);
    }
    Some(Chain::wrap(row, gap.total))
}

/// A body that breaks off where it does not have just the bytes that were promised: what follows
/// it would be in the wrong place.
struct Exact {
    body: Body,
    left: u64,
}

impl http_body::Body for Exact {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                match self.left.checked_sub(size) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
                }
            }
            Poll::Ready(None) if self.left > 0 => {
                return Poll::Ready(Some(Err(BodyError::Incomplete)));
            }
            Poll::Ready(_) | Poll::Pending => {}
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
