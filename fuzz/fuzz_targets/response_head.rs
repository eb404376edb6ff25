//! Response heads from origins: any bytes, the same outcome however they are cut up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::http1::check::response_head(bytes));
