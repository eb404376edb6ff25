//! What to do with a request: a pure function of the request, what is stored, policy and now.
//!
//! ```text
//! nothing stored ------------------------------------------> Fill (HEAD, Range: Pass)
//! stored: no lease, purged to `check`, no-cache -----------> Revalidate, or Fill without validator
//!         fresh -------------------------------------------> Hit, now and then refreshed early
//!         stale, within stale-while-revalidate ------------> HitStale
//!         stale -------------------------------------------> Revalidate, or Fill without validator
//! ```
//!
//! Request directives other than `only-if-cached` count only where policy honours them: on an edge
//! they would let any stranger send every request on to the origin.

use std::time::Duration;

use http::{Method, header};

use crate::clock::Now;
use crate::semantics::cache_status::Forward;
use crate::semantics::freshness::Terms;
use crate::semantics::normalise::Request;
use crate::semantics::policy::{Policy, WithoutLease};

/// What the purge table says of a stored response (dead ones are never shown).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No purge concerns it.
    Alive,
    /// Stale since then; the stale windows run from there.
    Soft {
        /// When the purge was applied.
        since: Now,
    },
    /// Must be confirmed before any use.
    Check,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer from memory.
    Hit {
        /// And refresh in the background, before it turns stale.
        refresh_early: bool,
    },
    /// Answer from memory though stale, and refresh in the background.
    HitStale,
    /// Ask the origin to confirm what is stored; its validators are there.
    Revalidate(Forward),
    /// Join or start the fill of the key.
    Fill(Forward),
    /// Stream through as it came, share with nobody, leave what is stored alone.
    Pass(Forward),
    /// 504: the client wants nothing forwarded (RFC 9111 section 5.2.1.7).
    OnlyIfCached,
}

/// Whether the store may answer at all; judged before any look-up.
///
/// Preconditions for changes (`If-Match`, `If-Unmodified-Since`) go to the origin: they ask about
/// its current state, which a stored response cannot know, and a cache may leave them aside
/// (RFC 9110 section 13.1.1).
///
/// # Errors
/// Why it passes. Where [`Request::forbids_forwarding`] holds, the answer is 504 instead.
pub fn lookup_allowed(request: &Request, policy: &Policy) -> Result<(), Forward> {
    if policy.pass || request.ambiguous {
        return Err(Forward::Bypass);
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(Forward::Method);
    }
    if request.headers.contains_key(header::IF_MATCH)
        || request.headers.contains_key(header::IF_UNMODIFIED_SINCE)
    {
        return Err(Forward::Bypass);
    }
    if policy.honour_request_directives && request.directives.no_store {
        return Err(Forward::Request);
    }
    Ok(())
}

/// Judges one request against what was found. `variants_exist`: something is stored under the key,
/// if not for this request. `lease`: no purge can have been missed. `draw` lies in 0..1 and
/// decides about early refresh.
#[must_use]
pub fn decide(
    request: &Request,
    found: Option<(&Terms, Verdict)>,
    variants_exist: bool,
    policy: &Policy,
    lease: bool,
    now: Now,
    draw: f64,
) -> Decision {
    let Some((terms, verdict)) = found else {
        let why = if variants_exist { Forward::VaryMiss } else { Forward::UriMiss };
        return forward(request, None, why);
    };
    // What an origin showed to strangers may not be what it shows to this user.
    if !terms.authorized && request.headers.contains_key(header::AUTHORIZATION) {
        return match request.forbids_forwarding() {
            true => Decision::OnlyIfCached,
            false => Decision::Pass(Forward::Miss),
        };
    }
    match reuse(request, terms, verdict, policy, lease, now) {
        Reuse::Fresh => {
            let early = verdict == Verdict::Alive && refresh_early(terms, policy, now, draw);
            Decision::Hit { refresh_early: early }
        }
        Reuse::Accepted => Decision::Hit { refresh_early: false },
        Reuse::Stale => Decision::HitStale,
        Reuse::Ask(why) => forward(request, Some(terms), why),
    }
}

