//! Any bytes as a frame of `wamp.2.cbor`.

#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| checks::frame(wamp::Codec::Cbor, frame));
