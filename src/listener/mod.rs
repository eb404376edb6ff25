//! The doors for clients: accepts, speaks TLS, HTTP/1.1 and HTTP/2, holds the limits, drains.
//!
//! What a request means is the business of the [`Handler`] that it is given.

mod clients;
mod context;
mod limits;
mod request;

pub use clients::{Clients, TooMany};
pub use context::{Context, Drain, Pressure, PressureGauge};
pub use limits::{Pace, TooSlow};
pub use request::{Client, Handler, Interim, Interims, Request, Response, TlsInfo};
