//! Targets, hosts and fields of requests: one canonical form and one key.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::semantics::check::canonical_request(bytes));
