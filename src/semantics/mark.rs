//! By what a stored response is known to be of another policy than the one in force.
//!
//! A configuration may change while responses are stored. Nothing is lost by that: what is stored is
//! what the origin sent, and it is judged anew by the policy of the request that finds it.
//!
//! - Where the policy says otherwise **what may be stored, or what was asked for** (cookies, the key,
//!   rewrites and fields of the request), a response that was kept under the old one must be confirmed by
//!   the origin before any further use, and is then judged like one that arrives.
//! - Where it says otherwise **how long** a response lasts, its terms are reckoned anew from its head.
//!
//! Two policies that say the same have the same mark, so a reload that changes something else costs
//! nothing.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::semantics::policy::Policy;
use crate::semantics::rules::Rules;

/// What of a policy bears on what is stored under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// What may be stored, and what is asked for.
    pub sharing: u32,
    /// How long it lasts.
    pub lasting: u32,
}

impl Mark {
    /// That of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let none = Rules::default();
        let rules = policy.rules.as_deref().unwrap_or(&none);
        let asked = (&rules.rewrite, &rules.request_fields, rules.forwarded);
        let sharing = (
            (policy.store_set_cookie, policy.strip_set_cookie, policy.vary_on_cookie),
            (&policy.key, asked),
        );
        let lasting = (
            (policy.lifetime, policy.default_lifetime, policy.heuristic),
            (policy.stale_while_revalidate, policy.stale_if_error, policy.error_lifetime),
            (&policy.status_lifetime, policy.jitter_percent),
        );
        Self { sharing: hash(&sharing), lasting: hash(&lasting) }
    }
}

/// Written out, two values are alike exactly where they say the same.
fn hash(value: &impl std::fmt::Debug) -> u32 {
    let mut hasher = DefaultHasher::new();
    format!("{value:?}").hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_mark_changes_with_what_it_stands_for_and_with_nothing_else() {
        let plain = Mark::of(&Policy::default());
        let of = |change: fn(&mut Policy)| {
            let mut policy = Policy::default();
            change(&mut policy);
            let mark = Mark::of(&policy);
            (mark.sharing != plain.sharing, mark.lasting != plain.lasting)
        };
        assert_eq!(of(|policy| policy.store_set_cookie = true), (true, false));
        assert_eq!(of(|policy| policy.vary_on_cookie = true), (true, false));
        assert_eq!(of(|policy| policy.default_lifetime = Some(Duration::ZERO)), (false, true));
        assert_eq!(of(|policy| policy.stale_if_error = Some(Duration::ZERO)), (false, true));
        assert_eq!(of(|policy| policy.body_bytes = 1), (false, false));
        assert_eq!(of(|policy| policy.rules = Some(Rules::default().into())), (false, false));
    }
}
