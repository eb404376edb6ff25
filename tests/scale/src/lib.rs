//! The mesh at scale: as much of atoll as it takes, and a world around it.

#[path = "../../../src/clock.rs"]
pub mod clock;
#[path = "../../../src/replication/mod.rs"]
pub mod replication;

pub mod catch_up;
mod cities;
mod dice;
pub mod figures;
pub mod paths;
pub mod plot;
pub mod report;
mod tally;
pub mod vectors;
mod world;
