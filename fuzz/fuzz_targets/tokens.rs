//! Tokens of clients, see `fuzzing::tokens`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::tokens(data));
