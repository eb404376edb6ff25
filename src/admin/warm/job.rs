//! One warm-up: what is to be fetched, how far that has come, and the task that does it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, header};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::sitemap::{self, Sitemap};
use crate::admin::control::{Control, Fetched};
use crate::admin::explain::{Place, place};
use crate::admin::problem::Problem;
use crate::clock;
use crate::config::Token;
use crate::message::RequestHead;
use crate::semantics::Outcome;
use crate::store::{Events, WarmUp, What};

/// Fetches of one warm-up under way at once: those of a slow origin do not pile up.
const AT_ONCE: usize = 32;
/// Kinds of failures that are told apart.
const KINDS: usize = 32;
/// Failures that are told with their URL.
const FAILURES: usize = 20;
/// Sitemaps of an index that are read.
const SITEMAPS: usize = 100;
/// Time between two looks at whether the node drains.
const LOOK: Duration = Duration::from_millis(100);

/// What a warm-up is asked to do.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) token: Token,
    pub(super) source: Source,
    /// Fields of the requests, one set a variant; at least one.
    pub(super) variants: Vec<HeaderMap>,
    /// Requests per second.
    pub(super) rate: f64,
    /// Requests at most.
    pub(super) most: usize,
    /// Id of the purge that it follows.
    pub(super) purge: Option<String>,
}

/// Where its URLs come from.
#[derive(Debug)]
pub(super) enum Source {
    /// They were sent.
    Urls(Vec<Place>),
    /// They stand in this sitemap.
    Sitemap(Place),
    /// They are requests for what a purge took.
    Purged(Vec<RequestHead>),
}

/// How a warm-up stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// It goes on.
    Running,
    /// All is fetched, or could not be.
    Done,
    /// Somebody stopped it.
    Stopped,
    /// The node drains.
    Drained,
    /// Its sitemap cannot be used.
    Failed,
}

impl State {
    /// As it is written.
    fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Drained => "drained",
            Self::Failed => "failed",
        }
    }
}

/// How far it has come.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Progress {
    pub(super) state: State,
    /// Requests in all; `None` until the sitemap is read.
    total: Option<u64>,
    /// Requests that are over.
    done: u64,
    /// Requests that are not.
    remaining: Option<u64>,
    /// Of those done: there was no usable answer.
    failed: u64,
    /// Of those done: answered from memory.
    hits: u64,
    /// Of those done: fetched and stored.
    stored: u64,
    /// Of those done: fetched, and not to be stored.
    not_stored: u64,
    /// URLs of the sitemap that were left out: of other sites, or more than allowed.
    skipped: u64,
    /// Bytes of bodies.
    bytes: u64,
    errors: BTreeMap<String, u64>,
    failures: Vec<Failure>,
}

#[derive(Clone, Debug, serde::Serialize)]
struct Failure {
    url: String,
    why: String,
}

