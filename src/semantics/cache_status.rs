//! How the cache handled a request, in the words of RFC 9211: one value from which the
//! `Cache-Status` field, the access log and the metric label come.

use std::time::Duration;

/// Why a request went forward to the origin (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Policy or an earlier answer says that it is not handled from the store.
    Bypass,
    /// The method is not answered from the store.
    Method,
    /// Nothing is stored under the key.
    UriMiss,
    /// Responses are stored under the key, none that this request selects.
    VaryMiss,
    /// Nothing usable is stored, and it is not known which of the two it is.
    Miss,
    /// The request asked for the origin's word and policy obeys.
    Request,
    /// What is stored is stale.
    Stale,
    /// Part of what was asked for is stored.
    Partial,
}

impl Forward {
    /// Whether the store was looked at before.
    #[must_use]
    pub fn has_looked(self) -> bool {
        !matches!(self, Self::Bypass | Self::Method)
    }

    /// The reason as RFC 9211 spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// How the cache handled one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Answered from the store.
    pub hit: bool,
    /// Why it went to the origin, where it did.
    pub forward: Option<Forward>,
    /// Status of the origin's answer, where it differs from ours.
    pub forward_status: Option<u16>,
    /// Remaining freshness in seconds; negative when stale.
    pub ttl: Option<i64>,
    /// The origin's answer was stored.
    pub stored: bool,
    /// Answered by joining another request's fill.
    pub collapsed: bool,
    /// One more word, such as `no-freshness`.
    pub detail: Option<&'static str>,
}

/// Coarse outcome for metric and log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// From memory, fresh.
    Hit,
    /// From memory, stale.
    Stale,
    /// From memory after the origin confirmed it.
    Revalidated,
    /// By joining another request's fill.
    Collapsed,
    /// By a fill.
    Miss,
    /// Streamed through, never to be stored.
    Pass,
    /// Refused, or answered by an error of ours.
    #[default]
    Refused,
}

impl Outcome {
    /// Every outcome, for metrics that want a row each.
    pub const ALL: [Self; 7] = [
        Self::Hit,
        Self::Stale,
        Self::Revalidated,
        Self::Collapsed,
        Self::Miss,
        Self::Pass,
        Self::Refused,
    ];

    /// Word for logs and metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Pass => "pass",
            Self::Refused => "refused",
        }
    }
}

impl CacheStatus {
    /// A hit with `ttl` seconds of freshness left.
    #[must_use]
    pub fn hit(ttl: i64) -> Self {
        Self { hit: true, ttl: Some(ttl), ..Self::default() }
    }

    /// A request that went forward.
    #[must_use]
    pub fn forward(why: Forward) -> Self {
        Self { forward: Some(why), ..Self::default() }
    }

    /// The field's value: a list member that begins with our identifier. `key` is added on
    /// request only.
    #[must_use]
    pub fn value(&self, key: Option<&str>) -> String {
        let mut out = String::with_capacity(48);
        self.write(key, &mut out);
        out
    }

    /// Appends the same.
    pub fn write(&self, key: Option<&str>, out: &mut String) {
        out.push_str("atoll");
        if self.hit {
            out.push_str("; hit");
        }
        if let Some(why) = self.forward {
            out.push_str("; fwd=");
            out.push_str(why.as_str());
        }
        if let Some(status) = self.forward_status {
            out.push_str("; fwd-status=");
            out.push_str(itoa::Buffer::new().format(status));
        }
        if let Some(ttl) = self.ttl {
            out.push_str("; ttl=");
            out.push_str(itoa::Buffer::new().format(ttl));
        }
        if self.stored {
            out.push_str("; stored");
        }
        if self.collapsed {
            out.push_str("; collapsed");
        }
        if let Some(key) = key {
            out.push_str("; key=");
            sfv_string(key, out);
        }
        if let Some(detail) = self.detail {
            out.push_str("; detail=");
            out.push_str(detail);
        }
    }
}

/// Appends a text as a string of structured fields (RFC 9651 section 3.3.3), without what that
/// cannot hold.
pub(super) fn sfv_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

/// Whole seconds of `lifetime` left at `age`, negative when over.
#[must_use]
pub fn ttl(lifetime: Duration, age: Duration) -> i64 {
    let whole = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    if lifetime >= age { whole(lifetime - age) } else { -whole(age - lifetime) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_a_structured_field_list_member() {
        let rows = [
            (CacheStatus::hit(42), "atoll; hit; ttl=42"),
            (
                CacheStatus { stored: true, ..CacheStatus::forward(Forward::UriMiss) },
                "atoll; fwd=uri-miss; stored",
            ),
            (
                CacheStatus {
                    detail: Some("no-freshness"),
                    ..CacheStatus::forward(Forward::UriMiss)
                },
                "atoll; fwd=uri-miss; detail=no-freshness",
            ),
        ];
        for (status, expected) in rows {
            assert_eq!(status.value(None), expected);
        }
        assert_eq!(CacheStatus::hit(1).value(Some("a\"b\\")), r#"atoll; hit; ttl=1; key="a\"b\\""#);
    }

    #[test]
    fn ttl_counts_below_zero() {
        assert_eq!(ttl(Duration::from_secs(5), Duration::from_secs(8)), -3);
    }
}
