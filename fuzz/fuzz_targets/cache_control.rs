//! Cache-Control and its targeted forms: bounded, and what forbids is heard.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::semantics::check::cache_control(bytes));
