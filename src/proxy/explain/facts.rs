//! The facts of an explanation: one function a section.

use std::sync::Arc;

use http::Method;
use http::header::{self, HeaderMap, HeaderName};

use super::Subject;
use super::foretell::{Asks, Foretold};
use crate::clock::Now;
use crate::config::Rule;
use crate::proxy::Edge;
use crate::purge::{Row, Selector, Strength};
use crate::semantics::{
    Facts, Policy, Request, StatusLifetimes, Trust, Value, Verdict, WithoutLease, conditions,
    early_refresh_chance, key_fields, may_serve_on_error, readable, selecting_values, tags,
    unconditional,
};
use crate::store::{Head, Kept, Lookup, Past, Peek, Stored, Uncacheable, UnderWay};

/// The request in canonical form.
pub(super) fn request(request: &Request) -> Facts {
    Facts::new()
        .with("method", request.method.to_string())
        .with("url", url(request))
        .with_flag("only_if_cached", request.directives.only_if_cached)
        .with_some("range", shown(&request.headers, &header::RANGE))
}

fn url(request: &Request) -> String {
    format!("{}://{}{}", request.scheme.as_str(), request.host_field(), request.target())
}

/// A field as it may be shown.
fn shown(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| readable(name.as_str(), value.as_bytes()))
}

/// What the rule says; what it leaves at its default is not told.
pub(super) fn policy(policy: &Policy) -> Facts {
    Facts::new()
        .with_flag("pass", policy.pass)
        .with_some("lifetime_seconds", policy.lifetime)
        .with_some("default_lifetime_seconds", policy.default_lifetime)
        .with_flag("heuristic", policy.heuristic)
        .with_some("stale_while_revalidate_seconds", policy.stale_while_revalidate)
        .with_some("stale_if_error_seconds", policy.stale_if_error)
        .with("error_lifetime_seconds", policy.error_lifetime)
        .with_flag("lifetimes_by_status", policy.status_lifetime != StatusLifetimes::default())
        .with_flag("rewrites_for_the_key", policy.key.is_some())
        .with("jitter_percent", u64::from(policy.jitter_percent))
        .with_flag("honour_request_directives", policy.honour_request_directives)
        .with_flag("forward_conditions", policy.forward_conditions)
        .with_flag("store_set_cookie", policy.store_set_cookie)
        .with_flag("strip_set_cookie", policy.strip_set_cookie)
        .with_flag("vary_on_cookie", policy.vary_on_cookie)
        .with(
            "without_lease",
            match policy.without_lease {
                WithoutLease::Revalidate => "revalidate",
                WithoutLease::Serve => "serve",
            },
        )
}

/// What makes the cache key.
pub(super) fn key(site: &str, subject: &Subject<'_>, peek: &Peek) -> Facts {
    let request = subject.request;
    let added: Vec<String> = key_fields(request, subject.policy)
        .map(|(name, value)| match value {
            Some(value) => format!("{name}: {}", readable(name.as_str(), value.as_bytes())),
            None => format!("{name}: (absent)"),
        })
        .collect();
    let newest = peek.vary.first();
    Facts::new()
        .with("url", url(request))
        .with("site", site.to_owned())
        .with("scheme", request.scheme.as_str())
        .with("host", request.host.clone())
        .with("port", u64::from(request.port))
        .with("path", request.path.clone())
        .with_some("query", request.query.clone())
        .with_some("fields", (!added.is_empty()).then(|| added.join("; ")))
        .with_some(
            "request_selects",
            newest.map(|fields| selecting_values(&fields.secondary(&request.headers))),
        )
}

/// Why answers under the key were not shared, and how long that is remembered.
pub(super) fn uncacheable(remembered: &Uncacheable, now: Now) -> Facts {
    Facts::new()
        .with("reason", remembered.why.label())
        .with("for_seconds", remembered.until.saturating_sub(now.boot))
}

