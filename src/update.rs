//! Self-update of the agent (`update-and-system.md` 1, 9.1 to 9.4).

pub mod bucket;
pub mod check;
pub mod delta;
pub mod disk;
pub mod http;
pub mod manifest;
pub mod state;
pub mod trial;
pub mod version;
