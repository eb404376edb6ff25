//! Purges in the wire formats that clients already speak.
//!
//! A CMS plug-in or a CI job that purges at Fastly or Cloudflare needs nothing but another base
//! URL. What is taken over is the format: paths, where the token stands, the shape of answers and
//! errors. What a purge means, whom it is allowed to and how it is remembered is the same as for
//! `POST /v1/purge`, which carries it out. So where a format leaves something open, the stricter
//! reading holds: nothing that is empty or unknown is taken for "everything".
//!
//! A format answers where the configuration has a service or a zone for it; else its paths lead
//! nowhere. The identifiers in its paths stand for sites, and the token must cover every one of
//! them: a part of what was asked for would be taken for the whole.

mod cloudflare;
mod edge;
mod fastly;
mod zones;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

pub use edge::Purging;

use super::problem::Problem;
use super::purge::one_site;
use super::settle::Done;
use super::{Admin, Call, Reply, auth};
use crate::clock;
use crate::config::{Facades, Scope, Service};
use crate::purge::Strength;

/// Every route of another cache's API: method and path. All need the scope `purge`, and
/// `docs/openapi.yaml` describes them, too. Some answer further methods that older clients use.
#[cfg(test)]
pub(super) static ROUTES: [(&str, &str); 8] = [
    ("POST", "/service/{id}/purge"),
    ("POST", "/service/{id}/purge/{key}"),
    ("POST", "/service/{id}/purge_all"),
    ("POST", "/purge/{url}"),
    ("POST", "/client/v4/zones/{zone}/purge_cache"),
    ("POST", "/client/v4/zones/{zone}/invalidate_cache"),
    ("GET", "/client/v4/user/tokens/verify"),
    ("GET", "/client/v4/zones"),
];

/// An answer, with the purge that is waited for before it is given.
type Answered = (Reply, Option<Done>);

/// Whose format a request is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Fastly,
    Cloudflare,
}

impl Format {
    /// The format to which a path belongs, where it is answered.
    pub(super) fn of(facades: &Facades, path: &str) -> Option<Self> {
        let fastly = path.starts_with("/service/") || path.starts_with("/purge/");
        if fastly && !facades.fastly.is_empty() {
            return Some(Self::Fastly);
        }
        let cloudflare = path.starts_with("/client/v4/") && !facades.cloudflare.is_empty();
        cloudflare.then_some(Self::Cloudflare)
    }

    /// The token, where this format has it.
    fn token(self, headers: &HeaderMap) -> Option<&[u8]> {
        match self {
            Self::Fastly => one_line(headers, "fastly-key"),
            Self::Cloudflare if headers.contains_key("authorization") => auth::bearer(headers),
            Self::Cloudflare => one_line(headers, "x-auth-key"),
        }
    }

    fn error(self, problem: &Problem) -> Reply {
        match self {
            Self::Fastly => fastly::error(problem),
            Self::Cloudflare => cloudflare::error(problem),
        }
    }
}

/// Answers one request in another format.
pub(super) async fn answer<B>(
    admin: &Admin,
    format: Format,
    head: &Parts,
    body: B,
    client: SocketAddr,
) -> Reply
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match carry_out(admin, format, head, body, client).await {
        Ok(reply) => reply,
        Err(problem) => format.error(&problem),
    }
}

async fn carry_out<B>(
    admin: &Admin,
    format: Format,
    head: &Parts,
    body: B,
    client: SocketAddr,
) -> Result<Reply, Problem>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let presented = format.token(&head.headers);
    let (guard, tokens) = (&admin.guard, &admin.tokens);
    let bearer = auth::judge_presented(guard, tokens, presented, client.ip(), clock::now())
        .map(|(position, token)| (admin.numbers.get(position), token))
        .inspect_err(|_| admin.metrics.node.admin_denied.inc())?;
    if !bearer.1.covers(Scope::Purge) {
        return Err(Problem::scope(Scope::Purge));
    }
    let body = admin.read(body).await?;
    let call = Call::new(head, client, bearer, &body);
    let (reply, done) = match format {
        Format::Fastly => fastly::answer(admin, &call, head)?,
        Format::Cloudflare => cloudflare::answer(admin, &call, head)?,
    };
    if let Some(done) = done {
        // These formats have no place to say that the audit log lacks it; the process log and a metric
        // do. A purge that was not acknowledged is an error in each of them.
        admin.settle(done).await?;
    }
    Ok(reply)
}

/// The value of a field that stands once and is not empty.
fn one_line<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?.as_bytes().trim_ascii();
    (lines.next().is_none() && !line.is_empty()).then_some(line)
}

/// The sites behind an identifier. A token that is bound to sites learns nothing of identifiers
/// that it does not cover, not even whether there are such.
fn sites_of(
    admin: &Admin,
    call: &Call<'_>,
    services: &[Service],
    id: &str,
) -> Result<Vec<Arc<str>>, Problem> {
    let Some(service) = services.iter().find(|service| service.id == id) else {
        if call.token.sites.is_empty() {
            return Err(Problem::unknown_service());
        }
        return Err(super::resolve::not_covered());
    };
    service.sites.iter().map(|site| one_site(admin, call.token, site)).collect()
}

/// Hard, unless the field is there that makes purges soft there. Its value does not matter to
/// Fastly; whoever writes "0" means no, and hard is the stronger one.
fn strength(headers: &HeaderMap) -> Strength {
    let Some(line) = headers.get("fastly-soft-purge") else { return Strength::Hard };
    match line.as_bytes().trim_ascii() {
        b"" | b"0" | b"false" => Strength::Hard,
        _ => Strength::Soft,
    }
}

/// Whether one of `methods` was used.
fn allow(head: &Parts, methods: &[&str]) -> Result<(), Problem> {
    if methods.contains(&head.method.as_str()) {
        return Ok(());
    }
    Err(Problem::no_route(methods))
}

/// The texts of a field that lists tags.
fn listed(
    headers: &HeaderMap,
    name: &'static str,
    separator: fn(char) -> bool,
) -> Result<Vec<String>, Problem> {
    let mut tags = Vec::new();
    for line in headers.get_all(name) {
        let text = line
            .to_str()
            .map_err(|_bytes| Problem::field("value", name, "the field is not plain ASCII"))?;
        tags.extend(text.split(separator).filter(|tag| !tag.is_empty()).map(str::to_owned));
    }
    if tags.is_empty() && headers.contains_key(name) {
        return Err(Problem::field("empty-selector", name, "the field names nothing"));
    }
    Ok(tags)
}

/// A part of a path with its percent-encoding undone; `None` where that gives no text.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(out).ok()
}

/// Reads a body in the formats of other caches and drops it.
pub(super) fn is_read(body: &[u8]) {
    let _ = cloudflare::parse(body).map(cloudflare::wish);
    let _ = fastly::parse(body);
}

#[cfg(test)]
mod tests;
