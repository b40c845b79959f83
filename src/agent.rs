//! Composition: builds the parts, start-up order, shutdown order with a deadline.

use tokio_util::sync::CancellationToken;

use crate::flock::DeviceFile;
use crate::settings::Settings;

/// Why the agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Asked to; everything is closed.
    Clean,
    /// It cannot go on; the text is for the operator.
    Failure(String),
}

/// Runs until `stop` is cancelled or nothing can be done any more.
pub async fn run(_settings: Settings, _device: DeviceFile, stop: CancellationToken) -> Exit {
    stop.cancelled().await;
    Exit::Clean
}
