//! From an event that a content management system tells to what is purged for it.
//!
//! A [`Mapping`] looks at a JSON document and its header fields, and says in the words of a purge
//! request what the event has changed. Whether those words mean anything on this node is for the
//! room that purges to judge, as with every other request.
//!
//! The rule is never to purge more than the event speaks of: a value that is not there leaves its
//! selector out, and a value that would change the meaning of the text around it is refused.

pub mod check;
mod mapping;
mod pointer;
mod template;

pub use mapping::{Condition, Mapping, Place, Wanted, map};
pub use pointer::Pointer;
pub use template::{Kind, Refusal, Template};
