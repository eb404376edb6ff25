//! What a client's request means to us: the way from request to answer.
//!
//! `serve` shows the whole of it. A decision is a value that is returned; one short function acts
//! on each. What all steps share about one request is `Ask`, which nobody changes.

mod answer;
mod arrive;
mod body;
mod change;
mod codings;
mod complete;
mod dice;
mod elsewhere;
mod error;
mod explain;
mod fields;
mod fill;
mod grpc;
mod keep;
mod outgoing;
mod partial;
mod pass;
mod purge;
mod rules;
mod segments;
mod serve;
mod trust;
mod tunnel;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::clock::Now;
use crate::config::{Config, Site};
use crate::guard::{Buckets, Guard, Rates};
use crate::listener::{Client, Handler, Interim, PressureGauge, Request, Response};
use crate::message::{Refusal, RequestHead};
use crate::origin::{Origins, WorkerOrigins};
use crate::route::Routes;
use crate::semantics::{
    self, CacheKey, Hops, KeySecret, Networks, Policy, Rules, TagLimits, asked_conditions,
};
use crate::store::{Fills, Purges, Store};
use crate::telemetry::{Metrics, Recorder, RequestId, RequestIds};
use dice::Dice;
use trust::Moment;

pub use purge::{AskedPurge, PurgeByMethod, Purged};

/// What all workers share.
#[derive(Debug)]
pub struct Edge {
    config: Arc<Config>,
    routes: Routes,
    store: Arc<Store>,
    purges: Arc<Purges>,
    fills: Arc<Fills>,
    metrics: Arc<Metrics>,
    pressure: Arc<PressureGauge>,
    /// Coded copies that wait to be made.
    codings: Arc<codings::Queue>,
    dice: Dice,
    tunnels: tunnel::Tunnels,
    /// Whether any policy grants one.
    offers_tunnels: bool,
    via: http::HeaderValue,
    /// Judges the tokens of those who want to be told why.
    guard: Arc<Guard>,
    /// Numbers of the sites, by position.
    numbers: Vec<usize>,
    /// Those of all sites that there ever were in this process.
    all_numbers: Arc<Mutex<HashMap<Arc<str>, usize>>>,
    /// Sites whose operator has been told that the origin names no freshness.
    hinted: Vec<AtomicBool>,
    /// How fast clients may ask, where that is limited.
    rates: Option<Rates>,
    /// How often clients may have the origin asked by naming purges.
    position_rates: Buckets<IpAddr>,
    /// Whether any rules say who may ask, or how often.
    guards: bool,
    /// The proxies in front of any listener.
    proxies: Networks,
}

