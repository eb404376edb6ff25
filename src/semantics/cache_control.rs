//! Cache-Control.
use http::HeaderMap;
use std::time::Duration;

/// What a request asks of caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` without `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `max-stale`; without value: any.
    pub max_stale: Option<Duration>,
    /// `min-fresh`.
    pub min_fresh: Option<Duration>,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `no-transform`.
    pub no_transform: bool,
}
impl RequestDirectives {
    /// Reads them.
    #[must_use]
    pub fn of(_headers: &HeaderMap) -> Self {
        todo!()
    }
}
