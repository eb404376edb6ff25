//! Frames of HTTP/2 as the accounts see them: the same however they are cut up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::listener::check::http2_frames(bytes));
