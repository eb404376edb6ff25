//! The doors to origins: names resolved, endpoints chosen and watched, connections kept, requests
//! sent and answers read.

mod error;
mod exchange;
mod origins;
mod status;

pub use error::SendError;
pub use exchange::{Answer, Framing, Outgoing};
pub use origins::{OriginConfigError, Origins, WorkerOrigins};
pub use status::{EndpointStatus, OriginStatus, ServerStatus};
