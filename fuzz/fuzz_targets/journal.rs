//! libFuzzer on [`taskset_guardian_fuzz::journal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taskset_guardian_fuzz::journal(data));
