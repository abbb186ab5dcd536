//! `receive_request` under libFuzzer; what it does is in `tocsin_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tocsin_tests::fuzz::run("receive_request", data));
