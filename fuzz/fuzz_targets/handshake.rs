//! Opening handshakes, see `fuzzing::handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::handshake(data));
