//! What a request that may change something at the origin does to what is stored: it kills, and
//! now and then it leaves something behind.
//!
//! ```text
//! POST /articles -> 201, Location: /articles/7, Cache-Group-Invalidation: "front"
//!   one purge:  url /articles, url /articles/7, tag front     before the client has its answer
//! ```
//!
//! A URL is purged only where something is stored or arriving under it, so that strangers cannot
//! fill the purge table by changing things that nobody reads. Groups have no such index: an origin
//! names its own.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderMap, Method, StatusCode};

use super::arrive::{Kept, Moments};
use super::fields::add_date;
use super::{Ask, Worker};
use crate::clock;
use crate::listener::Response;
use crate::message::ResponseHead;
use crate::origin::{Answer, Framing};
use crate::purge::{Selector, Strength};
use crate::semantics::{
    CacheKey, CacheStatus, Outcome, Policy, Request, Target, Verdict, apply_key_policy,
    invalidated_groups, key_fields, named_targets, represents_target, tells_of_change,
};
use crate::store::{Applied, Claim, FillHead, FillWriter, Head};
use crate::telemetry::Record;

/// Under which fills of answers to POST are listed, beside the key: nobody joins them.
const POSTED: &[u8] = b"posted";

/// An answer to POST that is being stored, to answer a later GET (RFC 9110 section 9.3.3).
pub(super) struct Posted {
    writer: FillWriter,
    head: Arc<Head>,
}

impl Worker {
    /// Acts on the answer to a request with an unsafe method, before the client gets it. `epoch` is
    /// that before the request was sent, and no fill above `fill` had begun then. Where the answer is to be stored, says so.
    pub(super) fn changed(
        &self,
        ask: &Ask,
        (epoch, fill): (u64, u64),
        answer: &mut Answer,
        moments: Moments,
    ) -> Option<Posted> {
        add_date(&mut answer.head.headers, moments.received);
        let kept = self.judge_posted(ask, answer, moments);
        // The purge below would hide what others purged while the request was under way.
        let before = self.edge.purges.epoch();
        let alive = kept.as_ref().is_some_and(|kept| {
            let head = self.make_head(ask, &answer.head, kept.clone(), epoch, 0, None);
            self.edge.purges.verdict(&head, before) == Some(Verdict::Alive)
        });
        let born = match self.invalidate(ask, &answer.head) {
            None => epoch,
            // Somebody else's purge came in between: this answer may be older than that.
            Some(applied) if applied.epoch != before + 1 => return None,
            Some(applied) => applied.epoch,
        };
        let kept = kept.filter(|_| alive)?;
        let name = self.edge.store.secret().hash(&[&ask.key.hash.to_le_bytes(), POSTED]);
        let Claim::Started(writer) = self.edge.fills.join_or_start(name, born) else { return None };
        writer.fill().belongs_to(ask.key.hash);
        let head = self.make_head(ask, &answer.head, kept, born, fill, None);
        Some(Posted { writer, head })
    }

    /// Answers with what is stored at the same time.
    pub(super) fn answer_posted(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        answer: Answer,
        posted: Posted,
        status: CacheStatus,
        mut record: Box<Record>,
    ) -> Response {
        let Posted { writer, head } = posted;
        record.origin = Some(answer.endpoint);
        let arriving = FillHead {
            head: Arc::clone(&head),
            length: length_of(answer.framing),
            confirmed: false,
            segments: None,
        };
        let fill = Arc::clone(writer.fill());
        writer.head(arriving.clone());
        let fields = answer.head.headers;
        let status = CacheStatus { stored: true, ..status };
        let outcome = Outcome::Pass;
        let response =
            self.answer_arriving(ask, &fill, &arriving, Some(&fields), status, outcome, record);
        let (worker, ask) = (Arc::clone(self), Arc::clone(ask));
        tokio::spawn(async move { worker.keep(writer, &ask, head, answer.body).await });
        response
    }

    /// Whether an answer to POST may answer a later GET: it must say that it represents the URL,
    /// and for how long (RFC 9110 section 9.3.3, RFC 9111 section 3). All else is judged as for GET.
    fn judge_posted(&self, ask: &Ask, answer: &Answer, moments: Moments) -> Option<Kept> {
        let (request, head) = (&ask.request, &answer.head);
        if request.method != Method::POST
            || head.status != StatusCode::OK
            || answer.framing == Framing::Close
            || head.headers.contains_key(SET_COOKIE)
            || !represents_target(request, &head.headers)
        {
            return None;
        }
        let asked = Request { method: Method::GET, ..request.clone() };
        let length = length_of(answer.framing);
        let kept = self.judge(ask, &asked, head, length, moments, 0).ok()?;
        kept.terms.source.is_explicit().then_some(kept)
    }

