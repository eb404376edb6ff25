//! What takes all policies together.

mod simulation;
