//! What an origin's endpoints are believed to be worth, and how much of it may be used: ejection,
//! back-off, slow start, which tier takes traffic, how many retries. Pure: `now` is the boot clock,
//! draws are arguments.

mod backoff;
mod endpoint;
mod limits;
mod retry_budget;

pub use backoff::{backoff, jittered};
pub use endpoint::{EndpointHealth, HealthRules, Observed, ProbeRules, State};
pub use limits::{Member, Tier, may_eject, usable};
pub use retry_budget::RetryBudget;
