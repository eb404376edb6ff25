//! Joining a fill, starting one, and waiting for what it brings.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::sync::oneshot;

use super::arrive::{Job, Own};
use super::segments::Reading;
use super::{Ask, Edge, Worker};
use crate::clock::{self, Now};
use crate::listener::{Interim, Pressure, Response};
use crate::message::Body;
use crate::semantics::{
    CacheStatus, Decision, Forward, Gap, NotStored, Outcome, Policy, Request, Verdict,
    asked_conditions, decide,
};
use crate::store::{Arrived, Claim, Fill, FillHead, FillWriter, Part, Stored, Wish};
use crate::telemetry::Record;

/// What one look at the store came to.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and nearly each is an answer"
)]
pub(super) enum Step {
    /// An answer.
    Answer(Response),
    /// Nothing for this request: look again.
    Again(Box<Record>),
}

/// How long one who may not use a fill waits for the rest of its body, so that the next one can
/// ask about what it stored. A long body is not waited for: the next one fetches it anew, and such
/// fetches of one response are this far apart.
const REST_WAIT: Duration = Duration::from_secs(1);

/// What a request remembers from one look at the store to the next.
#[derive(Default)]
pub(super) struct Looks {
    /// The last fill that it could not use, or that it has waited for.
    behind: Option<Arc<Fill>>,
    /// What it joined was not for it, once.
    refused: bool,
}

/// How a request goes to the origin that what is stored does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Road {
    /// Memory is short: alone, if at all.
    Short,
    /// What it asks for is not worth a fill.
    Alone,
    /// Answers under its key were not shared lately.
    Uncacheable,
    /// With everyone who asks for the same.
    Fill,
}

impl Edge {
    /// How a request goes to the origin. `stale`: something is stored that the origin may confirm.
    pub(super) fn road(
        &self,
        request: &Request,
        policy: &Policy,
        fill_key: u128,
        stale: bool,
        now: Now,
    ) -> Road {
        // In segments it costs the origin only what it touches.
        let range = request.has_range() && self.grid(policy).is_none();
        if self.pressure.step() >= Pressure::Shed {
            Road::Short
        } else if range && !stale || request.method != Method::GET {
            Road::Alone
        } else if !stale && self.store.is_uncacheable(fill_key, now.boot) {
            Road::Uncacheable
        } else {
            Road::Fill
        }
    }
}

/// A request that waits for a fill.
struct Waiting {
    fill: Arc<Fill>,
    why: Forward,
    stale: Option<Arc<Stored>>,
    epoch: u64,
    /// What only the one that started the fill gets.
    own: Option<oneshot::Receiver<Own>>,
    /// The origin judges the client's conditions.
    judged: bool,
}

impl Worker {
    /// Joins or starts the fill for a request. `stale` is what is stored and must be confirmed.
    pub(super) async fn fill(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        why: Forward,
        stale: Option<Arc<Stored>>,
        epoch: u64,
        looks: &mut Looks,
        record: Box<Record>,
    ) -> Step {
        let edge = &self.edge;
        let key = edge.store.fill_key(&ask.key, &ask.request.headers);
        let status = CacheStatus::forward(why);
        match edge.road(&ask.request, &ask.policy, key, stale.is_some(), clock::now()) {
            Road::Short => return Step::Answer(self.alone(ask, stale, status, record).await),
            Road::Alone => return Step::Answer(self.pass(ask, Body::Empty, status, record).await),
            Road::Uncacheable => {
                let status = CacheStatus { detail: Some("uncacheable"), ..status };
                return Step::Answer(self.pass(ask, Body::Empty, status, record).await);
            }
            Road::Fill => {}
        }
        let wish = Wish { instead_of: looks.behind.as_ref(), since: ask.moment.only_since() };
        match edge.fills.claim(key, epoch, wish) {
            Claim::Early(fill) => self.wait_behind(ask, fill, why, looks, record).await,
            Claim::Joined(fill) => {
                edge.metrics.store.collapsed.inc();
                let waiting = Waiting { fill, why, stale, epoch, own: None, judged: false };
                self.wait(ask, waiting, looks, record).await
            }
            Claim::Started(writer) => {
                // Between the look-up and the claim another fill may have come to its end.
                if self.arrived_meanwhile(ask, epoch) {
                    writer.dismiss(Arrived::Void);
                    return Step::Again(record);
                }
                let fill = Arc::clone(writer.fill());
                let part = self.completable(ask, stale.as_deref());
                let why = if part.is_some() { Forward::Partial } else { why };
                let interim = ask.interim.clone();
                let conditions = match part {
                    None => self.conditions_for_origin(ask, stale.as_deref()),
                    Some(_) => HeaderMap::new(),
                };
                let judged = !conditions.is_empty();
                let own = self.start(ask, writer, stale.clone(), part, conditions, interim);
                let waiting = Waiting { fill, why, stale, epoch, own: Some(own), judged };
                self.wait(ask, waiting, looks, record).await
            }
            Claim::Full => {
                let status =
                    CacheStatus { detail: Some("fills-full"), ..CacheStatus::forward(why) };
                Step::Answer(self.pass(ask, Body::Empty, status, record).await)
            }
        }
    }

