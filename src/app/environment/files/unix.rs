//! The directory and its files by their descriptors: what the container does to names on the way leads nowhere else.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self as sys, AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Lets nobody else into `directory`.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    let directory = File::open(directory)?;
    let private = Mode::RWXU;
    if Mode::from_raw_mode(sys::fstat(&directory)?.st_mode) != private {
        sys::fchmod(&directory, private)?;
    }
    Ok(())
}

/// The reference makes data directory and `env` so that only root gets in (W49). It is opened once: `env` is readable
/// afterwards, and what an app does with the modes of its data later is its own affair.
pub(super) fn loosen(data: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let data = sys::open(data, flags, Mode::empty())?;
    let closed = |stat: sys::Stat| {
        Mode::from_raw_mode(stat.st_mode) == Mode::RWXU && stat.st_uid == rustix::process::geteuid().as_raw()
    };
    match sys::statat(&data, "env", AtFlags::SYMLINK_NOFOLLOW) {
        Ok(env) if closed(env) && closed(sys::fstat(&data)?) => Ok(sys::fchmod(
            &data,
            Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH,
        )?),
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The directory of variables.
#[derive(Debug)]
pub(super) struct Env(OwnedFd);

impl Env {
    /// The `env` directory itself, never what a link called `env` points to.
    pub(super) fn open(data: &Path) -> io::Result<Env> {
        let directory = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let data = sys::open(data, directory, Mode::empty())?;
        let open = || sys::openat(&data, "env", directory, Mode::empty());
        let readable = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        let env = match open() {
            Ok(env) => env,
            Err(error) => {
                match error {
                    Errno::NOENT => {}
                    // Put there by the container.
                    Errno::LOOP | Errno::NOTDIR => sys::unlinkat(&data, "env", AtFlags::empty())?,
                    error => return Err(error.into()),
                }
                sys::mkdirat(&data, "env", readable)?;
                open()?
            }
        };
        if Mode::from_raw_mode(sys::fstat(&env)?.st_mode) != readable {
            sys::fchmod(&env, readable)?;
        }
        Ok(Env(env))
    }

    /// Replaces one file through a temporary one, so that a power cut leaves the old or the new content. Whether that
    /// was needed.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<bool> {
        if self.has(name, content) {
            return Ok(false);
        }
        let temporary = format!(".{name}.new");
        self.remove(&temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let readable = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file = sys::openat(&self.0, &temporary, flags, readable)?;
        sys::fchmod(&file, readable)?;
        let mut file = File::from(file);
        file.write_all(content)?;
        file.sync_all()?;
        sys::renameat(&self.0, &temporary, &self.0, name)?;
        Ok(true)
    }

    /// Removes a file. Whether there was one.
    pub(super) fn remove(&self, name: &str) -> io::Result<bool> {
        match sys::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes what was done durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(sys::fsync(&self.0)?)
    }

    fn has(&self, name: &str, content: &[u8]) -> bool {
        // NONBLOCK: a pipe put there by the container must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = sys::openat(&self.0, name, flags, Mode::empty()) else {
            return false;
        };
        let file = File::from(file);
        if !file
            .metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == content.len() as u64)
        {
            return false;
        }
        let mut found = Vec::with_capacity(content.len());
        let limit = content.len() as u64 + 1;
        file.take(limit).read_to_end(&mut found).is_ok() && found == content
    }
}
