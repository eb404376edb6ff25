//! Where to look for a response that another query brought (`No-Vary-Search`).
//!
//! For each URL without its query a few rules are known that its responses brought lately; for each
//! rule and what it leaves of a query, the keys of the responses that came last:
//!
//! ```text
//! /a            rules: params=("utm_source")
//! /a, that rule, b=1            ->  keys of /a?utm_source=x&b=1, /a?b=1
//! ```
//!
//! Several keys, since each may hold other variants: with one, two clients that select different
//! ones would take it from each other time and again.
//!
//! These are hints: they weigh little, may be forgotten at any time and may point to what is gone.
//! What they lead to is looked up and judged like everything else, and its own rule, the one it has
//! now, must say that it answers this query. Looking costs one step for the rules and a few for each.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use moka::sync::Cache;

use super::stored::ENTRY_BYTES;
use super::{Lookup, Purges, Store, Stored};
use crate::purge::ReadyHasher;
use crate::semantics::{CacheKey, NoVarySearch, Verdict};

/// Rules that are tried for one URL: origins do change their minds.
const RULES: usize = 4;

/// Keys that are looked under for one query and rule.
const KEYS: usize = 6;

/// Share of the store's budget that the hints may take, as a divisor.
const SHARE: u64 = 64;

#[derive(Debug)]
pub(super) struct Searches {
    known: Cache<u128, Known, BuildHasherDefault<ReadyHasher>>,
    /// Whether any rule was ever brought: who never uses this pays nothing for it.
    used: AtomicBool,
}

#[derive(Clone, Debug)]
enum Known {
    /// Of a URL without query, newest first.
    Rules(Arc<[NoVarySearch]>),
    /// What to look for.
    Hint(Arc<Hint>),
}

#[derive(Debug)]
struct Hint {
    /// Parts of the key without query.
    base: Box<[u8]>,
    /// What the rule leaves of the query.
    reduced: Box<[u8]>,
    /// Newest first.
    keys: Box<[CacheKey]>,
}

impl Searches {
    pub(super) fn new(budget_bytes: u64) -> Self {
        Self {
            known: Cache::builder()
                .max_capacity(Self::share(budget_bytes))
                .weigher(|_: &u128, known: &Known| known.weight())
                .build_with_hasher(BuildHasherDefault::default()),
            used: AtomicBool::new(false),
        }
    }

    /// Bytes of a budget that hints may take.
    pub(super) fn share(budget_bytes: u64) -> u64 {
        budget_bytes / SHARE
    }

    pub(super) fn clear(&self) {
        self.known.invalidate_all();
        self.used.store(false, Ordering::Relaxed);
    }

    pub(super) fn upkeep(&self) {
        self.known.run_pending_tasks();
    }
}

impl Known {
    fn weight(&self) -> u32 {
        let bytes = match self {
            Self::Rules(rules) => {
                rules.iter().map(|rule| rule.bytes() + size_of::<NoVarySearch>()).sum()
            }
            Self::Hint(hint) => {
                let keys = hint.keys.iter().map(|key| size_of::<CacheKey>() + key.parts.len());
                size_of::<Hint>() + hint.base.len() + hint.reduced.len() + keys.sum::<usize>()
            }
        };
        u32::try_from(bytes as u64 + ENTRY_BYTES).unwrap_or(u32::MAX)
    }
}

impl Store {
    /// Whether any response has brought a rule since the start or the last reset.
    #[must_use]
    pub fn answers_elsewhere(&self) -> bool {
        self.searches.used.load(Ordering::Relaxed)
    }

    /// Notes that a response under `key`, whose URL has this query, brought `rule`. `base` is its
    /// key without the query.
    pub fn learn_search(
        &self,
        base: &CacheKey,
        query: Option<&str>,
        rule: &NoVarySearch,
        key: &CacheKey,
    ) {
        self.searches.used.store(true, Ordering::Relaxed);
        let reduced = rule.reduced(query).into_boxed_slice();
        let name = self.search_name(base, rule, &reduced);
        let hint = self.hint(name, base, &reduced);
        let others = hint.iter().flat_map(|hint| hint.keys.iter()).filter(|other| *other != key);
        let keys = std::iter::once(key).chain(others).take(KEYS).cloned().collect();
        let hint = Hint { base: base.parts.clone(), reduced, keys };
        self.searches.known.insert(name, Known::Hint(Arc::new(hint)));
        let known = self.rules(base);
        if known.first() != Some(rule) {
            let others = known.iter().filter(|other| *other != rule);
            let rules = std::iter::once(rule).chain(others).take(RULES).cloned();
            self.searches.known.insert(self.rules_name(base), Known::Rules(rules.collect()));
        }
    }

    /// What is stored under another query of the same URL and is as good for this one. `usable` has
    /// the last word on each that is found.
    pub fn elsewhere<T>(
        &self,
        base: &CacheKey,
        query: Option<&str>,
        request: &HeaderMap,
        purges: &Purges,
        epoch: u64,
        mut usable: impl FnMut(Arc<Stored>, Verdict) -> Option<T>,
    ) -> Option<T> {
        self.rules(base).iter().find_map(|rule| {
            let reduced = rule.reduced(query);
            let name = self.search_name(base, rule, &reduced);
            let hint = self.hint(name, base, &reduced)?;
            hint.keys.iter().find_map(|key| match self.lookup(key, request, purges, epoch) {
                Lookup::Found(stored, verdict)
                    if NoVarySearch::of(&stored.head().fields.map()).as_ref() == Some(rule) =>
                {
                    usable(stored, verdict)
                }
                Lookup::Found(..) | Lookup::Miss | Lookup::VaryMiss => None,
            })
        })
    }

    fn hint(&self, name: u128, base: &CacheKey, reduced: &[u8]) -> Option<Arc<Hint>> {
        match self.searches.known.get(&name) {
            Some(Known::Hint(hint)) if hint.base == base.parts && *hint.reduced == *reduced => {
                Some(hint)
            }
            Some(_) | None => None,
        }
    }

    fn rules(&self, base: &CacheKey) -> Arc<[NoVarySearch]> {
        match self.searches.known.get(&self.rules_name(base)) {
            Some(Known::Rules(rules)) => rules,
            Some(Known::Hint(_)) | None => Arc::default(),
        }
    }

    fn rules_name(&self, base: &CacheKey) -> u128 {
        self.secret.hash(&[b"rules", &base.hash.to_le_bytes()])
    }

    fn search_name(&self, base: &CacheKey, rule: &NoVarySearch, reduced: &[u8]) -> u128 {
        self.secret.hash(&[b"search", &base.hash.to_le_bytes(), &rule.encode(), reduced])
    }
}
