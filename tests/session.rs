//! The agent's session from the outside (`session-and-api.md` 4 to 7): the real agent, a real router, and a backend
//! that answers what the test wants.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[path = "session/at_crossbar.rs"]
mod at_crossbar;
#[path = "session/backend.rs"]
mod backend;
#[path = "session/callers.rs"]
mod callers;
#[path = "session/connect.rs"]
mod connect;
#[path = "session/device.rs"]
mod device;
#[path = "session/lifetime.rs"]
mod lifetime;
#[path = "session/load.rs"]
mod load;
#[path = "session/nonsense.rs"]
mod nonsense;
#[path = "session/plane.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod plane;
#[path = "session/procedures.rs"]
mod procedures;
#[path = "session/process.rs"]
mod process;
#[path = "session/reports.rs"]
mod reports;
#[path = "session/rude.rs"]
mod rude;
#[path = "session/tap.rs"]
mod tap;

use std::time::Duration;

/// Every wait for something that should happen soon.
const SOON: Duration = Duration::from_secs(20);
