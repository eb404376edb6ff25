//! What an operator decided for a path: the part of a decision that neither client nor origin has.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::HeaderName;

use crate::semantics::again::RetryOn;
use crate::semantics::keyed::KeyPolicy;
use crate::semantics::mark::Mark;
use crate::semantics::rules::Rules;
use crate::semantics::status_lifetime::StatusLifetimes;

use crate::semantics::coding::Compression;

/// Policy of one path rule, complete. Built by `config`, judged by `decide` and `storable`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Methods that are forwarded; others are refused with 405. `*` stands for every method.
    pub methods: Vec<Method>,
    /// Never store, never answer from memory.
    pub pass: bool,
    /// Freshness lifetime that overrides the origin's.
    pub lifetime: Option<Duration>,
    /// Freshness lifetime where the origin names none; `None` does not store.
    pub default_lifetime: Option<Duration>,
    /// Estimate a lifetime from `Last-Modified` (RFC 9111 section 4.2.2) where nothing names one.
    pub heuristic: bool,
    /// Stale window while refreshing (RFC 5861 section 3), where the origin names none.
    pub stale_while_revalidate: Option<Duration>,
    /// Stale window on origin errors (RFC 5861 section 4), where the origin names none.
    pub stale_if_error: Option<Duration>,
    /// Longest lifetime of a stored 4xx or 5xx other than 404 and 410.
    pub error_lifetime: Duration,
    /// Lifetimes by status: where the origin names none, and at most where it does. Above all other
    /// lifetimes; zero does not store.
    pub status_lifetime: StatusLifetimes,
    /// Share by which lifetimes are shortened at most, in percent.
    pub jitter_percent: u32,
    /// Strength of early refresh; 0 switches it off, 1 is the published optimum.
    pub early_refresh: f64,
    /// Obey `Cache-Control` of requests beyond `only-if-cached`.
    pub honour_request_directives: bool,
    /// Send a client's `If-None-Match` and `If-Modified-Since` on where nothing is stored that the
    /// edge could ask about itself, and leave it to the origin to judge them.
    pub forward_conditions: bool,
    /// Store responses with `Set-Cookie` (the field is stored and replayed).
    pub store_set_cookie: bool,
    /// Store responses with `Set-Cookie` without that field, and show it to nobody.
    pub strip_set_cookie: bool,
    /// Store responses that vary on `Cookie`.
    pub vary_on_cookie: bool,
    /// What makes the key beside the URL, and what of the query does; `None`: all of the query and
    /// nothing else.
    pub key: Option<Box<KeyPolicy>>,
    /// Hand tag fields on to the client.
    pub keep_tags: bool,
    /// Size of the segments that bodies are fetched and stored in, in bytes; `None` takes each
    /// body as one.
    pub segment: Option<u64>,
    /// Segments that are fetched ahead of what a client has got.
    pub segment_ahead: u64,
    /// Content codings made at the edge.
    pub compression: Compression,
    /// Let gRPC calls stream: never stored, without the paces that other bodies must keep, with
    /// trailers in both directions, and errors of ours said in gRPC's own words.
    pub grpc: bool,
    /// Statuses after which an idempotent request is sent again, to another server.
    pub retry_on_status: RetryOn,
    /// Send an idempotent request without a body a second time, to another server, when the first
    /// takes unusually long.
    pub hedge: bool,
    /// Largest request body in bytes.
    pub body_bytes: u64,
    /// Protocols that a connection may be upgraded to, in lower case; empty: none.
    pub upgrade: Vec<String>,
    /// What to do with hits while the mesh lease is lost.
    pub without_lease: WithoutLease,
    /// What is done with requests besides caching; `None`: nothing.
    pub rules: Option<Arc<Rules>>,
    /// By what a stored response of another policy is known. Set where a policy is complete.
    pub mark: Mark,
}

impl Policy {
    /// What makes the key; `None` where nothing but the URL does, and where there is no key.
    pub(super) fn key_in_force(&self) -> Option<&KeyPolicy> {
        self.key.as_deref().filter(|_| !self.pass)
    }

    /// Whether requests under one key never differ in a field.
    pub(super) fn settles(&self, name: &HeaderName) -> bool {
        self.key_in_force().is_some_and(|key| key.settles(name))
            || self.rules.as_ref().is_some_and(|rules| rules.settles(name))
    }

    /// Whether a connection may be upgraded to a protocol.
    #[must_use]
    pub fn upgrades(&self, protocol: &str) -> bool {
        self.upgrade.iter().any(|granted| granted.eq_ignore_ascii_case(protocol))
    }

    /// Whether requests with this method are forwarded.
    #[must_use]
    pub fn forwards(&self, method: &Method) -> bool {
        self.methods.contains(method) || self.methods.iter().any(|known| known.as_str() == "*")
    }
}

/// What a node that may have missed purges does with its hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutLease {
    /// Ask the origin before each answer.
    Revalidate,
    /// Serve on.
    Serve,
}

/// Methods of the IANA registry, except CONNECT, TRACE and PRI.
pub const REGISTERED_METHODS: [&str; 37] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

impl Default for Policy {
    fn default() -> Self {
        let mut policy = Self {
            methods: REGISTERED_METHODS
                .iter()
                .filter_map(|name| Method::from_bytes(name.as_bytes()).ok())
                .collect(),
            pass: false,
            lifetime: None,
            default_lifetime: None,
            heuristic: false,
            stale_while_revalidate: None,
            stale_if_error: None,
            error_lifetime: Duration::from_secs(10),
            status_lifetime: StatusLifetimes::default(),
            jitter_percent: 10,
            early_refresh: 1.0,
            honour_request_directives: false,
            forward_conditions: false,
            store_set_cookie: false,
            strip_set_cookie: false,
            vary_on_cookie: false,
            key: None,
            keep_tags: false,
            segment: None,
            segment_ahead: 2,
            compression: Compression::default(),
            grpc: false,
            retry_on_status: RetryOn::default(),
            hedge: false,
            body_bytes: 100 * 1024 * 1024,
            upgrade: Vec::new(),
            without_lease: WithoutLease::Revalidate,
            rules: None,
            mark: Mark::default(),
        };
        policy.mark = Mark::of(&policy);
        policy
    }
}
