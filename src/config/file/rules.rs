//! Keys of requests as configured: the same on a site, where they are defaults, and on its rules.

mod fields;
mod pages;
mod rates;

use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderValue;
use ipnet::IpNet;

use crate::message::Scheme;
use crate::semantics::{
    Access, ForwardedFields, Policy, Redirect, Redirects, Rewrite, Rules, canonical_authority,
};

use super::super::error::Problem;
use super::super::names;
use super::super::reader::{Entry, Number, Read, Table};

/// Networks in one list.
const MOST_NETWORKS: usize = 10_000;

/// Where a table of policy keys stands.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    /// The path of the rule; `/` for a site.
    pub(super) path: &'a str,
    /// From where relative paths of files are meant.
    pub(super) folder: &'a Path,
    /// What limits of this table are known by: name of the site, and path of the rule. Not the position,
    /// which another configuration may give to another site.
    pub(super) scope: &'a str,
}

/// Reads the keys over what is there already.
pub(super) fn read(table: &mut Table<'_>, into: &mut Option<Arc<Rules>>, spot: Spot<'_>) {
    let mut rules = into.as_deref().cloned().unwrap_or_default();
    // Without `..`, so that a new part of the rules must be given its key here.
    let Rules {
        // These two are read with the rule: a site has keys of its own for them.
        origin: _,
        host: _,
        rewrite,
        request_fields,
        response_fields,
        redirects,
        access,
        rate_limit,
        rate_limit_total,
        error_pages,
        forwarded,
    } = &mut rules;
    read_rewrite(table, rewrite, spot);
    fields::read_request(table, request_fields);
    fields::read_response(table, response_fields);
    read_redirects(table, redirects, spot);
    read_access(table, access);
    rates::read(table, "rate_limit", rate_limit, spot);
    rates::read(table, "rate_limit_total", rate_limit_total, spot);
    pages::read(table, error_pages, spot);
    let names = [
        ("x-forwarded", ForwardedFields::XForwarded),
        ("forwarded", ForwardedFields::Forwarded),
        ("both", ForwardedFields::Both),
        ("none", ForwardedFields::None),
    ];
    table.choose("forwarded", &names, forwarded);
    if into.as_deref() != Some(&rules) {
        *into = (rules != Rules::default()).then(|| Arc::new(rules));
    }
}

/// Reads the `Host` that the origin of a rule is to see.
pub(super) fn host(table: &mut Table<'_>, policy: &mut Arc<Policy>) {
    let Some(found) = table.optional_parsed("host", names::parse_host_field) else { return };
    let Ok(host) = HeaderValue::try_from(found.value) else { return };
    let policy = Arc::make_mut(policy);
    let mut rules = policy.rules.as_deref().cloned().unwrap_or_default();
    rules.host = Some(host);
    policy.rules = Some(Arc::new(rules));
}

/// Whether the value of a key takes back what stands above.
fn is_none(entry: &Entry<'_>) -> bool {
    entry.is_text("none")
}

/// The two paths of a rewrite, `from` where it is written; or `"none"`.
enum RewriteDraft {
    None,
    Of(Option<String>, String),
}

impl Read for RewriteDraft {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const EXPECTED: &str = "{ from = \"/shop\", to = \"/v2\" } or \"none\"";
        if is_none(entry) {
            return Some(Self::None);
        }
        let Some(mut table) = entry.as_table("rewrite") else {
            entry.parsed(EXPECTED, |_| Err::<(), _>(format!("expected {EXPECTED}")));
            return None;
        };
        let from = table.optional_parsed("from", names::parse_path).map(|found| found.value);
        let to = table.required_parsed("to", "\"/v2\"", names::parse_path);
        table.finish();
        Some(Self::Of(from, to?.value))
    }
}

fn read_rewrite(table: &mut Table<'_>, into: &mut Option<Rewrite>, spot: Spot<'_>) {
    let Some(found) = table.optional::<RewriteDraft>("rewrite") else { return };
    *into = match found.value {
        RewriteDraft::None => None,
        RewriteDraft::Of(from, to) => {
            let rewrite = Rewrite::new(from.as_deref().unwrap_or(spot.path), &to);
            rewrite
                .map_err(|help| {
                    let message = format!("`{}` is not valid", found.place.key);
                    table.sink.push(Problem::new(message).at(found.place.span).help(help));
                })
                .ok()
        }
    };
}

