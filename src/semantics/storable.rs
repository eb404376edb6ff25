//! May a response be stored, and on what terms.
use crate::clock::Now;
use crate::message::ResponseHead;
use crate::semantics::{Policy, Request, Terms};

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// Method whose responses are not stored.
    Method,
    /// Status that is not stored.
    Status,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// Request had `Authorization` and the response does not allow sharing.
    Authorization,
    /// `Set-Cookie`.
    SetCookie,
    /// `Vary: *`.
    VaryAny,
    /// `Vary: Cookie`.
    VaryCookie,
    /// More names in `Vary` than allowed.
    VaryTooMany,
    /// Nothing says how long it is fresh, and it has no validator to ask with.
    NoFreshness,
    /// Partial content.
    Partial,
    /// Too many or too long tags.
    Tags,
    /// Larger than the limit.
    TooLarge,
    /// Its end is only the end of the connection.
    CloseDelimited,
    /// Policy passes.
    Policy,
    /// It broke off.
    Incomplete,
    /// The request asked not to.
    Request,
    /// A purge killed it while it was under way.
    Purged,
}
impl NotStored {
    /// Word for logs, metrics and `detail` of `Cache-Status`.
    #[must_use]
    pub fn label(self) -> &'static str {
        todo!()
    }
    /// Whether other requests under the same key would fare likewise, so that the key is worth
    /// remembering as uncacheable.
    #[must_use]
    pub fn holds_for_key(self) -> bool {
        todo!()
    }
}

/// Judges a response head (RFC 9111 section 3). `jitter_draw` in 0..1.
pub fn storable(
    _request: &Request,
    _head: &ResponseHead,
    _policy: &Policy,
    _requested: Now,
    _received: Now,
    _jitter_draw: f64,
) -> Result<Terms, NotStored> {
    todo!()
}
