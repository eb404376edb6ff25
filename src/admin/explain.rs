//! `POST /v1/explain`: what the node would do with a request, and why.
//!
//! The request is described, not sent: nothing is fetched, stored or counted. What is described
//! is held to the limits of a request that a client sends, and a field that is unknown is refused,
//! since its writer would believe that it had been taken into account.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::control::Control;
use super::problem::Problem;
use super::{Admin, Call, Reply, json};
use crate::config::Token;
use crate::message::{RequestHead, Scheme};
use crate::semantics::canonical_authority;

/// Longest URL and longest sum of header fields that are taken, in bytes: beyond what any client's
/// head may have.
const HEAD_BYTES: usize = 64 * 1024;

/// A request as it is described.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Lines,
}

fn get() -> String {
    "GET".to_owned()
}

/// Header fields: an object of names and values, or a list of pairs where a name stands twice.
#[derive(Debug, Default)]
pub(super) struct Lines(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Both;
        impl<'de> Visitor<'de> for Both {
            type Value = Lines;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of names and values, or a list of [name, value]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lines, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = map.next_entry()? {
                    lines.push(line);
                }
                Ok(Lines(lines))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<Lines, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = row.next_element()? {
                    lines.push(line);
                }
                Ok(Lines(lines))
            }
        }
        deserializer.deserialize_any(Both)
    }
}

/// `POST /v1/explain`
pub(super) fn explain(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    let written = written(call.body)?;
    let place = place(&*admin.control, call.token, "url", &written.url)?;
    let method = Method::from_bytes(written.method.as_bytes())
        .map_err(|_not_a_token| Problem::field("value", "method", "`method` is no HTTP method"))?;
    let headers = fields(&written.headers, admin.fields)?;
    let head = place.request(method, headers)?;
    Ok(json(StatusCode::OK, &admin.control.explain(head, call.now)))
}

fn written(body: &[u8]) -> Result<Written, Problem> {
    // The deserialiser would take an array for an object without names.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad("body", "the body must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad("body", format!("the body cannot be read: {error}")))
}

/// What holds of all bodies: their URL is one that a client could send, and no more fields are taken than a
/// request may have.
pub(super) fn is_read(body: &[u8]) {
    const MOST: usize = 20;
    let Ok(written) = written(body) else { return };
    if let Ok((scheme, authority, target)) = url(&written.url) {
        assert!(target.starts_with('/'), "{target:?} of {:?}", written.url);
        let again = url(&format!("{}://{authority}{target}", scheme.as_str()));
        assert_eq!(again, Ok((scheme, authority, target)), "{:?}", written.url);
    }
    if let Ok(fields) = fields(&written.headers, MOST) {
        assert!(fields.len() <= MOST, "{} fields", fields.len());
    }
}

/// Where a request would go: what an absolute URL says, as a client would send it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    scheme: Scheme,
    authority: String,
    target: String,
    /// Site that answers for the host, where one does; the token covers it.
    pub(super) site: Option<Arc<str>>,
}

/// Reads the absolute URL in the field `named` of a request.
pub(super) fn place(
    control: &dyn Control,
    token: &Token,
    named: &'static str,
    text: &str,
) -> Result<Place, Problem> {
    let (scheme, authority, target) = url(text)
        .map_err(|why| Problem::field("url", named, format!("{:?} {why}", shortened(text))))?;
    // A site that the token does not cover is told nothing about, whatever the rest says.
    let host = canonical_authority(&authority, scheme).map(|(host, _)| host);
    let site = host.ok().and_then(|host| control.site_of(&host));
    if site.as_ref().is_some_and(|site| !token.covers_site(site)) {
        return Err(Problem::forbidden("site", "the token does not cover this site"));
    }
    Ok(Place { scheme, authority, target, site })
}

impl Place {
    /// The URL, for people.
    pub(super) fn url(&self) -> String {
        let Self { scheme, authority, target, .. } = self;
        format!("{}://{authority}{target}", scheme.as_str())
    }

    /// The head of a request with these fields.
    pub(super) fn request(
        self,
        method: Method,
        mut headers: HeaderMap,
    ) -> Result<RequestHead, Problem> {
        let Self { scheme, authority, target, .. } = self;
        // As it would stand in the target, where `Host` is described, too: they must agree then.
        let named = headers.contains_key(header::HOST).then(|| authority.clone());
        if named.is_none() {
            let host = HeaderValue::try_from(authority).map_err(|_not_ascii| {
                Problem::field("url", "url", "the host of `url` is not one")
            })?;
            headers.insert(header::HOST, host);
        }
        let version = Version::HTTP_11;
        Ok(RequestHead { method, scheme, authority: named, target, version, headers })
    }
}

pub(super) fn fields(lines: &Lines, most: usize) -> Result<HeaderMap, Problem> {
    let wrong = |detail: String| Problem::field("value", "headers", detail);
    let bytes: usize = lines.0.iter().map(|(name, value)| name.len() + value.len()).sum();
    if lines.0.len() > most || bytes > HEAD_BYTES {
        let detail = format!("more than {most} fields or {HEAD_BYTES} bytes");
        return Err(Problem::field("too-many", "headers", detail));
    }
    let mut headers = HeaderMap::with_capacity(lines.0.len());
    for (name, value) in &lines.0 {
        let name = HeaderName::try_from(name)
            .map_err(|_invalid| wrong(format!("{:?} is no field name", shortened(name))))?;
        let value = HeaderValue::try_from(value.trim_ascii())
            .map_err(|_invalid| wrong(format!("the value of {name} cannot stand in a field")))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Scheme, authority and target of an absolute URL, as a client would send them.
fn url(url: &str) -> Result<(Scheme, String, String), &'static str> {
    const FORM: &str = "is not an absolute URL such as https://www.example.com/path?query";
    if url.len() > HEAD_BYTES {
        return Err("is too long");
    }
    if url.contains('#') {
        return Err("has a fragment, which is never sent to a server");
    }
    let uri: Uri = url.parse().map_err(|_invalid| FORM)?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err(FORM),
    };
    let authority = uri.authority().ok_or(FORM)?.as_str().to_owned();
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok((scheme, authority, target))
}

/// The beginning of a text, for messages.
pub(super) fn shortened(text: &str) -> &str {
    match text.char_indices().nth(100) {
        Some((at, _)) => text.get(..at).unwrap_or_default(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
