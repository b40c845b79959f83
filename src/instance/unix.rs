//! The lock file of the contract.
//!
//! It lies in a directory where everybody may write (weakness R34). It is therefore never created through somebody
//! else's link, another user's file is as good as our own (it is only read), and root holds a second lock where only
//! root can write: it stays valid when a cleaner removes the first file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags};

use super::LockError;

/// How to stop an agent that is a service.
pub(super) const STOP: &str = "systemctl stop reagent";
/// The lock that both implementations take.
const SHARED_LOCK: &str = "/tmp/ironflock-reagent.lock";
/// The second lock, taken by root only.
const ROOT_LOCK: &str = "/run/ironflock-reagent.lock";
/// Attempts while the file is replaced under us; more is somebody's game.
const ATTEMPTS: usize = 100;

/// What is held.
pub(super) type Held = Vec<File>;

/// Takes the lock that `path` names.
pub(super) fn file(path: &Path) -> Result<Held, LockError> {
    Ok(vec![lock(path)?])
}

/// Takes the lock of this machine.
pub(super) fn machine() -> Result<Held, LockError> {
    let mut files = vec![lock(Path::new(SHARED_LOCK))?];
    if rustix::process::geteuid().is_root() {
        match lock(Path::new(ROOT_LOCK)) {
            Ok(file) => files.push(file),
            Err(LockError::Taken) => return Err(LockError::Taken),
            // No such directory, or a read-only one: the first lock is what the contract asks for.
            Err(LockError::Unusable { .. } | LockError::Restless { .. }) => {}
        }
    }
    Ok(files)
}

fn lock(path: &Path) -> Result<File, LockError> {
    let unusable = |source| LockError::Unusable {
        path: path.to_path_buf(),
        source,
    };
    for _ in 0..ATTEMPTS {
        let file = match open(path) {
            Ok(file) => file,
            // Created by another process between our two attempts.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(unusable(error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LockError::Taken),
            Err(error) => return Err(unusable(error.into())),
        }
        // Locked, but is it still the file that the next one would open?
        let ours = file.metadata().map_err(unusable)?;
        if fs::metadata(path).is_ok_and(|named| named.dev() == ours.dev() && named.ino() == ours.ino()) {
            return Ok(file);
        }
    }
    Err(LockError::Restless {
        path: path.to_path_buf(),
    })
}

/// Opens for reading; creates only what is not there at all. Creating through `O_CREAT` alone would follow links, and
/// fails even for root when another user owns the file (`fs.protected_regular`). A pipe of that name must not block.
fn open(path: &Path) -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let existing = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    match existing {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::from_raw_mode(0o644))?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::wait;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    #[test]
    fn a_second_instance_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777 & !0o044, 0o600);
        let refused = lock(&path).unwrap_err();
        assert!(matches!(refused, LockError::Taken), "{refused:?}");
        assert_eq!(
            refused.to_string(),
            "another reagent instance is already running on this machine \
             (if it runs as a service, stop it with: systemctl stop reagent)"
        );
        drop(first);
        lock(&path).unwrap();
    }

    #[test]
    fn an_instance_that_is_ending_is_waited_for_but_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let mut first = Some(lock(&path).unwrap());
        let mut looks = 0;
        let ends_soon = || {
            looks += 1;
            if looks == 3 {
                first.take();
            }
            false
        };
        let second = wait(Duration::from_secs(60), ends_soon, || lock(&path)).unwrap();
        let stays = wait(Duration::from_millis(1), || false, || lock(&path));
        assert!(matches!(stays, Err(LockError::Taken)));
        let stopped = wait(Duration::from_secs(60), || true, || lock(&path));
        assert!(matches!(stopped, Err(LockError::Taken)));
        drop(second);
    }

    #[test]
    fn a_file_that_another_user_made_read_only_is_locked_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        fs::write(&path, "somebody").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        let _held = lock(&path).unwrap();
        assert!(matches!(lock(&path), Err(LockError::Taken)));
        assert_eq!(fs::read(&path).unwrap(), b"somebody");
    }

    #[test]
    fn nothing_is_created_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        let path = directory.path().join("lock");
        symlink(&victim, &path).unwrap();
        lock(&path).unwrap_err();
        assert!(!victim.exists());
    }

    #[test]
    fn a_pipe_in_place_of_the_file_does_not_block_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let _held = lock(&path).unwrap();
    }

    #[test]
    fn a_lock_on_a_removed_file_counts_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let _first = lock(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // This is what the second lock of root is for.
        lock(&path).unwrap();
    }
}
