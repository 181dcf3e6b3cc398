#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| dodo_ingestion::fuzzing::config(input));
