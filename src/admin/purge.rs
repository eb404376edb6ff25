//! `POST /v1/purge`: from what somebody wrote to selectors that mean exactly that.
//!
//! The rule is never to guess. A field that is unknown, or not carried out by this version, is
//! refused instead of ignored, since the sender would believe that more is gone than is; an empty
//! selector is refused instead of read as "everything".

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use serde::{Deserialize, Deserializer, Serialize};

use super::problem::Problem;
use super::{Admin, Call, Reply, json, milliseconds};
use crate::clock;
use crate::config::{Scope, Token, parse_duration};
use crate::message::{RequestHead, Scheme};
use crate::purge::{Selector, Strength};
use crate::semantics::normalise;

/// Selectors that one request may come to, tags counted once for each site.
const SELECTORS: usize = 100_000;

/// Longest time that a sender may ask to wait for a level.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A purge request as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    #[serde(deserialize_with = "given")]
    site: Option<String>,
    urls: Vec<String>,
    tags: Vec<String>,
    all: bool,
    #[serde(deserialize_with = "given")]
    mode: Option<String>,
    #[serde(deserialize_with = "given")]
    wait: Option<String>,
    #[serde(deserialize_with = "given")]
    timeout: Option<String>,
    prefixes: Present,
    hosts: Present,
    globs: Present,
    dry_run: Present,
    refetch: Present,
}

/// A value that is not `null`.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Whether a field is there, whatever it holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// How far a purge has to have come before it is answered. A node alone is all of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Local,
    Acknowledged,
    Everywhere,
}

/// What a purge was answered with.
#[derive(Debug, Serialize)]
struct Receipt {
    /// Node, incarnation and sequence.
    id: String,
    epoch: u64,
    took_ms: f64,
    state: Level,
    /// Stored responses that matched; not known until the sweep has walked the store.
    matched: Option<u64>,
    /// Bytes that were given back; not known until the sweep has walked the store.
    freed: Option<u64>,
}

/// `POST /v1/purge`
pub(super) fn purge(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    let written = parse(call.body)?;
    let strength = strength(written.mode.as_deref())?;
    let state = level(written.wait.as_deref())?;
    timeout(written.timeout.as_deref())?;
    let selectors = selectors(admin, call.token, &written)?;
    let cost = u32::try_from(selectors.len()).unwrap_or(u32::MAX);
    admin.purge_rates.take(call.position, f64::from(cost), call.now).map_err(|wait| {
        Problem::wait("purge-rate", "this token purges faster than it may", wait)
    })?;
    let applied = admin.control.purge(&selectors, strength, call.now);
    let identity = &admin.identity;
    let id = format!("{}.{}.{}", identity.name, identity.incarnation, applied.sequence);
    tracing::info!(
        token = %call.token.name, id, epoch = applied.epoch, mode = strength.label(),
        selectors = selectors.len(), first = ?selectors.first(), "purged"
    );
    let took_ms = milliseconds(clock::now().since(call.now));
    let receipt = Receipt { id, epoch: applied.epoch, took_ms, state, matched: None, freed: None };
    Ok(json(StatusCode::OK, &receipt))
}

fn parse(body: &[u8]) -> Result<Written, Problem> {
    // The deserialiser would take an array for an object without names.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad("body", "the body must be a JSON object"));
    }
    let written: Written = serde_json::from_slice(body)
        .map_err(|error| Problem::bad("body", format!("the body cannot be read: {error}")))?;
    let unbuilt = [
        ("prefixes", &written.prefixes),
        ("hosts", &written.hosts),
        ("globs", &written.globs),
        ("dry_run", &written.dry_run),
        ("refetch", &written.refetch),
    ];
    if let Some((name, _)) = unbuilt.into_iter().find(|(_, field)| field.0) {
        let detail = format!("this version does not carry out `{name}`");
        return Err(Problem::field("unsupported-field", name, detail));
    }
    Ok(written)
}

fn strength(mode: Option<&str>) -> Result<Strength, Problem> {
    match mode {
        None | Some("hard") => Ok(Strength::Hard),
        Some("soft") => Ok(Strength::Soft),
        Some(_) => Err(Problem::field("value", "mode", "`mode` is \"hard\" or \"soft\"")),
    }
}

fn level(wait: Option<&str>) -> Result<Level, Problem> {
    match wait {
        None | Some("acknowledged") => Ok(Level::Acknowledged),
        Some("local") => Ok(Level::Local),
        Some("everywhere") => Ok(Level::Everywhere),
        Some(_) => {
            let detail = "`wait` is \"local\", \"acknowledged\" or \"everywhere\"";
            Err(Problem::field("value", "wait", detail))
        }
    }
}

/// Judges the time that the sender would wait. On one node there is nothing to wait for.
fn timeout(text: Option<&str>) -> Result<(), Problem> {
    let Some(text) = text else { return Ok(()) };
    let time = parse_duration(text).ok().filter(|time| *time <= LONGEST_WAIT);
    time.map(|_| ()).ok_or_else(|| {
        let detail = "`timeout` is a time up to 5m, such as \"500ms\" or \"5s\"";
        Problem::field("value", "timeout", detail)
    })
}

