//! The request as the origin gets it: written anew from the canonical form.

use std::net::SocketAddr;

use http::header::{HOST, HeaderName, HeaderValue, VIA};
use http::{HeaderMap, Version};

use super::fields::X_REQUEST_ID;
use super::{Ask, Edge, Worker};
use crate::balance::Balance;
use crate::config::{HashBy, Origin};
use crate::message::Body;
use crate::origin::{Hop, Manner, Outgoing};
use crate::semantics::{Request, affinity};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

impl Worker {
    /// Request for the origin: `headers` of the client, end-to-end fields only, and ours.
    pub(super) fn outgoing(&self, ask: &Ask, mut headers: HeaderMap, body: Body) -> Outgoing {
        let request = &ask.request;
        set(&mut headers, X_FORWARDED_HOST, &request.host_field());
        if let Some(host) = self.edge.origin_host(ask.site, request) {
            headers.insert(HOST, host);
        }
        set(&mut headers, X_FORWARDED_FOR, &address(ask.client.address));
        set(&mut headers, X_FORWARDED_PROTO, request.scheme.as_str());
        set(&mut headers, X_REQUEST_ID, ask.id.as_str());
        headers.append(VIA, via(request.version));
        if let Ok(id) = HeaderValue::from_str(&self.edge.config.node.cdn_id) {
            headers.append(CDN_LOOP, id);
        }
        let (method, target) = (request.method.clone(), request.target());
        let hop = Some(Hop { from: ask.client.address, to: ask.client.local });
        let (streams, manner) = (ask.is_grpc(), self.manner(ask));
        Outgoing { method, target, headers, body, streams, manner, hop }
    }

    /// How the request is sent: what its path's policy and its origin say.
    fn manner(&self, ask: &Ask) -> Manner {
        let config = &self.edge.config;
        let origin = config.sites.get(ask.site).and_then(|site| config.origins.get(site.origin));
        Manner {
            affinity: origin.and_then(|origin| affinity_of(origin, ask)),
            retry_on: ask.policy.retry_on_status,
            hedge: ask.policy.hedge,
        }
    }
}

impl Edge {
    /// Value of `Host` that the origin of a site sees.
    pub(super) fn origin_host(&self, site: usize, request: &Request) -> Option<HeaderValue> {
        let own = self.config.sites.get(site).and_then(|site| site.host.clone());
        own.or_else(|| HeaderValue::try_from(request.host_field()).ok())
    }

    /// Whether the request has been here before (RFC 8586).
    pub(super) fn loops(&self, headers: &HeaderMap) -> bool {
        let own = self.config.node.cdn_id.as_bytes();
        headers.get_all(CDN_LOOP).iter().any(|value| {
            value.as_bytes().split(|byte| *byte == b',').any(|member| {
                let id = member.split(|byte| *byte == b';').next().unwrap_or_default();
                id.trim_ascii().eq_ignore_ascii_case(own)
            })
        })
    }
}

/// What the request has in common with those that go to the same endpoint, where that matters.
fn affinity_of(origin: &Origin, ask: &Ask) -> Option<u64> {
    let Balance::Hash { .. } = origin.balance else { return None };
    let value = match &origin.hash_by {
        HashBy::Key => None,
        HashBy::Field(name) => ask.request.headers.get(name),
    };
    Some(match value {
        Some(value) => affinity(&[value.as_bytes()]),
        None => affinity(&[&ask.key.parts]),
    })
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn address(client: SocketAddr) -> String {
    client.ip().to_canonical().to_string()
}

fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 atoll",
        Version::HTTP_10 => "1.0 atoll",
        _ => "1.1 atoll",
    })
}
