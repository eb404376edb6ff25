//! What to do with a request: a pure function of the request, what is stored, policy and now.
//!
//! ```text
//! nothing stored ------------------------------------------> Fill (HEAD, Range: Pass)
//! stored: no trust, purged to `check`, no-cache -----------> Revalidate, or Fill without validator
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
use crate::semantics::policy::Policy;
use crate::semantics::reason::Reason;
use crate::semantics::trust::Trust;

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

impl Decision {
    /// Word for explanations.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::HitStale => "hit-stale",
            Self::Revalidate(_) => "revalidate",
            Self::Fill(_) => "fill",
            Self::Pass(_) => "pass",
            Self::OnlyIfCached => "only-if-cached",
        }
    }

    /// Why it goes to the origin before it is answered, where it does.
    #[must_use]
    pub fn forward(self) -> Option<Forward> {
        match self {
            Self::Revalidate(why) | Self::Fill(why) | Self::Pass(why) => Some(why),
            Self::Hit { .. } | Self::HitStale | Self::OnlyIfCached => None,
        }
    }
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
    match passes(request, policy) {
        None => Ok(()),
        Some(why) => Err(why.forward()),
    }
}

/// Why the store may not answer, where it may not.
#[must_use]
pub fn passes(request: &Request, policy: &Policy) -> Option<Reason> {
    if policy.pass {
        return Some(Reason::PolicyPass);
    }
    if request.ambiguous {
        return Some(Reason::Ambiguous);
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Some(Reason::Method);
    }
    if request.headers.contains_key(header::IF_MATCH)
        || request.headers.contains_key(header::IF_UNMODIFIED_SINCE)
    {
        return Some(Reason::Precondition);
    }
    if policy.honour_request_directives && request.directives.no_store {
        return Some(Reason::RequestNoStore);
    }
    None
}

/// Judges one request against what was found. `variants_exist`: something is stored under the key,
/// if not for this request. `trust`: what may answer it at all. `draw` lies in 0..1 and
/// decides about early refresh.
#[must_use]
pub fn decide(
    request: &Request,
    found: Option<(&Terms, Verdict)>,
    variants_exist: bool,
    policy: &Policy,
    trust: Trust,
    now: Now,
    draw: f64,
) -> Decision {
    decide_why(request, found, variants_exist, policy, trust, now, draw).0
}

/// As [`decide`], with the rule that the decision rests on.
#[must_use]
pub fn decide_why(
    request: &Request,
    found: Option<(&Terms, Verdict)>,
    variants_exist: bool,
    policy: &Policy,
    trust: Trust,
    now: Now,
    draw: f64,
) -> (Decision, Reason) {
    let Some((terms, verdict)) = found else {
        let why = if variants_exist { Reason::NotSelected } else { Reason::NothingStored };
        return (forward(request, None, policy, why.forward()), why);
    };
    if !concerns(request, terms) {
        let why = Reason::Authorization;
        let decision = match request.forbids_forwarding() {
            true => Decision::OnlyIfCached,
            false => Decision::Pass(why.forward()),
        };
        return (decision, why);
    }
    let why = reuse(request, terms, verdict, policy, trust, now);
    let decision = match why {
        Reason::Fresh => {
            let early = verdict == Verdict::Alive && refresh_early(terms, policy, now, draw);
            Decision::Hit { refresh_early: early }
        }
        Reason::StaleAccepted => Decision::Hit { refresh_early: false },
        Reason::StaleWindow => Decision::HitStale,
        why => forward(request, Some(terms), policy, why.forward()),
    };
    (decision, why)
}

/// Whether a request and a stored response have anything to say to each other: what an origin
/// showed to strangers may not be what it shows to a user who names himself.
#[must_use]
pub fn concerns(request: &Request, terms: &Terms) -> bool {
    terms.authorized || !request.headers.contains_key(header::AUTHORIZATION)
}

/// How a request goes to the origin. HEAD and ranges pass as they came: turning a HEAD or a few
/// bytes into a fetch of the whole would let a small request cost a large one. Where bodies are
/// fetched in segments a range costs only what it touches.
fn forward(request: &Request, stored: Option<&Terms>, policy: &Policy, why: Forward) -> Decision {
    if request.forbids_forwarding() {
        return Decision::OnlyIfCached;
    }
    if request.method != Method::GET {
        return Decision::Pass(why);
    }
    match stored {
        Some(terms) if terms.has_validator() => Decision::Revalidate(why),
        _ if request.has_range() && policy.segment.is_none() => Decision::Pass(why),
        _ => Decision::Fill(why),
    }
}

/// Whether what is stored may answer: [`Reason::Fresh`], [`Reason::StaleAccepted`] and
/// [`Reason::StaleWindow`] say yes, any other that the origin must be asked.
fn reuse(
    request: &Request,
    terms: &Terms,
    verdict: Verdict,
    policy: &Policy,
    trust: Trust,
    now: Now,
) -> Reason {
    if let Some(why) = needs_confirmation(terms, verdict, policy, trust) {
        return why;
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
            return Reason::RequestDirective;
        }
        if let (Some(stale), Some(most)) = (stale, wanted.max_stale)
            && stale <= most
            && !terms.must_revalidate
            && verdict == Verdict::Alive
        {
            return Reason::StaleAccepted;
        }
    }
    match stale {
        None => Reason::Fresh,
        Some(stale) if stale < terms.stale_while_revalidate => Reason::StaleWindow,
        Some(_) if terms.is_fresh(now) => Reason::SoftPurged,
        Some(_) => Reason::Stale,
    }
}

/// Why it may not answer, fresh or stale, without the origin's word on this request.
fn needs_confirmation(
    terms: &Terms,
    verdict: Verdict,
    policy: &Policy,
    trust: Trust,
) -> Option<Reason> {
    if let Some(why) = trust.reason() {
        return Some(why);
    }
    if verdict == Verdict::Check {
        return Some(Reason::CheckPurged);
    }
    if terms.mark.sharing != policy.mark.sharing {
        return Some(Reason::OtherPolicy);
    }
    terms.no_cache.then_some(Reason::NoCache)
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

/// The chance that one hit at this moment refreshes early: that its draw is low enough.
#[must_use]
pub fn early_refresh_chance(terms: &Terms, policy: &Policy, now: Now) -> f64 {
    let left = terms.fresh_for.saturating_sub(terms.age(now)).as_secs_f64();
    let unit = policy.early_refresh * terms.fetch_time.as_secs_f64();
    if unit > 0.0 && left < unit * 40.0 { (-left / unit).exp() } else { 0.0 }
}

/// Whether a stored response may answer after the origin failed: no answer, or 500, 502, 503, 504
/// (RFC 5861 section 4). Never without the origin's word where that is demanded.
#[must_use]
pub fn may_serve_on_error(
    request: &Request,
    terms: &Terms,
    verdict: Verdict,
    policy: &Policy,
    trust: Trust,
    now: Now,
) -> bool {
    // What may be shown while it is renewed may be shown when that fails, too: a stored error must
    // not take its place.
    let window = terms.stale_if_error.max(terms.stale_while_revalidate);
    concerns(request, terms)
        && needs_confirmation(terms, verdict, policy, trust).is_none()
        && staleness(terms, verdict, now).is_none_or(|stale| stale < window)
}

#[cfg(test)]
mod tests;
