//! HTTP/2 to origins, driven directly through h2: streams that share a connection.
//!
//! ```text
//! shelf.rs     which connection has room      session.rs   one connection and its task, wire.rs
//! exchange.rs  one request, to its head       upload.rs    its body as it goes, piece.rs
//! head.rs      heads out and in               download.rs  the answer's body
//! probe.rs     a question by itself
//! ```
//!
//! What the other side says about a request decides whether it may be sent again: a stream refused
//! with `REFUSED_STREAM`, and one beyond the last that a GOAWAY names, was not processed (RFC 9113
//! sections 6.8 and 8.7). Nothing else is such a promise. A stream that is reset, for whatever
//! reason, has not ended cleanly.

mod download;
mod exchange;
mod head;
mod piece;
mod probe;
mod session;
mod shelf;
mod upload;
mod wire;

pub(super) use exchange::{Asked, attempt};
pub(super) use probe::ask_once;
pub(super) use session::Session;
pub(super) use shelf::{Opening, Shelf, Slot, Take};