impl Progress {
    fn new(total: Option<u64>) -> Self {
        Self {
            state: State::Running,
            total,
            done: 0,
            remaining: total,
            failed: 0,
            hits: 0,
            stored: 0,
            not_stored: 0,
            skipped: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    fn count(&mut self, url: &str, fetched: &Fetched) {
        self.done += 1;
        self.remaining = self.total.map(|total| total.saturating_sub(self.done));
        self.bytes = self.bytes.saturating_add(fetched.bytes);
        match (failure(fetched), fetched.outcome) {
            (Some(why), _) => {
                self.failed += 1;
                self.fail(url, why);
            }
            (None, Outcome::Hit | Outcome::Stale) => self.hits += 1,
            (None, _) if fetched.stored => self.stored += 1,
            (None, _) => self.not_stored += 1,
        }
    }

    fn fail(&mut self, url: &str, why: String) {
        let known = self.errors.contains_key(&why) || self.errors.len() < KINDS;
        let kind = if known { why.clone() } else { "other".to_owned() };
        *self.errors.entry(kind).or_default() += 1;
        if self.failures.len() < FAILURES {
            self.failures.push(Failure { url: url.to_owned(), why });
        }
    }
}

/// Why a fetch failed, if it did: the origin's failure, the status, or a body that broke off.
fn failure(fetched: &Fetched) -> Option<String> {
    let status = fetched.status;
    match fetched.error {
        Some(error) => Some(error.to_owned()),
        None if status >= 400 => Some(format!("status-{status}")),
        None => None,
    }
}

/// One warm-up.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: String,
    /// Name of the token that asked for it.
    pub(super) token: String,
    /// Id of the purge that it follows.
    pub(super) purge: Option<String>,
    pub(super) rate: f64,
    pub(super) began: SystemTime,
    progress: Mutex<Progress>,
    stop: watch::Sender<bool>,
}

impl Job {
    pub(super) fn new(id: String, order: &Order, now: SystemTime) -> Self {
        let total = match &order.source {
            Source::Urls(urls) => Some((urls.len() * order.variants.len()) as u64),
            Source::Sitemap(_) => None,
            Source::Purged(heads) => Some(heads.len() as u64),
        };
        Self {
            id,
            token: order.token.name.clone(),
            purge: order.purge.clone(),
            rate: order.rate,
            began: now,
            progress: Mutex::new(Progress::new(total)),
            stop: watch::Sender::new(false),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.lock().clone()
    }

    pub(super) fn is_running(&self) -> bool {
        self.lock().state == State::Running
    }

    /// Ends it: nothing further is fetched, and what is under way is dropped.
    pub(super) fn stop(&self) {
        self.end(State::Stopped);
        self.stop.send_replace(true);
    }

    fn end(&self, state: State) {
        let mut progress = self.lock();
        if progress.state == State::Running {
            progress.state = state;
        }
    }

    /// Tells those who follow the node how far it has come.
    fn tell(&self, events: &Events) {
        let Progress { state, total, done, failed, stored, .. } = self.progress();
        let warm_up = WarmUp {
            id: self.id.clone(),
            token: self.token.clone(),
            purge: self.purge.clone(),
            state: state.label(),
            total,
            done,
            failed,
            stored,
        };
        events.publish(What::WarmUp(warm_up), clock::now().wall);
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what was asked for.
    pub(super) async fn run(&self, order: Order, control: Arc<dyn Control>) {
        let mut stop = self.stop.subscribe();
        let drained = async {
            let mut looks = interval(LOOK);
            while !control.readiness().draining {
                looks.tick().await;
            }
        };
        let state = tokio::select! {
            state = self.work(order, &control) => state,
            () = drained => State::Drained,
            _ = stop.wait_for(|stop| *stop) => State::Stopped,
        };
        self.end(state);
        self.tell(&control.events());
        let Progress { done, failed, hits, stored, state, .. } = self.progress();
        tracing::info!(id = self.id, ?state, done, failed, hits, stored, "warm-up");
    }

    async fn work(&self, order: Order, control: &Arc<dyn Control>) -> State {
        let Order { token, source, variants, rate, most, purge: _ } = order;
        let places = match source {
            Source::Purged(heads) => {
                let asks = heads.into_iter().map(|head| (url(&head), Ok(head)));
                self.fetch_all(asks, rate, control).await;
                return State::Done;
            }
            Source::Urls(places) => places,
            Source::Sitemap(place) => {
                let most = most / variants.len().max(1);
                match self.read_sitemaps(place, &token, control, most).await {
                    Some(places) => places,
                    None => return State::Failed,
                }
            }
        };
        let total = (places.len() * variants.len()) as u64;
        {
            let mut progress = self.lock();
            progress.total = Some(total);
            progress.remaining = Some(total - progress.done.min(total));
        }
        let requests = Requests { places: places.into_iter(), variants, current: None, at: 0 };
        let asks =
            requests.map(|(place, fields)| (place.url(), place.request(Method::GET, fields)));
        self.fetch_all(asks, rate, control).await;
        State::Done
    }

    /// Fetches one after the other at the set rate, so many at once.
    async fn fetch_all(
        &self,
        mut asks: impl Iterator<Item = (String, Result<RequestHead, Problem>)>,
        rate: f64,
        control: &Arc<dyn Control>,
    ) {
        let mut under_way: JoinSet<(String, Fetched)> = JoinSet::new();
        let mut pace = interval(Duration::from_secs_f64(1.0 / rate));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut teller = Teller::new(self, control);
        let mut next = asks.next();
        while next.is_some() || !under_way.is_empty() {
            let may_start = next.is_some() && under_way.len() < AT_ONCE;
            tokio::select! {
                _ = pace.tick(), if may_start => {
                    if let Some((url, head)) = next.take() {
                        let fetch = head.map(|head| control.fetch(head, 0));
                        under_way.spawn(async move {
                            match fetch {
                                Ok(fetch) => (url, fetch.await),
                                Err(_) => (url, Fetched::failed("url")),
                            }
                        });
                    }
                    next = asks.next();
                }
                Some(over) = under_way.join_next(), if !under_way.is_empty() => {
                    let (url, fetched) = over.unwrap_or_else(|_panicked| {
                        (String::new(), Fetched::failed("internal"))
                    });
                    self.lock().count(&url, &fetched);
                    teller.tell();
                }
            }
        }
    }

    /// The pages of a sitemap, or of those that an index names; one level, no deeper. `None` where
    /// the first cannot be used.
    async fn read_sitemaps(
        &self,
        first: Place,
        token: &Token,
        control: &Arc<dyn Control>,
        most: usize,
    ) -> Option<Vec<Place>> {
        let read = self.read_sitemap(first, control, most.max(SITEMAPS)).await?;
        if !read.index {
            return Some(self.own(&read, token, control, most));
        }
        let mut waiting: VecDeque<Place> = self.own(&read, token, control, SITEMAPS).into();
        let mut places = Vec::new();
        while let Some(next) = waiting.pop_front() {
            let left = most.saturating_sub(places.len());
            if left == 0 {
                self.lock().skipped += 1;
                continue;
            }
            if let Some(read) = self.read_sitemap(next, control, left).await {
                if read.index {
                    self.lock().skipped += read.urls.len() as u64;
                } else {
                    places.extend(self.own(&read, token, control, left));
                }
            }
        }
        Some(places)
    }

    /// Those URLs that a warm-up with this token may ask for.
    fn own(
        &self,
        read: &Sitemap,
        token: &Token,
        control: &Arc<dyn Control>,
        most: usize,
    ) -> Vec<Place> {
        let found = read.urls.len();
        let places = read.urls.iter().map(|url| place(&**control, token, "sitemap", url));
        let own = places.filter_map(Result::ok).filter(|place| place.site.is_some());
        let own: Vec<Place> = own.take(most).collect();
        self.lock().skipped += (found - own.len()) as u64 + u64::from(read.more);
        own
    }

    async fn read_sitemap(
        &self,
        place: Place,
        control: &Arc<dyn Control>,
        most: usize,
    ) -> Option<Sitemap> {
        let url = place.url();
        let read = match place.request(Method::GET, HeaderMap::new()) {
            Ok(head) => read(head, control, most).await,
            Err(_) => Err("url".to_owned()),
        };
        read.map_err(|why| self.lock().fail(&url, why)).ok()
    }
}

/// Tells of a warm-up's progress, at each tenth of it and no oftener.
struct Teller<'a> {
    job: &'a Job,
    events: Arc<Events>,
    told: u64,
}

impl<'a> Teller<'a> {
    fn new(job: &'a Job, control: &Arc<dyn Control>) -> Self {
        let teller = Self { job, events: control.events(), told: 0 };
        job.tell(&teller.events);
        teller
    }

