//! Headers of the PROXY protocol: whole, unfinished or malformed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::listener::check::proxy_header(bytes));
