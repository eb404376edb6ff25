//! What is counted of the keys of session tickets that nodes share.

use prometheus::{IntCounter, IntGauge};

use super::collect::Shelf;

/// Counts of the keys of session tickets.
#[derive(Debug)]
pub struct TicketMetrics {
    /// Keys by which tickets can be opened now.
    pub keys: IntGauge,
    /// Keys that were made here for all nodes.
    pub made: IntCounter,
    /// Keys that other nodes have told.
    pub taken: IntCounter,
    /// Keys that were told and not taken.
    pub refused: IntCounter,
}

impl TicketMetrics {
    pub(super) fn new(shelf: &Shelf<'_>) -> Self {
        Self {
            keys: shelf.gauge(
                "atoll_tls_ticket_keys",
                "Keys by which session tickets can be opened, in a mesh.",
            ),
            made: shelf.counter(
                "atoll_tls_ticket_keys_made_total",
                "Keys of session tickets that this node made for the mesh.",
            ),
            taken: shelf.counter(
                "atoll_tls_ticket_keys_taken_total",
                "Keys of session tickets that other nodes have told.",
            ),
            refused: shelf.counter(
                "atoll_tls_ticket_keys_refused_total",
                "Keys of session tickets that were told and not taken.",
            ),
        }
    }
}
