//! The way of a request on one screen.
//!
//! What memory answers is answered at once; all else is a future of its own, on the heap. So the future of a
//! request is small, for it is copied where it is made, and a hit does not pay for what it never does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::explain::ATOLL_EXPLAIN;
use super::fill::{Looks, Step};
use super::rules::Asker;
use super::trust::Moment;
use super::tunnel::granted;
use super::{Ask, Edge, Worker, grpc};
use crate::clock::{self, Now};
use crate::listener::{Client, Interim, Request, Response, Upgrade};
use crate::message::{Body, Refusal, ResponseHead};
use crate::semantics::{
    self, CacheKey, CacheStatus, Decision, Forward, Hops, NotStored, Outcome, Policy, Reason,
    Terms, Trust, Verdict, apply_key_policy, decide_why, lookup_allowed, normalise, storable,
};
use crate::store::{Head, Lookup, Stored};
use crate::telemetry::{Record, RequestId, TraceParent};

/// Times that a request looks again after a fill which it joined came to nothing for it. After
/// that it goes to the origin alone.
const LOOKS: usize = 3;

/// Answers one request.
pub(super) async fn serve(worker: &Arc<Worker>, incoming: Request) -> Response {
    begin(worker, incoming).wait().await
}

/// What comes of a step: an answer, or what has to be waited for.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are answers, and each box would be made for one"
)]
enum Next<'a> {
    Answer(Response),
    Later(Pin<Box<dyn Future<Output = Response> + Send + 'a>>),
}

impl<'a> Next<'a> {
    fn later(later: impl Future<Output = Response> + Send + 'a) -> Self {
        Self::Later(Box::pin(later))
    }

    /// The same with a change to the answer.
    fn with(self, change: impl FnOnce(&mut Response) + Send + 'a) -> Self {
        match self {
            Self::Answer(mut response) => {
                change(&mut response);
                Self::Answer(response)
            }
            Self::Later(later) => Self::later(async move {
                let mut response = later.await;
                change(&mut response);
                response
            }),
        }
    }

    async fn wait(self) -> Response {
        match self {
            Self::Answer(response) => response,
            Self::Later(later) => later.await,
        }
    }
}

/// Reads what is asked, of whom, and by whom; lets in or not.
fn begin(worker: &Arc<Worker>, incoming: Request) -> Next<'_> {
    let Request { mut head, body, mut client, interim, arrived, upgrade } = incoming;
    let believed = worker.edge.believed(&client, &mut head);
    let id = worker.ids.choose(head.headers.get("x-request-id"));
    let mut record = worker.recorder.record(id.clone(), arrived);
    record.client = client.address;
    record.tls = client.tls.as_ref().map(|tls| tls.version);
    record.trace =
        head.headers.get("traceparent").and_then(|value| TraceParent::parse(value.as_bytes()));
    let host = head.authority.as_deref().or_else(|| host_of(&head.headers));
    record.set_head(&head, host.unwrap_or_default());
    let mut hops = None;
    match believed {
        Ok(None) => {}
        Ok(Some((known, way))) => {
            record.client = known.address;
            (client, hops) = (known, Some(way));
        }
        Err(refusal) => return Next::Answer(worker.refusal(refusal, record, arrived)),
    }
    let request = match normalise(head) {
        Ok(request) => request,
        Err(refusal) => return Next::Answer(worker.refusal(refusal, record, arrived)),
    };
    let Some(site) = worker.edge.routes.site(&request.host) else {
        return Next::Answer(worker.refusal(Refusal::UnknownHost, record, arrived));
    };
    record.site = Some(site);
    // A connection opened for one site's name must not ask for another's content (421).
    if let Some(name) = client.tls.as_ref().and_then(|tls| tls.server_name.as_deref())
        && worker.edge.routes.site(name).is_some_and(|named| named != site)
    {
        return Next::Answer(worker.refusal(Refusal::UnknownHost, record, arrived));
    }
    let policy = Arc::clone(worker.edge.routes.policy(site, &request.path));
    // Before all else that a method may mean: its token must not get to an origin.
    if worker.edge.purges_by(&request.method) {
        return Next::later(async move {
            worker.purge(&request, site, &client, body, record, arrived).await
        });
    }
    record = match worker.let_in_as_read(site, &policy, &request, &client, record, arrived) {
        Ok(record) => record,
        Err(response) => return Next::Answer(*response),
    };
    let ask = Routed { request, site, policy, client, hops, interim, id, upgrade };
    let Some(rules) = ask.policy.rules.clone() else {
        return routed(worker, ask, body, arrived, record);
    };
    let asker = Asker::of(&ask.request);
    let admitted = worker.admit(&rules, &ask.request, &ask.client, record, arrived);
    let next = match admitted {
        Ok(record) => routed(worker, ask, body, arrived, record),
        Err(response) => Next::Answer(*response),
    };
    next.with(move |response| asker.dress(&rules, response))
}

