//! Frames of the mesh: refused, or the same when written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::replication::check::frame(bytes));
