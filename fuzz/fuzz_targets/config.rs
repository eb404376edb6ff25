//! Configuration files: any text is a configuration or problems that a person can read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Err(problems) = atoll::config::load(&text, std::path::Path::new("fuzz.toml")) {
        assert!(problems.has_errors() && !problems.render(false).is_empty());
    }
});
