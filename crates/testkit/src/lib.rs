//! Development only: starts the real servers that tests need, and waits on conditions instead of sleeping.
//!
//! Everything started here ends with the value that started it, also when a test panics.

pub mod archive;
pub mod crossbar;
pub mod disk;
pub mod docker;
pub mod fleet;
pub mod forward_proxy;
pub mod gcs;
pub mod process;
pub mod registry;
pub mod release;
pub mod s3;
pub mod static_server;
pub mod wait;
pub mod zone;