fn read_redirects(table: &mut Table<'_>, redirects: &mut Redirects, spot: Spot<'_>) {
    let Redirects { https, https_port, canonical_host, to, cache_control } = redirects;
    table.choose("https", &[("redirect", true), ("any", false)], https);
    table.count("https_port", https_port, 1..=65_535);
    if let Some(found) = table.optional_parsed("canonical_host", canonical) {
        *canonical_host = found.value;
    }
    if let Some(found) = table.optional::<RedirectDraft>("redirect") {
        *to = match found.value {
            RedirectDraft::None => None,
            RedirectDraft::Of(form, status) => {
                let parsed = Redirect::parse(&form, spot.path, status);
                parsed
                    .map_err(|help| {
                        let message = format!("`{}.to` is not valid", found.place.key);
                        table.sink.push(Problem::new(message).at(found.place.span).help(help));
                    })
                    .ok()
            }
        };
    }
    let parse = |text: &str| match text {
        "none" => Ok(None),
        _ => HeaderValue::try_from(text)
            .map(Some)
            .map_err(|_no_value| "expected the value of a field: \"max-age=3600\"".to_owned()),
    };
    if let Some(found) = table.optional_parsed("redirect_cache_control", parse) {
        *cache_control = found.value;
    }
}

type Canonical = Option<(Box<str>, Option<u16>)>;

/// A host in the form that requests are brought into, or `"none"`.
fn canonical(text: &str) -> Result<Canonical, String> {
    if text == "none" {
        return Ok(None);
    }
    if text.contains("://") {
        return Err("a host has no scheme: write \"example.org\"".to_owned());
    }
    let field = names::parse_host_field(text)?;
    let (host, port) = canonical_authority(&field, Scheme::Https)
        .map_err(|_no_host| "expected a host: \"example.org\"".to_owned())?;
    let written = field.ends_with(&format!(":{port}"));
    Ok(Some((host.into(), written.then_some(port))))
}

/// A redirect as written, or `"none"`.
enum RedirectDraft {
    None,
    Of(String, StatusCode),
}

/// The status of a redirect.
struct RedirectStatus(StatusCode);

impl Read for RedirectStatus {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let number = Number::read(entry)?.0;
        let status = u16::try_from(number).ok().filter(|n| [301, 302, 303, 307, 308].contains(n));
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        if status.is_none() {
            let message = format!("`{}` is no redirect", entry.place.key);
            let help = "301 and 308 stay, 302 and 307 are for a while, 303 leads to another \
                        resource; 307 and 308 keep the method";
            entry.report(message, "no redirect", help);
        }
        status.map(Self)
    }
}

impl Read for RedirectDraft {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const EXPECTED: &str =
            "{ to = \"https://example.org{path}{query}\", status = 308 } or \"none\"";
        if is_none(entry) {
            return Some(Self::None);
        }
        let Some(mut table) = entry.as_table("redirect") else {
            entry.parsed(EXPECTED, |_| Err::<(), _>(format!("expected {EXPECTED}")));
            return None;
        };
        let to = table.required::<String>("to", "\"https://example.org{path}{query}\"");
        let mut status = RedirectStatus(StatusCode::FOUND);
        table.set("status", &mut status);
        table.finish();
        Some(Self::Of(to?.value, status.0))
    }
}

fn read_access(table: &mut Table<'_>, access: &mut Access) {
    let allow = networks(table, "allow");
    let deny = networks(table, "deny");
    if allow.is_none() && deny.is_none() {
        return;
    }
    let (old_allow, old_deny) = access.lists();
    let allow = allow.unwrap_or_else(|| old_allow.to_vec());
    let deny = deny.unwrap_or_else(|| old_deny.to_vec());
    *access = Access::new(allow, deny);
}

/// A list of networks within bounds.
fn networks(table: &mut Table<'_>, key: &'static str) -> Option<Vec<IpNet>> {
    let found = table.optional::<Vec<IpNet>>(key)?;
    if found.value.len() > MOST_NETWORKS {
        table.sink.push(
            Problem::new(format!("`{}` is too long", found.place.key))
                .at(found.place.span)
                .help(format!("at most {MOST_NETWORKS} networks")),
        );
    }
    Some(found.value)
}
