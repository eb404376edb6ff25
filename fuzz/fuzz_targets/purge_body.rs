//! Bodies of purges in every format: read or refused, and URLs have one form.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::admin::check::purge_body(bytes));
