//! Power over the host and the agent itself (`session-and-api.md` 6.9, weakness R60).

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::exit;
use crate::journal::Chain;

/// The unit of the vendor's images.
const UNIT: &str = "reagent";
/// Between the answer and the deed: the answer has to reach the caller first.
const DELAY: Duration = Duration::from_secs(2);
/// What one call of `systemctl` may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Restarts the agent two seconds from now: through systemd when the unit `reagent` runs, else by ending in order so
/// that whoever supervises the process starts it again (a container's restart policy, launchd, another unit). Spawn
/// it and answer; cancelled by `stop`.
pub async fn restart_agent(stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = tokio::time::sleep(DELAY) => {}
    }
    if !unit_runs().await {
        tracing::info!("restarting: the unit {UNIT} does not run here, ending for the supervisor");
        exit::restart(&stop);
        return;
    }
    tracing::info!("restarting through systemd");
    // systemd answers with SIGTERM; waiting for the job would mean waiting for our own end.
    match systemctl(&["--no-block", "restart", UNIT]).await {
        Ok(output) if output.status.success() => {}
        Ok(output) => tracing::error!(
            error = %String::from_utf8_lossy(&output.stderr).trim(),
            status = %output.status,
            "systemd did not restart the agent"
        ),
        Err(error) => tracing::error!(error = %Chain(&error), "systemd did not restart the agent"),
    }
}

/// Whether systemd runs the unit. One that merely exists is not what started us, and restarting it would only start a
/// second agent that the instance lock refuses.
async fn unit_runs() -> bool {
    match systemctl(&["is-active", UNIT]).await {
        // The exit status says less: a unit that is just starting counts as a failure there.
        Ok(output) => matches!(
            output.stdout.trim_ascii(),
            b"active" | b"activating" | b"reloading"
        ),
        Err(_) => false,
    }
}

async fn systemctl(arguments: &[&str]) -> io::Result<Output> {
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(DEADLINE, command.output())
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
