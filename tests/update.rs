//! Self-update from the outside (`update-and-system.md` 1, 9.1 to 9.4, 9.10): the real agent updates itself from a real
//! bucket to a second build of itself, and returns from every bad one.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[path = "update/aftermath.rs"]
mod aftermath;
#[allow(dead_code, reason = "shared with the stories of the session")]
#[path = "session/backend.rs"]
mod backend;
#[path = "update/bad_builds.rs"]
mod bad_builds;
#[path = "update/builds.rs"]
mod builds;
#[path = "update/container.rs"]
mod container;
#[path = "update/docker.rs"]
mod docker;
#[path = "update/gateway.rs"]
mod gateway;
#[path = "update/good_builds.rs"]
mod good_builds;
#[path = "update/launcher.rs"]
mod launcher;
#[path = "update/manager.rs"]
mod manager;
#[path = "update/outcomes.rs"]
mod outcomes;
#[path = "update/pace.rs"]
mod pace;
#[allow(dead_code, reason = "shared with the stories of the session")]
#[path = "session/plane.rs"]
mod plane;
#[path = "update/power_cut.rs"]
mod power_cut;
#[path = "update/present.rs"]
mod present;
#[path = "update/recording.rs"]
mod recording;
#[path = "update/systemd.rs"]
mod systemd;
#[path = "update/turns.rs"]
mod turns;
#[path = "update/under_manager.rs"]
mod under_manager;

use std::time::Duration;

/// Every wait for something that should happen soon.
const SOON: Duration = Duration::from_secs(90);
