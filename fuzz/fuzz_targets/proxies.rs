//! What proxies say, see `fuzzing::proxies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::proxies(data));