/// What a request names, within what its token covers.
fn selectors(admin: &Admin, token: &Token, written: &Written) -> Result<Vec<Selector>, Problem> {
    let named = written.urls.len() + written.tags.len();
    if !written.all && named == 0 {
        let detail = "nothing is selected: name `urls` or `tags`, or say `\"all\": true`";
        return Err(Problem::bad("empty-selector", detail));
    }
    if written.all && named > 0 {
        let detail = "`all` stands without other selectors";
        return Err(Problem::field("conflict", "all", detail));
    }
    let site = written.site.as_deref().map(|name| one_site(admin, token, name)).transpose()?;
    if written.all {
        return everything(admin, token, site);
    }
    let mut selectors = Vec::with_capacity(named);
    for url in &written.urls {
        selectors.push(by_url(admin, token, site.as_ref(), url)?);
    }
    let sites = site.map_or_else(|| covered(admin, token), |site| vec![site]);
    if written.tags.len().saturating_mul(sites.len()) > SELECTORS {
        let detail = format!("this comes to more than {SELECTORS} selectors; name a `site`");
        return Err(Problem::field("too-many", "tags", detail));
    }
    for tag in &written.tags {
        let tag = by_tag(admin, tag)?;
        selectors.extend(
            sites.iter().map(|site| Selector::Tag { site: Arc::clone(site), tag: tag.clone() }),
        );
    }
    let mut seen = HashSet::with_capacity(selectors.len());
    selectors.retain(|selector| seen.insert(selector.clone()));
    if selectors.is_empty() {
        return Err(Problem::bad("empty-selector", "no site is covered by this token"));
    }
    Ok(selectors)
}

/// The site of that name. A token that is bound to sites learns nothing about others.
fn one_site(admin: &Admin, token: &Token, name: &str) -> Result<Arc<str>, Problem> {
    if !token.covers_site(name) {
        return Err(not_covered());
    }
    let site = admin.sites.iter().find(|site| &*site.name == name);
    site.map(|site| Arc::clone(&site.name))
        .ok_or_else(|| Problem::field("unknown-site", "site", "there is no site of this name"))
}

fn not_covered() -> Problem {
    Problem::forbidden("site", "the token does not cover this site")
}

/// Every site that the token covers.
fn covered(admin: &Admin, token: &Token) -> Vec<Arc<str>> {
    let names = admin.sites.iter().map(|site| &site.name);
    names.filter(|name| token.covers_site(name)).map(Arc::clone).collect()
}

/// All of one site, or all that the token covers, for which it needs the scope.
fn everything(
    admin: &Admin,
    token: &Token,
    site: Option<Arc<str>>,
) -> Result<Vec<Selector>, Problem> {
    if let Some(site) = site {
        return Ok(vec![Selector::Site { site }]);
    }
    if !token.covers(Scope::PurgeAll) {
        return Err(Problem::scope(Scope::PurgeAll));
    }
    if token.sites.is_empty() {
        return Ok(vec![Selector::All]);
    }
    let sites = covered(admin, token).into_iter().map(|site| Selector::Site { site });
    let sites: Vec<_> = sites.collect();
    if sites.is_empty() {
        return Err(Problem::bad("empty-selector", "no site is covered by this token"));
    }
    Ok(sites)
}

fn by_tag(admin: &Admin, tag: &str) -> Result<String, Problem> {
    let wrong = |detail: String| Err(Problem::field("value", "tags", detail));
    if tag.is_empty() || tag == "*" {
        return wrong("a tag is empty or `*`; to purge everything say `\"all\": true`".into());
    }
    if tag.len() > admin.tag_bytes {
        return wrong(format!("a tag is longer than {} bytes", admin.tag_bytes));
    }
    if tag.trim() != tag || tag.chars().any(char::is_control) {
        return wrong("a tag has blanks around it or control characters in it".into());
    }
    Ok(tag.to_ascii_lowercase())
}

/// A URL in the form under which its response would be stored: the same function makes both.
fn by_url(
    admin: &Admin,
    token: &Token,
    site: Option<&Arc<str>>,
    url: &str,
) -> Result<Selector, Problem> {
    let (host, target) =
        canonical(url).map_err(|why| Problem::field("url", "urls", format!("{url:?} {why}")))?;
    let Some(owner) = admin.control.site_of(&host) else {
        let detail = format!("no site answers for the host of {url:?}");
        return Err(Problem::field("foreign-host", "urls", detail));
    };
    if site.is_some_and(|site| *site != owner) {
        let detail = format!("the host of {url:?} belongs to another site");
        return Err(Problem::field("foreign-host", "urls", detail));
    }
    if !token.covers_site(&owner) {
        return Err(not_covered());
    }
    let target = admin.control.stored_target(&host, target);
    Ok(Selector::Url { site: owner, host, target })
}

/// Host and target of a URL as a request for it would have them.
fn canonical(url: &str) -> Result<(String, String), &'static str> {
    const FORM: &str = "is not an absolute URL such as https://www.example.com/path?query";
    if url.contains('#') {
        return Err("has a fragment, which is never sent to a server");
    }
    let uri: Uri = url.parse().map_err(|_invalid| FORM)?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err(FORM),
    };
    let authority = uri.authority().ok_or(FORM)?;
    let host = HeaderValue::try_from(authority.as_str()).map_err(|_invalid| FORM)?;
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
    let request = normalise(RequestHead {
        method: Method::GET,
        scheme,
        authority: None,
        target,
        version: Version::HTTP_11,
        headers: HeaderMap::from_iter([(header::HOST, host)]),
    })
    .map_err(|_refusal| "would be refused as a request: check its host and its path")?;
    let target = request.target();
    Ok((request.host, target))
}

#[cfg(test)]
mod tests;
