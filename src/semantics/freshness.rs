//! How long a stored response may be reused without asking the origin.
//!
//! Two numbers decide (RFC 9111 section 4.2): the freshness lifetime, fixed when the response
//! arrives, and its age, which grows.
//!
//! ```text
//! arrives       fresh_for over       stale-while-revalidate over
//!    |---- fresh ----|---- stale, may answer ----|---- must ask ---->
//! ```
//!
//! Doubtful input counts as stale: asking too often costs a round trip, a wrong answer trust.
//!
//! The wall clock is read once, when the response arrives, and only to be compared with the
//! origin's `Date`. From then on age is counted on the boot clock, which nobody can set.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::clock::Now;
use crate::semantics::cache_control::{ResponseDirectives, Source};
use crate::semantics::mark::Mark;
use crate::semantics::policy::Policy;
use crate::semantics::{date, ttl};

/// Where the freshness lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FreshnessSource {
    /// Policy's `lifetime`.
    Policy,
    /// `Atoll-Cache-Control`.
    AtollCacheControl,
    /// `CDN-Cache-Control`.
    CdnCacheControl,
    /// `s-maxage`.
    SMaxAge,
    /// `max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// A share of the time since `Last-Modified`.
    Heuristic,
    /// Policy's `default_lifetime`.
    Default,
    /// Policy's `status_lifetime`.
    Status,
    /// None: the origin is asked each time.
    None,
}

impl FreshnessSource {
    /// Whether the origin itself named the lifetime (RFC 9111 section 4.2.1).
    #[must_use]
    pub fn is_explicit(self) -> bool {
        match self {
            Self::AtollCacheControl
            | Self::CdnCacheControl
            | Self::SMaxAge
            | Self::MaxAge
            | Self::Expires => true,
            Self::Policy | Self::Status | Self::Heuristic | Self::Default | Self::None => false,
        }
    }

    /// Word for logs and explanations.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::AtollCacheControl => "atoll-cache-control",
            Self::CdnCacheControl => "cdn-cache-control",
            Self::SMaxAge => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::Default => "default",
            Self::Status => "status",
            Self::None => "none",
        }
    }
}

/// What a response's head says about its reuse: computed once, when it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// When its head had arrived.
    pub received: Now,
    /// Corrected initial age (RFC 9111 section 4.2.3).
    pub initial_age: Duration,
    /// Freshness lifetime.
    pub lifetime: Duration,
    /// Freshness lifetime after jitter; never longer.
    pub fresh_for: Duration,
    /// Where the lifetime comes from.
    pub source: FreshnessSource,
    /// Time from request to head, at least a millisecond: what a refresh costs.
    pub fetch_time: Duration,
    /// Stale window while refreshing; zero where stale answers are forbidden.
    pub stale_while_revalidate: Duration,
    /// Stale window on origin errors; zero where stale answers are forbidden.
    pub stale_if_error: Duration,
    /// No request may ask for it stale: `must-revalidate`, `proxy-revalidate` or `s-maxage`.
    pub must_revalidate: bool,
    /// Every use must be confirmed by the origin.
    pub no_cache: bool,
    /// Does not change while it is fresh: nobody is asked about it before (RFC 8246 section 2).
    pub immutable: bool,
    /// May answer requests with `Authorization` (RFC 9111 section 3.5).
    pub authorized: bool,
    /// `ETag` as received.
    pub etag: Option<HeaderValue>,
    /// `Last-Modified`, where it is a date.
    pub last_modified: Option<SystemTime>,
    /// `Date`; where that is missing or no date, when it arrived.
    pub date: SystemTime,
    /// Has fields that are stored but not answered: tags and what speaks to atoll alone.
    pub has_hidden_fields: bool,
    /// That of the policy by which it was stored.
    pub mark: Mark,
}

impl Terms {
    /// Current age (RFC 9111 section 4.2.3).
    #[must_use]
    pub fn age(&self, now: Now) -> Duration {
        self.initial_age.saturating_add(now.since(self.received))
    }

    /// Whether it is fresh, purges aside.
    #[must_use]
    pub fn is_fresh(&self, now: Now) -> bool {
        self.fresh_for > self.age(now)
    }

    /// Seconds of freshness left, negative when stale.
    #[must_use]
    pub fn ttl(&self, now: Now) -> i64 {
        ttl(self.fresh_for, self.age(now))
    }

