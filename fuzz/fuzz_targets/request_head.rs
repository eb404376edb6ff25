//! Request heads from clients: any bytes, the same outcome however they are cut up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::http1::check::request_head(bytes));
