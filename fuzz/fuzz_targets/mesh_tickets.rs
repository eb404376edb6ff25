//! Keys of session tickets that a node tells: refused, or held within bounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::tickets::check::told(bytes));
