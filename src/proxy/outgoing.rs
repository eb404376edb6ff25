//! The request as the origin gets it: written anew from the canonical form.

use http::header::{HOST, HeaderName, HeaderValue, VIA};
use http::{HeaderMap, Version};

use super::fields::X_REQUEST_ID;
use super::{Ask, Edge, Worker};
use crate::balance::Balance;
use crate::config::{HashBy, Origin};
use crate::message::Body;
use crate::origin::{Hop, Manner, Outgoing};
use crate::semantics::{ForwardedFields, Request, Rules, affinity, write_forwarded};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

impl Worker {
    /// Request for the origin: `headers` of the client, end-to-end fields only, and ours.
    pub(super) fn outgoing(&self, ask: &Ask, mut headers: HeaderMap, body: Body) -> Outgoing {
        let request = &ask.request;
        let rules = ask.policy.rules.as_deref();
        // First, so that what is ours stays ours.
        if let Some(rules) = rules {
            rules.request_fields.write(&mut headers);
        }
        if let Some(host) = self.edge.origin_host(ask.site, request, rules) {
            headers.insert(HOST, host);
        }
        let fields = rules.map_or(ForwardedFields::default(), |rules| rules.forwarded);
        let (client, hops) = (ask.client.address.ip(), ask.hops.as_ref());
        let host = request.host_field();
        write_forwarded(&mut headers, fields, hops, client, request.scheme, &host);
        set(&mut headers, X_REQUEST_ID, ask.id.as_str());
        headers.append(VIA, via(request.version));
        if let Ok(id) = HeaderValue::from_str(&self.edge.config.node.cdn_id) {
            headers.append(CDN_LOOP, id);
        }
        let target = rules.map_or_else(|| request.target(), |rules| rules.target(request));
        let method = request.method.clone();
        let hop = Some(Hop { from: ask.client.address, to: ask.client.local });
        let (streams, manner) = (ask.is_grpc(), self.manner(ask));
        Outgoing { method, target, headers, body, streams, manner, hop }
    }

    /// How the request is sent: what its path's policy and its origin say.
    fn manner(&self, ask: &Ask) -> Manner {
        let origin = self.edge.config.origins.get(self.edge.origin_of(ask.site, &ask.policy));
        Manner {
            affinity: origin.and_then(|origin| affinity_of(origin, ask)),
            retry_on: ask.policy.retry_on_status,
            hedge: ask.policy.hedge,
        }
    }
}

impl Edge {
    /// Value of `Host` that the origin of a site sees.
    pub(super) fn origin_host(
        &self,
        site: usize,
        request: &Request,
        rules: Option<&Rules>,
    ) -> Option<HeaderValue> {
        let of_rule = rules.and_then(|rules| rules.host.clone());
        let own = || self.config.sites.get(site).and_then(|site| site.host.clone());
        let own = of_rule.or_else(own);
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

fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 atoll",
        Version::HTTP_10 => "1.0 atoll",
        _ => "1.1 atoll",
    })
}
