//! `POST /v1/hooks/{name}`: events of other systems, which prove where they come from and purge what
//! the configuration has them purge.
//!
//! An event needs no token: a content management system can rarely send one, and what it can do
//! is narrower than any token. It proves that it knows the hook's secret, and purges within the
//! hook's site only, through the same judgement as `POST /v1/purge`. An event that meets no mapping,
//! or names nothing, is answered with 200, since systems give up hooks that fail.

use std::net::IpAddr;

use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::problem::Problem;
use super::purge::{Wish, carry_out_wish, one_site};
use super::settle::Done;
use super::successor::Numbers;
use super::{Admin, Call, Reply, json};
use crate::clock::Now;
use crate::config::{self, Hook, Proof, Scope, Token};
use crate::guard::proves;
use crate::hooks::{Mapping, Wanted, map};
use crate::purge::Strength;

/// One event whose proof has not been judged.
#[derive(Debug)]
pub struct Knock<'a> {
    /// Address that it came from.
    pub(super) client: IpAddr,
    pub(super) headers: &'a HeaderMap,
    /// Name of the hook.
    pub(super) name: &'a str,
    pub(super) body: &'a [u8],
    pub(super) now: Now,
}

/// A hook with what its purges may do.
#[derive(Debug)]
pub(super) struct Door {
    name: String,
    proof: Proof,
    on: Vec<Mapping>,
    /// What its events may do. Nobody can present it: it is not among the tokens.
    may: Token,
    /// Its number in the rates, as those of the tokens.
    position: usize,
}

impl Door {
    /// The doors of all hooks, with the numbers that they have behind those of the tokens.
    pub(super) fn all(admin: &config::Admin, numbers: &Numbers) -> Vec<Self> {
        let door = |(at, hook): (usize, &Hook)| Self {
            name: hook.name.clone(),
            proof: hook.proof.clone(),
            on: hook.on.clone(),
            may: Token {
                name: format!("hook:{}", hook.name),
                hash: [0; 32],
                scopes: vec![Scope::Purge],
                sites: vec![hook.site.clone()],
            },
            position: numbers.get(admin.tokens.len() + at),
        };
        admin.hooks.iter().enumerate().map(door).collect()
    }
}

/// What an event came to.
#[derive(Debug)]
pub enum Outcome {
    /// A purge.
    Purged(Box<Done>),
    /// Nothing.
    Nothing(Nothing),
}

impl Outcome {
    /// The answer, when the purge has come as far as it should.
    pub(super) async fn settle(self, admin: &Admin) -> Result<Reply, Problem> {
        match self {
            Self::Purged(done) => Ok(json(StatusCode::OK, &admin.settle(*done).await?)),
            Self::Nothing(nothing) => Ok(json(StatusCode::OK, &nothing)),
        }
    }
}

/// An event that came to nothing.
#[derive(Debug, Serialize)]
pub struct Nothing {
    id: Option<()>,
    matched: u64,
    why: &'static str,
}

/// `POST /v1/hooks/{name}`
pub(super) fn receive(admin: &Admin, knock: &Knock<'_>) -> Result<Outcome, Problem> {
    let door = admin.doors.iter().find(|door| door.name == knock.name);
    // Who has no proof is not told which hooks there are.
    let proven = |door: &&Door| proves(&door.proof, knock.headers, knock.body);
    let Some(door) = door.filter(proven) else {
        admin.hook_guard.note_failure(knock.client, knock.now);
        admin.metrics.node.admin_denied.inc();
        tracing::warn!(client = %knock.client, "an event without proof came to a hook");
        return Err(Problem::no_proof());
    };
    let event: Value = serde_json::from_slice(knock.body).map_err(|error| {
        Problem::bad("body", format!("the event cannot be read as JSON: {error}"))
    })?;
    let wanted = map(&door.on, &event, knock.headers, admin.purge_selectors)
        .map_err(|refusal| Problem::bad("event", refusal.to_string()))?;
    if wanted.is_empty() {
        let why = match wanted.mode {
            None => "no mapping of the hook is for this event",
            Some(_) => "the event has none of the values that the mapping names",
        };
        return Ok(Outcome::Nothing(Nothing { id: None, matched: 0, why }));
    }
    let call = Call {
        token: &door.may,
        position: door.position,
        client: knock.client,
        headers: knock.headers,
        query: None,
        path: "",
        name: "",
        body: knock.body,
        now: knock.now,
    };
    let strength = wanted.mode.unwrap_or(Strength::Hard);
    let site = door.may.sites.first().map(|site| one_site(admin, &door.may, site)).transpose()?;
    let Wanted { urls, tags, prefixes, hosts, all, mode: _ } = wanted;
    let wish = Wish { urls, tags, prefixes, hosts, globs: Vec::new(), all };
    let done = carry_out_wish(admin, &call, site.into_iter().collect(), wish, strength)?;
    Ok(Outcome::Purged(Box::new(done)))
}
