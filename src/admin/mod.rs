//! The admin listener: what operators and their programs ask of a node.
//!
//! A listener and a router of its own, so that nothing that a client of a site sends can reach it.
//! `/metrics`, `/healthz` and `/readyz` are open; everything under `/v1/` needs a bearer token
//! with the scope that its row in [`ROUTES`] names, but for hooks, which have proofs of their own. Errors are problem details (RFC 9457). What a
//! request sets in motion is the business of the [`Control`] that it is given.

mod answer;
mod auth;
mod body;
mod cache;
pub mod check;
mod control;
mod events;
mod explain;
mod facades;
mod health;
mod hooks;
mod mesh;
mod origins;
mod past;
mod problem;
mod purge;
mod query;
mod reload;
mod repeat;
mod reset;
mod resolve;
mod server;
mod settle;
mod site;
mod standing;
mod status;
mod successor;
mod upgrade;
mod warm;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{Semaphore, watch};

use answer::{json, milliseconds, reply, unwritten};
pub use body::ReplyBody;
pub use control::{
    Control, Fetch, Fetched, Identity, ListenerStatus, NodeStatus, Readiness, StoreClass, Waiting,
};
pub use facades::Purging;
pub use hooks::Knock;
pub use problem::Problem;
pub use reload::{NotReloaded, Reloaded, Reloading};
pub use server::{Desk, Surface, serve};
use site::AdminSite;
use standing::purge_id;
pub use standing::{mesh_alone, receipt_alone};
pub use upgrade::{NotUpgraded, Upgraded, Upgrading};

use crate::audit::{Act, Written};
use crate::clock::{self, Now};
use crate::config::{Config, Facades, PurgeWaits, Scope, Token};
use crate::guard::{Buckets, Guard};
use crate::message::RequestHead;
use crate::store::Applied;
use crate::telemetry::Metrics;

/// Time in which a request's body must have come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// An answer of the admin listener.
type Reply = Response<ReplyBody>;

/// One row of the route table.
#[derive(Clone, Debug)]
pub struct Route {
    /// Method; a GET answers HEAD too.
    pub method: Method,
    /// Path, without query; a segment in braces stands for any one.
    pub path: &'static str,
    /// Who may ask, and what answers.
    pub access: Access,
}

impl Route {
    /// Whether it answers for a path.
    fn leads(&self, path: &str) -> bool {
        let (mut own, mut asked) = (self.path.split('/'), path.split('/'));
        loop {
            match (own.next(), asked.next()) {
                (None, None) => return true,
                (Some(own), Some(asked)) if own == asked => {}
                (Some(own), Some(asked)) if own.starts_with('{') && !asked.is_empty() => {}
                _ => return false,
            }
        }
    }
}

