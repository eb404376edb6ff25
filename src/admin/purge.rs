//! `POST /v1/purge`: from what somebody wrote to selectors that mean exactly that.
//!
//! The rule is never to guess. A field that is unknown, or not carried out by this version, is
//! refused instead of ignored, since the sender would believe that more is gone than is; an empty
//! selector is refused instead of read as "everything".

use std::collections::HashSet;
use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};

use super::problem::Problem;
use super::repeat;
use super::resolve::{Scope, not_covered};
use super::settle::{Done, Patience, Receipt, Refetch};
use super::standing::Level;
use super::{Admin, Call, Seen, Work, json, milliseconds, warm};
use crate::audit::Act;
use crate::clock;
use crate::config::{Scope as TokenScope, Token, format_duration, parse_duration};
use crate::mesh::{Busy, Issued};
use crate::message::RequestHead;
use crate::purge::{Selector, Strength};
use crate::store::Author;

/// Selectors that one request may come to, tags counted once for each site.
const SELECTORS: usize = 100_000;

/// A purge request as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    #[serde(deserialize_with = "given")]
    site: Option<String>,
    pub(super) urls: Vec<String>,
    tags: Vec<String>,
    all: bool,
    #[serde(deserialize_with = "given")]
    mode: Option<String>,
    #[serde(deserialize_with = "given")]
    wait: Option<String>,
    #[serde(deserialize_with = "given")]
    timeout: Option<String>,
    prefixes: Vec<String>,
    hosts: Vec<String>,
    pub(super) globs: Vec<String>,
    dry_run: bool,
    #[serde(deserialize_with = "percent")]
    guard: Option<u8>,
    #[serde(deserialize_with = "number")]
    refetch: Option<usize>,
}

/// What is to be purged, as another wire format says it.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) urls: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) prefixes: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) globs: Vec<String>,
    pub(super) all: bool,
}

impl From<Wish> for Written {
    fn from(wish: Wish) -> Self {
        let Wish { urls, tags, prefixes, hosts, globs, all } = wish;
        Self { urls, tags, prefixes, hosts, globs, all, ..Self::default() }
    }
}

impl Written {
    /// Selectors that are written out.
    fn named(&self) -> usize {
        let lists = [&self.urls, &self.tags, &self.prefixes, &self.hosts, &self.globs];
        lists.iter().map(|list| list.len()).sum()
    }
}

/// A value that is not `null`.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// A share that is not `null`.
fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    u8::deserialize(deserializer).map(Some)
}

/// A number that is not `null`.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    usize::deserialize(deserializer).map(Some)
}

/// What a purge would do.
#[derive(Debug, Serialize)]
struct Preview {
    dry_run: bool,
    mode: &'static str,
    /// Rows that it would write.
    selectors: usize,
    /// Stored responses in all; only for whom all sites are open.
    stored: Option<u64>,
    /// Those that match now.
    matched: u64,
    /// Bytes that these take.
    bytes: u64,
    /// Requests per second that these served over the last minute.
    requests_per_second: f64,
    took_ms: f64,
}

/// A purge that was understood.
struct Meant<'a> {
    key: Option<&'a [u8]>,
    selectors: Vec<Selector>,
    strength: Strength,
    patience: Patience,
    dry_run: bool,
    guard: Option<u8>,
    /// So many of the hottest are to be fetched again.
    refetch: usize,
}

/// `POST /v1/purge`
pub(super) fn purge(admin: &Admin, call: &Call<'_>) -> Result<Work, Problem> {
    let meant = understand(admin, call)?;
    if meant.dry_run {
        return Ok(preview(admin, call, meant.selectors, meant.strength));
    }
    let known =
        |key| admin.repeats.knows(call.position, key, call.now, |receipt| admin.counts(receipt));
    let looks = meant.guard.is_some() || meant.refetch > 0;
    // What was done already needs no look.
    if looks && !meant.key.is_some_and(known) {
        return Ok(look_first(admin, call, meant));
    }
    carry_out(admin, call, &meant, Vec::new())
}

fn understand<'a>(admin: &Admin, call: &Call<'a>) -> Result<Meant<'a>, Problem> {
    let key = repeat::key(call.headers)?;
    let written = parse(call.body)?;
    let strength = strength(written.mode.as_deref())?;
    let patience = patience(admin, &written)?;
    if written.guard.is_some_and(|percent| percent > 100) {
        let detail = "`guard` is a share in percent, from 0 to 100";
        return Err(Problem::field("value", "guard", detail));
    }
    let selectors = selectors(admin, call.token, &written)?;
    let (dry_run, guard) = (written.dry_run, written.guard);
    let refetch = refetch(admin, call.token, &written)?;
    Ok(Meant { key, selectors, strength, patience, dry_run, guard, refetch })
}