    fn tell(&mut self) {
        let (done, total) = {
            let progress = self.job.lock();
            (progress.done, progress.total.unwrap_or(u64::MAX))
        };
        let tenth = done.saturating_mul(10) / total.max(1);
        if tenth > self.told && done < total {
            self.told = tenth;
            self.job.tell(&self.events);
        }
    }
}

/// The URL of a request, for people.
fn url(head: &RequestHead) -> String {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("{}://{}{}", head.scheme.as_str(), host.unwrap_or_default(), head.target)
}

/// What is still to be asked for: every URL with every set of fields.
struct Requests {
    places: std::vec::IntoIter<Place>,
    variants: Vec<HeaderMap>,
    current: Option<Place>,
    /// Next set of fields for `current`.
    at: usize,
}

impl Iterator for Requests {
    type Item = (Place, HeaderMap);

    fn next(&mut self) -> Option<(Place, HeaderMap)> {
        if self.current.is_none() || self.at >= self.variants.len() {
            self.current = self.places.next();
            self.at = 0;
        }
        let found = (self.current.clone()?, self.variants.get(self.at)?.clone());
        self.at += 1;
        Some(found)
    }
}

/// Fetches a sitemap and reads it, off this thread where it may take its time.
async fn read(
    head: RequestHead,
    control: &Arc<dyn Control>,
    most: usize,
) -> Result<Sitemap, String> {
    let fetched = control.fetch(head, sitemap::LARGEST).await;
    if let Some(why) = failure(&fetched) {
        return Err(why);
    }
    if fetched.status != 200 {
        return Err(format!("status-{}", fetched.status));
    }
    let body = fetched.body.ok_or("sitemap-too-large")?;
    let parsed = tokio::task::spawn_blocking(move || sitemap::parse(&body, most)).await;
    Ok(parsed.map_err(|_panicked| "internal")??)
}
