//! The mesh: this node among others. Links carry what nodes say to one another, the protocol core
//! (`replication`) says what that means, and the node here does what the core asks for: it applies
//! purges, publishes the lease, and keeps the log on disk.

mod handle;

pub use handle::{
    Busy, DiskView, Issued, LeaseView, LinkState, MeshView, NodeReceipt, NodeView, ReceiptState,
    ReceiptView, SourceView, Until, Waited, WitnessView,
};
