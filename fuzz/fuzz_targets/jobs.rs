//! Job records, see `fuzzing::jobs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::jobs(data));
