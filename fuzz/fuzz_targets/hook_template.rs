//! Templates of hooks with events from strangers: bounded, and a value stays a value.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::hooks::check::template(bytes));
