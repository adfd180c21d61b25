#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| laminar_wal_fuzz_targets::archived_entry(input));
