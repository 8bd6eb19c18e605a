//! libFuzzer on [`taskset_guardian_fuzz::table`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taskset_guardian_fuzz::table(data));
