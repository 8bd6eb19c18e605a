//! libFuzzer on [`taskset_guardian_fuzz::rules`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taskset_guardian_fuzz::rules(data));
