//! `GET /v1/purges` and `GET /v1/purges/{id}`: what was purged lately, by whom, and what it came to.
//!
//! A token that is bound to sites sees the purges that stay within them; one that reached further
//! is somebody else's business, and its counts would tell of other sites.

use http::StatusCode;
use serde::Serialize;

use super::problem::Problem;
use super::query::decoded;
use super::standing::{Level, Standing};
use super::warm::{Refetched, refetched};
use super::{Admin, Call, Reply, json};
use crate::config::Token;
use crate::replication::Identity as PurgeId;
use crate::store::{Named, Past};
use crate::telemetry::rfc3339;

/// Purges in one answer, unless `limit` says otherwise.
const LIMIT: usize = 100;

/// A purge as it is told.
#[derive(Serialize)]
struct Told {
    id: String,
    epoch: u64,
    at: String,
    /// Name of the token.
    token: Box<str>,
    /// Address that it came from.
    from: String,
    mode: &'static str,
    /// The first selectors.
    selectors: Vec<ToldSelector>,
    /// Number of all.
    count: usize,
    /// `None` until a sweep has walked the store, and where several purges came into force together.
    matched: Option<u64>,
    freed: Option<u64>,
    /// What was fetched again after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refetch: Option<Refetched>,
}

/// One purge, with how it stands on the nodes.
#[derive(Serialize)]
struct WithStanding {
    #[serde(flatten)]
    told: Told,
    /// How far it has come; `None` where another node took it, or its receipt is not kept any more.
    state: Option<Level>,
    #[serde(flatten)]
    standing: Option<Standing>,
}

#[derive(Debug, Serialize)]
pub(super) struct ToldSelector {
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) site: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) value: Box<str>,
}

impl ToldSelector {
    pub(super) fn new(named: Named) -> Self {
        Self {
            // The site of `site` stands in its value.
            site: named.site.filter(|_| named.kind != "site").map(|site| site.to_string()),
            kind: named.kind,
            value: named.text,
        }
    }
}

/// `GET /v1/purges`
pub(super) fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct List {
        purges: Vec<Told>,
    }
    let most = limit(call.query)?;
    let past = admin.control.past(most, &|past| may_see(call.token, past));
    let purges = past.into_iter().map(|past| told(admin, past)).collect();
    Ok(json(StatusCode::OK, &List { purges }))
}

/// `GET /v1/purges/{id}`
pub(super) fn one(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    if call.query.is_some() {
        return Err(Problem::bad("query", "this takes no query"));
    }
    match find(admin, call.name).filter(|past| may_see(call.token, past)) {
        Some(past) => Ok(json(StatusCode::OK, &with_standing(admin, call, past))),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-purge",
            "no purge of this id is remembered here",
        )),
    }
}

/// A purge by its number on this node or by its id, with dots or, percent-encoded, with slashes.
fn find(admin: &Admin, id: &str) -> Option<Past> {
    if id.bytes().all(|byte| byte.is_ascii_digit()) {
        return admin.control.past_one(id.parse().ok()?);
    }
    admin.control.past_of(&PurgeId::parse(&decoded(id)?)?)
}

/// What is known of one purge: with how it stands on the nodes, where this is the node that took it.
fn with_standing(admin: &Admin, call: &Call<'_>, past: Past) -> WithStanding {
    let serves = admin.serves_without_lease(past.sites.as_deref());
    let told = told(admin, past);
    let matched = told.matched;
    let receipt = PurgeId::parse(&told.id).and_then(|id| admin.control.receipt(&id, call.now));
    let mut standing = receipt.map(|receipt| Standing::of(receipt, serves));
    let nodes = standing.iter_mut().flat_map(|standing| &mut standing.nodes);
    for node in nodes.filter(|node| node.name == admin.identity.name) {
        node.matched = matched;
    }
    let state = standing.as_ref().map(Standing::reached);
    WithStanding { told, state, standing }
}

pub(super) fn may_see(token: &Token, past: &Past) -> bool {
    match &past.sites {
        Some(sites) => sites.iter().all(|site| token.covers_site(site)),
        None => token.sites.is_empty(),
    }
}

fn told(admin: &Admin, past: Past) -> Told {
    let id = admin.purge_id(past.identity.as_deref(), past.applied);
    // Of purges that came into force together nobody can tell which one matched.
    let counted = past.swept && !past.shares_epoch;
    Told {
        refetch: refetched(admin, &id),
        id,
        epoch: past.applied.epoch,
        at: rfc3339(past.at),
        token: past.by.token,
        from: past.by.address.to_canonical().to_string(),
        mode: past.strength.label(),
        selectors: past.selectors.into_iter().map(ToldSelector::new).collect(),
        count: past.count,
        matched: counted.then_some(past.matched),
        freed: counted.then_some(past.freed_bytes),
    }
}

/// `limit=N` of a query, and nothing else.
fn limit(query: Option<&str>) -> Result<usize, Problem> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(LIMIT) };
    let number = query.strip_prefix("limit=").and_then(|number| number.parse().ok());
    number.filter(|number| (1..=100_000).contains(number)).ok_or_else(|| {
        Problem::bad("query", "the query is `limit=` and a number from 1 to 100000, or absent")
    })
}
