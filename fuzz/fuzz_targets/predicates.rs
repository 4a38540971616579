#![no_main]

libfuzzer_sys::fuzz_target!(init: deltashare_fuzz::begin(), |input: &[u8]| deltashare_fuzz::predicates(input));
