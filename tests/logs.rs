//! Logs from the outside (`logs-terminal-tunnel.md` 2): containers that number their lines, real routers, and
//! everything in between that can break.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[path = "logs/daemon.rs"]
mod daemon;
#[path = "logs/flood.rs"]
mod flood;
#[path = "logs/forgotten.rs"]
mod forgotten;
#[path = "logs/killed.rs"]
mod killed;
#[path = "session/plane.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod plane;
#[path = "logs/query.rs"]
mod query;
#[path = "logs/restart.rs"]
mod restart;
#[path = "logs/rig.rs"]
mod rig;
#[path = "logs/rotated.rs"]
mod rotated;
#[path = "logs/several.rs"]
mod several;
#[path = "logs/silent.rs"]
mod silent;
#[path = "logs/story.rs"]
mod story;
#[path = "logs/stuck.rs"]
mod stuck;
#[path = "logs/unbroken.rs"]
mod unbroken;
#[path = "logs/viewer.rs"]
mod viewer;

use std::time::Duration;

/// Every wait for something that should happen soon.
const SOON: Duration = Duration::from_secs(30);
