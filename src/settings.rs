//! Validated settings: flags, derived paths, limits. Only these travel through the agent.

use std::path::PathBuf;
use std::time::Duration;

/// What the command line decided (`session-and-api.md` 1.3), validated.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: PathBuf,
    pub agent_dir: PathBuf,
    pub apps_dir: PathBuf,
    pub database: PathBuf,
    pub log_file: PathBuf,
    pub compressed_build_extension: String,
    pub debug: bool,
    pub debug_messaging: bool,
    pub pretty_logging: bool,
    pub offline: bool,
    pub network_manager: bool,
    pub update: bool,
    /// Empty when not given.
    pub environment: String,
    pub remote_update_url: String,
    /// Zero: no bound.
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    /// Zero: no pings.
    pub ping_interval: Duration,
}