impl Edge {
    /// Everything that answering needs besides a way to the origins.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        store: Arc<Store>,
        purges: Arc<Purges>,
        fills: Arc<Fills>,
        metrics: Arc<Metrics>,
        pressure: Arc<PressureGauge>,
    ) -> Self {
        Self::build(config, (store, purges, fills), (metrics, pressure), None)
    }

    /// The same under another configuration: what is stored and under way, and what was counted,
    /// stays.
    #[must_use]
    pub fn succeeded(&self, config: Arc<Config>) -> Self {
        let state = (&self.store, &self.purges, &self.fills);
        let state = (Arc::clone(state.0), Arc::clone(state.1), Arc::clone(state.2));
        let measures = (Arc::clone(&self.metrics), Arc::clone(&self.pressure));
        Self::build(config, state, measures, Some(self))
    }

    fn build(
        config: Arc<Config>,
        (store, purges, fills): (Arc<Store>, Arc<Purges>, Arc<Fills>),
        (metrics, pressure): (Arc<Metrics>, Arc<PressureGauge>),
        former: Option<&Self>,
    ) -> Self {
        let routes = Routes::new(config.sites.iter().map(|site| {
            let rules = site.rules.iter().map(|rule| (rule.path.clone(), Arc::clone(&rule.policy)));
            (site.hosts.clone(), rules)
        }));
        let dice = Dice::new(config.node.seed, &config.node.name);
        let via = http::HeaderValue::from_static("1.1 atoll");
        let hinted = config.sites.iter().map(|_| AtomicBool::new(false)).collect();
        let mut policies = config.sites.iter().flat_map(|site| &site.rules);
        let offers_tunnels = policies.any(|rule| rule.policy.upgrades("websocket"));
        let tunnels = tunnel::Tunnels::new(&config.limits, former.map(|former| &former.tunnels));
        let codings = former.map(|former| Arc::clone(&former.codings));
        let jobs = config.limits.coding_jobs;
        let codings = codings.unwrap_or_else(|| Arc::new(codings::Queue::new(jobs)));
        let all_numbers = former.map(|former| Arc::clone(&former.all_numbers)).unwrap_or_default();
        let numbers = numbers(&config, &all_numbers);
        let policies = config.sites.iter().flat_map(|site| &site.rules).map(|rule| &rule.policy);
        let rules = policies.filter_map(|policy| policy.rules.as_deref());
        let guards = rules.clone().any(Rules::guards);
        let [first, second] = store.secret().0;
        let secret = KeySecret([second.rotate_left(16), first.rotate_left(48)]);
        let known = former.and_then(|former| former.rates.as_ref());
        let rates = Rates::new(rules, config.limits.rate_limit_clients, secret, known);
        let trusted = config.listeners.iter().flat_map(|listener| &listener.trusted_proxies);
        let proxies = Networks::listed(trusted);
        purges.positions().bound_waiters(config.limits.position_waiters);
        let position_rates = trust::rates(config.limits.positions_per_client);
        Self {
            config,
            routes,
            store,
            purges,
            fills,
            metrics,
            pressure,
            codings,
            dice,
            tunnels,
            offers_tunnels,
            via,
            guard: former.map(|former| Arc::clone(&former.guard)).unwrap_or_default(),
            numbers,
            all_numbers,
            hinted,
            rates,
            position_rates,
            guards,
            proxies,
        }
    }

    /// Position of the site that answers for a host in canonical form.
    #[must_use]
    pub fn site_of(&self, host: &str) -> Option<usize> {
        self.routes.site(host)
    }

    /// Name of the site that answers for a host in canonical form.
    #[must_use]
    pub fn answering_site(&self, host: &str) -> Option<Arc<str>> {
        self.config.sites.get(self.routes.site(host)?).map(|site| Arc::clone(&site.name))
    }

    /// Names of its sites.
    pub fn site_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.config.sites.iter().map(|site| &site.name)
    }

    /// The canonical target under which responses to a target of a host are stored.
    #[must_use]
    pub fn stored_target(&self, host: &str, target: String) -> String {
        let Some(site) = self.routes.site(host) else { return target };
        let path = target.split_once('?').map_or(&*target, |(path, _)| path);
        let policy = Arc::clone(self.routes.policy(site, path));
        semantics::stored_target(target, &policy)
    }

    /// Number of a site, which is another's at no time.
    fn number_of(&self, site: usize) -> usize {
        self.numbers.get(site).copied().unwrap_or(usize::MAX)
    }

    fn tag_limits(&self) -> TagLimits {
        let limits = &self.config.limits;
        TagLimits { tags: limits.tags, tag_bytes: limits.tag_bytes, tags_bytes: limits.tags_bytes }
    }
}

/// Numbers of the sites of a configuration: those that they have, or new ones.
fn numbers(config: &Config, all: &Mutex<HashMap<Arc<str>, usize>>) -> Vec<usize> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let number = |site: &Site| {
        let next = all.len();
        *all.entry(Arc::clone(&site.name)).or_insert(next)
    };
    config.sites.iter().map(number).collect()
}

/// Answers the requests of one worker. What is in force when a request comes holds to its end.
#[derive(Clone)]
pub struct Proxy {
    /// One for each worker, so that workers do not count one another's requests.
    worker: Arc<ArcSwap<Worker>>,
}

/// What the tasks of one worker share.
pub(crate) struct Worker {
    edge: Arc<Edge>,
    origins: WorkerOrigins,
    recorder: Arc<Recorder>,
    ids: RequestIds,
    /// Carries out what `PURGE` asks for.
    purger: Arc<dyn PurgeByMethod>,
    /// Asks for the edge itself: no client's network or rate is in the way.
    of_the_house: bool,
}

