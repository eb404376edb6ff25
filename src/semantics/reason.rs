//! Why a request is handled as it is: one value from which the reason in `Cache-Status` follows
//! and which an explanation spells out.

use crate::semantics::cache_status::Forward;

/// The rule that a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The policy passes everything.
    PolicyPass,
    /// The path means a dot segment to some readers.
    Ambiguous,
    /// The method is not answered from the store.
    Method,
    /// `If-Match` or `If-Unmodified-Since` asks about the origin's current state.
    Precondition,
    /// The request says `no-store` and policy obeys.
    RequestNoStore,
    /// The request has a body.
    Body,
    /// Nothing is stored under the key.
    NothingStored,
    /// Responses are stored under the key, none that this request selects.
    NotSelected,
    /// The request has `Authorization`, and what is stored may not answer such requests.
    Authorization,
    /// Stored and fresh.
    Fresh,
    /// Stale, and the client said `max-stale`.
    StaleAccepted,
    /// Stale, within `stale-while-revalidate`.
    StaleWindow,
    /// This node may have missed a purge.
    NoLease,
    /// The request names a purge that is not in force here.
    Behind,
    /// A purge asked for the origin's word.
    CheckPurged,
    /// It was stored under a policy that said otherwise what may be stored.
    OtherPolicy,
    /// The origin said `no-cache`.
    NoCache,
    /// The request asked for the origin's word and policy obeys.
    RequestDirective,
    /// Its lifetime is over.
    Stale,
    /// A soft purge ended its lifetime.
    SoftPurged,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 20] = [
        Self::PolicyPass,
        Self::Ambiguous,
        Self::Method,
        Self::Precondition,
        Self::RequestNoStore,
        Self::Body,
        Self::NothingStored,
        Self::NotSelected,
        Self::Authorization,
        Self::Fresh,
        Self::StaleAccepted,
        Self::StaleWindow,
        Self::NoLease,
        Self::Behind,
        Self::CheckPurged,
        Self::OtherPolicy,
        Self::NoCache,
        Self::RequestDirective,
        Self::Stale,
        Self::SoftPurged,
    ];

    /// The reason in the words of RFC 9211, for a request that goes to the origin because of it.
    #[must_use]
    pub fn forward(self) -> Forward {
        match self {
            Self::PolicyPass | Self::Ambiguous | Self::Precondition | Self::Body => Forward::Bypass,
            Self::Method => Forward::Method,
            Self::RequestNoStore | Self::RequestDirective => Forward::Request,
            Self::NothingStored => Forward::UriMiss,
            Self::NotSelected => Forward::VaryMiss,
            Self::Authorization | Self::Fresh => Forward::Miss,
            Self::StaleAccepted
            | Self::StaleWindow
            | Self::NoLease
            | Self::Behind
            | Self::CheckPurged
            | Self::OtherPolicy
            | Self::NoCache
            | Self::Stale
            | Self::SoftPurged => Forward::Stale,
        }
    }

    /// Word for programs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::PolicyPass => "policy-pass",
            Self::Ambiguous => "ambiguous-path",
            Self::Method => "method",
            Self::Precondition => "precondition",
            Self::RequestNoStore => "request-no-store",
            Self::Body => "request-body",
            Self::NothingStored => "nothing-stored",
            Self::NotSelected => "not-selected",
            Self::Authorization => "authorization",
            Self::Fresh => "fresh",
            Self::StaleAccepted => "max-stale",
            Self::StaleWindow => "stale-while-revalidate",
            Self::NoLease => "no-lease",
            Self::Behind => "purge-position",
            Self::CheckPurged => "purged-check",
            Self::OtherPolicy => "other-policy",
            Self::NoCache => "no-cache",
            Self::RequestDirective => "request-directive",
            Self::Stale => "stale",
            Self::SoftPurged => "purged-soft",
        }
    }

    /// A sentence for a person.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::PolicyPass => "the rule says `pass`: nothing here is stored",
            Self::Ambiguous => "the path hides a dot segment behind %2F or %5C: never stored",
            Self::Method => "only GET and HEAD are answered from the store",
            Self::Precondition => {
                "If-Match and If-Unmodified-Since ask about the origin's own state"
            }
            Self::RequestNoStore => "the request says `no-store`, and the rule honours that",
            Self::Body => "the request has a body",
            Self::NothingStored => "nothing is stored under this key",
            Self::NotSelected => "what is stored under this key is for other requests (`Vary`)",
            Self::Authorization => {
                "the request has Authorization, and the stored response does not allow sharing"
            }
            Self::Fresh => "a stored response is fresh",
            Self::StaleAccepted => {
                "a stored response is stale, which the request accepts (`max-stale`)"
            }
            Self::StaleWindow => {
                "a stored response is stale, but not for longer than `stale-while-revalidate`"
            }
            Self::NoLease => "this node may have missed a purge",
            Self::Behind => "the request names a purge that is not in force here",
            Self::CheckPurged => "a purge asks for the origin's word before any further use",
            Self::OtherPolicy => {
                "the rule said otherwise when it was stored: the origin is asked before any further use"
            }
            Self::NoCache => "the origin wants to be asked before each use (`no-cache`)",
            Self::RequestDirective => {
                "the request wants a fresher answer (Cache-Control), and the rule honours that"
            }
            Self::Stale => "the stored response is stale, beyond `stale-while-revalidate`",
            Self::SoftPurged => {
                "the stored response is stale by a soft purge, beyond `stale-while-revalidate`"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_words() {
        let words: std::collections::BTreeSet<_> =
            Reason::ALL.iter().flat_map(|reason| [reason.label(), reason.sentence()]).collect();
        assert_eq!(words.len(), 2 * Reason::ALL.len());
    }
}
