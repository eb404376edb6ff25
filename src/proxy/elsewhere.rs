//! Answering from what another query brought, where its origin said that the difference does not
//! matter (`No-Vary-Search`).
//!
//! Only after the exact URL was looked for, and only with what may answer at once: fresh, or stale
//! within its window. Everything else is a miss of the URL that was asked for, which is then filled,
//! refreshed and collapsed under its own name. So what is used for another URL is never changed by
//! that, and a request is never kept waiting for a fill of a URL that it did not name.

use std::sync::Arc;

use super::{Ask, Worker};
use crate::clock::Now;
use crate::semantics::{CacheKey, Decision, NoVarySearch, Request};
use crate::store::{Head, Lookup, Stored};

impl Worker {
    /// What to do where nothing is stored for the URL itself: the same, unless something stored
    /// elsewhere may answer.
    pub(super) fn or_elsewhere(
        &self,
        ask: &Ask,
        exact: (Option<Arc<Stored>>, Decision),
        epoch: u64,
        now: Now,
    ) -> (Option<Arc<Stored>>, Decision) {
        if exact.0.is_some() || !self.edge.store.answers_elsewhere() {
            return exact;
        }
        self.elsewhere(ask, epoch, now).unwrap_or(exact)
    }

    fn elsewhere(
        &self,
        ask: &Ask,
        epoch: u64,
        now: Now,
    ) -> Option<(Option<Arc<Stored>>, Decision)> {
        let edge = &self.edge;
        let (request, target) = (&ask.request, ask.request.target());
        let site = &*edge.config.sites.get(ask.site)?.name;
        let base = self.without_query(ask, site);
        let query = request.query.as_deref();
        edge.store.elsewhere(
            &base,
            query,
            &request.headers,
            &edge.purges,
            epoch,
            |stored, verdict| {
                // What is missing would be fetched under a name that it was not stored by.
                if stored.body().segments().is_some() {
                    return None;
                }
                // It has answered to its own rows; it must answer to those of the asked URL, too.
                let born = stored.head().born;
                if !edge.purges.is_untouched(site, &request.host, &target, born) {
                    return None;
                }
                let judged = self.decide(ask, Lookup::Found(stored, verdict), now);
                matches!(judged.1, Decision::Hit { .. } | Decision::HitStale).then_some(judged)
            },
        )
    }

    /// Notes where a response will be found for other queries than its own.
    pub(super) fn learn_search(&self, ask: &Ask, head: &Head) {
        let Some(rule) = NoVarySearch::of(&head.headers) else { return };
        let site = self.edge.config.sites.get(ask.site).map_or("", |site| &*site.name);
        let base = self.without_query(ask, site);
        self.edge.store.learn_search(&base, ask.request.query.as_deref(), &rule, &head.key);
    }

    fn without_query(&self, ask: &Ask, site: &str) -> CacheKey {
        let request = Request { query: None, ..ask.request.clone() };
        CacheKey::of(self.edge.store.secret(), site, &request, &ask.policy)
    }
}
