//! Vary: few names, and one name among the variants for one request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::semantics::check::vary(bytes));
