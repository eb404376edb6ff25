//! May this response be stored for others, and on what terms (RFC 9111 section 3)?
//!
//! Judged by the response's own words and explicit policy, never by the shape of the URL. What an
//! origin did not allow is not stored; a policy can lend a lifetime to silence, it cannot overrule
//! `private`, `no-store`, `no-cache`, `Set-Cookie` or the rule on `Authorization`.

use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};

use crate::clock::Now;
use crate::message::ResponseHead;
use crate::semantics::cache_control::{ATOLL_CACHE_CONTROL, ResponseDirectives};
use crate::semantics::freshness::{
    FreshnessSource, Terms, heuristically_cacheable, initial_age, is_error, jittered, lifetime,
    single_date,
};
use crate::semantics::normalise::Request;
use crate::semantics::policy::Policy;
use crate::semantics::tags::TAG_FIELDS;

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// Method whose responses are not stored.
    Method,
    /// Status that is not stored, or not understood where that is demanded.
    Status,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// The request had `Authorization` and the response does not allow sharing (section 3.5).
    Authorization,
    /// `Set-Cookie`.
    SetCookie,
    /// `Vary` names everything, or something that differs in each request.
    VaryAny,
    /// `Vary` names `Cookie`.
    VaryCookie,
    /// `Vary` names more fields than allowed.
    VaryTooMany,
    /// Nothing says how long it is fresh.
    NoFreshness,
    /// Must be confirmed on each use and has nothing to confirm it with.
    NoValidator,
    /// Stale on arrival, without validator or stale window.
    Expired,
    /// Partial content, or an answer to a range.
    Partial,
    /// Tags beyond the limits: it could not be purged.
    Tags,
    /// Larger than the limit.
    TooLarge,
    /// Its only end is the end of the connection.
    CloseDelimited,
    /// It broke off.
    Incomplete,
    /// Policy passes, gives its status no lifetime, or the path is ambiguous.
    Policy,
    /// The request asked for it not to be stored.
    Request,
    /// The origin judged the client's own condition: 304 is all that came.
    Condition,
    /// A purge killed it while it was under way.
    Purged,
}

impl NotStored {
    /// Every reason, for metrics that want a row each.
    pub const ALL: [Self; 21] = [
        Self::Method,
        Self::Status,
        Self::NoStore,
        Self::Private,
        Self::Authorization,
        Self::SetCookie,
        Self::VaryAny,
        Self::VaryCookie,
        Self::VaryTooMany,
        Self::NoFreshness,
        Self::NoValidator,
        Self::Expired,
        Self::Partial,
        Self::Tags,
        Self::TooLarge,
        Self::CloseDelimited,
        Self::Incomplete,
        Self::Policy,
        Self::Request,
        Self::Condition,
        Self::Purged,
    ];

    /// Word for logs, metrics and the `detail` of `Cache-Status`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryAny => "vary-any",
            Self::VaryCookie => "vary-cookie",
            Self::VaryTooMany => "vary-too-many",
            Self::NoFreshness => "no-freshness",
            Self::NoValidator => "no-validator",
            Self::Expired => "expired",
            Self::Partial => "partial",
            Self::Tags => "tags",
            Self::TooLarge => "too-large",
            Self::CloseDelimited => "close-delimited",
            Self::Incomplete => "incomplete",
            Self::Policy => "policy",
            Self::Request => "request",
            Self::Condition => "condition",
            Self::Purged => "purged",
        }
    }

    /// Whether the next request for the same key is likely to fare alike, so that the key is worth
    /// remembering as uncacheable. The other reasons lie in this one request or this one moment.
    #[must_use]
    pub fn holds_for_key(self) -> bool {
        match self {
            Self::Status
            | Self::NoStore
            | Self::Private
            | Self::SetCookie
            | Self::VaryAny
            | Self::VaryCookie
            | Self::VaryTooMany
            | Self::NoFreshness
            | Self::NoValidator
            | Self::Expired
            | Self::Tags
            | Self::TooLarge
            | Self::CloseDelimited
            | Self::Policy => true,
            Self::Method
            | Self::Authorization
            | Self::Partial
            | Self::Incomplete
            | Self::Request
            | Self::Condition
            | Self::Purged => false,
        }
    }
}

