//! The doors for clients: accepts, speaks TLS, HTTP/1.1 and HTTP/2, holds the limits, drains.
//!
//! What a request means is the business of the [`Handler`] that it is given.

mod request;

pub use request::{Client, Handler, Interim, Request, Response, TlsInfo};
