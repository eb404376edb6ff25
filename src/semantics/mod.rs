//! What HTTP messages mean to a shared cache (RFC 9110, 9111): pure decisions over values.
//!
//! No socket, no clock, no lock, no dice: `now` and draws are arguments.

mod cache_control;
mod cache_status;
mod conditional;
mod date;
mod decide;
#[cfg(test)]
mod differential;
mod freshness;
mod key;
mod normalise;
mod policy;
#[cfg(test)]
mod properties;
mod range;
mod shape;
mod storable;
mod tags;
#[cfg(test)]
mod test_support;
mod vary;

pub use cache_control::RequestDirectives;
pub use cache_status::{CacheStatus, Forward, Outcome, ttl};
pub use conditional::{HeadVerdict, conditions, confirms, freshened, judge_head, unconditional};
pub use decide::{Decision, Verdict, decide, lookup_allowed, may_serve_on_error};
pub use freshness::{FreshnessSource, Terms};
pub use key::{CacheKey, KeySecret};
pub use normalise::{Request, Target, canonical_authority, canonical_target, normalise};
pub use policy::{Policy, REGISTERED_METHODS, WithoutLease};
pub use shape::{Part, Shape, shape, stored_fields};
pub use storable::{NotStored, storable};
pub use tags::{TAG_FIELDS, TagLimits, invalidated_groups, tags};
pub use vary::VaryFields;