/// A request that is let in, before it has its key.
struct Routed {
    request: semantics::Request,
    site: usize,
    policy: Arc<Policy>,
    client: Arc<Client>,
    hops: Option<Hops>,
    interim: Interim,
    id: RequestId,
    upgrade: Option<Box<Upgrade>>,
}

/// Answers a request that found its site and its rule, and is let in.
fn routed(
    worker: &Arc<Worker>,
    mut ask: Routed,
    body: Body,
    arrived: Now,
    record: Box<Record>,
) -> Next<'_> {
    let Routed { request, policy, .. } = &ask;
    if !policy.forwards(&request.method) {
        return Next::Answer(worker.method_not_allowed(policy, record, arrived));
    }
    if body.exact_size().is_some_and(|size| size > policy.body_bytes) {
        return Next::Answer(worker.refusal(Refusal::BodyTooLarge, record, arrived));
    }
    if worker.edge.loops(&request.headers) {
        return Next::Answer(worker.loop_detected(record, arrived));
    }
    if request.path == "*" {
        return Next::Answer(worker.options(policy, record, arrived));
    }
    match granted(ask.upgrade.take(), &ask.policy) {
        Ok(upgrade) => ask.upgrade = upgrade,
        Err(refusal) => return Next::Answer(worker.refusal(refusal, record, arrived)),
    }
    let Routed { request, policy, .. } = &ask;
    if request.asks.positions.is_empty() {
        let moment = worker.edge.moment(policy, arrived);
        return judged(worker, ask, moment, body, arrived, record);
    }
    Next::later(async move {
        let Routed { request, policy, client, .. } = &ask;
        match worker.moment_named(request, policy, client, arrived).await {
            Ok(moment) => judged(worker, ask, moment, body, arrived, record).wait().await,
            Err(wait) => worker.too_many_positions(wait, record, arrived),
        }
    })
}

/// Answers a request of which it is known how far memory may answer it.
fn judged(
    worker: &Arc<Worker>,
    ask: Routed,
    moment: Moment,
    body: Body,
    arrived: Now,
    record: Box<Record>,
) -> Next<'_> {
    let Routed { mut request, site, policy, client, hops, interim, id, upgrade } = ask;
    let name = worker.edge.config.sites.get(site).map_or("", |site| &*site.name);
    apply_key_policy(&mut request, &policy);
    let key = CacheKey::of(worker.edge.store.secret(), name, &request, &policy);
    let token = request.asks.explain.take();
    let ask = Arc::new(Ask { request, site, policy, key, client, hops, interim, id, moment });
    // Told before it is done: what is done changes what there is to tell.
    let told = token.and_then(|token| {
        worker.edge.explain_to(&token, &ask, !matches!(body, Body::Empty), arrived)
    });
    let grpc = ask.is_grpc();
    let next = match upgrade {
        Some(upgrade) => Next::later(async move { worker.tunnel(&ask, *upgrade, record).await }),
        None => answer(worker, ask, body, arrived, record),
    };
    if !grpc && told.is_none() {
        return next;
    }
    next.with(move |response| {
        if grpc {
            grpc::in_its_words(response);
        }
        if let Some(told) = told {
            response.join_fields();
            response.headers.insert(ATOLL_EXPLAIN, told);
        }
    })
}

