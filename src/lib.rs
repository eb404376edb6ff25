//! atoll: a CDN edge. A caching reverse proxy that answers from memory, fills from origins it
//! watches, and kills what a purge names at once.
//!
//! The rooms stand on floors and import downwards only; `docs/architecture.md` draws the house.
//!
//! ```text
//! 6 roof     cli  app
//! 5 service  proxy  admin  canary
//! 4 doors    listener  origin  mesh
//! 3 state    store  guard  audit  tickets
//! 2 basics   config  telemetry  clock
//! 1 ground   message  http1  semantics  purge  replication  route  balance  health  hooks
//! ```

pub mod admin;
pub mod app;
pub mod audit;
pub mod balance;
pub mod canary;
pub mod cli;
pub mod clock;
pub mod config;
pub mod guard;
pub mod health;
pub mod hooks;
pub mod http1;
pub mod listener;
pub mod mesh;
pub mod message;
pub mod origin;
pub mod proxy;
pub mod purge;
pub mod replication;
pub mod route;
pub mod semantics;
pub mod store;
pub mod telemetry;
pub mod tickets;
