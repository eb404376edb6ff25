//! The way of a request on one screen.
//!
//! What asks an origin, or goes another way than a plain hit, is boxed: the future of a request is copied
//! to the heap with room for its largest part, and a hit should not pay for what it never does.

use std::sync::Arc;

use super::explain::ATOLL_EXPLAIN;
use super::fill::{Looks, Step};
use super::rules::Asker;
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
        Err(refusal) => return worker.refusal(refusal, record, arrived),
    }
    let request = match normalise(head) {
        Ok(request) => request,
        Err(refusal) => return worker.refusal(refusal, record, arrived),
    };
    let Some(site) = worker.edge.routes.site(&request.host) else {
        return worker.refusal(Refusal::UnknownHost, record, arrived);
    };
    record.site = Some(site);
    // A connection opened for one site's name must not ask for another's content (421).
    if let Some(name) = client.tls.as_ref().and_then(|tls| tls.server_name.as_deref())
        && worker.edge.routes.site(name).is_some_and(|named| named != site)
    {
        return worker.refusal(Refusal::UnknownHost, record, arrived);
    }
    let policy = Arc::clone(worker.edge.routes.policy(site, &request.path));
    // Before all else that a method may mean: its token must not get to an origin.
    if worker.edge.purges_by(&request.method) {
        return Box::pin(worker.purge(&request, site, &client, body, record, arrived)).await;
    }
    record = match worker.let_in_as_read(site, &policy, &request, &client, record, arrived) {
        Ok(record) => record,
        Err(response) => return *response,
    };
    let ask = Routed { request, site, policy, client, hops, interim, id, upgrade };
    let Some(rules) = ask.policy.rules.clone() else {
        return routed(worker, ask, body, arrived, record).await;
    };
    let asker = Asker::of(&ask.request);
    let admitted = worker.admit(&rules, &ask.request, &ask.client, record, arrived);
    let mut response = match admitted {
        Ok(record) => routed(worker, ask, body, arrived, record).await,
        Err(response) => *response,
    };
    asker.dress(&rules, &mut response);
    response
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
async fn routed(
    worker: &Arc<Worker>,
    ask: Routed,
    body: Body,
    arrived: Now,
    record: Box<Record>,
) -> Response {
    let Routed { mut request, site, policy, client, hops, interim, id, upgrade } = ask;
    if !policy.forwards(&request.method) {
        return worker.method_not_allowed(&policy, record, arrived);
    }
    if body.exact_size().is_some_and(|size| size > policy.body_bytes) {
        return worker.refusal(Refusal::BodyTooLarge, record, arrived);
    }
    if worker.edge.loops(&request.headers) {
        return worker.loop_detected(record, arrived);
    }
    if request.path == "*" {
        return worker.options(&policy, record, arrived);
    }
    let upgrade = match granted(upgrade, &policy) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return worker.refusal(refusal, record, arrived),
    };
    let name = worker.edge.config.sites.get(site).map_or("", |site| &*site.name);
    apply_key_policy(&mut request, &policy);
    let key = CacheKey::of(worker.edge.store.secret(), name, &request, &policy);
    let token = request.asks.explain.take();
    let moment = match request.asks.positions.is_empty() {
        true => worker.edge.moment(&policy, arrived),
        false => match Box::pin(worker.moment_named(&request, &policy, &client, arrived)).await {
            Ok(moment) => moment,
            Err(wait) => return worker.too_many_positions(wait, record, arrived),
        },
    };
    let ask = Arc::new(Ask { request, site, policy, key, client, hops, interim, id, moment });
    // Told before it is done: what is done changes what there is to tell.
    let told = token.and_then(|token| {
        worker.edge.explain_to(&token, &ask, !matches!(body, Body::Empty), arrived)
    });
    let grpc = ask.is_grpc();
    let mut response = match upgrade {
        Some(upgrade) => Box::pin(worker.tunnel(&ask, *upgrade, record)).await,
        None => answer(worker, ask, body, arrived, record).await,
    };
    if grpc {
        response = grpc::in_its_words(response);
    }
    if let Some(told) = told {
        response.join_fields();
        response.headers.insert(ATOLL_EXPLAIN, told);
    }
    response
}

