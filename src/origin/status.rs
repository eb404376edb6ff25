//! What the admin listener shows of origins.

use std::net::SocketAddr;

use serde::Serialize;

use super::memory::Memory;

/// One origin as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct OriginStatus {
    /// Name in the configuration.
    pub name: String,
    /// Requests that hold one of the origin's places.
    pub in_flight: usize,
    /// How many places there are.
    pub places: usize,
    /// Requests that wait for one.
    pub queued: usize,
    /// Whether at least one endpoint is believed to be well and requests go.
    pub healthy: bool,
    /// Whether so few endpoints look well that all are used.
    pub panic: bool,
    /// `closed`: requests go; `open`: no endpoint answers, and requests are refused at once;
    /// `recovering`: more and more go again.
    pub circuit: &'static str,
    /// Its servers, as configured.
    pub servers: Vec<ServerStatus>,
    /// Every address that is in use.
    pub endpoints: Vec<EndpointStatus>,
    /// Addresses that are not in use now and are under an operator's order.
    pub absent: Vec<AbsentStatus>,
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
    /// `up`, `ejected`, `probation`, `down` by its probes or an operator, `drain` by an operator.
    pub state: &'static str,
    /// What an operator has said: `auto`, `drain` or `down`.
    pub order: &'static str,
    /// Part of its share that it takes while it takes up its load, from 0.1 to 1.
    pub share: f64,
    /// Requests under way, their answers' bodies included.
    pub in_flight: u32,
    /// Peak-sensitive moving average of the time to the first byte; none before the first answer.
    pub ewma_ms: Option<f64>,
    /// Why the newest request or probe failed, if it did since the last success.
    pub last_error: Option<String>,
}

/// An address that is not in use now, and what an operator has said of it.
#[derive(Clone, Debug, Serialize)]
pub struct AbsentStatus {
    /// Where it was.
    pub address: SocketAddr,
    /// Position of its server in the origin's list.
    pub server: usize,
    /// `drain` or `down`.
    pub order: &'static str,
}

impl AbsentStatus {
    pub(super) fn all(memory: &Memory) -> Vec<Self> {
        let told = |(server, address, order): (usize, SocketAddr, crate::health::Order)| Self {
            address,
            server,
            order: order.label(),
        };
        memory.ordered().into_iter().map(told).collect()
    }
}
