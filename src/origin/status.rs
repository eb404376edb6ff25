//! What the admin listener shows of origins.

use std::net::SocketAddr;

use serde::Serialize;

/// One origin as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct OriginStatus {
    /// Name in the configuration.
    pub name: String,
    /// Requests that hold one of the origin's places.
    pub in_flight: usize,
    /// Requests that wait for one.
    pub queued: usize,
    /// Whether at least one endpoint is believed to be well.
    pub healthy: bool,
    /// Whether so few endpoints look well that all are used.
    pub panic: bool,
    /// Its servers, as configured.
    pub servers: Vec<ServerStatus>,
    /// Every address that is in use.
    pub endpoints: Vec<EndpointStatus>,
}

/// One server of an origin.
#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    /// As written: scheme, host, port.
    pub url: String,
    /// Share of the load beside its fellows.
    pub weight: u32,
    /// Used only while nothing in the tiers before it is up; 0 is the first.
    pub tier: u32,
    /// Whether it stands in for others: its tier is not the first.
    pub backup: bool,
    /// Where it stands, where the configuration says.
    pub locality: Option<String>,
    /// Seconds since its name was last resolved well; none for literal addresses and before that.
    pub resolved_seconds_ago: Option<f64>,
    /// Why the newest lookup failed, if it did.
    pub dns_error: Option<String>,
}

/// One address of a server.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointStatus {
    /// Where it is.
    pub address: SocketAddr,
    /// Position of its server in the origin's list.
    pub server: usize,
    /// `up`, `ejected`, `probation`, or `down` by its probes.
    pub state: &'static str,
    /// Requests under way, their answers' bodies included.
    pub in_flight: u32,
    /// Peak-sensitive moving average of the time to the first byte; none before the first answer.
    pub ewma_ms: Option<f64>,
    /// Why the newest request or probe failed, if it did since the last success.
    pub last_error: Option<String>,
}