/// The stored response that the request is about: what a look-up finds, else the newest that it
/// would have found, had no purge killed it.
pub(super) fn chosen(peek: &Peek) -> Option<&Kept> {
    match &peek.lookup {
        Lookup::Found(stored, _) => peek.kept.iter().find(|kept| Arc::ptr_eq(&kept.stored, stored)),
        Lookup::Miss | Lookup::VaryMiss => {
            peek.kept.iter().find(|kept| kept.selected && kept.verdict.is_none())
        }
    }
}

/// How long it lives.
pub(super) fn freshness(head: &Head, subject: &Subject<'_>, now: Now) -> Facts {
    let terms = &head.terms;
    let chance = early_refresh_chance(terms, subject.policy, now);
    Facts::new()
        .with("source", terms.source.label())
        .with("lifetime_seconds", terms.lifetime)
        .with("fresh_for_seconds", terms.fresh_for)
        .with("jitter_took_seconds", terms.lifetime.saturating_sub(terms.fresh_for))
        .with("age_seconds", terms.age(now))
        .with("age_on_arrival_seconds", terms.initial_age)
        .with("ttl_seconds", head.ttl(now))
        .with("stale_while_revalidate_seconds", terms.stale_while_revalidate)
        .with("stale_if_error_seconds", terms.stale_if_error)
        .with_flag("must_revalidate", terms.must_revalidate)
        .with_flag("no_cache", terms.no_cache)
        .with("answers_authorization", terms.authorized)
        .with("fetch_seconds", terms.fetch_time)
        .with_some("early_refresh_chance", (chance > 0.0).then_some(Value::Share(chance)))
}

/// How far the fill has come.
pub(super) fn fill(fill: &UnderWay) -> Facts {
    Facts::new()
        .with("number", fill.number)
        .with("born", fill.born)
        .with("origin_has_begun_to_answer", fill.head)
        .with("arrived_bytes", fill.arrived_bytes)
        .with("readers", fill.readers)
}

fn verdict_label(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        None => "dead",
        Some(Verdict::Alive) => "alive",
        Some(Verdict::Soft { .. }) => Strength::Soft.label(),
        Some(Verdict::Check) => Strength::Check.label(),
    }
}

impl Edge {
    /// Site, rule and origin.
    pub(super) fn site_facts(&self, site: usize, policy: &Arc<Policy>) -> Facts {
        let found = self.site(site);
        let rule = |rule: &&Rule| Arc::ptr_eq(&rule.policy, policy);
        let rule = found.and_then(|site| site.rules.iter().find(rule));
        let origin = found.and(self.config.origins.get(self.origin_of(site, policy)));
        Facts::new()
            .with("name", self.site_name(site).to_owned())
            .with_some("rule", rule.map(|rule| rule.path.clone()))
            .with_some("origin", origin.map(|origin| origin.name.clone()))
    }

    /// One response under the key.
    pub(super) fn kept_facts(&self, kept: &Kept, now: Now) -> Facts {
        let head = kept.stored.head();
        let vary = head.vary.is_some().then(|| selecting_values(head.secondary()));
        Facts::new()
            .with("selected", kept.selected)
            .with("state", verdict_label(kept.verdict))
            .with_some("vary", vary)
            .with("status", u64::from(head.status.as_u16()))
            .with("age_seconds", head.terms.age(now))
            .with("ttl_seconds", head.ttl(now))
            .with("body_bytes", kept.stored.body().len())
            .with("memory_bytes", kept.stored.weight())
            .with("tags", self.tags_of(&kept.stored).len())
            .with("born", head.born)
            .with("fill", head.fill)
    }

    pub(super) fn tags_of(&self, stored: &Stored) -> Box<[Box<str>]> {
        // It was stored, so its tags were within the limits.
        tags(&stored.head().headers, self.tag_limits()).unwrap_or_default()
    }

    /// How the purges stand to what is stored.
    pub(super) fn purging_facts(&self, chosen: Option<&Kept>, lease: bool, epoch: u64) -> Facts {
        Facts::new()
            .with_some("state", chosen.map(|kept| verdict_label(kept.verdict)))
            .with_some("born", chosen.map(|kept| kept.stored.head().born))
            .with("epoch", epoch)
            .with("swept_up_to_epoch", self.purges.floor())
            .with("lease", lease)
    }

