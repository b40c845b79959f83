//! What agent and studio say to each other: URIs, states, payload types, names, the `.flock` file. No I/O.
//!
//! Wire values are `serde_json` values here; the WAMP layer converts. Everything is read tolerantly (unknown keys,
//! numbers as integer, whole float or decimal text) in [`number`], and only there.

pub mod app;
pub mod credentials;
pub mod flock;
pub mod moment;
pub mod naming;
pub mod number;
pub mod port;
pub mod privilege;
pub mod report;
pub mod request;
pub mod rollout;
pub mod uri;

pub use app::{AppId, AppState, Stage, UpdateStatus};
pub use port::PortRule;
pub use privilege::Privilege;
pub use request::AppRequest;
