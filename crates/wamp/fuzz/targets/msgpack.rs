//! Any bytes as a frame of `wamp.2.msgpack`.

#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| checks::frame(wamp::Codec::MessagePack, frame));
