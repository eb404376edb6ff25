//! No-Vary-Search with a query.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::semantics::check::no_vary_search(bytes));