/// How a request goes to the origin. HEAD and ranges pass as they came: turning a HEAD or a few
/// bytes into a fetch of the whole would let a small request cost a large one.
fn forward(request: &Request, stored: Option<&Terms>, why: Forward) -> Decision {
    if request.forbids_forwarding() {
        return Decision::OnlyIfCached;
    }
    if request.method != Method::GET {
        return Decision::Pass(why);
    }
    match stored {
        Some(terms) if terms.has_validator() => Decision::Revalidate(why),
        _ if request.has_range() => Decision::Pass(why),
        _ => Decision::Fill(why),
    }
}

enum Reuse {
    Fresh,
    /// Stale, and the client said that it does not mind.
    Accepted,
    /// Within the stale window while refreshing.
    Stale,
    Ask(Forward),
}

fn reuse(
    request: &Request,
    terms: &Terms,
    verdict: Verdict,
    policy: &Policy,
    lease: bool,
    now: Now,
) -> Reuse {
    if !may_answer_unconfirmed(terms, verdict, policy, lease) {
        return Reuse::Ask(Forward::Stale);
    }
    let stale = staleness(terms, verdict, now);
    if policy.honour_request_directives {
        let wanted = request.directives;
        let age = terms.age(now);
        // What is stale, by age or by purge, has nothing left.
        let left = match stale {
            None => terms.fresh_for.saturating_sub(age),
            Some(_) => Duration::ZERO,
        };
        // A reload asks for `max-age=0`; of what does not change it would bring the same. Who
        // insists says `no-cache` (RFC 8246 section 2).
        let settled = terms.immutable && stale.is_none();
        if wanted.no_cache
            || !settled && wanted.max_age.is_some_and(|most| most.is_zero() || age > most)
            || wanted.min_fresh.is_some_and(|least| left < least)
        {
            return Reuse::Ask(Forward::Request);
        }
        if let (Some(stale), Some(most)) = (stale, wanted.max_stale)
            && stale <= most
            && !terms.must_revalidate
            && verdict == Verdict::Alive
        {
            return Reuse::Accepted;
        }
    }
    match stale {
        None => Reuse::Fresh,
        Some(stale) if stale < terms.stale_while_revalidate => Reuse::Stale,
        Some(_) => Reuse::Ask(Forward::Stale),
    }
}

/// Whether it may answer, fresh or stale, without the origin's word on this request.
fn may_answer_unconfirmed(terms: &Terms, verdict: Verdict, policy: &Policy, lease: bool) -> bool {
    let current = lease || policy.without_lease == WithoutLease::Serve;
    current && verdict != Verdict::Check && !terms.no_cache
}

/// How long it has been stale, by age or by purge, whichever is longer; `None` while fresh.
fn staleness(terms: &Terms, verdict: Verdict, now: Now) -> Option<Duration> {
    let age = terms.age(now);
    let by_age = (age >= terms.fresh_for).then(|| age - terms.fresh_for);
    let by_purge = match verdict {
        Verdict::Soft { since } => Some(now.since(since)),
        Verdict::Alive | Verdict::Check => None,
    };
    by_age.max(by_purge)
}

/// Whether this hit is the one that refreshes. Each hit draws once; the chance rises as the end
/// comes near, and the more a refresh costs the sooner it begins (Vattani, Chierichetti and
/// Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", 2015). What is seldom asked for
/// draws seldom, so it is the popular that never turn stale.
fn refresh_early(terms: &Terms, policy: &Policy, now: Now, draw: f64) -> bool {
    if policy.early_refresh <= 0.0 || terms.immutable {
        return false;
    }
    let left = terms.fresh_for.saturating_sub(terms.age(now)).as_secs_f64();
    let unit = policy.early_refresh * terms.fetch_time.as_secs_f64();
    // -ln of the smallest draw of 53 bits is below 37: far from the end no logarithm is needed.
    left < unit * 40.0 && left < unit * -draw.clamp(f64::MIN_POSITIVE, 1.0).ln()
}

/// Whether a stored response may answer after the origin failed: no answer, or 500, 502, 503, 504
/// (RFC 5861 section 4). Never without the origin's word where that is demanded.
#[must_use]
pub fn may_serve_on_error(
    terms: &Terms,
    verdict: Verdict,
    policy: &Policy,
    lease: bool,
    now: Now,
) -> bool {
    may_answer_unconfirmed(terms, verdict, policy, lease)
        && staleness(terms, verdict, now).is_none_or(|stale| stale < terms.stale_if_error)
}

#[cfg(test)]
mod tests;