/// Judges the head of a complete response, as the origin sent it (for a 304: the freshened fields
/// under the stored status). `requested` and `received` enclose the exchange; `jitter_draw` lies
/// in 0..1.
///
/// `Vary`, tags, size and completeness have limits of their own and are judged beside this.
///
/// # Errors
/// The first rule that forbids it.
pub fn storable(
    request: &Request,
    head: &ResponseHead,
    policy: &Policy,
    requested: Now,
    received: Now,
    jitter_draw: f64,
) -> Result<Terms, NotStored> {
    let headers = &head.headers;
    let directives = ResponseDirectives::of(headers);
    judge_request(request, policy)?;
    judge_status(head.status, &directives)?;
    if policy.status_lifetime.of(head.status) == Some(Duration::ZERO) {
        return Err(NotStored::Policy);
    }
    judge_sharing(request, headers, &directives, policy)?;

    let date = single_date(headers, &header::DATE, received.wall).unwrap_or(received.wall);
    // An empty one names nothing.
    let etag = headers.get(header::ETAG).filter(|etag| !etag.is_empty()).cloned();
    let last_modified = single_date(headers, &header::LAST_MODIFIED, received.wall);
    let confirmable = etag.is_some() || last_modified.is_some();
    let found = lifetime(head.status, headers, &directives, policy, date);
    let (lifetime, source) = match found {
        Some(found) => found,
        // Asked about each time: allowed where the origin said so, or where policy guesses anyway, and
        // the status may be stored without a lifetime (section 3).
        None if (heuristically_cacheable(head.status) || directives.public)
            && (directives.no_cache || (policy.heuristic && confirmable)) =>
        {
            (Duration::ZERO, FreshnessSource::None)
        }
        None => return Err(NotStored::NoFreshness),
    };
    let (stale_while_revalidate, stale_if_error) = stale_windows(head.status, &directives, policy);
    let terms = Terms {
        mark: policy.mark,
        received,
        initial_age: initial_age(headers, date, requested, received),
        lifetime,
        fresh_for: jittered(lifetime, policy.jitter_percent, jitter_draw),
        source,
        fetch_time: received.since(requested).max(Duration::from_millis(1)),
        stale_while_revalidate,
        stale_if_error,
        must_revalidate: directives.must_revalidate
            || directives.proxy_revalidate
            || directives.s_maxage.is_some(),
        no_cache: directives.no_cache,
        immutable: directives.immutable,
        authorized: directives.allows_authorized(),
        etag,
        last_modified,
        date,
        has_hidden_fields: headers.contains_key(ATOLL_CACHE_CONTROL)
            || TAG_FIELDS.iter().any(|name| headers.contains_key(*name)),
    };
    judge_usefulness(&terms)?;
    Ok(terms)
}

fn judge_request(request: &Request, policy: &Policy) -> Result<(), NotStored> {
    if policy.pass || request.ambiguous {
        return Err(NotStored::Policy);
    }
    if request.method != Method::GET {
        return Err(NotStored::Method);
    }
    if policy.honour_request_directives && request.directives.no_store {
        return Err(NotStored::Request);
    }
    Ok(())
}

/// Which statuses are stored at all. 304 and 412 answer a condition of this client, 206 and 416
/// its range (a 206 that may be kept as such is judged as the 200 that it is cut from); 428, 429, 431 and 511 must not be stored (RFC 6585).
fn judge_status(status: StatusCode, directives: &ResponseDirectives) -> Result<(), NotStored> {
    match status.as_u16() {
        206 | 416 => Err(NotStored::Partial),
        0..=199 | 304 | 412 | 428 | 429 | 431 | 511 | 600.. => Err(NotStored::Status),
        _ if directives.must_understand && !is_understood(status) => Err(NotStored::Status),
        _ => Ok(()),
    }
}

/// Final statuses whose caching requirements we know: the registered ones.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 207 | 208 | 226 | 300..=303 | 305 | 307 | 308 | 400..=411 | 413..=415 | 417
            | 421..=426 | 451 | 500..=508 | 510
    )
}

fn judge_sharing(
    request: &Request,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> Result<(), NotStored> {
    // `must-understand` is for caches that do not know it; who does may ignore `no-store`
    // (RFC 9111 section 5.2.2.3).
    if directives.no_store && !directives.must_understand {
        return Err(NotStored::NoStore);
    }
    if directives.private {
        return Err(NotStored::Private);
    }
    if request.headers.contains_key(header::AUTHORIZATION) && !directives.allows_authorized() {
        return Err(NotStored::Authorization);
    }
    let cookie = headers.contains_key(header::SET_COOKIE) || headers.contains_key("set-cookie2");
    if cookie && !policy.store_set_cookie && !policy.strip_set_cookie {
        return Err(NotStored::SetCookie);
    }
    Ok(())
}

/// Removes the cookies from a response that is to be stored, where policy says so. The client that
/// brought it must get it without them, too, so that all clients get alike.
pub fn strip_set_cookie(headers: &mut HeaderMap, policy: &Policy) {
    if policy.strip_set_cookie {
        headers.remove(header::SET_COOKIE);
        headers.remove("set-cookie2");
    }
}

/// Stale windows: while refreshing, and on errors (RFC 5861), the origin's own or the policy's.
///
/// `must-revalidate`, `proxy-revalidate` and `no-cache` forbid both. `s-maxage` forbids stale
/// answers, too (RFC 9111 section 5.2.2.10), but origins everywhere write `s-maxage=60,
/// stale-while-revalidate=600` and mean it: it closes the policy's windows, not those that the
/// origin opens beside it. Errors are never served stale.
fn stale_windows(
    status: StatusCode,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> (Duration, Duration) {
    if directives.must_revalidate
        || directives.proxy_revalidate
        || directives.no_cache
        || is_error(status)
    {
        return (Duration::ZERO, Duration::ZERO);
    }
    let window = |own: Option<Duration>, policy: Option<Duration>| {
        let lent = if directives.s_maxage.is_some() { None } else { policy };
        own.or(lent).unwrap_or_default()
    };
    (
        window(directives.stale_while_revalidate, policy.stale_while_revalidate),
        window(directives.stale_if_error, policy.stale_if_error),
    )
}

/// What can never answer anybody is not worth its memory.
fn judge_usefulness(terms: &Terms) -> Result<(), NotStored> {
    if terms.has_validator() {
        return Ok(());
    }
    if terms.no_cache {
        return Err(NotStored::NoValidator);
    }
    let window = terms.stale_while_revalidate.max(terms.stale_if_error);
    if terms.fresh_for.saturating_add(window) <= terms.initial_age {
        return Err(NotStored::Expired);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
