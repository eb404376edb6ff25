//! `PURGE` from clients, where the configuration takes it: who may, and nothing more.
//!
//! Anybody who reaches a listener for clients can send it, so both must be right: the network that
//! the connection comes from (the socket's, or what a trusted PROXY header says, never a field of
//! the request) and a token that may purge the site. The token stands in `Authorization: Bearer`,
//! `X-Purge-Token` or `Fastly-Key`, in one of them only. What is asked for is carried out by whoever
//! is handed in, and never by an origin: the request ends here, so its token goes nowhere else.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};

use super::{Edge, Worker};
use crate::clock::Now;
use crate::guard::Denied;
use crate::listener::{Client, Response};
use crate::message::Body;
use crate::semantics::Request;
use crate::telemetry::Record;

/// An answer that is on its way.
pub type Purged<'a> = Pin<Box<dyn Future<Output = http::Response<Bytes>> + Send + 'a>>;

/// Carries out purges whose network and token have been judged.
pub trait PurgeByMethod: Send + Sync + 'static {
    /// Purges what the fields of the request say, else its URL; the answer is for the client.
    fn purge<'a>(&'a self, asked: &'a AskedPurge<'a>) -> Purged<'a>;
}

/// A `PURGE` that may be carried out, as far as network and token go.
#[derive(Clone, Copy, Debug)]
pub struct AskedPurge<'a> {
    /// Position of the token in the configuration.
    pub token: usize,
    /// Who asks.
    pub client: IpAddr,
    /// Name of the site that answers for the host.
    pub site: &'a str,
    /// Host of the request as its field would have it, in canonical form.
    pub host: &'a str,
    /// Target of the request in canonical form.
    pub target: &'a str,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// When it came.
    pub now: Now,
}

impl Edge {
    /// Whether this method is a purge here.
    pub(super) fn purges_by(&self, method: &Method) -> bool {
        self.config.facades.purge_method && method.as_str() == "PURGE"
    }
}

impl Worker {
    /// Answers a `PURGE`.
    pub(super) async fn purge(
        &self,
        request: &Request,
        site: usize,
        client: &Client,
        body: Body,
        record: Box<Record>,
        now: Now,
    ) -> Response {
        let client = client.address.ip();
        let (facades, tokens) = (&self.edge.config.facades, &self.edge.config.admin.tokens);
        if !facades.purges_from(client) {
            return self.own(StatusCode::FORBIDDEN, "purge-network", record, now);
        }
        let presented = token(&request.headers);
        let judged = self.edge.guard.judge(tokens, presented, client, now);
        let position = match judged {
            Ok((position, _)) => position,
            Err(Denied::TooMany(wait)) => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let mut response = self.own(status, "purge-failures", record, now);
                response.headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
                return response;
            }
            Err(Denied::Missing | Denied::Unknown) => {
                return self.own(StatusCode::FORBIDDEN, "purge-token", record, now);
            }
        };
        // Whoever sends one expects that it says what is purged.
        if !matches!(body, Body::Empty) {
            let mut response = self.own(StatusCode::BAD_REQUEST, "purge-body", record, now);
            response.close = true;
            return response;
        }
        let asked = AskedPurge {
            token: position,
            client,
            site: self.edge.config.sites.get(site).map_or("", |site| &*site.name),
            host: &request.host_field(),
            target: &request.target(),
            headers: &request.headers,
            now,
        };
        let (head, text) = self.purger.purge(&asked).await.into_parts();
        let mut response = self.own(head.status, "purge", record, now);
        response.body = Body::from(text);
        response.headers.remove(CONTENT_TYPE);
        response.headers.extend(head.headers);
        response
    }
}

/// The token, where it stands in one place only.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let places = [AUTHORIZATION.as_str(), "x-purge-token", "fastly-key"];
    let mut lines = places.iter().flat_map(|name| {
        headers.get_all(*name).iter().map(move |line| (*name, line.as_bytes().trim_ascii()))
    });
    let (name, line) = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    let token = if name == AUTHORIZATION.as_str() {
        let (scheme, token) = line.split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())?
    } else {
        line
    };
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn a_token_stands_in_one_place() {
        type Fields = &'static [(&'static str, &'static str)];
        let rows: [(Fields, Option<&str>); 10] = [
            (&[("authorization", "Bearer one")], Some("one")),
            (&[("authorization", "bearer  one")], Some("one")),
            (&[("x-purge-token", " one ")], Some("one")),
            (&[("fastly-key", "one")], Some("one")),
            (&[("authorization", "Basic one")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("x-purge-token", "")], None),
            (&[("x-purge-token", "one"), ("x-purge-token", "one")], None),
            (&[("authorization", "Bearer one"), ("fastly-key", "one")], None),
            (&[], None),
        ];
        for (fields, expected) in rows {
            let field = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let headers: HeaderMap = fields.iter().map(field).collect();
            assert_eq!(token(&headers), expected.map(str::as_bytes), "{fields:?}");
        }
    }
}
