//! The API under another configuration: tokens, sites and bounds are new, what it remembers stays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};

use super::site::AdminSite;
use super::{Admin, hooks};
use crate::config::{self, Config};
use crate::guard::Buckets;

/// Numbers by which rates and memories know tokens and hooks, in the order of a configuration.
///
/// A position would be another token's after a reload, and with it the answers to purges that the
/// token before it had sent. A number is given once; a token of another secret is another token.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    by_position: Vec<usize>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    next: usize,
    numbers: HashMap<Vec<u8>, usize>,
}

impl Numbers {
    /// Those of the tokens and then of the hooks of a configuration. Tokens and hooks that are not
    /// among them are forgotten.
    pub(super) fn of(&self, admin: &config::Admin) -> Self {
        let tokens = admin.tokens.iter().map(|token| token.hash.to_vec());
        let hooks = admin.hooks.iter().map(|hook| format!("hook {}", hook.name).into_bytes());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut number = |name: &Vec<u8>| {
            let new = known.next;
            let number = *known.numbers.entry(name.clone()).or_insert(new);
            known.next = known.next.max(number + 1);
            number
        };
        let names: Vec<Vec<u8>> = tokens.chain(hooks).collect();
        let by_position: Vec<usize> = names.iter().map(&mut number).collect();
        known.numbers.retain(|_, number| by_position.contains(number));
        drop(known);
        Self { by_position, known: Arc::clone(&self.known) }
    }

    /// The number at a position.
    pub(super) fn get(&self, position: usize) -> usize {
        self.by_position.get(position).copied().unwrap_or(usize::MAX)
    }

    /// How many there are, at least one.
    pub(super) fn len(&self) -> usize {
        self.by_position.len().max(1)
    }
}

impl Admin {
    /// The API under another configuration. What is remembered of tokens, guesses, warm-ups and
    /// followers goes on; [`Admin::let_followers_go`] of the one that is replaced is due once this one
    /// is in force.
    #[must_use]
    pub fn succeeded(&self, config: &Config) -> Arc<Self> {
        let admin = &config.admin;
        let numbers = self.numbers.of(admin);
        self.repeats.keep(admin.idempotency_keys, &numbers.by_position);
        let sites = AdminSite::all(config);
        let alike = self.tokens == admin.tokens && self.sites == sites;
        let followed = match alike {
            true => Arc::clone(&self.followed),
            false => Arc::new(watch::Sender::new(false)),
        };
        Arc::new(Self {
            identity: self.identity.clone(),
            started: self.started,
            workers: self.workers,
            tokens: admin.tokens.clone(),
            body_bytes: admin.body_bytes,
            tag_bytes: config.limits.tag_bytes,
            fields: config.limits.fields,
            sites,
            guard: Arc::clone(&self.guard),
            purge_rates: self.rates(admin.purges_per_second, &numbers),
            purge_selectors: admin.purge_selectors,
            purge_globs: self.purge_globs,
            repeats: Arc::clone(&self.repeats),
            waiting: admin.purge_waits,
            waits: self.purge_waits(admin.purge_waits.places),
            walks: Arc::clone(&self.walks),
            doors: hooks::Door::all(admin, &numbers),
            numbers,
            hook_guard: Arc::clone(&self.hook_guard),
            followed,
            followers: self.places(admin.event_followers),
            most_followers: admin.event_followers,
            facades: config.facades.clone(),
            warm: self.warm.within(admin.warm_jobs, admin.warm_urls),
            refetch: (admin.refetch_urls, f64::from(admin.refetch_per_second)),
            control: Arc::clone(&self.control),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Ends the streams of those who follow the events, where `next` judges them otherwise. They come
    /// back, and go on where they were as far as they still may.
    pub fn let_followers_go(&self, next: &Self) {
        if !Arc::ptr_eq(&self.followed, &next.followed) {
            self.followed.send_replace(true);
        }
    }

    /// The rates of purges: the same ones where as many may purge as fast as before.
    fn rates(&self, per_second: u32, numbers: &Numbers) -> Arc<Buckets<usize>> {
        let rate = f64::from(per_second.max(1));
        if self.purge_rates.is(rate, numbers.len()) {
            return Arc::clone(&self.purge_rates);
        }
        Arc::new(Buckets::new(rate, rate, numbers.len()))
    }

    /// Places of those who wait for purges: the same ones where there are as many as before.
    fn purge_waits(&self, most: usize) -> Arc<Semaphore> {
        if self.waiting.places == most {
            return Arc::clone(&self.waits);
        }
        Arc::new(Semaphore::new(most))
    }

    fn places(&self, most: usize) -> Arc<Semaphore> {
        if self.most_followers == most {
            return Arc::clone(&self.followers);
        }
        Arc::new(Semaphore::new(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Token;

    fn admin(tokens: &[&str]) -> config::Admin {
        let tokens = tokens.iter().map(|token| Token::full("same", token)).collect();
        config::Admin { tokens, ..config::Admin::default() }
    }

    #[test]
    fn a_token_keeps_its_number_and_no_other_gets_it() {
        let first = Numbers::default().of(&admin(&["a", "b"]));
        assert_eq!((first.get(0), first.get(1)), (0, 1));
        let second = first.of(&admin(&["c", "b"]));
        assert_eq!((second.get(0), second.get(1)), (2, 1));
        let third = second.of(&admin(&["a", "c"]));
        assert_eq!((third.get(0), third.get(1)), (3, 2), "what was forgotten is somebody new");
        assert_eq!(third.get(9), usize::MAX);
    }
}
