//! Range: what is answered lies within the body and does not overlap.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::semantics::check::range(bytes));