/// Answers a request that is routed: passes it on, or looks what is stored.
fn answer(
    worker: &Arc<Worker>,
    ask: Arc<Ask>,
    body: Body,
    arrived: Now,
    record: Box<Record>,
) -> Next<'_> {
    if ask.is_grpc() {
        return Next::later(async move { worker.call(&ask, body, record).await });
    }
    let pass = |ask: Arc<Ask>, why, body, record| {
        let status = CacheStatus::forward(why);
        Next::later(async move { worker.pass(&ask, body, status, record).await })
    };
    let allowed = lookup_allowed(&ask.request, &ask.policy);
    // A body that belongs to no answer of ours must not be mistaken for the next request.
    if !matches!(body, Body::Empty) {
        return pass(ask, allowed.err().unwrap_or(Forward::Bypass), body, record);
    }
    if let Err(why) = allowed {
        if ask.request.forbids_forwarding() {
            return Next::Answer(worker.only_if_cached(record, arrived));
        }
        return pass(ask, why, body, record);
    }
    worker.edge.count_trust(&ask);
    match worker.look(&ask, arrived, record) {
        Looked::Answer(response) => Next::Answer(response),
        Looked::Else(found) => {
            Next::later(async move { worker.answer_else(&ask, *found, arrived).await })
        }
    }
}

/// What a look into the store came to.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are answers, and each box would be made for one"
)]
enum Looked {
    Answer(Response),
    Else(Box<Found>),
}

/// What was found where that alone is no answer.
struct Found {
    stored: Option<Arc<Stored>>,
    decision: Decision,
    /// Of the look.
    epoch: u64,
    record: Box<Record>,
}

impl Worker {
    /// Looks once into the store, and answers from it where it can.
    fn look(self: &Arc<Self>, ask: &Arc<Ask>, now: Now, mut record: Box<Record>) -> Looked {
        // In this order: the clock and the lease (both when the request had come), the epoch,
        // the store and the rows.
        let epoch = self.edge.purges.epoch();
        let lookup =
            self.edge.store.lookup(&ask.key, &ask.request.headers, &self.edge.purges, epoch);
        let exact = self.decide(ask, lookup, now);
        let (stored, mut decision) = self.or_elsewhere(ask, exact, epoch, now);
        if let Decision::Pass(_) | Decision::Fill(_) | Decision::OnlyIfCached = decision {
            match self.answer_partly(ask, stored.as_deref(), epoch, now, record) {
                Ok(response) => return Looked::Answer(response),
                Err((back, better)) => {
                    record = back;
                    if let (Decision::Pass(why), Some(better)) = (&mut decision, better) {
                        *why = better;
                    }
                }
            }
        }
        let (outcome, refresh) = match decision {
            Decision::Hit { refresh_early } => (Outcome::Hit, refresh_early),
            Decision::HitStale => (Outcome::Stale, true),
            Decision::OnlyIfCached => return Looked::Answer(self.only_if_cached(record, now)),
            Decision::Pass(_) | Decision::Revalidate(_) | Decision::Fill(_) => {
                return Looked::Else(Box::new(Found { stored, decision, epoch, record }));
            }
        };
        if let Some(found) = &stored {
            if refresh {
                self.refresh(ask, found, epoch);
            }
            if found.body().segments().is_none() {
                return Looked::Answer(self.answer_stored(ask, found, outcome, now, record));
            }
        }
        Looked::Else(Box::new(Found { stored, decision, epoch, record }))
    }

