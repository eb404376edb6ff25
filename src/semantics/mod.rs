//! What HTTP messages mean to a shared cache (RFC 9110, 9111): pure decisions over values.
//!
//! No socket, no clock, no lock, no dice: `now` and draws are arguments.

mod cache_status;
mod policy;

pub use cache_status::{CacheStatus, Forward, Outcome, ttl};
pub use policy::{Policy, REGISTERED_METHODS, WithoutLease};
