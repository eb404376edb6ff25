//! `GET /v1/cache/entry`: what is stored under a URL. `GET /v1/cache/top`: what is asked for most.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Serialize;

use super::explain::{Lines, fields, place};
use super::problem::Problem;
use super::{Admin, Call, Reply, json, query};
use crate::telemetry::{Hot, Load, Weight};

/// Rows of `GET /v1/cache/top`, unless `limit` says otherwise.
const LIMIT: usize = 20;
/// Rows at most.
const MOST: usize = 1000;

/// `GET /v1/cache/entry`
pub(super) fn entry(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    let mut url = None;
    let mut lines = Vec::new();
    for (name, value) in query::pairs(call.query)? {
        match name {
            "url" if url.is_none() => url = Some(value),
            "url" => return Err(Problem::bad("query", "`url` stands twice")),
            "header" => lines.push(line(&value)?),
            other => return Err(query::unknown(other, "`url` and `header`")),
        }
    }
    let url = url.ok_or_else(|| {
        Problem::bad("query", "`url` is missing: ?url=https%3A%2F%2Fwww.example.com%2Fpage")
    })?;
    let place = place(&*admin.control, call.token, "url", &url)?;
    if place.site.is_none() {
        return Err(Problem::field("foreign-host", "url", "no site answers for the host of `url`"));
    }
    let request = place.request(Method::GET, fields(&Lines(lines), admin.fields)?)?;
    let told = admin.control.entry(request, call.now).map_err(|refusal| {
        let detail = format!("no client could ask for it: {}", refusal.label());
        Problem::field("url", "url", detail)
    })?;
    Ok(json(StatusCode::OK, &told))
}

/// Reads `Name: value`.
fn line(text: &str) -> Result<(String, String), Problem> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| Problem::field("value", "header", "a `header` is `Name: value`"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Of what `GET /v1/cache/top` tells the hottest.
#[derive(Clone, Copy)]
enum Of {
    Keys,
    Tags,
    Origins,
}

/// What `GET /v1/cache/top` is asked for.
struct Asked {
    of: Of,
    by: Weight,
    limit: usize,
}

fn asked(query: Option<&str>) -> Result<Asked, Problem> {
    let mut asked = Asked { of: Of::Keys, by: Weight::Requests, limit: LIMIT };
    for (name, value) in query::pairs(query)? {
        match (name, &*value) {
            ("of", "keys") => asked.of = Of::Keys,
            ("of", "tags") => asked.of = Of::Tags,
            ("of", "origins") => asked.of = Of::Origins,
            ("by", "requests") => asked.by = Weight::Requests,
            ("by", "bytes") => asked.by = Weight::Bytes,
            ("limit", number) => {
                let number = number.parse().ok().filter(|number| (1..=MOST).contains(number));
                asked.limit = number.ok_or_else(|| {
                    Problem::bad("query", format!("`limit` is a number from 1 to {MOST}"))
                })?;
            }
            ("of" | "by", _) => {
                let detail = "`of` is `keys`, `tags` or `origins`, `by` is `requests` or `bytes`";
                return Err(Problem::bad("query", detail));
            }
            _ => return Err(query::unknown(name, "`of`, `by` and `limit`")),
        }
    }
    Ok(asked)
}

/// How much, per second.
#[derive(Serialize)]
struct Rates {
    requests_per_second: f64,
    bytes_per_second: f64,
}

impl From<Load> for Rates {
    fn from(load: Load) -> Self {
        let round = |number: f64| (number * 1e3).round() / 1e3;
        Self { requests_per_second: round(load.requests), bytes_per_second: round(load.bytes) }
    }
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    site: Arc<str>,
    url: Box<str>,
    #[serde(flatten)]
    rates: Rates,
}

#[derive(Serialize)]
struct Tags {
    tags: Vec<Tag>,
}

#[derive(Serialize)]
struct Tag {
    site: Arc<str>,
    tag: Box<str>,
    #[serde(flatten)]
    rates: Rates,
}

/// `GET /v1/cache/top`
pub(super) fn top(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    let Asked { of, by, limit } = asked(call.query)?;
    // What was asked for under an earlier configuration may be of a site that is gone.
    let known = |name: &str| admin.sites.iter().any(|site| *site.name == *name);
    let covered = |name: &str| call.token.covers_site(name) && known(name);
    let (control, now) = (&admin.control, call.now);
    Ok(match of {
        Of::Origins => top_origins(admin, call, by, limit),
        Of::Keys => {
            let hot = control.hottest(by, limit, &covered, now).into_iter();
            let row = |hot: Hot| Key { site: hot.site, url: hot.name, rates: hot.load.into() };
            json(StatusCode::OK, &Keys { keys: hot.map(row).collect() })
        }
        Of::Tags => {
            let hot = control.hottest_tags(by, limit, &covered, now).into_iter();
            let row = |hot: Hot| Tag { site: hot.site, tag: hot.name, rates: hot.load.into() };
            json(StatusCode::OK, &Tags { tags: hot.map(row).collect() })
        }
    })
}

/// The origins by what the covered sites that they serve were asked for.
fn top_origins(admin: &Admin, call: &Call<'_>, by: Weight, limit: usize) -> Reply {
    #[derive(Serialize)]
    struct Origin<'a> {
        origin: &'a str,
        #[serde(flatten)]
        rates: Rates,
        /// Requests for which it was asked, too.
        forwarded_per_second: f64,
    }
    #[derive(Serialize)]
    struct Origins<'a> {
        origins: Vec<Origin<'a>>,
    }
    let mut sums: BTreeMap<&str, Load> = BTreeMap::new();
    let loads = admin.control.loads(call.now);
    for site in &admin.sites {
        let load = loads.get(&site.name).copied().unwrap_or_default();
        if call.token.covers_site(&site.name) {
            sums.entry(&site.origin).or_default().add(load);
        }
    }
    let mut rows: Vec<(&str, Load)> = sums.into_iter().collect();
    rows.sort_by(|a, b| b.1.weight(by).total_cmp(&a.1.weight(by)));
    rows.truncate(limit);
    let row = |(origin, load): (_, Load)| Origin {
        origin,
        forwarded_per_second: (load.forwarded * 1e3).round() / 1e3,
        rates: load.into(),
    };
    json(StatusCode::OK, &Origins { origins: rows.into_iter().map(row).collect() })
}
