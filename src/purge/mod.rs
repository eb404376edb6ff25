//! Invalidation by epoch instead of by index.
//!
//! A purge does not look for what it kills. It writes one row per selector, stamped with the next
//! epoch, and a stored response that was asked for before that epoch finds the row when it is next
//! used. So a purge costs the same whether it hits nothing or ten million responses, and a fill
//! that was under way when it came is dead on arrival.
//!
//! ```text
//! epoch     ... 41      42      43      44
//! rows            tag:a hard     url:/x soft
//! response  born 41 ------------X dead at 42        born 43 ------> soft since 43's moment?
//! ```
//!
//! A row counts against a response when it is newer than the response's `born`, the epoch read
//! before its request to the origin was sent.

mod glob;
mod ready;
mod recent;
mod rows;
mod selector;
mod table;

pub use glob::{Glob, GlobError};
pub use ready::ReadyHasher;
pub use recent::RecentUrls;
pub use rows::{Bearer, PREFIX_DEPTH, Place, RowKey, Secret, Selectors};
pub use selector::{Selector, Strength};
pub use table::{Found, Row, Table};
