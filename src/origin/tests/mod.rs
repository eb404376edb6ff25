//! The doors to origins against origins that play a script: raw bytes on a loopback socket.

mod again;
mod answers;
mod calls;
mod choice;
mod connections;
mod faults;
mod frames;
mod health;
mod http2;
mod names;
mod support;
mod uploads;
