//! Host facts and powers: statistics, platform strings (`session-and-api.md` 1.5, 7.2), restarting the agent. Must not
//! know WAMP messages.

pub mod platform;
pub mod power;
mod stats;

pub use stats::HostSampler;
