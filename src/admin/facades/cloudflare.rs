//! The purging part of Cloudflare's API, as its client libraries call it.
//!
//! ```text
//! POST /client/v4/zones/{zone}/purge_cache        files, tags, hosts, prefixes, purge_everything
//! POST /client/v4/zones/{zone}/invalidate_cache   the same, soft
//! GET  /client/v4/user/tokens/verify              whether the token counts
//! GET  /client/v4/zones                           zones, by name
//! ```
//!
//! The token is a bearer token, or stands in `X-Auth-Key`. Kinds may be mixed, and as many texts
//! are taken as of `POST /v1/purge`. The fields that go with a URL choose a variant there; here a
//! URL means all of them. A prefix there is any beginning of a URL without its scheme: one that ends
//! with a `/` is a prefix here, a host alone is a host, any other becomes a pattern.

use std::collections::BTreeMap;

use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::purge::{Wish, carry_out_wish};
use super::super::{Admin, Call, Reply, problem::Problem};
use super::{Answered, allow, sites_of, zones};
use crate::purge::Strength;
use crate::semantics::canonical_target;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Purge { zone: &'a str, strength: Strength },
    Verify,
    Zones,
}

fn route(path: &str) -> Option<Asked<'_>> {
    let path = path.strip_prefix("/client/v4/")?;
    if path == "user/tokens/verify" {
        return Some(Asked::Verify);
    }
    if path == "zones" {
        return Some(Asked::Zones);
    }
    let (zone, act) = path.strip_prefix("zones/")?.split_once('/')?;
    match act {
        "purge_cache" => Some(Asked::Purge { zone, strength: Strength::Hard }),
        "invalidate_cache" => Some(Asked::Purge { zone, strength: Strength::Soft }),
        _ => None,
    }
}

/// The body of a purge.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Body {
    files: Vec<File>,
    tags: Vec<String>,
    hosts: Vec<String>,
    prefixes: Vec<String>,
    purge_everything: bool,
}

/// A URL, alone or with the fields that choose a variant.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum File {
    Url(String),
    WithHeaders(WithHeaders),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithHeaders {
    url: String,
    #[serde(default, rename = "headers")]
    _headers: BTreeMap<String, Value>,
}

impl File {
    fn url(self) -> String {
        match self {
            Self::Url(url) | Self::WithHeaders(WithHeaders { url, .. }) => url,
        }
    }
}

pub(super) fn answer(admin: &Admin, call: &Call<'_>, head: &Parts) -> Result<Answered, Problem> {
    match route(head.uri.path()).ok_or_else(|| Problem::no_route(&[]))? {
        Asked::Verify => {
            allow(head, &["GET"])?;
            let told = json!({ "code": 10000, "message": "This API Token is valid and active" });
            let result = json!({ "id": call.token.name, "status": "active" });
            Ok((success(&result, &json!([told])), None))
        }
        Asked::Zones => {
            allow(head, &["GET"])?;
            Ok((zones::list(admin, call)?, None))
        }
        Asked::Purge { zone, strength } => {
            allow(head, &["POST", "DELETE"])?;
            let sites = sites_of(admin, call, &admin.facades.cloudflare, zone)?;
            let wish = wish(parse(call.body)?)?;
            let done = carry_out_wish(admin, call, sites, wish, strength)?;
            Ok((success(&json!({ "id": done.receipt.id }), &json!([])), Some(done)))
        }
    }
}

pub(super) fn parse(body: &[u8]) -> Result<Body, Problem> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad("body", "the body must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad("body", format!("the body cannot be read: {error}")))
}

pub(super) fn wish(body: Body) -> Result<Wish, Problem> {
    let mut wish = Wish {
        urls: body.files.into_iter().map(File::url).collect(),
        tags: body.tags,
        hosts: body.hosts,
        all: body.purge_everything,
        ..Wish::default()
    };
    for prefix in body.prefixes {
        match beginning(&prefix)? {
            Beginning::Host => wish.hosts.push(prefix),
            Beginning::Folder => wish.prefixes.push(prefix),
            Beginning::Text(glob) => wish.globs.push(glob),
        }
    }
    Ok(wish)
}