    /// Refreshes a stored response in the background, once.
    pub(super) fn refresh(self: &Arc<Self>, ask: &Arc<Ask>, stored: &Arc<Stored>, epoch: u64) {
        let now = clock::now().boot;
        let short = self.edge.pressure.step() >= Pressure::Shed;
        // A HEAD would bring no body: the next GET refreshes.
        if short || ask.request.method != Method::GET || !stored.head().claim_refresh(now) {
            return;
        }
        let key = self.edge.store.fill_key(&ask.key, &ask.request.headers);
        match self.edge.fills.join_or_start(key, epoch) {
            Claim::Started(writer) => {
                self.edge.metrics.store.refreshes.inc();
                let (stale, none) = (Some(Arc::clone(stored)), HeaderMap::new());
                drop(self.start(ask, writer, stale, None, none, Interim::default()));
            }
            Claim::Joined(_) | Claim::Early(_) | Claim::Full => {
                stored.head().release_refresh(now);
            }
        }
    }

    fn arrived_meanwhile(&self, ask: &Ask, epoch: u64) -> bool {
        let edge = &self.edge;
        let lookup = edge.store.lookup(&ask.key, &ask.request.headers, &edge.purges, epoch);
        let (found, decision) = self.decide(ask, lookup, clock::now());
        found.is_some() && matches!(decision, Decision::Hit { .. } | Decision::HitStale)
    }

    /// The client's conditions, where they are left to the origin: policy says so, and nothing is
    /// stored that the edge could ask about itself (RFC 9111 section 4.3.2).
    fn conditions_for_origin(&self, ask: &Ask, stored: Option<&Stored>) -> HeaderMap {
        let own = stored.is_some_and(|stored| stored.head().terms.has_validator());
        match ask.policy.forward_conditions && !own {
            true => asked_conditions(&self.passed_fields(ask)),
            false => HeaderMap::new(),
        }
    }

    /// Starts the task that fills.
    fn start(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        writer: FillWriter,
        stale: Option<Arc<Stored>>,
        part: Option<(Part, Gap)>,
        conditions: HeaderMap,
        interim: Interim,
    ) -> oneshot::Receiver<Own> {
        writer.fill().belongs_to(ask.key.hash);
        let (own, receiver) = oneshot::channel();
        let metrics = &self.edge.metrics.store;
        metrics.fills.inc();
        let job = Job { ask: Arc::clone(ask), stale, part, conditions, interim, own };
        let worker = Arc::clone(self);
        // A panic in there drops the writer, and the writer's end breaks the fill off visibly.
        // Boxed: a task is moved when it is made and again when it ends, and this one is large.
        tokio::spawn(Box::pin(worker.run(writer, job)));
        receiver
    }

    async fn wait(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        mut waiting: Waiting,
        looks: &mut Looks,
        record: Box<Record>,
    ) -> Step {
        let limit = self.edge.config.limits.fill_wait;
        let started = waiting.own.is_some();
        let arrived = if started {
            waiting.fill.arrived().await
        } else {
            match tokio::time::timeout(limit, waiting.fill.arrived()).await {
                Ok(arrived) => arrived,
                Err(_) => Arrived::Failed(http::StatusCode::GATEWAY_TIMEOUT, "fill_timeout"),
            }
        };
        match arrived {
            Arrived::Head(head) => {
                if started || self.may_join(ask, &waiting, &head) {
                    self.answer_filled(ask, &mut waiting, &head, record).await
                } else if looks.refused {
                    let status = CacheStatus::forward(waiting.why);
                    Step::Answer(self.alone(ask, waiting.stale, status, record).await)
                } else {
                    (looks.behind, looks.refused) = (Some(waiting.fill), true);
                    Step::Again(record)
                }
            }
            Arrived::Private(not_stored) => self.private(ask, waiting, not_stored, record).await,
            Arrived::Failed(status, word) => {
                // An error that the origin itself wrote belongs to the one that asked.
                if let Some(Ok(Own::Answer { answer, .. })) =
                    waiting.own.as_mut().map(oneshot::Receiver::try_recv)
                {
                    let status = CacheStatus::forward(waiting.why);
                    return Step::Answer(self.relay(ask, *answer, status, Outcome::Miss, record));
                }
                let stale = waiting.stale.as_ref();
                Step::Answer(self.failed(ask, stale, waiting.why, status, word, record))
            }
            Arrived::Void if started => Step::Answer(self.panicked(record)),
            Arrived::Void => Step::Again(record),
        }
    }

