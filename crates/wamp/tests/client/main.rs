//! The client against real routers (the same suite for each) and against a scripted one that misbehaves.
//!
//! Tests that show a rule of `wamp-interop.md` 1 or a case of 5.6 have its number in their names: `rule_NN_`, `c_NN_`.
//! `c_14_`, `c_22_` and `c_24_` are also functions of the suite, which every router goes through. Elsewhere: `c_17_` in
//! `tests/transport.rs`, `c_26_` in `tests/tls.rs`, `rule_24_` in `src/transport/dial.rs`.

#![allow(clippy::unwrap_used)]

mod component;
mod crossbar;
mod parts;
mod router;
mod rules;
mod scripted;
mod scripted_calls;
mod suite;
mod typed;