impl Proxy {
    /// The proxy of one worker.
    #[must_use]
    pub fn new(
        edge: Arc<Edge>,
        origins: WorkerOrigins,
        recorder: Arc<Recorder>,
        ids: RequestIds,
        purger: Arc<dyn PurgeByMethod>,
    ) -> Self {
        Self::of(Worker { edge, origins, recorder, ids, purger, of_the_house: false })
    }

    /// A proxy for requests that the edge makes itself, which have no client.
    #[must_use]
    pub fn of_the_house(
        edge: Arc<Edge>,
        origins: WorkerOrigins,
        recorder: Arc<Recorder>,
        ids: RequestIds,
        purger: Arc<dyn PurgeByMethod>,
    ) -> Self {
        Self::of(Worker { edge, origins, recorder, ids, purger, of_the_house: true })
    }

    fn of(worker: Worker) -> Self {
        Self { worker: Arc::new(ArcSwap::from_pointee(worker)) }
    }

    /// What is to be in force once it is put there: the next configuration's, with the connections
    /// to origins that may stay.
    #[must_use]
    pub fn next(
        &self,
        edge: Arc<Edge>,
        origins: &Arc<Origins>,
        recorder: Arc<Recorder>,
        ids: RequestIds,
        purger: Arc<dyn PurgeByMethod>,
    ) -> Next {
        let worker = self.worker.load();
        let (origins, of_the_house) = (worker.origins.succeeded(origins), worker.of_the_house);
        let worker = Worker { edge, origins, recorder, ids, purger, of_the_house };
        Next { proxy: self.clone(), worker: Arc::new(worker) }
    }
}

/// What is ready to be put in force at one worker.
pub struct Next {
    proxy: Proxy,
    worker: Arc<Worker>,
}

impl Next {
    /// Puts it in force, for requests from now on.
    pub fn put_in_force(self) {
        self.proxy.worker.store(self.worker);
    }
}

impl Worker {
    /// Says once per site what to do about an origin that names no freshness.
    fn hint_freshness(&self, site: usize) {
        let Some(hinted) = self.edge.hinted.get(site) else { return };
        if !hinted.swap(true, Ordering::Relaxed) {
            let name = self.edge.config.sites.get(site).map_or("", |site| &*site.name);
            tracing::warn!(
                site = name,
                "the origin's answers name no freshness, so they are not stored: send Cache-Control \
                 (s-maxage or max-age) from the origin, or set default_lifetime for the site \
                 (--default-lifetime without a file)"
            );
        }
    }
}

impl Handler for Proxy {
    async fn serve(&self, request: Request) -> Response {
        let worker = self.worker.load_full();
        serve::serve(&worker, request).await
    }

    fn refuse(
        &self,
        refusal: Refusal,
        head: Option<&RequestHead>,
        client: &Client,
        now: Now,
    ) -> Response {
        self.worker.load().refuse(refusal, head, client, now)
    }

    fn offers_tunnels(&self) -> bool {
        self.worker.load().edge.offers_tunnels
    }
}

/// One request as every step sees it.
#[derive(Clone)]
pub(crate) struct Ask {
    /// The request in canonical form.
    request: semantics::Request,
    /// Position of its site.
    site: usize,
    /// Policy of its path.
    policy: Arc<Policy>,
    /// Its cache key.
    key: CacheKey,
    /// Its connection.
    client: Arc<Client>,
    /// The way up to us, by the word of trusted proxies.
    hops: Option<Hops>,
    /// Way to send interim responses.
    interim: Interim,
    /// Its id.
    id: RequestId,
    /// What it was judged by when it had come.
    moment: Moment,
}

impl Ask {
    /// The same without conditions that the origin has judged.
    fn without_conditions(&self) -> Self {
        let mut ask = self.clone();
        for name in asked_conditions(&self.request.headers).keys() {
            ask.request.headers.remove(name);
        }
        ask
    }

    /// The cache key as a person reads it: the URL, then what policy adds.
    fn readable_key(&self) -> String {
        let request = &self.request;
        let (scheme, host) = (request.scheme.as_str(), request.host_field());
        let mut key = format!("{scheme}://{host}{}", request.target());
        for (name, value) in semantics::key_fields(request, &self.policy) {
            let value = value.map_or("-".into(), |value| String::from_utf8_lossy(value.as_bytes()));
            let _ = write!(key, " [{name}: {value}]");
        }
        key
    }
}