    /// Whether the origin can be asked to confirm it.
    #[must_use]
    pub fn has_validator(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// Statuses that may be reused without explicit freshness (RFC 9110 section 15.1).
pub(super) fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether a status is an error that must not stay for long: one bad moment of an origin would
/// deny service to everybody. 404 and 410 are answers like any other.
pub(super) fn is_error(status: StatusCode) -> bool {
    status.as_u16() >= 400 && !matches!(status.as_u16(), 404 | 410)
}

/// Freshness lifetime in a shared cache; `None` where neither origin nor policy names one. First
/// match wins: the policy's `lifetime`; a targeted field (RFC 9213 section 2.2); `s-maxage`;
/// `max-age`; `Expires` minus `Date` (RFC 9111 section 4.2.1); the heuristic; the policy's
/// `default_lifetime`. An error keeps what the origin gave, up to the policy's `error_lifetime`,
/// and gets nothing that the origin did not give but by heuristic.
///
/// For a status that the policy's `status_lifetime` names all of that is replaced: what the origin
/// gave, up to that lifetime, and where it gave nothing that lifetime. Such a rule stores even what
/// RFC 9111 section 3 lets nobody store unasked: here the operator asks.
pub(super) fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    policy: &Policy,
    date: SystemTime,
) -> Option<(Duration, FreshnessSource)> {
    let explicit = explicit_lifetime(headers, directives, date);
    if let Some(most) = policy.status_lifetime.of(status) {
        let (lifetime, source) = explicit.unwrap_or((most, FreshnessSource::Status));
        return Some((lifetime.min(most), source));
    }
    let error = status.as_u16() >= 400;
    let cacheable = heuristically_cacheable(status) || directives.public;
    if let Some(lifetime) = policy.lifetime
        && !error
        && (cacheable || explicit.is_some())
    {
        return Some((lifetime, FreshnessSource::Policy));
    }
    let found = explicit.or_else(|| {
        let heuristic = (policy.heuristic && cacheable)
            .then(|| heuristic_lifetime(headers, date))
            .flatten()
            .map(|lifetime| (lifetime, FreshnessSource::Heuristic));
        heuristic.or_else(|| {
            let default = policy.default_lifetime.filter(|_| cacheable && !error)?;
            Some((default, FreshnessSource::Default))
        })
    });
    found.map(|(lifetime, source)| match is_error(status) {
        true => (lifetime.min(policy.error_lifetime), source),
        false => (lifetime, source),
    })
}

fn explicit_lifetime(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    date: SystemTime,
) -> Option<(Duration, FreshnessSource)> {
    let source = |classic| match directives.source {
        Source::CacheControl => classic,
        Source::Cdn => FreshnessSource::CdnCacheControl,
        Source::Atoll => FreshnessSource::AtollCacheControl,
    };
    if let Some(lifetime) = directives.s_maxage {
        return Some((lifetime, source(FreshnessSource::SMaxAge)));
    }
    if let Some(lifetime) = directives.max_age {
        return Some((lifetime, source(FreshnessSource::MaxAge)));
    }
    if directives.source != Source::CacheControl || !headers.contains_key(header::EXPIRES) {
        return None;
    }
    // Anything that is not one date has expired already (RFC 9111 section 5.3).
    let expires = single_date(headers, &header::EXPIRES, date);
    let lifetime = expires.and_then(|expires| expires.duration_since(date).ok());
    Some((lifetime.unwrap_or_default(), FreshnessSource::Expires))
}

/// A tenth of the time since the last change (RFC 9111 section 4.2.2), at most a day: an estimate
/// must not outlive the memory of whoever has to explain it.
fn heuristic_lifetime(headers: &HeaderMap, date: SystemTime) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(86_400);
    let modified = single_date(headers, &header::LAST_MODIFIED, date)?;
    let unchanged = date.duration_since(modified).ok()?;
    Some((unchanged / 10).min(MOST))
}

/// The date in a field that has one line; `None` otherwise.
pub(super) fn single_date(
    headers: &HeaderMap,
    name: &HeaderName,
    now: SystemTime,
) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    date::parse(line.as_bytes(), now)
}

/// Age on arrival (RFC 9111 section 4.2.3): the greater of what `Date` says and what `Age` says,
/// the time of the exchange counted as spent after the origin answered.
///
/// What `Date` says is counted in whole seconds of both clocks, since that is what it holds:
/// otherwise a response of one second's lifetime would often arrive stale.
pub(super) fn initial_age(
    headers: &HeaderMap,
    date: SystemTime,
    requested: Now,
    received: Now,
) -> Duration {
    let whole = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    };
    let apparent = Duration::from_secs(whole(received.wall).saturating_sub(whole(date)));
    let corrected = age_field(headers) + received.since(requested);
    apparent.max(corrected)
}

/// Value of `Age`: the first member of the first line; ignored where that is not a number
/// (RFC 9111 section 5.1). At most 2^31 seconds.
fn age_field(headers: &HeaderMap) -> Duration {
    const MOST: u64 = 1 << 31;
    let Some(line) = headers.get(header::AGE) else {
        return Duration::ZERO;
    };
    let first = line.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    let first = first.trim_ascii();
    if first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
        return Duration::ZERO;
    }
    let seconds =
        first.iter().fold(0_u64, |sum, digit| (sum * 10 + u64::from(digit - b'0')).min(MOST));
    Duration::from_secs(seconds)
}

/// Shortens a lifetime by up to `percent`, so that what was stored together does not expire
/// together. `draw` lies in 0..1. Never longer than `lifetime`, whatever the arguments.
pub(super) fn jittered(lifetime: Duration, percent: u32, draw: f64) -> Duration {
    let draw = if draw.is_finite() { draw.clamp(0.0, 1.0) } else { 0.0 };
    let share = f64::from(percent.min(100)) / 100.0 * draw;
    lifetime.mul_f64(1.0 - share).min(lifetime)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn jitter_never_lengthens(seconds in 0_u64..1 << 32, percent: u32, draw: f64) {
            let lifetime = Duration::from_secs(seconds);
            prop_assert!(jittered(lifetime, percent, draw) <= lifetime);
        }

        #[test]
        fn jitter_shortens_by_its_percentage_at_most(seconds in 0_u64..1 << 31, draw in 0.0..1.0) {
            let lifetime = Duration::from_secs(seconds);
            let least = lifetime.mul_f64(0.9).saturating_sub(Duration::from_millis(1));
            prop_assert!(jittered(lifetime, 10, draw) >= least);
        }
    }
}
