//! Requests as configured: who is believed, who is let in or sent elsewhere, and how an answer leaves.
//!
//! All of this lies around the way of a request. A policy without rules costs one look at an empty
//! pointer on the way in and none on the way out.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{
    ACCEPT, ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPIRES, HeaderName,
    HeaderValue, LAST_MODIFIED, LOCATION, RETRY_AFTER, SET_COOKIE,
};
use http::{HeaderMap, Method};

use super::{Edge, Worker};
use crate::clock::Now;
use crate::guard::TooFast;
use crate::listener::{Client, Response};
use crate::message::{Body, Refusal, RequestHead};
use crate::semantics::{Hops, Outcome, Page, Policy, Request, Rules, believe, plain_reading};
use crate::telemetry::Record;

/// Fields that describe a body which another takes the place of.
const OF_THE_BODY: [HeaderName; 8] = [
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    ACCEPT_RANGES,
    ETAG,
    LAST_MODIFIED,
];

impl Edge {
    /// Who asks, and the way up to us, by the word of a trusted proxy; by that, too, the scheme.
    /// `None`: who speaks to us asks for itself.
    pub(super) fn believed(
        &self,
        client: &Client,
        head: &mut RequestHead,
    ) -> Result<Option<(Arc<Client>, Hops)>, Refusal> {
        if !client.trusted_hop {
            return Ok(None);
        }
        let peer = client.address.ip();
        let told = believe(&head.headers, client.told_by, peer, &self.proxies)
            .map_err(|_misled| Refusal::FieldSyntax)?;
        Ok(told.map(|told| {
            head.scheme = told.scheme.unwrap_or(head.scheme);
            let address = SocketAddr::new(told.client.ip(), told.client.port());
            // What it says is used up: the client itself is no proxy of ours.
            let client = Client { address, trusted_hop: false, ..client.clone() };
            (Arc::new(client), told.hops)
        }))
    }

    /// Index of the origin that a request goes to.
    pub(super) fn origin_of(&self, site: usize, policy: &Policy) -> usize {
        let own = policy.rules.as_ref().and_then(|rules| rules.origin);
        own.unwrap_or_else(|| self.config.sites.get(site).map_or(0, |site| site.origin))
    }

    /// The rules of another path than the request's `own` that an origin may take its path for, where
    /// any rules say who may ask.
    fn rules_as_read(&self, site: usize, own: &Arc<Policy>, path: &str) -> Option<Arc<Rules>> {
        let plain = if self.guards { plain_reading(path)? } else { return None };
        let policy = self.routes.policy(site, &plain);
        policy.rules.clone().filter(|rules| !Arc::ptr_eq(policy, own) && rules.guards())
    }
}

impl Worker {
    /// Lets a request in, or answers it: by the client's network, its rate, and where it should have
    /// gone.
    pub(super) fn admit(
        &self,
        rules: &Rules,
        request: &Request,
        client: &Client,
        mut record: Box<Record>,
        now: Now,
    ) -> Result<Box<Record>, Box<Response>> {
        record = self.let_in(rules, client, record, now)?;
        let Some((status, location)) = rules.redirects.of(request) else { return Ok(record) };
        record.detail = Some("redirect");
        let mut response = self.own(status, "redirect", record, now);
        response.headers.insert(LOCATION, location);
        if let Some(value) = &rules.redirects.cache_control {
            response.headers.insert(CACHE_CONTROL, value.clone());
        }
        Err(Box::new(response))
    }

    /// Lets a request in, or answers it, by the rules of the path that an origin may take its path for.
    pub(super) fn let_in_as_read(
        &self,
        site: usize,
        policy: &Arc<Policy>,
        request: &Request,
        client: &Client,
        record: Box<Record>,
        now: Now,
    ) -> Result<Box<Record>, Box<Response>> {
        let Some(rules) = self.edge.rules_as_read(site, policy, &request.path) else {
            return Ok(record);
        };
        self.let_in(&rules, client, record, now).map_err(|mut response| {
            Asker::of(request).dress(&rules, &mut response);
            response
        })
    }

    /// Lets a request in by its client's network and rate.
    fn let_in(
        &self,
        rules: &Rules,
        client: &Client,
        record: Box<Record>,
        now: Now,
    ) -> Result<Box<Record>, Box<Response>> {
        let address = client.address.ip();
        if self.of_the_house {
            return Ok(record);
        }
        if !rules.access.admits(address) {
            return Err(Box::new(self.turned_away(Refusal::Network, record, now)));
        }
        let taken = self.edge.rates.as_ref().map(|rates| rates.take(rules, address, now));
        let Some(Err(why)) = taken else { return Ok(record) };
        let (refusal, wait) = match why {
            TooFast::Client(wait) => (Refusal::ClientRate, wait),
            TooFast::Total(wait) => (Refusal::SiteRate, wait),
        };
        let mut response = self.turned_away(refusal, record, now);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        Err(Box::new(response))
    }

    /// A refusal that says nothing against the connection: others may share it.
    fn turned_away(&self, refusal: Refusal, record: Box<Record>, now: Now) -> Response {
        let mut response = self.refusal(refusal, record, now);
        response.close = false;
        response
    }
}

/// What of a request counts when its answer leaves.
pub(super) struct Asker {
    accept: Option<HeaderValue>,
    authorized: bool,
    head: bool,
}

impl Asker {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            accept: request.headers.get(ACCEPT).cloned(),
            authorized: request.headers.contains_key(AUTHORIZATION),
            head: request.method == Method::HEAD,
        }
    }

    /// Dresses an answer as the rules say: its page where it is an error, then its fields.
    pub(super) fn dress(&self, rules: &Rules, response: &mut Response) {
        response.join_fields();
        let record = response.record.as_ref();
        let ours = record.is_some_and(|record| record.outcome == Outcome::Refused);
        let error = response.status.is_client_error() || response.status.is_server_error();
        let replaced = ours && error
            || rules.error_pages.for_origin
                && response.status.is_server_error()
                && !is_grpc(&response.headers);
        if replaced
            && let Some(page) = rules.error_pages.page(response.status, self.accept.as_ref())
        {
            self.put(page, response);
        }
        if !rules.response_fields.is_empty() {
            let settled = ours || self.authorized || is_private(&response.headers);
            rules.response_fields.apply(&mut response.headers, settled);
        }
    }

    fn put(&self, page: &Page, response: &mut Response) {
        let headers = &mut response.headers;
        for name in OF_THE_BODY {
            headers.remove(name);
        }
        headers.remove(EXPIRES);
        headers.insert(CONTENT_TYPE, page.content_type.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.head_length = self.head.then_some(page.body.len() as u64);
        response.body = if self.head { Body::Empty } else { Body::from(page.body.clone()) };
    }
}

/// gRPC tells of errors in trailers, and its clients read no pages.
fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    value.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Whether an answer is one client's: what caches are told of it stays as it is.
fn is_private(headers: &HeaderMap) -> bool {
    headers.contains_key(SET_COOKIE)
        || headers.get_all(CACHE_CONTROL).iter().any(|line| {
            let line = line.as_bytes().to_ascii_lowercase();
            line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|directive| {
                directive.starts_with(b"private") || directive.starts_with(b"no-store")
            })
        })
}
