//! As much of atoll as the simulation tries.

#[path = "../../../src/clock.rs"]
pub mod clock;
#[path = "../../../src/replication/mod.rs"]
pub mod replication;
