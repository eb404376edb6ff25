//! Measures: metrics that are handed in as fields, the access log, the process log, trace context.
//!
//! A request pays for its own measuring with a few relaxed additions and two uncontended locks:
//! label children are resolved when the metrics are made, counters that every worker touches are
//! striped, and the access log formats and writes on a thread of its own.

mod access_log;
mod breaker;
mod canary;
mod codings;
mod collect;
mod file;
mod format;
mod hottest;
mod leases;
mod links;
mod log;
mod mesh;
mod metrics;
mod node;
mod process;
mod record;
mod sites;
mod strain;
mod stripes;
mod tickets;
mod trace;

pub use access_log::{AccessLog, Recorder};
pub use breaker::{BreakerMetrics, Refused};
pub use canary::{CanaryMetrics, CanaryOutcome};
pub use codings::{CodingMetrics, CodingOutcome};
pub use format::rfc3339;
pub use hottest::{Hot, Hottest, Load, Weight};
pub use leases::{LeaseMetrics, Position};
pub use links::{LinkClosed, LinkMetrics, LinkRefused, Traffic};
pub use log::{LogError, ProcessLog, init_log};
pub use mesh::MeshMetrics;
pub use metrics::{DoorMetrics, LogMetrics, Metrics, OriginMetrics, StoreMetrics};
pub use node::NodeMetrics;
pub use record::{Record, Tagged};
pub use sites::SiteMetrics;
pub use strain::{Glitch, StrainMetrics};
pub use stripes::Counter;
pub use tickets::TicketMetrics;
pub use trace::{RequestId, RequestIds, TraceParent};

#[cfg(test)]
pub(crate) use metrics::tests::config as test_config;