    /// Answers by segments, by a fill, or by passing on, after the first look.
    async fn answer_else(self: &Arc<Self>, ask: &Arc<Ask>, first: Found, arrived: Now) -> Response {
        let (mut found, mut now) = (first, arrived);
        let mut looks = Looks::default();
        let mut left = LOOKS;
        loop {
            let Found { stored, decision, epoch, record } = found;
            let step = match (decision, stored) {
                (Decision::Hit { .. }, Some(stored)) => {
                    self.hit_in_segments(ask, &stored, Outcome::Hit, record).await
                }
                (Decision::HitStale, Some(stored)) => {
                    self.hit_in_segments(ask, &stored, Outcome::Stale, record).await
                }
                (Decision::OnlyIfCached, _) => return self.only_if_cached(record, now),
                (Decision::Pass(why), stale) => {
                    return self.alone(ask, stale, CacheStatus::forward(why), record).await;
                }
                (Decision::Revalidate(why) | Decision::Fill(why), stored) => {
                    self.fill(ask, why, stored, epoch, &mut looks, record).await
                }
                (Decision::Hit { .. } | Decision::HitStale, None) => {
                    self.fill(ask, Forward::Miss, None, epoch, &mut looks, record).await
                }
            };
            let back = match step {
                Step::Answer(response) => return response,
                Step::Again(back) => back,
            };
            left -= 1;
            if left == 0 {
                let status = CacheStatus::forward(Forward::Miss);
                return self.pass(ask, Body::Empty, status, back).await;
            }
            now = clock::now();
            found = match self.look(ask, now, back) {
                Looked::Answer(response) => return response,
                Looked::Else(next) => *next,
            };
        }
    }

    pub(super) fn decide(
        &self,
        ask: &Ask,
        lookup: Lookup,
        now: Now,
    ) -> (Option<Arc<Stored>>, Decision) {
        let trust = match &lookup {
            Lookup::Found(stored, _) => ask.moment.trust_in(stored.head().fill),
            Lookup::Miss | Lookup::VaryMiss => ask.moment.trust,
        };
        let (found, decision, _) = self.edge.decide(&ask.request, &ask.policy, lookup, trust, now);
        (found, decision)
    }
}

impl Edge {
    /// Judges what a look-up found, with the draw of this moment.
    pub(super) fn decide(
        &self,
        request: &semantics::Request,
        policy: &Policy,
        lookup: Lookup,
        trust: Trust,
        now: Now,
    ) -> (Option<Arc<Stored>>, Decision, Reason) {
        match lookup {
            Lookup::Found(stored, verdict) => {
                let head = stored.head();
                let age = now.since(head.terms.received);
                let draw = self.dice.early(head.key.hash, head.fill, age);
                let anew = self.judged_anew(request, head, policy);
                let (terms, verdict) = match &anew {
                    None => (&head.terms, verdict),
                    Some(Ok(terms)) => (terms, verdict),
                    Some(Err(_not_stored_now)) => (&head.terms, Verdict::Check),
                };
                let found = Some((terms, verdict));
                let (decision, why) = decide_why(request, found, true, policy, trust, now, draw);
                (Some(stored), decision, why)
            }
            Lookup::Miss | Lookup::VaryMiss => {
                let variants = matches!(lookup, Lookup::VaryMiss);
                let (decision, why) = decide_why(request, None, variants, policy, trust, now, 1.0);
                (None, decision, why)
            }
        }
    }
}

impl Edge {
    /// What is stored as the policy in force judges it; `None` where that says the same as the one
    /// under which it was stored.
    fn judged_anew(
        &self,
        request: &semantics::Request,
        head: &Head,
        policy: &Policy,
    ) -> Option<Result<Terms, NotStored>> {
        let terms = &head.terms;
        if terms.mark.lasting == policy.mark.lasting {
            return None;
        }
        let requested = Now {
            wall: terms.received.wall.checked_sub(terms.fetch_time).unwrap_or(terms.received.wall),
            boot: terms.received.boot.saturating_sub(terms.fetch_time),
        };
        let draw = self.dice.jitter(&head.key.parts, head.fill);
        let mut kept = ResponseHead::new(head.status);
        kept.headers = head.fields.map();
        let anew = storable(request, &kept, policy, requested, terms.received, draw);
        // What it may be shown for is judged by its own mark.
        Some(anew.map(|anew| Terms { mark: terms.mark, ..anew }))
    }
}

fn host_of(headers: &http::HeaderMap) -> Option<&str> {
    headers.get(http::header::HOST).and_then(|host| std::str::from_utf8(host.as_bytes()).ok())
}
