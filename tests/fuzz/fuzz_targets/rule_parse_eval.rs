//! `rule_parse_eval` under libFuzzer; what it does is in `tocsin_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tocsin_tests::fuzz::run("rule_parse_eval", data));
