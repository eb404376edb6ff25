//! What to do with a request.
use crate::clock::Now;
use crate::semantics::{Forward, Policy, Request, Terms};

/// What the purge table says of a stored response (dead ones are never shown).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No purge concerns it.
    Alive,
    /// Stale since then.
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
    /// Ask the origin to confirm what is stored.
    Revalidate(Forward),
    /// Join or start the fill of the key.
    Fill(Forward),
    /// Stream through, share with nobody, leave what is stored alone.
    Pass(Forward),
    /// 504: the client wanted no forwarding.
    OnlyIfCached,
}

/// Judged before any look-up: may the store answer at all?
pub fn lookup_allowed(_request: &Request, _policy: &Policy) -> Result<(), Forward> {
    todo!()
}

/// Judges one request against what was found.
#[must_use]
#[expect(clippy::too_many_arguments, reason = "each is one independent input of the decision")]
pub fn decide(
    _request: &Request,
    _found: Option<(&Terms, Verdict)>,
    _variants_exist: bool,
    _policy: &Policy,
    _lease: bool,
    _now: Now,
    _draw: f64,
) -> Decision {
    todo!()
}

/// Whether a stored response may answer after the origin failed (5xx or no answer).
#[must_use]
pub fn may_serve_on_error(
    _terms: &Terms,
    _verdict: Verdict,
    _policy: &Policy,
    _lease: bool,
    _now: Now,
) -> bool {
    todo!()
}