    /// Waits for what becomes of a fill that began before the request came: then the request looks
    /// again, and shares the next one with everyone who waited. So there is one question at a time
    /// for a key, whoever asks. Where it came to an error, that is the answer: nothing of it was
    /// there before, and the origin is not asked once for each who waited.
    async fn wait_behind(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        fill: Arc<Fill>,
        why: Forward,
        looks: &mut Looks,
        record: Box<Record>,
    ) -> Step {
        let limit = self.edge.config.limits.fill_wait;
        let failed = match tokio::time::timeout(limit, fill.arrived()).await {
            Err(_) => Some((http::StatusCode::GATEWAY_TIMEOUT, "fill_timeout")),
            Ok(Arrived::Failed(status, word)) => Some((status, word)),
            Ok(Arrived::Head(_)) => {
                let _ = tokio::time::timeout(REST_WAIT, fill.ended()).await;
                None
            }
            Ok(Arrived::Private(_) | Arrived::Void) => None,
        };
        if let Some((status, word)) = failed {
            return Step::Answer(self.failed(ask, None, why, status, word, record));
        }
        looks.behind = Some(fill);
        Step::Again(record)
    }

    /// Whether a request that joined may be answered by what arrived: judged as a hit would be.
    fn may_join(&self, ask: &Ask, waiting: &Waiting, arrived: &FillHead) -> bool {
        let head = &arrived.head;
        let edge = &self.edge;
        if head.key.parts != ask.key.parts
            || !head.is_selected_by(&ask.request.headers)
            || !edge.purges.joinable(head, waiting.epoch)
        {
            return false;
        }
        let found = Some((&head.terms, Verdict::Alive));
        // A fill that began after this request was there has missed no purge that it knew of.
        // What must be confirmed on each use, or is stale on arrival, is the answer to the one
        // request that brought it: the origin did not see this one (RFC 9111 section 4).
        let trust = ask.moment.trust_in(waiting.fill.number);
        let decision = decide(&ask.request, found, true, &ask.policy, trust, clock::now(), 1.0);
        matches!(decision, Decision::Hit { .. } | Decision::HitStale)
    }

    /// The answer may not be shared: it belongs to the one that started the fill, the others go
    /// to the origin themselves, side by side.
    async fn private(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        waiting: Waiting,
        not_stored: NotStored,
        record: Box<Record>,
    ) -> Step {
        let status =
            CacheStatus { detail: Some(not_stored.label()), ..CacheStatus::forward(waiting.why) };
        let own = match waiting.own {
            Some(receiver) => receiver.await.ok(),
            None => None,
        };
        match own {
            Some(Own::Answer { answer, confirmed }) => {
                let outcome = if confirmed { Outcome::Revalidated } else { Outcome::Miss };
                Step::Answer(self.relay(ask, *answer, status, outcome, record))
            }
            // The reason lay in the other request: this one may fare better.
            None if !not_stored.holds_for_key() => Step::Again(record),
            Some(Own::Fields(_)) | None => {
                Step::Answer(self.alone(ask, waiting.stale, status, record).await)
            }
        }
    }

    /// The origin gave no answer: something stale where that is allowed, else the error.
    pub(super) fn failed(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        stale: Option<&Arc<Stored>>,
        why: Forward,
        status: http::StatusCode,
        word: &'static str,
        mut record: Box<Record>,
    ) -> Response {
        let now = clock::now();
        record.origin_error = Some(word);
        if let Some(stored) = stale
            && self.may_stand_in(ask, stored, now)
        {
            return self.answer_stored_on_error(ask, stored, why, now, record);
        }
        let record = match self.answer_partly_on_error(ask, why, now, record) {
            Ok(response) => return response,
            Err(record) => record,
        };
        self.origin_failed(status, word, why, record, now)
    }

    async fn answer_filled(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        waiting: &mut Waiting,
        arrived: &FillHead,
        record: Box<Record>,
    ) -> Step {
        let started = waiting.own.is_some();
        let own = waiting.own.as_mut().and_then(|own| match own.try_recv() {
            Ok(Own::Fields(fields)) => Some(fields),
            Ok(Own::Answer { .. }) | Err(_) => None,
        });
        let mut status = CacheStatus::forward(waiting.why);
        status.collapsed = !started;
        status.stored = started;
        if arrived.confirmed {
            status.forward_status = Some(304);
        }
        let outcome = match (started, arrived.confirmed) {
            (false, _) => Outcome::Collapsed,
            (true, true) => Outcome::Revalidated,
            (true, false) => Outcome::Miss,
        };
        let unconditional;
        let ask = match waiting.judged {
            true => {
                unconditional = Arc::new(ask.without_conditions());
                &unconditional
            }
            false => ask,
        };
        if let Some(segments) = arrived.segments {
            let reading = Reading::new(self, ask, &arrived.head, segments);
            return self.answer_in_segments(&reading, own.as_ref(), status, outcome, record).await;
        }
        let fill = &waiting.fill;
        Step::Answer(self.answer_arriving(
            ask,
            fill,
            arrived,
            own.as_ref(),
            status,
            outcome,
            record,
        ))
    }
}