    /// Purges what an answer tells is out of date (RFC 9111 section 4.4, RFC 9875 section 3): all of
    /// it at one epoch.
    pub(super) fn invalidate(&self, ask: &Ask, answer: &ResponseHead) -> Option<Applied> {
        let edge = &self.edge;
        let site = &edge.config.sites.get(ask.site)?.name;
        let tag = |tag: Box<str>| Selector::Tag { site: Arc::clone(site), tag: tag.into_string() };
        let mut selectors: Vec<Selector> =
            self.groups(&answer.headers).into_iter().map(tag).collect();
        if tells_of_change(answer.status) {
            let (kept, others) = self.changed_urls(ask, site, &answer.headers);
            edge.purges.distrust(&others);
            selectors.extend(kept);
        }
        if selectors.is_empty() {
            return None;
        }
        let applied = edge.purges.apply(&selectors, Strength::Hard, clock::now());
        for selector in &selectors {
            edge.metrics.store.purges(selector.kind());
        }
        Some(applied)
    }

    /// URLs that an answer tells have changed: those under which something may be kept, and those
    /// for which only what is stored under others could be used.
    fn changed_urls(
        &self,
        ask: &Ask,
        site: &Arc<str>,
        answer: &HeaderMap,
    ) -> (Vec<Selector>, Vec<Selector>) {
        let edge = &self.edge;
        let (mut kept, mut others) = (Vec::new(), Vec::new());
        let mut add = |request: &Request, policy: &Policy, key: &CacheKey| {
            let (site, host) = (Arc::clone(site), request.host.clone());
            let url = Selector::Url { site, host, target: request.target() };
            match self.may_be_kept(request, policy, key) {
                true => kept.push(url),
                false => others.push(url),
            }
        };
        add(&ask.request, &ask.policy, &ask.key);
        for target in self.public_targets(ask, answer) {
            let policy = edge.routes.policy(ask.site, &target.path);
            let request = at(ask, target, policy);
            add(&request, policy, &CacheKey::of(edge.store.secret(), site, &request, policy));
        }
        (kept, others)
    }

    /// The URLs that an answer names, and where paths are rewritten also those under which the public
    /// knows them: the origin says what it sees.
    fn public_targets(&self, ask: &Ask, answer: &HeaderMap) -> Vec<Target> {
        let mut targets = named_targets(&ask.request, answer);
        let rules = ask.policy.rules.as_deref();
        if let Some(rewrite) = rules.and_then(|rules| rules.rewrite.as_ref()) {
            let public = |target: &Target| {
                rewrite.undo(&target.path).map(|path| Target { path, ..target.clone() })
            };
            let public: Vec<Target> = targets.iter().filter_map(public).collect();
            targets.extend(public);
        }
        targets
    }

    /// Groups that an answer invalidates, whatever its status: it says so in as many words.
    fn groups(&self, headers: &HeaderMap) -> Box<[Box<str>]> {
        invalidated_groups(headers, self.edge.tag_limits()).unwrap_or_else(|_beyond| {
            tracing::debug!("Cache-Group-Invalidation is broken or beyond the limits on tags");
            Box::default()
        })
    }

    /// Whether something may be stored or arriving under the URL of a request. Where policy adds to
    /// the key, the URL has more keys than this one, and nobody can tell. What arrives is looked at
    /// first: it is in the store before it ends.
    fn may_be_kept(&self, request: &Request, policy: &Policy, key: &CacheKey) -> bool {
        key_fields(request, policy).next().is_some()
            || self.edge.fills.concern(key.hash)
            || self.edge.store.holds(key)
    }
}

/// A plain request for another target of the same origin.
fn at(ask: &Ask, target: Target, policy: &Policy) -> Request {
    let Target { path, query, ambiguous } = target;
    let headers = HeaderMap::new();
    let mut request = Request { path, query, ambiguous, headers, ..ask.request.clone() };
    apply_key_policy(&mut request, policy);
    request
}

fn length_of(framing: Framing) -> Option<u64> {
    match framing {
        Framing::None => Some(0),
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::Close => None,
    }
}
