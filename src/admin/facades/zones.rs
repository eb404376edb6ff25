//! `GET /client/v4/zones`: which zones there are, as client libraries ask to find a zone's id by its
//! name.
//!
//! A zone has no name of its own here. By name those are found whose sites answer for that host, or
//! for one below it where none answers for it. Told are zones that the token covers wholly.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::super::problem::Problem;
use super::super::{Admin, Call, Reply, query};
use crate::config::Service;

/// Zones of a page, unless `per_page` says otherwise, and at most.
const PAGE: usize = 20;
const MOST: usize = 50;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    name: Option<String>,
    page: usize,
    per_page: usize,
}

impl Asked {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut asked = Self { name: None, page: 1, per_page: PAGE };
        for (name, value) in query::pairs(query)? {
            let number = |most: usize| {
                let number = value.parse().ok().filter(|number| (1..=most).contains(number));
                let detail = || format!("{name:?} is a number from 1 to {most}");
                number.ok_or_else(|| Problem::bad("query", detail()))
            };
            match (name, &*value) {
                ("name", host) => {
                    asked.name = Some(host.trim_end_matches('.').to_ascii_lowercase())
                }
                ("page", _) => asked.page = number(1_000_000)?,
                ("per_page", _) => asked.per_page = number(MOST)?,
                // Every zone here is active, and they have one order.
                ("status", "active") | ("order" | "direction" | "match", _) => {}
                _ => return Err(query::unknown(name, "`name`, `page` and `per_page`")),
            }
        }
        Ok(asked)
    }
}

/// The answer, and where it stands among the pages.
pub(super) fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    let asked = Asked::read(call.query)?;
    let covered = |zone: &&Service| zone.sites.iter().all(|site| call.token.covers_site(site));
    let zones = admin.facades.cloudflare.iter().filter(covered);
    let found: Vec<(&Service, String)> = match &asked.name {
        Some(name) => {
            let zones = by_name(admin, zones.collect(), name);
            zones.into_iter().map(|zone| (zone, name.clone())).collect()
        }
        None => zones.map(|zone| (zone, name_of(admin, zone))).collect(),
    };
    let before = asked.page.saturating_sub(1).saturating_mul(asked.per_page);
    let page: Vec<Value> = found
        .iter()
        .skip(before)
        .take(asked.per_page)
        .map(|(zone, name)| json!({ "id": zone.id, "name": name, "status": "active" }))
        .collect();
    let told = json!({
        "success": true, "errors": [], "messages": [],
        "result_info": {
            "page": asked.page, "per_page": asked.per_page, "count": page.len(),
            "total_count": found.len(), "total_pages": found.len().div_ceil(asked.per_page),
        },
        "result": page,
    });
    Ok(super::super::json(http::StatusCode::OK, &told))
}

/// The zones of a name, the narrowest first: clients take the first.
fn by_name<'a>(admin: &Admin, zones: Vec<&'a Service>, name: &str) -> Vec<&'a Service> {
    let owner = admin.control.site_of(name);
    let owns = |zone: &&Service| {
        owner.as_ref().is_some_and(|owner| zone.sites.iter().any(|site| **site == **owner))
    };
    let below = |zone: &&Service| {
        let mut hosts = hosts_of(admin, zone);
        hosts.any(|host| host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
    };
    let mut found: Vec<&Service> = match owner {
        Some(_) => zones.into_iter().filter(owns).collect(),
        None if name.contains('.') => zones.into_iter().filter(below).collect(),
        None => Vec::new(),
    };
    found.sort_by_key(|zone| zone.sites.len());
    found
}

/// What a zone is called where nobody said a name: the shortest of its hosts, else its id.
fn name_of(admin: &Admin, zone: &Service) -> String {
    let plain = hosts_of(admin, zone).filter(|host| !host.contains('*'));
    let shortest = plain.max_by_key(|host| Reverse(host.len()));
    shortest.unwrap_or(&zone.id).to_owned()
}

/// The hosts of a zone's sites, as they are configured.
fn hosts_of<'a>(admin: &'a Admin, zone: &'a Service) -> impl Iterator<Item = &'a str> {
    let sites =
        admin.sites.iter().filter(|site| zone.sites.iter().any(|name| **name == *site.name));
    sites.flat_map(|site| site.hosts.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused() {
        let asked = |name: Option<&str>, page, per_page| {
            Some(Asked { name: name.map(str::to_owned), page, per_page })
        };
        let rows = [
            ("", asked(None, 1, 20)),
            ("name=WWW.Example.com.", asked(Some("www.example.com"), 1, 20)),
            ("name=a.b&page=2&per_page=50&status=active&match=all", asked(Some("a.b"), 2, 50)),
            ("page=0", None),
            ("page=-1", None),
            ("per_page=51", None),
            ("per_page=x", None),
            ("status=pending", None),
            ("account.id=1", None),
            ("name=%zz", None),
        ];
        for (query, expected) in rows {
            assert_eq!(Asked::read(Some(query)).ok(), expected, "{query}");
        }
    }
}
