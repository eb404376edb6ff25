//! The mesh: what nodes say to one another, over links that prove who speaks.
//!
//! `Links` holds one connection to every other node of the roster: TCP with mutual TLS 1.3 against the
//! mesh's own authority. A peer's name is its certificate's, and nothing is believed that does not come
//! over a link. What the messages mean is decided in `replication`; here they are carried, and
//! may get lost: the protocol repairs.
//!
//! `Mesh` is this node among the others: it owns the protocol core and does what that asks for: it
//! says things, applies purges, publishes the lease, and keeps the log on disk.

mod authority;
pub mod check;
mod core;
mod disk;
mod doors;
mod frame;
mod gossip;
mod greet;
mod handle;
mod hello;
mod link;
mod links;
mod meant;
mod membership;
mod node;
mod overheard;
mod part;
mod payload;
mod peers;
mod queue;
mod reopen;
mod rule;
mod shared;
mod sockets;
mod tickets;
mod tls;
mod traffic;
mod view;

#[cfg(test)]
mod tests;

pub use authority::{AUTHORITY_FILE, AUTHORITY_KEY_FILE, Authority, Issued as IssuedCertificate};
pub use core::Surroundings;
pub use handle::{
    Busy, CanaryNodeView, CanaryView, DiskView, Issued, LeaseView, LinkState, MeshView,
    NodeReceipt, NodeView, ReceiptState, ReceiptView, SourceView, Until, Waited, WitnessView,
};
pub use links::{Heard, LinkIdentity, Links, MeshError};
pub use meant::{Local, Localise};
pub use node::Mesh;
pub use peers::{LinkState as PeerState, MemberState, PeerView};
pub use sockets::listen;