    /// The rows that what is stored answers to, or that a response of this URL would.
    pub(super) fn purge_facts(
        &self,
        subject: &Subject<'_>,
        chosen: Option<&Kept>,
        now: Now,
    ) -> Vec<Facts> {
        let Some(site) = self.site(subject.site) else { return Vec::new() };
        let head = chosen.map(|kept| kept.stored.head());
        let tags = chosen.map(|kept| self.tags_of(&kept.stored)).unwrap_or_default();
        let (host, target) = (&subject.request.host, subject.request.target());
        let named = Selector::reaching(&site.name, host, &target, &tags);
        let rows = self.purges.rows_of(named, head.map(|head| &head.selectors));
        let born = head.map(|head| head.born);
        let newest: Vec<u64> =
            rows.iter().flat_map(|(_, row)| [row.hard, row.check, row.soft]).collect();
        // Only purges that somebody asked for are remembered, and only for a while.
        let past = self.purges.past(newest.len(), |past| newest.contains(&past.applied.epoch));
        rows.iter().flat_map(|(selector, row)| row_facts(selector, row, born, &past, now)).collect()
    }

    /// What the origin would be asked, if it were.
    pub(super) fn origin_facts(
        &self,
        subject: &Subject<'_>,
        foretold: &Foretold,
        peek: &Peek,
        trust: Trust,
        now: Now,
    ) -> Facts {
        let request = subject.request;
        let mut headers = request.headers.clone();
        let mut method = request.method.clone();
        if foretold.asks != Asks::Alone {
            unconditional(&mut headers);
            if let Some(stored) = &foretold.found {
                headers.extend(conditions(&stored.head().headers, &stored.head().terms));
            }
            method = Method::GET;
        }
        let rules = subject.policy.rules.as_deref();
        let host = self.origin_host(subject.site, request, rules);
        let stands_in = match &peek.lookup {
            Lookup::Found(stored, verdict) => {
                let terms = &stored.head().terms;
                may_serve_on_error(subject.request, terms, *verdict, subject.policy, trust, now)
            }
            Lookup::Miss | Lookup::VaryMiss => false,
        };
        Facts::new()
            .with("asked", foretold.asks.label())
            .with("method", method.to_string())
            .with("target", rules.map_or_else(|| request.target(), |rules| rules.target(request)))
            .with_some("host", host.map(|host| readable("host", host.as_bytes())))
            .with_some("if_none_match", shown(&headers, &header::IF_NONE_MATCH))
            .with_some("if_modified_since", shown(&headers, &header::IF_MODIFIED_SINCE))
            .with_some("if_match", shown(&headers, &header::IF_MATCH))
            .with_some("if_unmodified_since", shown(&headers, &header::IF_UNMODIFIED_SINCE))
            .with_some("range", shown(&headers, &header::RANGE))
            .with_some("if_range", shown(&headers, &header::IF_RANGE))
            .with("stored_stands_in_on_error", stands_in)
    }
}

/// One row of the purge table for each strength that it has.
fn row_facts(
    selector: &Selector,
    row: &Row,
    born: Option<u64>,
    past: &[Past],
    now: Now,
) -> Vec<Facts> {
    let strengths =
        [(Strength::Hard, row.hard), (Strength::Check, row.check), (Strength::Soft, row.soft)];
    let there = strengths.into_iter().filter(|(_, epoch)| *epoch > 0);
    let facts = there.map(|(strength, epoch)| {
        let text = selector.text();
        let past = past.iter().find(|past| past.applied.epoch == epoch);
        let ago = match strength {
            Strength::Soft => Some(now.boot.saturating_sub(row.soft_at)),
            _ => past.and_then(|past| now.wall.duration_since(past.at).ok()),
        };
        Facts::new()
            .with("selector", selector.kind())
            .with_some("names", (!text.is_empty()).then_some(text))
            .with("strength", strength.label())
            .with("epoch", epoch)
            .with_some("applies", born.map(|born| epoch > born))
            .with_some("ago_seconds", ago)
            .with_some("purge", past.map(|past| past.applied.sequence))
    });
    facts.collect()
}
