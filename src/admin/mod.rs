//! The admin listener: what operators and their programs ask of a node.
//!
//! A listener and a router of its own, so that nothing that a client of a site sends can reach it.
//! `/metrics`, `/healthz` and `/readyz` are open; everything under `/v1/` needs a bearer token
//! with the scope that its row in [`ROUTES`] names. Errors are problem details (RFC 9457). What a
//! request sets in motion is the business of the [`Control`] that it is given.

mod auth;
mod control;
mod health;
mod problem;
mod purge;
mod reset;
mod server;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};

pub use control::{Control, Identity, ListenerStatus, NodeStatus, Readiness, StoreClass};
pub use problem::Problem;
pub use server::{Surface, serve};

use crate::clock::{self, Now};
use crate::config::{Config, Scope, Token};
use crate::guard::{Buckets, Guard};
use crate::telemetry::Metrics;

/// Time in which a request's body must have come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// An answer of the admin listener.
type Reply = Response<Full<Bytes>>;

/// One row of the route table.
#[derive(Clone, Debug)]
pub struct Route {
    /// Method; a GET answers HEAD too.
    pub method: Method,
    /// Path, without query.
    pub path: &'static str,
    /// Who may ask, and what answers.
    pub access: Access,
}

/// Who may ask, and what answers.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Everybody.
    Open(fn(&Admin) -> Reply),
    /// Who has a token with this scope.
    Scoped(Scope, fn(&Admin, &Call<'_>) -> Result<Reply, Problem>),
}

/// Every route; `docs/openapi.yaml` describes the same.
pub static ROUTES: [Route; 8] = [
    Route { method: Method::GET, path: "/metrics", access: Access::Open(health::metrics) },
    Route { method: Method::GET, path: "/healthz", access: Access::Open(health::alive) },
    Route { method: Method::GET, path: "/readyz", access: Access::Open(health::ready) },
    Route {
        method: Method::POST,
        path: "/v1/purge",
        access: Access::Scoped(Scope::Purge, purge::purge),
    },
    Route {
        method: Method::POST,
        path: "/v1/reset",
        access: Access::Scoped(Scope::Config, reset::reset),
    },
    Route {
        method: Method::POST,
        path: "/v1/drain",
        access: Access::Scoped(Scope::Drain, reset::drain),
    },
    Route {
        method: Method::GET,
        path: "/v1/status",
        access: Access::Scoped(Scope::Read, status::status),
    },
    Route {
        method: Method::GET,
        path: "/v1/origins",
        access: Access::Scoped(Scope::Read, status::origins),
    },
];

/// One request whose token has been judged.
#[derive(Debug)]
pub struct Call<'a> {
    token: &'a Token,
    /// Position of the token, for its rate.
    position: usize,
    body: &'a [u8],
    now: Now,
}

/// The admin API of one node.
pub struct Admin {
    identity: Identity,
    started: Now,
    workers: usize,
    tokens: Vec<Token>,
    body_bytes: usize,
    tag_bytes: usize,
    sites: Vec<AdminSite>,
    guard: Guard,
    purge_rates: Buckets<usize>,
    control: Arc<dyn Control>,
    metrics: Arc<Metrics>,
}

/// What the API knows of a site.
#[derive(Debug)]
struct AdminSite {
    name: Arc<str>,
    /// Name of its origin.
    origin: String,
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
        let origin =
            |at: usize| config.origins.get(at).map_or_else(String::new, |o| o.name.clone());
        let rate = f64::from(config.admin.purges_per_second.max(1));
        Arc::new(Self {
            identity,
            started: now,
            workers: config.node.workers,
            tokens: config.admin.tokens.clone(),
            body_bytes: config.admin.body_bytes,
            tag_bytes: config.limits.tag_bytes,
            sites: config
                .sites
                .iter()
                .map(|site| AdminSite { name: site.name.clone(), origin: origin(site.origin) })
                .collect(),
            guard: Guard::default(),
            purge_rates: Buckets::new(rate, rate, config.admin.tokens.len().max(1)),
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
        let answer = match self.admit(&head, client, surface, clock::now()) {
            Ok(Admitted::Open(act)) => Ok(act(self)),
            Ok(Admitted::Scoped(position, token, act)) => self.read(body).await.and_then(|body| {
                act(self, &Call { token, position, body: &body, now: clock::now() })
            }),
            Err(problem) => Err(problem),
        };
        answer.unwrap_or_else(Problem::into_reply)
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
        let bearer = if surface == Surface::Full && path.starts_with("/v1/") {
            let found = auth::judge(&self.guard, &self.tokens, &head.headers, client.ip(), now);
            Some(found.inspect_err(|_| self.metrics.node.admin_denied.inc())?)
        } else {
            None
        };
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let at_path = || ROUTES.iter().filter(|route| route.path == path && surface.shows(route));
        let Some(route) = at_path().find(|route| route.method == *method) else {
            let allowed: Vec<&str> = at_path().map(|route| route.method.as_str()).collect();
            return Err(Problem::no_route(&allowed));
        };
        match (route.access, bearer) {
            (Access::Open(act), _) => Ok(Admitted::Open(act)),
            (Access::Scoped(scope, act), Some((position, token))) if token.covers(scope) => {
                Ok(Admitted::Scoped(position, token, act))
            }
            (Access::Scoped(scope, _), Some(_)) => Err(Problem::scope(scope)),
            (Access::Scoped(..), None) => Err(Problem::no_token()),
        }
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

/// A request that may be answered.
enum Admitted<'a> {
    Open(fn(&Admin) -> Reply),
    Scoped(usize, &'a Token, fn(&Admin, &Call<'_>) -> Result<Reply, Problem>),
}

/// An answer with a body that must not be kept by anybody on the way.
fn reply(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// An answer in JSON.
fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            reply(status, "application/json", text)
        }
        Err(error) => {
            tracing::error!(%error, "an answer of the admin listener could not be written");
            Problem::internal().into_reply()
        }
    }
}

/// Milliseconds, to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests;
