//! What a message is about, and how soon it is to be sent.

use super::queue::Class;
use crate::replication::Message;
use crate::telemetry::Traffic;

/// What it is about, and its class.
pub(super) fn of(message: &Message) -> (Traffic, Class) {
    match message {
        Message::Record { .. } => (Traffic::Record, Class::Eager),
        Message::Acknowledge { .. } => (Traffic::Acknowledge, Class::Eager),
        Message::Applied(_) => (Traffic::Acknowledge, Class::Urgent),
        Message::Ask { .. } | Message::Answer { .. } | Message::Relayed { .. } => {
            (Traffic::Lease, Class::Urgent)
        }
        Message::Beat(_) => (Traffic::Beat, Class::Urgent),
        Message::Compare | Message::Want(_) | Message::Conflict(_) => {
            (Traffic::Repair, Class::Urgent)
        }
        Message::Records(_) | Message::Vector(_) | Message::Beyond(_) => {
            (Traffic::Repair, Class::Bulk)
        }
        Message::Recover(_)
        | Message::Adopt { .. }
        | Message::Begin(_)
        | Message::Joined { .. }
        | Message::Witnesses(_)
        | Message::Hold { .. }
        | Message::Holds { .. } => (Traffic::Witness, Class::Urgent),
    }
}
