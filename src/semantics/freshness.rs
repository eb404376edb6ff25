//! How long a stored response may be reused.
use crate::clock::Now;
use http::HeaderValue;
use std::time::{Duration, SystemTime};

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
    /// Policy's `default_lifetime`.
    Default,
    /// A share of the time since `Last-Modified`.
    Heuristic,
    /// None: asked about each time.
    None,
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
    /// Stale window while refreshing.
    pub stale_while_revalidate: Duration,
    /// Stale window on errors.
    pub stale_if_error: Duration,
    /// Never served stale: `must-revalidate`, `proxy-revalidate` or `s-maxage`.
    pub must_revalidate: bool,
    /// Every use must be confirmed.
    pub no_cache: bool,
    /// May answer requests with `Authorization` (RFC 9111 section 3.5).
    pub authorized: bool,
    /// `ETag` as received.
    pub etag: Option<HeaderValue>,
    /// `Last-Modified`, where it is a date.
    pub last_modified: Option<SystemTime>,
    /// `Date`, or when it arrived.
    pub date: SystemTime,
}
impl Terms {
    /// Current age (RFC 9111 section 4.2.3).
    #[must_use]
    pub fn age(&self, _now: Now) -> Duration {
        todo!()
    }
    /// Whether it is fresh, purges aside.
    #[must_use]
    pub fn is_fresh(&self, _now: Now) -> bool {
        todo!()
    }
    /// Seconds of freshness left, negative when stale.
    #[must_use]
    pub fn ttl(&self, _now: Now) -> i64 {
        todo!()
    }
    /// Whether the origin can be asked to confirm it.
    #[must_use]
    pub fn has_validator(&self) -> bool {
        todo!()
    }
}
