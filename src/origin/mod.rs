//! The doors to origins: names resolved, endpoints chosen and watched, connections kept, requests
//! sent and answers read.

mod error;
mod exchange;

pub use error::SendError;
pub use exchange::{Answer, Framing, Outgoing};
