//! Sitemaps of origins, as XML, text or gzip: read within bounds or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::admin::check::sitemap(bytes));
