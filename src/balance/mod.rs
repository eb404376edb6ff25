//! Which endpoint of an origin takes the next request. Pure: loads, health and draws are arguments.
//!
//! A policy sees [`Candidate`]s and answers with a position. What holds for every policy stands in
//! `laws`: never an unusable candidate while a usable one is there, and shares as weighted.

#[cfg(test)]
mod laws;
mod p2c;
mod peak_ewma;

pub use p2c::{Candidate, Draws, pick};
pub use peak_ewma::PeakEwma;