/// Who may ask, and what answers.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Everybody.
    Open(fn(&Admin) -> Reply),
    /// Who has a token with this scope.
    Scoped(Scope, fn(&Admin, &Call<'_>) -> Result<Reply, Problem>),
    /// The same, of what may need a walk over the store, or leaves a line in the audit log.
    Walking(Scope, fn(&Admin, &Call<'_>) -> Result<Work, Problem>),
    /// Who proves that an event comes from where a hook expects it; what answers judges the proof.
    Proven(ProvenAct),
}

impl Access {
    /// The scope that a token must have; `None` where none is needed.
    #[must_use]
    pub fn scope(self) -> Option<Scope> {
        match self {
            Self::Open(_) | Self::Proven(_) => None,
            Self::Scoped(scope, _) | Self::Walking(scope, _) => Some(scope),
        }
    }
}

/// What a request comes to.
pub enum Work {
    /// It is answered.
    Done(Reply),
    /// It is answered by something that takes its time, on a thread that may block.
    Walk(Box<dyn FnOnce() -> Reply + Send>),
    /// It is looked at first, on a thread that may block, and then carried out.
    First(Box<dyn FnOnce() -> Result<Seen, Problem> + Send>, Then),
    /// A purge that is in force, and is answered when it has come as far as its sender asked.
    Purged(Box<settle::Done>),
    /// What it comes to is known after a while.
    Later(Pin<Box<dyn Future<Output = Self> + Send>>),
    /// It was carried out, and is answered when the audit log has it.
    Acted(Act, Box<dyn FnOnce(Written) -> Reply + Send>),
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests for the hottest of what is about to go.
    hottest: Vec<RequestHead>,
}

/// What comes after a look.
type Then = fn(&Admin, &Call<'_>, Seen) -> Result<Work, Problem>;

/// Every route; `docs/openapi.yaml` describes the same.
pub static ROUTES: [Route; 23] = [
    Route { method: Method::GET, path: "/metrics", access: Access::Open(health::metrics) },
    Route { method: Method::GET, path: "/healthz", access: Access::Open(health::alive) },
    Route { method: Method::GET, path: "/readyz", access: Access::Open(health::ready) },
    Route {
        method: Method::POST,
        path: "/v1/purge",
        access: Access::Walking(Scope::Purge, purge::purge),
    },
    Route {
        method: Method::GET,
        path: "/v1/purges",
        access: Access::Scoped(Scope::Read, past::list),
    },
    Route {
        method: Method::GET,
        path: "/v1/purges/{id}",
        access: Access::Scoped(Scope::Read, past::one),
    },
    Route {
        method: Method::POST,
        path: "/v1/hooks/{name}",
        access: Access::Proven(hooks::receive),
    },
    Route {
        method: Method::GET,
        path: "/v1/events",
        access: Access::Scoped(Scope::Read, events::follow),
    },
    Route {
        method: Method::POST,
        path: "/v1/explain",
        access: Access::Scoped(Scope::Read, explain::explain),
    },
    Route {
        method: Method::GET,
        path: "/v1/cache/entry",
        access: Access::Scoped(Scope::Read, cache::entry),
    },
    Route {
        method: Method::GET,
        path: "/v1/cache/top",
        access: Access::Scoped(Scope::Read, cache::top),
    },
    Route {
        method: Method::POST,
        path: "/v1/warm",
        access: Access::Scoped(Scope::Warm, warm::start),
    },
    Route {
        method: Method::GET,
        path: "/v1/warm",
        access: Access::Scoped(Scope::Warm, warm::list),
    },
    Route {
        method: Method::GET,
        path: "/v1/warm/{id}",
        access: Access::Scoped(Scope::Warm, warm::one),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/warm/{id}",
        access: Access::Scoped(Scope::Warm, warm::stop),
    },
    Route {
        method: Method::POST,
        path: "/v1/reset",
        access: Access::Walking(Scope::Config, reset::reset),
    },
    Route {
        method: Method::POST,
        path: "/v1/reload",
        access: Access::Walking(Scope::Config, reload::reload),
    },
    Route {
        method: Method::POST,
        path: "/v1/upgrade",
        access: Access::Walking(Scope::Config, upgrade::upgrade),
    },
    Route {
        method: Method::POST,
        path: "/v1/drain",
        access: Access::Walking(Scope::Drain, reset::drain),
    },
    Route {
        method: Method::GET,
        path: "/v1/status",
        access: Access::Scoped(Scope::Read, status::status),
    },
    Route {
        method: Method::GET,
        path: "/v1/mesh",
        access: Access::Scoped(Scope::Read, mesh::view),
    },
    Route {
        method: Method::GET,
        path: "/v1/origins",
        access: Access::Scoped(Scope::Read, status::origins),
    },
    Route {
        method: Method::PUT,
        path: "/v1/origins/{origin}/endpoints/{address}",
        access: Access::Walking(Scope::Config, origins::order),
    },
];

/// One request whose token has been judged.
#[derive(Debug)]
pub struct Call<'a> {
    token: &'a Token,
    /// Number of the token, for its rate and its memory.
    position: usize,
    /// Address that it came from.
    client: IpAddr,
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    path: &'a str,
    /// Last segment of the path: what stands where a route has its last braces.
    name: &'a str,
    body: &'a [u8],
    now: Now,
}

impl<'a> Knock<'a> {
    fn new(head: &'a http::request::Parts, client: SocketAddr, body: &'a [u8]) -> Self {
        let path = head.uri.path();
        Self {
            client: client.ip(),
            headers: &head.headers,
            name: path.rsplit_once('/').map_or(path, |(_, name)| name),
            body,
            now: clock::now(),
        }
    }
}

impl<'a> Call<'a> {
    /// An act of who sent this, for the audit log.
    fn act(&self, name: &'static str) -> Act {
        Act::new(name, &self.token.name, self.client, self.now)
    }

    fn new(
        head: &'a http::request::Parts,
        client: SocketAddr,
        (position, token): (usize, &'a Token),
        body: &'a [u8],
    ) -> Self {
        let path = head.uri.path();
        Self {
            token,
            position,
            client: client.ip(),
            headers: &head.headers,
            query: head.uri.query(),
            path,
            name: path.rsplit_once('/').map_or(path, |(_, name)| name),
            body,
            now: clock::now(),
        }
    }
}

/// The admin API of one node.
pub struct Admin {
    identity: Identity,
    started: Now,
    workers: usize,
    tokens: Vec<Token>,
    body_bytes: usize,
    tag_bytes: usize,
    /// Header fields that a client's request may have.
    fields: usize,
    sites: Vec<AdminSite>,
    guard: Arc<Guard>,
    /// Numbers of the tokens and then of the hooks, by position; they are theirs over reloads.
    numbers: successor::Numbers,
    purge_rates: Arc<Buckets<usize>>,
    purge_selectors: usize,
    purge_globs: usize,
    repeats: Arc<repeat::Repeats<settle::Receipt>>,
    /// How long purges are waited for.
    waiting: PurgeWaits,
    /// Places of those who wait.
    waits: Arc<Semaphore>,
    /// One walk at a time: it takes a core for as long as it lasts.
    walks: Arc<Semaphore>,
    doors: Vec<hooks::Door>,
    /// Apart from that of the tokens: events come from strangers' machines, often through a proxy whose
    /// address operators share.
    hook_guard: Arc<Guard>,
    /// Turns true when who follows the events has to be judged anew.
    followed: Arc<watch::Sender<bool>>,
    /// Places of those who follow the events.
    followers: Arc<Semaphore>,
    most_followers: usize,
    facades: Facades,
    warm: warm::Warm,
    /// Most requests for what a purge took, and how many a second.
    refetch: (usize, f64),
    control: Arc<dyn Control>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Admin").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Admin {
    /// The API of the node `identity`, which started at `now`.
    #[must_use]
    pub fn new(
        config: &Config,
        identity: Identity,
        control: Arc<dyn Control>,
        metrics: Arc<Metrics>,
        now: Now,
    ) -> Arc<Self> {
        let numbers = successor::Numbers::default().of(&config.admin);
        let rate = f64::from(config.admin.purges_per_second.max(1));
        Arc::new(Self {
            identity,
            started: now,
            workers: config.node.workers,
            tokens: config.admin.tokens.clone(),
            body_bytes: config.admin.body_bytes,
            tag_bytes: config.limits.tag_bytes,
            fields: config.limits.fields,
            sites: AdminSite::all(config),
            guard: Arc::default(),
            purge_rates: Arc::new(Buckets::new(rate, rate, numbers.len())),
            purge_selectors: config.admin.purge_selectors,
            purge_globs: config.limits.purge_globs,
            repeats: Arc::new(repeat::Repeats::new(config.admin.idempotency_keys)),
            waiting: config.admin.purge_waits,
            waits: Arc::new(Semaphore::new(config.admin.purge_waits.places)),
            walks: Arc::new(Semaphore::new(1)),
            doors: hooks::Door::all(&config.admin, &numbers),
            numbers,
            hook_guard: Arc::default(),
            followed: Arc::new(watch::Sender::new(false)),
            followers: Arc::new(Semaphore::new(config.admin.event_followers)),
            most_followers: config.admin.event_followers,
            facades: config.facades.clone(),
            warm: warm::Warm::new(config.admin.warm_jobs, config.admin.warm_urls),
            refetch: (config.admin.refetch_urls, f64::from(config.admin.refetch_per_second)),
            control,
            metrics,
        })
    }

    /// Answers one request of `client`.
    pub async fn answer<B>(
        &self,
        request: Request<B>,
        client: SocketAddr,
        surface: Surface,
    ) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.metrics.node.admin_requests.inc();
        let (head, body) = request.into_parts();
        let format = facades::Format::of(&self.facades, head.uri.path());
        if let Some(format) = format.filter(|_| surface == Surface::Full) {
            return facades::answer(self, format, &head, body, client).await;
        }
        let answer = match self.admit(&head, client, surface, clock::now()) {
            Ok(Admitted::Open(act)) => Ok(act(self)),
            Ok(Admitted::Proven(act)) => {
                let body = self.read(body).await;
                match body.and_then(|body| act(self, &Knock::new(&head, client, &body))) {
                    Ok(outcome) => outcome.settle(self).await,
                    Err(problem) => Err(problem),
                }
            }
            Ok(Admitted::Scoped(bearer, act)) => {
                let body = self.read(body).await;
                body.and_then(|body| act(self, &Call::new(&head, client, bearer, &body)))
            }
            Ok(Admitted::Walking(bearer, act)) => match self.read(body).await {
                Ok(body) => self.work(&head, client, bearer, &body, act).await,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        answer.unwrap_or_else(Problem::into_reply)
    }

    /// Does what takes its time, step by step.
    async fn work(
        &self,
        head: &http::request::Parts,
        client: SocketAddr,
        bearer: (usize, &Token),
        body: &[u8],
        act: fn(&Self, &Call<'_>) -> Result<Work, Problem>,
    ) -> Result<Reply, Problem> {
        let mut work = act(self, &Call::new(head, client, bearer, body))?;
        loop {
            match work {
                Work::Done(reply) => return Ok(reply),
                Work::Walk(walk) => return self.walk(walk).await,
                Work::First(look, then) => {
                    let seen = self.walk(look).await??;
                    work = then(self, &Call::new(head, client, bearer, body), seen)?;
                }
                Work::Purged(done) => {
                    return Ok(json(StatusCode::OK, &self.settle(*done).await?));
                }
                Work::Later(later) => work = later.await,
                Work::Acted(act, reply) => {
                    return Ok(reply(self.control.audit().note(act).await));
                }
            }
        }
    }

    /// Finds the route and judges the token, in an order that tells a stranger nothing: without a
    /// token, every path under `/v1/` looks the same.
    fn admit(
        &self,
        head: &http::request::Parts,
        client: SocketAddr,
        surface: Surface,
        now: Now,
    ) -> Result<Admitted<'_>, Problem> {
        let path = head.uri.path();
        if let Some(act) = proven(head, surface) {
            let waits = self.hook_guard.may_try(client.ip(), now);
            waits.map_err(|wait| {
                self.metrics.node.admin_denied.inc();
                let detail = "too many events without proof came from this address";
                Problem::wait("too-many-failures", detail, wait)
            })?;
            return Ok(Admitted::Proven(act));
        }
        let bearer = if surface == Surface::Full && path.starts_with("/v1/") {
            let found = auth::judge(&self.guard, &self.tokens, &head.headers, client.ip(), now);
            let found = found.inspect_err(|_| self.metrics.node.admin_denied.inc())?;
            Some((self.numbers.get(found.0), found.1))
        } else {
            None
        };
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let at_path = || ROUTES.iter().filter(|route| route.leads(path) && surface.shows(route));
        let Some(route) = at_path().find(|route| route.method == *method) else {
            let allowed: Vec<&str> = at_path().map(|route| route.method.as_str()).collect();
            return Err(Problem::no_route(&allowed));
        };
        if let (Some(scope), Some((_, token))) = (route.access.scope(), bearer)
            && !token.covers(scope)
        {
            return Err(Problem::scope(scope));
        }
        match (route.access, bearer) {
            (Access::Open(act), _) => Ok(Admitted::Open(act)),
            (Access::Scoped(_, act), Some(bearer)) => Ok(Admitted::Scoped(bearer, act)),
            (Access::Walking(_, act), Some(bearer)) => Ok(Admitted::Walking(bearer, act)),
            (Access::Scoped(..) | Access::Walking(..), None) | (Access::Proven(_), _) => {
                Err(Problem::no_token())
            }
        }
    }

    /// Runs a walk over the store beside everything else, if none is under way.
    async fn walk<T: Send + 'static>(
        &self,
        walk: Box<dyn FnOnce() -> T + Send>,
    ) -> Result<T, Problem> {
        let Ok(place) = Arc::clone(&self.walks).try_acquire_owned() else {
            let detail = "another dry run or guard is walking the store";
            return Err(Problem::wait("busy", detail, Duration::from_secs(1)));
        };
        // The place is given back when the walk is over, whether or not the client still waits.
        let work = move || {
            let outcome = walk();
            drop(place);
            outcome
        };
        tokio::task::spawn_blocking(work).await.map_err(|_panicked| Problem::internal())
    }

    /// Id of a purge that is remembered.
    fn purge_id(&self, identity: Option<&str>, applied: Applied) -> String {
        purge_id(&self.identity, identity, applied)
    }

    async fn read<B>(&self, body: B) -> Result<Bytes, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = std::pin::pin!(Limited::new(body, self.body_bytes));
        match tokio::time::timeout(BODY_TIME, body.collect()).await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                format!("the body is longer than {} bytes", self.body_bytes),
            )),
            Ok(Err(_)) => Err(Problem::bad("body-incomplete", "the body broke off")),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body-timeout",
                "the body did not come in time",
            )),
        }
    }
}

/// What judges the proof of an event and carries it out.
pub type ProvenAct = fn(&Admin, &Knock<'_>) -> Result<hooks::Outcome, Problem>;

/// What answers a request that brings its own proof.
fn proven(head: &http::request::Parts, surface: Surface) -> Option<ProvenAct> {
    let mut routes = ROUTES.iter().filter(|route| surface.shows(route));
    let route = routes.find(|route| match route.access {
        Access::Proven(_) => route.method == head.method && route.leads(head.uri.path()),
        Access::Open(_) | Access::Scoped(..) | Access::Walking(..) => false,
    })?;
    match route.access {
        Access::Proven(act) => Some(act),
        Access::Open(_) | Access::Scoped(..) | Access::Walking(..) => None,
    }
}

/// A request that may be answered.
enum Admitted<'a> {
    Proven(ProvenAct),
    Open(fn(&Admin) -> Reply),
    Scoped((usize, &'a Token), fn(&Admin, &Call<'_>) -> Result<Reply, Problem>),
    Walking((usize, &'a Token), fn(&Admin, &Call<'_>) -> Result<Work, Problem>),
}

#[cfg(test)]
mod tests;
