//! The named mutex of the contract, which excludes the reference product too (3.2).

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use win32::{Job, NamedMutex};

use super::LockError;

/// How to stop an agent that is a service.
pub(super) const STOP: &str = "reagent service stop";
/// The mutex of the machine, in whatever session a process runs.
const MUTEX: &str = r"Global\ironflock-reagent";

/// What is held.
#[derive(Debug)]
pub(super) enum Held {
    File { _file: File },
    Mutex { _mutex: NamedMutex },
}

/// Takes the lock that `path` names.
pub(super) fn file(path: &Path) -> Result<Held, LockError> {
    let unusable = |source| LockError::Unusable {
        path: path.to_path_buf(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            contain_children();
            Ok(Held::File { _file: file })
        }
        Err(TryLockError::WouldBlock) => Err(LockError::Taken),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// All that this process starts ends with it, however it ends (8.1). Without a job, which very old systems refuse inside
/// another one, children may stay.
fn contain_children() {
    /// Closed by the system when the process has ended: whoever closes it earlier ends the process.
    static JOB: OnceLock<Option<Job>> = OnceLock::new();
    JOB.get_or_init(|| Job::of_this_process().ok());
}

/// Takes the lock of this machine.
pub(super) fn machine() -> Result<Held, LockError> {
    match NamedMutex::create(MUTEX) {
        Ok(Some(mutex)) => {
            contain_children();
            Ok(Held::Mutex { _mutex: mutex })
        }
        Ok(None) => Err(LockError::Taken),
        // Made by an agent with more rights, as a rule the service.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(LockError::Taken),
        Err(source) => Err(LockError::Unusable {
            path: PathBuf::from(MUTEX),
            source,
        }),
    }
}
