//! The task that fills: asks the origin, judges its answer, keeps it.

use std::pin::Pin;
use std::sync::Arc;

use http::header::{self, ETAG, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::fields::add_date;
use super::{Ask, Worker};
use crate::clock::{self, Now};
use crate::listener::Interim;
use crate::message::{Body, ResponseHead};
use crate::origin::{Answer, Framing, SendError};
use crate::semantics::{
    Gap, HeadVerdict, NotStored, Request, Span, Terms, VaryFields, Verdict, concerns, conditions,
    confirms, freshened, judge_head, may_serve_on_error, storable, stored_fields, strip_set_cookie,
    tags, unconditional,
};
use crate::store::{Arrived, FillHead, FillWriter, Head, Lookup, NewHead, Part, Stored};

/// What a fill is to bring.
pub(super) struct Job {
    /// The request that started it.
    pub(super) ask: Arc<Ask>,
    /// What is stored and may be confirmed.
    pub(super) stale: Option<Arc<Stored>>,
    /// What is stored of it, and what is missing.
    pub(super) part: Option<(Part, Gap)>,
    /// The client's own conditions, where the origin is to judge them; else empty.
    pub(super) conditions: HeaderMap,
    /// Where interim responses go.
    pub(super) interim: Interim,
    /// What only the request that started the fill may have.
    pub(super) own: oneshot::Sender<Own>,
}

/// What the request that started the fill gets, and nobody else.
pub(super) enum Own {
    /// All fields of an answer that is shared, those that are not kept among them.
    Fields(HeaderMap),
    /// An answer that may not be shared.
    Answer {
        /// The answer.
        answer: Box<Answer>,
        /// It is a stored response that the origin confirmed, on terms that do not allow to keep
        /// it.
        confirmed: bool,
    },
}

/// When the origin was asked, and when its head was there.
#[derive(Clone, Copy)]
pub(super) struct Moments {
    pub(super) requested: Now,
    pub(super) received: Now,
}

impl Worker {
    /// Fills. However this ends, the writer's end tells the readers.
    pub(super) async fn run(self: Arc<Self>, writer: FillWriter, mut job: Job) {
        let stale = job.stale.clone();
        let left = match job.part.take() {
            Some((part, gap)) => self.complete(writer, job, part, gap).await,
            None => Some((writer, job)),
        };
        if let Some((writer, job)) = left {
            self.bring(writer, job).await;
        }
        // Where a new response took its place this changes nothing.
        if let Some(stale) = stale {
            stale.head().release_refresh(clock::now().boot);
        }
    }

    /// Asks for the whole, or for a word on what is stored.
    async fn bring(self: &Arc<Self>, writer: FillWriter, mut job: Job) {
        let stale = job.stale.clone();
        let span = self.opening(&job.ask);
        let (sent, moments) = self.ask_origin(&job, stale.as_deref(), span).await;
        match sent {
            Err(error) => self.no_answer(writer, &error),
            Ok(answer) if answer.head.status == StatusCode::NOT_MODIFIED => {
                match job.stale.take() {
                    _ if !job.conditions.is_empty() => {
                        self.hand_over(writer, job, answer, NotStored::Condition, false);
                    }
                    Some(stale)
                        if stale.head().terms.has_validator()
                            && confirms(&stale.head().fields.map(), &answer.head.headers) =>
                    {
                        self.confirmed(writer, job, &stale, &answer, moments);
                    }
                    Some(_) => self.ask_again(writer, job).await,
                    None => self.bad_answer(writer, "unasked 304"),
                }
            }
            Ok(answer) => self.opened(writer, job, span, answer, moments).await,
        }
    }

    /// A 304 that confirms something else than what is stored: ask once for the whole.
    async fn ask_again(self: &Arc<Self>, writer: FillWriter, job: Job) {
        let span = self.opening(&job.ask);
        let (sent, moments) = self.ask_origin(&job, None, span).await;
        match sent {
            Err(error) => self.no_answer(writer, &error),
            Ok(answer) if answer.head.status == StatusCode::NOT_MODIFIED => {
                self.bad_answer(writer, "unasked 304");
            }
            Ok(answer) => self.opened(writer, job, span, answer, moments).await,
        }
    }

    /// Asks for the whole, or for `span` of it; under the conditions of `stale`.
    pub(super) async fn ask_origin(
        &self,
        job: &Job,
        stale: Option<&Stored>,
        span: Option<Span>,
    ) -> (Result<Answer, SendError>, Moments) {
        let mut fields = match stale.map(Stored::head) {
            _ if !job.conditions.is_empty() => job.conditions.clone(),
            Some(head) => conditions(&head.fields.map(), &head.terms),
            None => HeaderMap::new(),
        };
        if let Some(span) = span {
            fields.insert(header::RANGE, span.range());
        }
        self.ask_with(job, fields).await
    }

    /// Asks the origin with these fields instead of the client's conditions and ranges.
    pub(super) async fn ask_with(
        &self,
        job: &Job,
        fields: HeaderMap,
    ) -> (Result<Answer, SendError>, Moments) {
        let ask = &job.ask;
        let mut headers = ask.request.headers.clone();
        unconditional(&mut headers);
        headers.extend(fields);
        let outgoing = self.outgoing(ask, headers, Body::Empty);
        let origin = self.edge.origin_of(ask.site, &ask.policy);
        let site = self.edge.number_of(ask.site);
        let requested = clock::now();
        let interim = job.interim.clone();
        let sent = self.origins.send(origin, site, outgoing, move |head| interim.send(head)).await;
        (sent, Moments { requested, received: clock::now() })
    }

    pub(super) fn no_answer(&self, writer: FillWriter, error: &SendError) {
        self.edge.metrics.store.fills_failed.inc();
        let (status, word) = super::error::status_of(error);
        writer.dismiss(Arrived::Failed(status, word));
    }

    pub(super) fn bad_answer(&self, writer: FillWriter, why: &'static str) {
        self.edge.metrics.store.fills_failed.inc();
        tracing::debug!(why, "origin's answer cannot be used");
        writer.dismiss(Arrived::Failed(StatusCode::BAD_GATEWAY, "http_protocol_error"));
    }

    /// The origin confirmed what is stored: a new entry with the old body, judged anew.
    fn confirmed(
        &self,
        writer: FillWriter,
        job: Job,
        stale: &Arc<Stored>,
        answer: &Answer,
        moments: Moments,
    ) {
        self.edge.metrics.store.revalidated.inc();
        let old = stale.head();
        let mut head = ResponseHead::new(old.status);
        head.headers = freshened(&old.fields.map(), &answer.head.headers);
        add_date(&mut head.headers, moments.received);
        let fill = writer.fill();
        let (length, held) = (Some(stale.body().len()), Some(stale.body().held_bytes()));
        match self.judge(&job.ask, &job.ask.request, &head, held, moments, fill.number) {
            Ok(kept) => {
                let mut fields = head.headers.clone();
                if !fields.contains_key(SET_COOKIE) && !job.ask.policy.strip_set_cookie {
                    let cookies = answer.head.headers.get_all(SET_COOKIE);
                    fields.extend(cookies.iter().map(|own| (SET_COOKIE, own.clone())));
                }
                let head = self.make_head(&job.ask, &head, kept, fill.born, fill.number, Some(old));
                let _ = job.own.send(Own::Fields(fields));
                let stored = self.edge.store.stored(Arc::clone(&head), stale.body().clone());
                self.edge.store.insert(&stored, &self.edge.purges);
                let segments = stale.body().segments();
                writer.head(FillHead { head, length, confirmed: true, segments });
                writer.adopt(stale.body());
                writer.complete();
            }
            Err(why) => {
                if why.holds_for_key() {
                    self.edge.store.remove(stale);
                }
                if stale.body().segments().is_some() {
                    self.give_up_segments(writer, job, why);
                    return;
                }
                let length = stale.body().len();
                let answer = Answer {
                    head,
                    body: stale.body().whole(),
                    framing: Framing::Length(length),
                    endpoint: answer.endpoint,
                };
                self.hand_over(writer, job, answer, why, true);
            }
        }
    }

    /// A new response arrived: keep it while it streams to everyone who waits, or hand it to the
    /// one that asked.
    pub(super) async fn arrived(
        self: &Arc<Self>,
        writer: FillWriter,
        job: Job,
        mut answer: Answer,
        moments: Moments,
    ) {
        add_date(&mut answer.head.headers, moments.received);
        let stands_in = |stale: &Arc<Stored>| self.may_stand_in(&job.ask, stale, moments.received);
        if is_error(answer.head.status) && job.stale.as_ref().is_some_and(stands_in) {
            writer.dismiss(Arrived::Failed(answer.head.status, "http_upstream_status"));
            return;
        }
        let length = match answer.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Close => None,
        };
        let judged = if answer.framing == Framing::Close {
            Err(NotStored::CloseDelimited)
        } else {
            let number = writer.fill().number;
            self.judge(&job.ask, &job.ask.request, &answer.head, length, moments, number)
        };
        match judged {
            Ok(kept) => {
                let (born, number) = (writer.fill().born, writer.fill().number);
                strip_set_cookie(&mut answer.head.headers, &job.ask.policy);
                let head = self.make_head(&job.ask, &answer.head, kept, born, number, None);
                let _ = job.own.send(Own::Fields(answer.head.headers));
                if let Some(variant) = self.edge.store.learn_variant(&head) {
                    writer.varies(variant);
                }
                writer.head(FillHead {
                    head: Arc::clone(&head),
                    length,
                    confirmed: false,
                    segments: None,
                });
                self.keep(writer, &job.ask, head, answer.body).await;
            }
            Err(why) => {
                // What the origin has now is not what is stored.
                if let Some(stale) = &job.stale
                    && answer.head.status.is_success()
                    && why.holds_for_key()
                {
                    self.edge.store.remove(stale);
                }
                self.hand_over(writer, job, answer, why, false);
            }
        }
    }

    /// Copies the body as it arrives, and stores the response once it is complete.
    pub(super) async fn keep(
        &self,
        writer: FillWriter,
        ask: &Ask,
        head: Arc<Head>,
        mut body: Body,
    ) {
        let mut too_large = false;
        loop {
            let frame =
                std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            let pushed = match frame {
                None => break,
                Some(Err(why)) => Err(why),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => writer.push(&bytes).await,
                    Err(_trailers) => Ok(()),
                },
            };
            if !too_large && writer.outgrown() {
                too_large = true;
                self.remember_uncacheable(ask, NotStored::TooLarge);
            }
            if let Err(why) = pushed {
                self.edge.metrics.store.fills_failed.inc();
                self.edge.metrics.store.not_stored(NotStored::Incomplete.label());
                writer.fail(why);
                return;
            }
        }
        match writer.body() {
            Some(body) => {
                let stored = self.edge.store.stored(head, body);
                writer.rests_in(&stored);
                if self.edge.store.insert(&stored, &self.edge.purges) {
                    self.forget_part(ask);
                } else {
                    self.edge.metrics.store.not_stored(NotStored::Purged.label());
                }
            }
            None => self.edge.metrics.store.not_stored(NotStored::TooLarge.label()),
        }
        writer.complete();
    }

    /// Gives an answer that may not be shared to the request that started the fill.
    pub(super) fn hand_over(
        &self,
        writer: FillWriter,
        job: Job,
        answer: Answer,
        why: NotStored,
        confirmed: bool,
    ) {
        self.edge.metrics.store.not_stored(why.label());
        if why == NotStored::NoFreshness {
            self.hint_freshness(job.ask.site);
        }
        let status = answer.head.status;
        if why.holds_for_key() && !is_error(status) {
            self.remember_uncacheable(&job.ask, why);
        }
        // If the one that asked is gone, nobody may have this answer.
        let _ = job.own.send(Own::Answer { answer: Box::new(answer), confirmed });
        // A failing origin is not asked again by everyone who waited: they get an error of ours.
        writer.dismiss(if is_error(status) {
            Arrived::Failed(status, "http_upstream_status")
        } else {
            Arrived::Private(why)
        });
    }

    /// Has the next requests for this key not wait for one another.
    pub(super) fn remember_uncacheable(&self, ask: &Ask, why: NotStored) {
        let key = self.edge.store.fill_key(&ask.key, &ask.request.headers);
        self.edge.store.remember_uncacheable(key, why, clock::now().boot);
    }

    /// Whether what is stored may stand in for an origin that fails.
    pub(super) fn may_stand_in(&self, ask: &Ask, stale: &Stored, now: Now) -> bool {
        let purges = &self.edge.purges;
        purges.verdict(stale.head(), purges.epoch()).is_some_and(|verdict| {
            let terms = &stale.head().terms;
            may_serve_on_error(&ask.request, terms, verdict, &ask.policy, ask.moment.trust, now)
                && self.is_at_hand(ask, stale, now)
        })
    }

    /// A HEAD told about the resource: freshen what is stored under its GET, or let it be stale
    /// (RFC 9111 section 4.3.5).
    pub(super) fn head_seen(&self, ask: &Ask, epoch: u64, head: &ResponseHead, moments: Moments) {
        let edge = &self.edge;
        let request = &ask.request;
        let found = edge.store.lookup(&ask.key, &request.headers, &edge.purges, epoch);
        let Lookup::Found(stored, verdict) = found else { return };
        let (old, length) = (stored.head(), stored.body().len());
        // What a user is told of himself is not what strangers are told.
        if !concerns(request, &old.terms) {
            return;
        }
        match judge_head(&old.fields.map(), length, head.status, &head.headers) {
            HeadVerdict::Silent => {}
            HeadVerdict::Invalidates => old.make_stale(moments.received.boot),
            HeadVerdict::Freshens => {
                let mut fresh = ResponseHead::new(old.status);
                fresh.headers = freshened(&old.fields.map(), &head.headers);
                add_date(&mut fresh.headers, moments.received);
                let request = Request { method: http::Method::GET, ..request.clone() };
                let held = Some(stored.body().held_bytes());
                // Without a validator it speaks of the stored response only if it may itself be
                // shared, silence about that being no leave, and if no purge has called it in doubt.
                let named =
                    [ETAG, LAST_MODIFIED].iter().any(|name| head.headers.contains_key(name));
                let own = self.judge(ask, &request, head, held, moments, old.fill);
                if !named && (own.is_err() || verdict != Verdict::Alive) {
                    return old.make_stale(moments.received.boot);
                }
                let judged = self.judge(ask, &request, &fresh, held, moments, old.fill);
                let kept = match judged {
                    Ok(kept) => kept,
                    Err(why) => {
                        // With the fields that it has now it may not be kept.
                        if why.holds_for_key() {
                            edge.store.remove(&stored);
                        }
                        return;
                    }
                };
                let head = self.make_head(ask, &fresh, kept, epoch, old.fill, Some(old));
                let stored = edge.store.stored(head, stored.body().clone());
                edge.store.insert(&stored, &edge.purges);
            }
        }
    }

    /// Whether a response may be stored, and what is needed to store it.
    pub(super) fn judge(
        &self,
        ask: &Ask,
        request: &Request,
        head: &ResponseHead,
        length: Option<u64>,
        moments: Moments,
        fill: u64,
    ) -> Result<Kept, NotStored> {
        let draw = self.edge.dice.jitter(&ask.key.parts, fill);
        let Moments { requested, received } = moments;
        let terms = storable(request, head, &ask.policy, requested, received, draw)?;
        if length.is_some_and(|length| length > self.edge.store.largest_body()) {
            return Err(NotStored::TooLarge);
        }
        let most = self.edge.config.limits.vary_fields;
        let vary = VaryFields::of(&head.headers, most, &ask.policy)?.map(Arc::new);
        let tags = tags(&head.headers, self.edge.tag_limits())?;
        Ok(Kept { terms, vary, tags })
    }

    /// The head as it will be stored; `confirmed` is the one that it confirms, whose bytes it takes
    /// over. A purge that came since it was asked about counts by its selectors, too: the answer may
    /// have dropped the very tag that it named.
    pub(super) fn make_head(
        &self,
        ask: &Ask,
        head: &ResponseHead,
        kept: Kept,
        born: u64,
        fill: u64,
        confirmed: Option<&Head>,
    ) -> Arc<Head> {
        let lineage = confirmed.map(|old| old.lineage);
        let mut new = self.new_head(ask, head, kept, born, fill, lineage);
        if let Some(old) = confirmed
            && self.edge.purges.is_head_hit_since(old, born)
            && let Some(both) = new.selectors.joined(&old.selectors, usize::MAX)
        {
            new.selectors = both;
        }
        let head = Arc::new(Head::new(new));
        self.learn_search(ask, &head);
        head
    }

    pub(super) fn new_head(
        &self,
        ask: &Ask,
        head: &ResponseHead,
        kept: Kept,
        born: u64,
        fill: u64,
        lineage: Option<u64>,
    ) -> NewHead {
        let site = self.edge.config.sites.get(ask.site).map_or("", |site| &*site.name);
        let secondary = kept.vary.as_ref().map(|fields| fields.secondary(&ask.request.headers));
        let target = ask.request.target();
        NewHead {
            key: ask.key.clone(),
            secondary: secondary.unwrap_or_default().into_boxed_slice(),
            vary: kept.vary,
            status: head.status,
            headers: stored_fields(&head.headers, &ask.policy),
            terms: kept.terms,
            selectors: self.edge.purges.selectors(site, &ask.request.host, &target, &kept.tags),
            born,
            fill,
            lineage,
        }
    }
}

/// Answers that something stale may bridge (RFC 5861 section 4).
pub(super) fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// What makes a response storable.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) terms: Terms,
    vary: Option<Arc<VaryFields>>,
    tags: Box<[Box<str>]>,
}
