//! Any text as the file of settings.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = mailstore::settings::Settings::parse(text, std::path::Path::new("/nonexistent"));
});
