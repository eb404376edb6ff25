//! The doors to origins: names resolved, endpoints chosen and watched, connections kept, requests
//! sent and answers read.
//!
//! ```text
//! origins.rs   all origins; background tasks        send.rs       place, attempts.rs, connection
//! set.rs       one origin: endpoints                roundtrip.rs  request out, final head in
//! place.rs     its places, shared out by turns.rs   upload.rs     the request as it goes, pieces.rs
//! endpoint.rs  one address and what is known of it  download.rs   the answer's body, pace.rs
//! resolve.rs   names: dns.rs asks, kept.rs          race.rs       happy eyeballs; proxy_header.rs
//! services.rs  SRV records; address.rs              connect.rs    TCP and tls.rs;  pool.rs
//! probe.rs     active health, observe.rs passive    memory.rs     what is known of absent addresses
//! breaker.rs   whether the origin is asked at all   transport.rs  one attempt: connection, exchange
//! choose.rs    which of them takes a request
//! ```
//!
//! `http2/` has streams that share a connection. What endpoints are worth and which is chosen is
//! decided below, by `health` and `balance`.

mod address;
mod attempts;
mod breaker;
mod choose;
mod connect;
mod dice;
mod dns;
mod download;
mod endpoint;
mod error;
mod exchange;
mod hedge;
mod http2;
mod kept;
mod lock;
mod memory;
mod observe;
mod origins;
mod pace;
mod patience;
mod pieces;
mod place;
mod pool;
mod prefixed;
mod probe;
mod proxy_header;
mod race;
mod resolve;
mod roundtrip;
mod send;
mod services;
mod set;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod tunnel;
mod turns;
mod upload;

pub use error::SendError;
use exchange::Head;
pub use exchange::{Answer, Framing, Hop, Manner, Outgoing};
pub use origins::{OriginConfigError, Origins, UnknownEndpoint};
pub use send::WorkerOrigins;
pub use status::{AbsentStatus, EndpointStatus, OriginStatus, ServerStatus};
pub use tls::authorities;
pub use tunnel::{OriginStream, Switched, Upgraded, Wanted};
