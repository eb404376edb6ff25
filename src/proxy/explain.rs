//! What would be done with a request and why: the way of `serve` walked without acting.
//!
//! An explanation that is computed beside the real thing soon tells something else. So this calls
//! what a request calls: `normalise`, the routes, the key, the look-up, `decide` and `road`; it
//! differs only in that nothing is fetched, removed or counted. `foretell` is the one place that
//! follows the order of `serve` in words of its own, and a story compares the two request by
//! request.
//!
//! Asked in two ways: over the admin API about a request that is described, and with a token in
//! the field `Atoll-Explain` about the request that bears it. A wrong token tells nothing: the
//! answer is the same as without.

mod entry;
mod facts;
mod foretell;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::{Ask, Edge};
use crate::clock::Now;
use crate::config::{Scope, Site};
use crate::message::{Refusal, RequestHead};
use crate::semantics::{
    CacheKey, Explanation, Facts, Policy, Request, Trust, apply_key_policy, normalise, readable,
};
use foretell::Foretold;

/// Response field with the explanation; the request field that asks for it has the same name.
pub(super) const ATOLL_EXPLAIN: HeaderName = HeaderName::from_static("atoll-explain");

/// A request that found its site and its rule.
struct Subject<'a> {
    request: &'a Request,
    site: usize,
    policy: &'a Arc<Policy>,
    key: &'a CacheKey,
    /// It has a body.
    body: bool,
}

impl Edge {
    /// What would be done with a request without a body that came now. Changes nothing.
    #[must_use]
    pub fn explain(&self, head: RequestHead, now: Now) -> Explanation {
        let mut told = Explanation::default();
        let method = head.method.clone();
        let mut request = match normalise(head) {
            Ok(request) => request,
            Err(refusal) => return refused(told, refusal),
        };
        let Some(site) = self.routes.site(&request.host) else {
            return refused(told, Refusal::UnknownHost);
        };
        let policy = self.routes.policy(site, &request.path);
        let asked = facts::request(&request);
        let redirect = policy.rules.as_ref().and_then(|rules| rules.redirects.of(&request));
        let own_answer = if self.purges_by(&method) {
            Some("purge")
        } else if redirect.is_some() {
            Some("redirect")
        } else if !policy.forwards(&method) {
            Some(Refusal::MethodNotAllowed.label())
        } else if self.loops(&request.headers) {
            Some("loop")
        } else if request.path == "*" {
            Some("options")
        } else {
            None
        };
        if let Some(why) = own_answer {
            told.add("decision", Foretold::refused(why).facts());
            let location = redirect.map(|(_, url)| readable("location", url.as_bytes()));
            told.add("request", asked.with_some("redirected_to", location));
            told.add("site", self.site_facts(site, policy));
            return told;
        }
        let name = self.config.sites.get(site).map_or("", |site| &*site.name);
        apply_key_policy(&mut request, policy);
        let key = CacheKey::of(self.store.secret(), name, &request, policy);
        let subject = Subject { request: &request, site, policy, key: &key, body: false };
        self.tell(&mut told, &subject, asked, now);
        told
    }

    /// The explanation of a request for whoever holds a token that may look at its site.
    pub(super) fn explain_to(
        &self,
        token: &HeaderValue,
        ask: &Ask,
        body: bool,
        now: Now,
    ) -> Option<HeaderValue> {
        let client = ask.client.address.ip();
        let tokens = &self.config.admin.tokens;
        let (_, token) = self.guard.judge(tokens, Some(token.as_bytes()), client, now).ok()?;
        let site = self.config.sites.get(ask.site)?;
        if !(token.covers(Scope::Read) && token.covers_site(&site.name)) {
            return None;
        }
        let mut told = Explanation::default();
        let Ask { request, site, policy, key, .. } = ask;
        let subject = Subject { request, site: *site, policy, key, body };
        self.tell(&mut told, &subject, facts::request(request), now);
        HeaderValue::try_from(told.line()).ok()
    }

    /// Everything about a request that found its site and its rule. `asked` is the request as it
    /// was before the rule rewrote it.
    fn tell(&self, told: &mut Explanation, subject: &Subject<'_>, asked: Facts, now: Now) {
        let request = subject.request;
        // In the order of a request: the clock, the lease, the epoch, the store and the rows.
        let (lease, epoch) = self.purges.moment(now);
        let peek = self.store.peek(subject.key, &request.headers, &self.purges, epoch);
        let fill_key = self.store.fill_key(subject.key, &request.headers);
        let trust = Trust::of(lease, subject.policy);
        let foretold = self.foretell(subject, &peek, fill_key, trust, now);
        told.add("decision", foretold.facts());
        told.add("request", asked);
        told.add("site", self.site_facts(subject.site, subject.policy));
        told.add("policy", facts::policy(subject.policy));
        told.add("key", facts::key(self.site_name(subject.site), subject, &peek));
        told.add_all("stored", peek.kept.iter().map(|kept| self.kept_facts(kept, now)).collect());
        let chosen = facts::chosen(&peek);
        if let Some(chosen) = chosen {
            told.add("freshness", facts::freshness(chosen.stored.head(), subject, now));
        }
        told.add("purging", self.purging_facts(chosen, lease, epoch));
        told.add_all("purges", self.purge_facts(subject, chosen, now));
        if let Some(remembered) = self.store.uncacheable(fill_key, now.boot) {
            told.add("uncacheable", facts::uncacheable(&remembered, now));
        }
        if let Some(fill) = self.fills.peek(fill_key) {
            told.add("fill", facts::fill(&fill));
        }
        told.add("origin", self.origin_facts(subject, &foretold, &peek, trust, now));
    }

    fn site(&self, site: usize) -> Option<&Site> {
        self.config.sites.get(site)
    }

    fn site_name(&self, site: usize) -> &str {
        self.site(site).map_or("", |site| &*site.name)
    }
}

/// A request that no site answers for.
fn refused(mut told: Explanation, refusal: Refusal) -> Explanation {
    told.add("decision", Foretold::refused(refusal.label()).facts());
    told
}
