//! Configuration files, see `fuzzing::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::configuration(data));
