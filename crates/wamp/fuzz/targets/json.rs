//! Any bytes as a frame of `wamp.2.json`.

#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| checks::frame(wamp::Codec::Json, frame));
