//! How HTTP messages travel between the rooms: heads that have been parsed, bodies that may still
//! be arriving, and the reasons for refusing one.
//!
//! Every HTTP version ends in these types; nothing above the doors knows which one it was.

mod added;
mod body;
mod fields;
mod head;
mod refusal;

pub use added::Added;
pub use body::{Blocks, Body, BodyError};
pub use fields::Fields;
pub use head::{RequestHead, ResponseHead, Scheme};
pub use refusal::Refusal;
