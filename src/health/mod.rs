//! What an origin's endpoints are believed to be worth, and how much of it may be used: ejection,
//! back-off, slow start, which tier takes traffic, whether any does, how many retries. Pure: `now` is the boot clock,
//! draws are arguments.

mod backoff;
mod circuit;
mod endpoint;
mod limits;
mod order;
mod retry_budget;

pub use backoff::{backoff, jittered};
pub use circuit::{Admission, Change, Circuit, CircuitRules, CircuitState};
pub use endpoint::{EndpointHealth, HealthRules, Observed, ProbeRules, State};
pub use limits::{Member, Tier, may_eject, usable};
pub use order::Order;
pub use retry_budget::RetryBudget;
