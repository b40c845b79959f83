//! Any messages from several sessions, through the router's receive path.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| wamp::router::fuzzed::play(script));
