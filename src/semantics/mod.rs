//! What HTTP messages mean to a shared cache (RFC 9110, 9111): pure decisions over values.
//!
//! No socket, no clock, no lock, no dice: `now` and draws are arguments.

mod cache_control;
mod cache_status;
mod conditional;
mod decide;
mod freshness;
mod key;
mod normalise;
mod policy;
mod shape;
mod storable;
mod tags;
mod vary;

pub use cache_control::RequestDirectives;
pub use cache_status::{CacheStatus, Forward, Outcome, ttl};
pub use conditional::{conditions, confirms, freshened, unconditional};
pub use decide::{Decision, Verdict, decide, lookup_allowed, may_serve_on_error};
pub use freshness::{FreshnessSource, Terms};
pub use key::{CacheKey, KeySecret};
pub use normalise::{Request, normalise};
pub use policy::{Policy, REGISTERED_METHODS, WithoutLease};
pub use shape::{Part, Shape, shape, stored_fields};
pub use storable::{NotStored, storable};
pub use tags::{TAG_FIELDS, TagLimits, tags};
pub use vary::VaryFields;