/// How many are to be fetched again. That is a warm-up, and takes the scope of one.
fn refetch(admin: &Admin, token: &Token, written: &Written) -> Result<usize, Problem> {
    let Some(wanted) = written.refetch else { return Ok(0) };
    let most = admin.refetch.0;
    if wanted == 0 || wanted > most {
        let detail = format!("`refetch` is a number from 1 to {most}");
        return Err(Problem::field("value", "refetch", detail));
    }
    if !token.covers(TokenScope::Warm) {
        return Err(Problem::scope(TokenScope::Warm));
    }
    Ok(wanted)
}

/// Counts before it purges, and finds the hottest of what is about to go: once it is purged, the
/// first request for each would remove it. The share is of what the token's sites have stored, so
/// that nobody learns of others; what is stored between the look and the purge is not counted.
fn look_first(admin: &Admin, call: &Call<'_>, meant: Meant<'_>) -> Work {
    let control = Arc::clone(&admin.control);
    let sites = admin.sites.iter().map(|site| &site.name);
    let own: Option<Vec<Selector>> = (!call.token.sites.is_empty()).then(|| {
        let covered = sites.filter(|site| call.token.covers_site(site));
        covered.map(|site| Selector::Site { site: Arc::clone(site) }).collect()
    });
    let Meant { selectors, guard, refetch, .. } = meant;
    let now = call.now;
    let look = move || {
        let tried = control.try_purge(&selectors, refetch, now);
        if let Some(percent) = guard {
            let of = own.map_or(tried.stored, |own| control.try_purge(&own, 0, now).matched);
            within(percent, tried.matched, of)?;
        }
        let hottest = tried.hottest.iter().filter_map(|head| head.asked_again()).collect();
        Ok(Seen { hottest })
    };
    Work::First(Box::new(look), |admin, call, seen| {
        carry_out(admin, call, &understand(admin, call)?, seen.hottest)
    })
}

/// Judges how much of what is stored would go.
fn within(percent: u8, matched: u64, of: u64) -> Result<(), Problem> {
    if u128::from(matched) * 100 <= u128::from(of) * u128::from(percent) {
        return Ok(());
    }
    let detail = format!(
        "this would purge {matched} of {of} stored responses, more than the {percent} % of `guard`"
    );
    Err(Problem::new(StatusCode::CONFLICT, "guard", detail).of_field("guard"))
}

fn carry_out(
    admin: &Admin,
    call: &Call<'_>,
    meant: &Meant<'_>,
    hottest: Vec<RequestHead>,
) -> Result<Work, Problem> {
    Ok(Work::Purged(Box::new(perform(admin, call, meant, call.body, hottest)?)))
}

/// Purges, unless the same came before: `body` tells two requests with one `Idempotency-Key` apart.
fn perform(
    admin: &Admin,
    call: &Call<'_>,
    meant: &Meant<'_>,
    body: &[u8],
    hottest: Vec<RequestHead>,
) -> Result<Done, Problem> {
    let (selectors, strength) = (meant.selectors.as_slice(), meant.strength);
    let mut acted = false;
    let act = || {
        acted = true;
        let receipt = apply(admin, call, selectors, strength)?;
        Ok(if meant.refetch > 0 { fetch_again(admin, call, receipt, hottest) } else { receipt })
    };
    let receipt = match meant.key {
        Some(key) => {
            let counts = |receipt: &Receipt| admin.counts(receipt);
            admin.repeats.once(call.position, key, body, call.now, counts, act)?
        }
        None => act()?,
    };
    let noted =
        || Act::purge(&call.token.name, call.client, (selectors, strength), &receipt.id, call.now);
    let act = acted.then(noted);
    Ok(Done { receipt, act, patience: meant.patience })
}

/// Carries out what another wire format means, within the sites that it means: the same rules,
/// limits and memory as for our own. What tells two requests apart for `Idempotency-Key` is their
/// meaning, since some formats have no body.
pub(super) fn carry_out_wish(
    admin: &Admin,
    call: &Call<'_>,
    sites: Vec<Arc<str>>,
    wish: Wish,
    strength: Strength,
) -> Result<Done, Problem> {
    let key = repeat::key(call.headers)?;
    let written = Written::from(wish);
    check(&written)?;
    let scope = Scope { admin, token: call.token, named: Some(sites) };
    let selectors = select(&scope, &written)?;
    let meaning = key.map(|_| format!("{strength:?} {selectors:?}")).unwrap_or_default();
    let patience = Patience::usual(&admin.waiting);
    let (dry_run, guard, refetch) = (false, None, 0);
    let meant = Meant { key, selectors, strength, patience, dry_run, guard, refetch };
    perform(admin, call, &meant, meaning.as_bytes(), Vec::new())
}

