//! Connections over a pipe in memory, with a handler that plays the part its path names.

mod answers;
mod bodies;
mod slow;
mod support;
mod waiting;
