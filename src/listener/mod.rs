//! The doors for clients: accepts, speaks TLS, HTTP/1.1 and HTTP/2, holds the limits, drains.
//!
//! What a request means is the business of the [`Handler`] that it is given.

mod accept;
mod certificates;
pub mod check;
mod clients;
mod connection;
mod context;
mod http1;
mod http2;
mod inherited;
mod limits;
mod lingering;
mod proxy_protocol;
mod request;
mod socket;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod thinning;
mod timer;
mod tls;
mod tunnel;
mod x509;

pub use accept::{BindError, WorkerSockets, bind, bind_alone, bind_beside, run};
pub use certificates::{
    CertificateError, CertificateProblem, CertificateStatus, Certificates, SelfMade,
};
pub use clients::{Clients, TooMany, most_connections};
pub use context::{Context, Drain, Pressure, PressureGauge, Terms};
pub use inherited::{Inherited, OpenSocket, Purpose};
pub use limits::{Pace, TooSlow};
pub use lingering::{Lingerer, Lingering};
pub use request::{Client, Handler, Interim, Interims, Request, Response, TlsInfo};
pub use thinning::{Thinner, Thinning};
pub use tls::TlsAcceptorState;
pub use tunnel::{Far, Tunnel, Upgrade};
