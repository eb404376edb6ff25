//! The purging part of Fastly's API, as its client libraries call it.
//!
//! ```text
//! POST /service/{id}/purge/{key}    one surrogate key
//! POST /service/{id}/purge          those in Surrogate-Key or {"surrogate_keys": [...]}
//! POST /service/{id}/purge_all      the site
//! POST /purge/{host}/{path}         one URL; PURGE does the same
//! ```
//!
//! The token stands in `Fastly-Key`; `Fastly-Soft-Purge: 1` makes a purge soft, that of a whole
//! site, too. A bulk purge is one purge here, so all its keys have the same id. There is one
//! environment: a purge for `staging` is refused, since it would reach what visitors see.

use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::purge::{Wish, carry_out_wish};
use super::super::settle::Done;
use super::super::{Admin, Call, Reply, problem::Problem};
use super::{Answered, allow, decoded, listed, sites_of, strength};

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Url(&'a str),
    Key { service: &'a str, key: &'a str },
    Keys { service: &'a str },
    All { service: &'a str },
}

fn route(path: &str) -> Option<Asked<'_>> {
    if let Some(url) = path.strip_prefix("/purge/") {
        return (!url.is_empty()).then_some(Asked::Url(url));
    }
    let (service, rest) = path.strip_prefix("/service/")?.split_once('/')?;
    match rest {
        "purge_all" => Some(Asked::All { service }),
        "purge" => Some(Asked::Keys { service }),
        _ => {
            let key = rest.strip_prefix("purge/").filter(|key| !key.is_empty())?;
            Some(Asked::Key { service, key })
        }
    }
}

pub(super) fn answer(admin: &Admin, call: &Call<'_>, head: &Parts) -> Result<Answered, Problem> {
    let asked = route(head.uri.path()).ok_or_else(|| Problem::no_route(&[]))?;
    let methods: &[&str] =
        if matches!(asked, Asked::Url(_)) { &["POST", "PURGE"] } else { &["POST", "PUT"] };
    allow(head, methods)?;
    one_environment(head)?;
    match asked {
        Asked::Url(rest) => url(admin, call, rest),
        Asked::Key { service, key } => one_key(admin, call, service, key),
        Asked::Keys { service } => keys(admin, call, service),
        Asked::All { service } => {
            let wish = Wish { all: true, ..Wish::default() };
            let done = purge(admin, call, service, wish)?;
            Ok((super::super::json(StatusCode::OK, &json!({ "status": "ok" })), Some(done)))
        }
    }
}

fn one_environment(head: &Parts) -> Result<(), Problem> {
    match head.headers.get("fastly-purge-environment").map(|line| line.as_bytes().trim_ascii()) {
        None | Some(b"production") => Ok(()),
        Some(_) => {
            let detail = "there is no other environment than the one that visitors see";
            Err(Problem::field("value", "Fastly-Purge-Environment", detail))
        }
    }
}

/// Purges within a service.
fn purge(admin: &Admin, call: &Call<'_>, service: &str, wish: Wish) -> Result<Done, Problem> {
    let sites = sites_of(admin, call, &admin.facades.fastly, service)?;
    carry_out_wish(admin, call, sites, wish, strength(call.headers))
}

fn one_key(admin: &Admin, call: &Call<'_>, service: &str, key: &str) -> Result<Answered, Problem> {
    let broken = || Problem::field("value", "key", "the key in the path is no text");
    if call.query.is_some() {
        let detail = "a `?` in a key is written %3F";
        return Err(Problem::field("value", "key", detail));
    }
    let tags = vec![decoded(key).ok_or_else(broken)?];
    Ok(ok(purge(admin, call, service, Wish { tags, ..Wish::default() })?))
}

/// The body of a bulk purge.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Keys {
    surrogate_keys: Vec<String>,
}

pub(super) fn parse(body: &[u8]) -> Result<Keys, Problem> {
    if body.first() != Some(&b'{') {
        return Err(Problem::bad("body", "the body must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad("body", format!("the body cannot be read: {error}")))
}

/// Both ways to name keys count, since one that is overlooked would stay.
fn keys(admin: &Admin, call: &Call<'_>, service: &str) -> Result<Answered, Problem> {
    let mut tags = listed(call.headers, "surrogate-key", |c| c.is_ascii_whitespace())?;
    let body = call.body.trim_ascii();
    if !body.is_empty() {
        tags.extend(parse(body)?.surrogate_keys);
    }
    if tags.is_empty() {
        let detail = "no key is named: list them in Surrogate-Key or in `surrogate_keys`";
        return Err(Problem::bad("empty-selector", detail));
    }
    let wish = Wish { tags: tags.clone(), ..Wish::default() };
    let done = purge(admin, call, service, wish)?;
    let id = |tag| (tag, Value::from(done.receipt.id.as_str()));
    let ids: Map<String, Value> = tags.into_iter().map(id).collect();
    Ok((super::super::json(StatusCode::OK, &ids), Some(done)))
}

/// One URL of any service that the token covers. Some clients encode it whole.
fn url(admin: &Admin, call: &Call<'_>, rest: &str) -> Result<Answered, Problem> {
    let broken = || Problem::field("url", "url", "the URL in the path cannot be read");
    let mut url =
        if rest.contains('/') { rest.to_owned() } else { decoded(rest).ok_or_else(broken)? };
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        url.insert_str(0, "http://");
    }
    if let Some(query) = call.query {
        url.push('?');
        url.push_str(query);
    }
    let services = admin.facades.fastly.iter();
    let sites = services.flat_map(|service| &service.sites);
    let sites = sites.map(|site| site.as_str().into()).collect();
    let wish = Wish { urls: vec![url], ..Wish::default() };
    Ok(ok(carry_out_wish(admin, call, sites, wish, strength(call.headers))?))
}

fn ok(done: Done) -> Answered {
    let body = json!({ "status": "ok", "id": done.receipt.id });
    (super::super::json(StatusCode::OK, &body), Some(done))
}

/// A problem in the shape of that API.
pub(super) fn error(problem: &Problem) -> Reply {
    let message = match problem.status() {
        StatusCode::UNAUTHORIZED => "Provided credentials are missing or invalid",
        StatusCode::FORBIDDEN => "You are not authorized to perform this action",
        StatusCode::NOT_FOUND => "Record not found",
        status => status.canonical_reason().unwrap_or("Error"),
    };
    let body = json!({ "msg": message, "detail": problem.detail() });
    problem.reply_in("application/json", format!("{body}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_what_they_name() {
        let rows = [
            ("/purge/www.example.com/a/b", Some(Asked::Url("www.example.com/a/b"))),
            ("/purge/", None),
            ("/service/s1/purge", Some(Asked::Keys { service: "s1" })),
            ("/service/s1/purge/", None),
            ("/service/s1/purge/k", Some(Asked::Key { service: "s1", key: "k" })),
            ("/service/s1/purge/k/l", Some(Asked::Key { service: "s1", key: "k/l" })),
            ("/service/s1/purge_all", Some(Asked::All { service: "s1" })),
            ("/service/s1/purge_all/x", None),
            ("/service/s1/version", None),
            ("/service/s1", None),
        ];
        for (path, expected) in rows {
            assert_eq!(route(path), expected, "{path}");
        }
    }
}
