//! The client against real routers (the same suite for each) and against a scripted one that misbehaves.

#![allow(clippy::unwrap_used)]

mod component;
mod crossbar;
mod router;
mod scripted;
mod scripted_calls;
mod suite;
mod typed;