fn apply(
    admin: &Admin,
    call: &Call<'_>,
    selectors: &[Selector],
    strength: Strength,
) -> Result<Receipt, Problem> {
    let cost = u32::try_from(selectors.len()).unwrap_or(u32::MAX);
    admin.purge_rates.take(call.position, f64::from(cost), call.now).map_err(|wait| {
        Problem::wait("purge-rate", "this token purges faster than it may", wait)
    })?;
    let by = Author { token: call.token.name.as_str().into(), address: call.client };
    let taken = admin.control.purge(by, selectors, strength, call.now).map_err(not_taken)?;
    let Issued { identity, applied } = taken;
    let id = identity.dotted();
    tracing::info!(
        token = %call.token.name, from = %call.client, id, epoch = applied.epoch,
        mode = strength.label(), selectors = selectors.len(), first = ?selectors.first(), "purged"
    );
    let took_ms = milliseconds(clock::now().since(call.now));
    Ok(Receipt {
        id,
        epoch: applied.epoch,
        took_ms,
        state: Level::Local,
        standing: None,
        matched: None,
        freed: None,
        refetch: None,
        audit: None,
        name: identity,
        serves: admin.serves_without_lease(sites_of(selectors).as_deref()),
        seen: Arc::default(),
    })
}

/// The sites that a purge is about; `None` where it is about all.
fn sites_of(selectors: &[Selector]) -> Option<Vec<Arc<str>>> {
    selectors.iter().map(|selector| selector.site().cloned()).collect()
}

/// Why the mesh does not take a purge.
fn not_taken(why: Busy) -> Problem {
    match why {
        Busy::TooMany { again } => {
            let detail = "this node purges faster than the mesh takes it (`mesh.purge_rate`)";
            Problem::wait("mesh-rate", detail, again)
        }
        Busy::Elsewhere { again } => {
            let detail =
                "another process is taking this node's place: nothing was purged, repeat it";
            Problem::wait("mesh-elsewhere", detail, again)
        }
        Busy::Barred => {
            let detail = "by the roster of the mesh this node issues no purges: ask another";
            Problem::forbidden("not-an-issuer", detail)
        }
        Busy::TooLong => {
            Problem::bad("value", "a selector is longer than one record of the mesh may be")
        }
    }
}

/// Has what was hot fetched again, now that it is purged.
fn fetch_again(
    admin: &Admin,
    call: &Call<'_>,
    receipt: Receipt,
    hottest: Vec<RequestHead>,
) -> Receipt {
    let requests = hottest.len();
    let warm_up = warm::refetch(admin, call, &receipt.id, hottest);
    Receipt { refetch: Some(Refetch { requests, warm_up }), ..receipt }
}

/// Counts in a walk over the store; the walk is for a thread that may take its time.
fn preview(admin: &Admin, call: &Call<'_>, selectors: Vec<Selector>, strength: Strength) -> Work {
    let control = Arc::clone(&admin.control);
    let (begun, knows_all) = (call.now, call.token.sites.is_empty());
    Work::Walk(Box::new(move || {
        let tried = control.try_purge(&selectors, 0, begun);
        let preview = Preview {
            dry_run: true,
            mode: strength.label(),
            selectors: selectors.len(),
            stored: knows_all.then_some(tried.stored),
            matched: tried.matched,
            bytes: tried.bytes,
            requests_per_second: (tried.per_second * 10.0).round() / 10.0,
            took_ms: milliseconds(clock::now().since(begun)),
        };
        json(StatusCode::OK, &preview)
    }))
}

pub(super) fn parse(body: &[u8]) -> Result<Written, Problem> {
    // The deserialiser would take an array for an object without names.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad("body", "the body must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad("body", format!("the body cannot be read: {error}")))
}

fn strength(mode: Option<&str>) -> Result<Strength, Problem> {
    match mode {
        None | Some("hard") => Ok(Strength::Hard),
        Some("check") => Ok(Strength::Check),
        Some("soft") => Ok(Strength::Soft),
        Some(_) => {
            let detail = "`mode` is \"hard\", \"check\" or \"soft\"";
            Err(Problem::field("value", "mode", detail))
        }
    }
}

