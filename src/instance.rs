//! One agent per machine (`session-and-api.md` 3.2): two would remove each other's containers. The lock excludes the
//! reference product too, so file and kind of lock are the contract's. Must not know what the agent does with it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as platform;
#[cfg(windows)]
use windows as platform;

/// Names another lock file instead of both, for several agents on one machine that share no Docker daemon (tests).
const OVERRIDE: &str = "REAGENT_LOCK_FILE";

/// Held for the life of the process; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    _held: platform::Held,
}

/// Why this process may not run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent holds the lock.
    #[error(
        "another reagent instance is already running on this machine \
         (if it runs as a service, stop it with: {})",
        platform::STOP
    )]
    Taken,
    /// The lock file cannot be opened or locked.
    #[error("cannot lock {path}; remove it if it belongs to nobody")]
    Unusable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is replaced again and again.
    #[error("{path} is being replaced by another program")]
    Restless { path: PathBuf },
}

/// What an agent that is ending gets until it has let go of the lock (1.16); it bounds itself at 10 s.
const PATIENCE: Duration = Duration::from_secs(12);
/// Between looks at a lock that somebody still holds.
const LOOK: Duration = Duration::from_millis(100);

/// The same as [`acquire`], but an agent that is just ending is waited for: starts overlap with ends. Blocks for at most
/// 12 s, and not after `stopped` says so.
pub fn acquire_soon(stopped: impl FnMut() -> bool) -> Result<InstanceLock, LockError> {
    wait(PATIENCE, stopped, acquire)
}

fn wait<T>(
    patience: Duration,
    mut stopped: impl FnMut() -> bool,
    attempt: impl Fn() -> Result<T, LockError>,
) -> Result<T, LockError> {
    let end = Instant::now() + patience;
    loop {
        match attempt() {
            Err(LockError::Taken) if Instant::now() < end && !stopped() => std::thread::sleep(LOOK),
            ended => return ended,
        }
    }
}

/// Takes the lock of this machine; with the environment variable `REAGENT_LOCK_FILE` the one it names.
pub fn acquire() -> Result<InstanceLock, LockError> {
    let held = match std::env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        Some(path) => platform::file(Path::new(&path))?,
        None => platform::machine()?,
    };
    Ok(InstanceLock { _held: held })
}
