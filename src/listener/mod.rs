//! The doors for clients: accepts, speaks TLS, HTTP/1.1 and HTTP/2, holds the limits, drains.
//!
//! What a request means is the business of the [`Handler`] that it is given.

mod certificates;
mod clients;
mod context;
mod http1;
mod limits;
mod proxy_protocol;
mod request;
mod tls;
mod x509;

pub use certificates::{
    CertificateError, CertificateProblem, CertificateStatus, Certificates, SelfMade,
};
pub use clients::{Clients, TooMany};
pub use context::{Context, Drain, Pressure, PressureGauge};
pub use limits::{Pace, TooSlow};
pub use request::{Client, Handler, Interim, Interims, Request, Response, TlsInfo};
pub use tls::TlsAcceptorState;
