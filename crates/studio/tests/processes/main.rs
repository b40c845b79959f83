//! The studio as a process: served, commanded through its command line, and joined by devices over WAMP.

// A failed `unwrap` is how a test fails.
#![allow(clippy::unwrap_used)]

mod commands;
mod compose;
mod crossbar;
mod devices;
mod harness;
mod interruptions;
mod logs;
mod registry;
mod rights;
mod rollouts;
mod secure;
