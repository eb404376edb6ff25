//! What HTTP messages mean to a shared cache (RFC 9110, 9111): pure decisions over values.
//!
//! No socket, no clock, no lock, no dice: `now` and draws are arguments.

mod policy;

pub use policy::{Policy, REGISTERED_METHODS, WithoutLease};
