//! Cookie crumbs of HTTP/2: one field with all of them, or a refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::listener::check::cookie_crumbs(bytes));