/// Answers a request that is routed: passes it on, or looks what is stored.
async fn answer(
    worker: &Arc<Worker>,
    ask: Arc<Ask>,
    body: Body,
    arrived: Now,
    record: Box<Record>,
) -> Response {
    if ask.is_grpc() {
        return Box::pin(worker.call(&ask, body, record)).await;
    }
    // A body that belongs to no answer of ours must not be mistaken for the next request.
    if !matches!(body, Body::Empty) {
        let why = lookup_allowed(&ask.request, &ask.policy).err().unwrap_or(Forward::Bypass);
        return Box::pin(worker.pass(&ask, body, CacheStatus::forward(why), record)).await;
    }
    if let Err(why) = lookup_allowed(&ask.request, &ask.policy) {
        if ask.request.forbids_forwarding() {
            return worker.only_if_cached(record, arrived);
        }
        return Box::pin(worker.pass(&ask, body, CacheStatus::forward(why), record)).await;
    }
    worker.answer(&ask, arrived, record).await
}

impl Worker {
    /// Answers from the store, by a fill, or by passing on.
    async fn answer(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        arrived: Now,
        mut record: Box<Record>,
    ) -> Response {
        let mut now = arrived;
        self.edge.count_trust(ask);
        let mut looks = Looks::default();
        for _ in 0..LOOKS {
            // In this order: the clock and the lease (both when the request had come), the epoch,
            // the store and the rows.
            let epoch = self.edge.purges.epoch();
            let lookup =
                self.edge.store.lookup(&ask.key, &ask.request.headers, &self.edge.purges, epoch);
            let exact = self.decide(ask, lookup, now);
            let (found, mut decision) = self.or_elsewhere(ask, exact, epoch, now);
            if let Decision::Pass(_) | Decision::Fill(_) | Decision::OnlyIfCached = decision {
                match self.answer_partly(ask, found.as_deref(), epoch, now, record) {
                    Ok(response) => return response,
                    Err((back, better)) => {
                        record = back;
                        if let (Decision::Pass(why), Some(better)) = (&mut decision, better) {
                            *why = better;
                        }
                    }
                }
            }
            let step = match (decision, found) {
                (Decision::Hit { refresh_early }, Some(stored)) => {
                    if refresh_early {
                        self.refresh(ask, &stored, epoch);
                    }
                    match stored.body().segments() {
                        None => return self.answer_stored(ask, &stored, Outcome::Hit, now, record),
                        Some(_) => {
                            Box::pin(self.hit_in_segments(ask, &stored, Outcome::Hit, record)).await
                        }
                    }
                }
                (Decision::HitStale, Some(stored)) => {
                    self.refresh(ask, &stored, epoch);
                    match stored.body().segments() {
                        None => {
                            return self.answer_stored(ask, &stored, Outcome::Stale, now, record);
                        }
                        Some(_) => {
                            Box::pin(self.hit_in_segments(ask, &stored, Outcome::Stale, record))
                                .await
                        }
                    }
                }
                (Decision::OnlyIfCached, _) => return self.only_if_cached(record, now),
                (Decision::Pass(why), stale) => {
                    return Box::pin(self.alone(ask, stale, CacheStatus::forward(why), record))
                        .await;
                }
                (Decision::Revalidate(why) | Decision::Fill(why), found) => {
                    Box::pin(self.fill(ask, why, found, epoch, &mut looks, record)).await
                }
                (Decision::Hit { .. } | Decision::HitStale, None) => {
                    Box::pin(self.fill(ask, Forward::Miss, None, epoch, &mut looks, record)).await
                }
            };
            match step {
                Step::Answer(response) => return response,
                Step::Again(back) => record = back,
            }
            now = clock::now();
        }
        Box::pin(self.pass(ask, Body::Empty, CacheStatus::forward(Forward::Miss), record)).await
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
