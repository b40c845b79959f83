//! The directory and its files by their names. Containers run in a virtual machine there, which makes no links that
//! Windows would follow; one that is there all the same is replaced.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Who may look is decided by the directory above (`update-and-system.md` 8.1).
pub(super) fn make_private(_: &Path) -> io::Result<()> {
    Ok(())
}

/// There is nothing to open.
pub(super) fn loosen(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The directory of variables.
#[derive(Debug)]
pub(super) struct Env(PathBuf);

impl Env {
    /// The `env` directory itself, never what a link called `env` points to.
    pub(super) fn open(data: &Path) -> io::Result<Env> {
        let env = data.join("env");
        match fs::symlink_metadata(&env) {
            Ok(found) if found.is_dir() => return Ok(Env(env)),
            Ok(_) => fs::remove_file(&env).or_else(|_| fs::remove_dir(&env))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir(&env)?;
        Ok(Env(env))
    }

    /// Replaces one file through a temporary one. Whether that was needed.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<bool> {
        let path = self.0.join(name);
        let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        if is_file && fs::read(&path).is_ok_and(|found| found == content) {
            return Ok(false);
        }
        if !is_file {
            self.remove(name)?;
        }
        crate::durable::replace(&path, content, 0o644)?;
        Ok(true)
    }

    /// Removes a file. Whether there was one.
    pub(super) fn remove(&self, name: &str) -> io::Result<bool> {
        match fs::remove_file(self.0.join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Each file is durable already.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