/// What a prefix comes to.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    Host,
    Folder,
    Text(String),
}

fn beginning(prefix: &str) -> Result<Beginning, Problem> {
    let refuse = |why: &str| {
        let detail = format!("{prefix:?} {why}");
        Err(Problem::field("prefix", "prefixes", detail))
    };
    if prefix.contains("://") {
        return refuse("has a scheme: a prefix begins with its host");
    }
    if prefix.contains(['*', '?', '#']) {
        return refuse("has a sign that no prefix has: it is a host and the beginning of a path");
    }
    let (host, path) = prefix.split_at(prefix.find('/').unwrap_or(prefix.len()));
    if path.is_empty() {
        return Ok(Beginning::Host);
    }
    if path.ends_with('/') {
        return Ok(Beginning::Folder);
    }
    match canonical_target(path.to_owned()) {
        Ok(target) => Ok(Beginning::Text(format!("{host}{}*", target.path))),
        Err(_refusal) => refuse("would be refused as a request: check its path"),
    }
}

fn success(result: &Value, messages: &Value) -> Reply {
    let body = json!({ "success": true, "errors": [], "messages": messages, "result": result });
    super::super::json(StatusCode::OK, &body)
}

/// A problem in the shape of that API, with the number that its clients know.
pub(super) fn error(problem: &Problem) -> Reply {
    let (code, message) = match (problem.status(), problem.code()) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => (10000, "Authentication error"),
        (StatusCode::NOT_FOUND, _) => {
            (7003, "Could not route to this path, perhaps your object identifier is invalid?")
        }
        (StatusCode::METHOD_NOT_ALLOWED, _) => (7001, "Method not allowed for this path"),
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            (971, "Please wait and consider throttling your request speed")
        }
        (_, "empty-selector") => (
            1012,
            "Request must contain one of \"purge_everything\", \"files\", \"tags\", \"hosts\" or \
             \"prefixes\"",
        ),
        (_, "query") => (1001, "Invalid query"),
        (_, "body") => (6007, "Malformed JSON in request body"),
        (status, _) if status.is_server_error() => (1000, "Internal error"),
        _ => (1094, "Unable to purge"),
    };
    // What is missing has other names here than in our own format.
    let message = match code {
        1012 => message.to_owned(),
        _ => format!("{message}: {}", problem.detail()),
    };
    let errors = json!([{ "code": code, "message": message }]);
    let body = json!({ "success": false, "errors": errors, "messages": [], "result": null });
    problem.reply_in("application/json", format!("{body}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_comes_to_no_less_than_it_says() {
        let text = |text: &str| Some(Beginning::Text(text.to_owned()));
        let rows = [
            ("www.example.com", Some(Beginning::Host)),
            ("www.example.com/", Some(Beginning::Folder)),
            ("www.example.com/news/", Some(Beginning::Folder)),
            ("www.example.com/news", text("www.example.com/news*")),
            ("www.example.com/a%2fb", text("www.example.com/a%2Fb*")),
            ("https://www.example.com/news", None),
            ("www.example.com/*", None),
            ("www.example.com/a?b", None),
            ("www.example.com/../b", None),
        ];
        for (prefix, expected) in rows {
            assert_eq!(beginning(prefix).ok(), expected, "{prefix}");
        }
    }

    #[test]
    fn paths_lead_to_what_they_name() {
        let purge = |strength| Some(Asked::Purge { zone: "z", strength });
        let rows = [
            ("/client/v4/zones/z/purge_cache", purge(Strength::Hard)),
            ("/client/v4/zones/z/invalidate_cache", purge(Strength::Soft)),
            ("/client/v4/user/tokens/verify", Some(Asked::Verify)),
            ("/client/v4/zones", Some(Asked::Zones)),
            ("/client/v4/zones/", None),
            ("/client/v4/zones/z", None),
            ("/client/v4/zones/z/environments/e/purge_cache", None),
            ("/client/v4/zones/purge_cache", None),
        ];
        for (path, expected) in rows {
            assert_eq!(route(path), expected, "{path}");
        }
    }
}