/// How far the purge has to come before its sender is answered, and how long he would wait.
fn patience(admin: &Admin, written: &Written) -> Result<Patience, Problem> {
    let usual = Patience::usual(&admin.waiting);
    let until = match written.wait.as_deref() {
        None => usual.until,
        Some("local") => Level::Local,
        Some("acknowledged") => Level::Acknowledged,
        Some("everywhere") => Level::Everywhere,
        Some(_) => {
            let detail = "`wait` is \"local\", \"acknowledged\" or \"everywhere\"";
            return Err(Problem::field("value", "wait", detail));
        }
    };
    let Some(text) = written.timeout.as_deref() else { return Ok(Patience { until, ..usual }) };
    let longest = admin.waiting.longest;
    let most = parse_duration(text).ok().filter(|time| *time <= longest).ok_or_else(|| {
        let longest = format_duration(longest);
        let detail = format!("`timeout` is a time up to {longest}, such as \"500ms\" or \"5s\"");
        Problem::field("value", "timeout", detail)
    })?;
    Ok(Patience { until, most })
}

/// What a request names, within what its token covers.
fn selectors(admin: &Admin, token: &Token, written: &Written) -> Result<Vec<Selector>, Problem> {
    check(written)?;
    let site = written.site.as_deref().map(|name| one_site(admin, token, name)).transpose()?;
    select(&Scope { admin, token, named: site.map(|site| vec![site]) }, written)
}

/// Whether something is selected, and in one way.
fn check(written: &Written) -> Result<(), Problem> {
    let named = written.named();
    if !written.all && named == 0 {
        let detail = "nothing is selected: name `urls`, `tags`, `prefixes`, `hosts` or `globs`, or \
                      say `\"all\": true`";
        return Err(Problem::bad("empty-selector", detail));
    }
    if written.all && named > 0 {
        let detail = "`all` stands without other selectors";
        return Err(Problem::field("conflict", "all", detail));
    }
    Ok(())
}

fn select(scope: &Scope<'_>, written: &Written) -> Result<Vec<Selector>, Problem> {
    if written.all {
        return everything(scope);
    }
    within_limits(scope.admin, written)?;
    resolve(scope, written)
}

fn within_limits(admin: &Admin, written: &Written) -> Result<(), Problem> {
    let most = admin.purge_selectors;
    if written.named() > most {
        let detail = format!("one purge takes {most} selectors; send the rest in another");
        return Err(Problem::bad("too-many", detail));
    }
    if written.globs.len() > admin.purge_globs {
        let detail = format!(
            "a site keeps {} patterns; with more, the oldest would turn into a purge of the site",
            admin.purge_globs
        );
        return Err(Problem::field("too-many", "globs", detail));
    }
    Ok(())
}

/// All selectors that the texts stand for, each once.
fn resolve(scope: &Scope<'_>, written: &Written) -> Result<Vec<Selector>, Problem> {
    let wide = written.tags.len() + written.globs.len();
    if wide > 0 && wide.saturating_mul(scope.sites().len()) > SELECTORS {
        let detail = format!("this comes to more than {SELECTORS} selectors; name a `site`");
        return Err(Problem::bad("too-many", detail));
    }
    let mut selectors = Vec::with_capacity(written.named());
    for url in &written.urls {
        selectors.push(scope.url(url)?);
    }
    for prefix in &written.prefixes {
        selectors.push(scope.prefix(prefix)?);
    }
    for host in &written.hosts {
        selectors.push(scope.host(host)?);
    }
    for glob in &written.globs {
        selectors.extend(scope.glob(glob)?);
    }
    for tag in &written.tags {
        selectors.extend(scope.tag(tag)?);
    }
    let mut seen = HashSet::with_capacity(selectors.len());
    selectors.retain(|selector| seen.insert(selector.clone()));
    if selectors.is_empty() {
        return Err(Problem::bad("empty-selector", "no site is covered by this token"));
    }
    Ok(selectors)
}

/// The site of that name. A token that is bound to sites learns nothing about others.
pub(super) fn one_site(admin: &Admin, token: &Token, name: &str) -> Result<Arc<str>, Problem> {
    if !token.covers_site(name) {
        return Err(not_covered());
    }
    let site = admin.sites.iter().find(|site| &*site.name == name);
    site.map(|site| Arc::clone(&site.name))
        .ok_or_else(|| Problem::field("unknown-site", "site", "there is no site of this name"))
}

/// All of the sites named, or all that the token covers, for which it needs the scope.
fn everything(scope: &Scope<'_>) -> Result<Vec<Selector>, Problem> {
    if scope.named.is_none() {
        if !scope.token.covers(TokenScope::PurgeAll) {
            return Err(Problem::scope(TokenScope::PurgeAll));
        }
        if scope.token.sites.is_empty() {
            return Ok(vec![Selector::All]);
        }
    }
    let sites = scope.sites().into_iter().map(|site| Selector::Site { site });
    let sites: Vec<_> = sites.collect();
    if sites.is_empty() {
        return Err(Problem::bad("empty-selector", "no site is covered by this token"));
    }
    Ok(sites)
}

#[cfg(test)]
mod tests;
