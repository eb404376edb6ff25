//! Bodies of questions and of orders to warm up: read within bounds or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::admin::check::other_body(bytes));
