//! The growing file by the descriptor of its directory, which may be replaced meanwhile.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self as sys, AtFlags, Mode, OFlags};

/// The directory of uploads.
#[derive(Debug)]
pub(super) struct Place(OwnedFd);

impl Place {
    /// Makes it if need be.
    pub(super) fn open(directory: &Path) -> io::Result<Place> {
        std::fs::create_dir_all(directory)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Place(sys::open(directory, flags, Mode::empty())?))
    }

    /// Bytes that may be written there.
    pub(super) fn available(&self) -> io::Result<u64> {
        let system = sys::fstatvfs(&self.0)?;
        Ok(system.f_bavail * system.f_frsize)
    }

    /// A new and empty file.
    pub(super) fn create(self, name: String) -> io::Result<Unfinished> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file = File::from(sys::openat(&self.0, &name, flags, mode)?);
        Ok(Unfinished {
            directory: self.0,
            name,
            file,
        })
    }
}

/// The file while it grows. Dropped, it goes.
#[derive(Debug)]
pub(super) struct Unfinished {
    directory: OwnedFd,
    name: String,
    file: File,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Already renamed, or gone with its directory: nothing to tidy up.
        let _ = sys::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

impl Unfinished {
    /// Adds to its end.
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)
    }

    /// Puts it on the disk and gives it its name.
    pub(super) fn complete(self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        sys::renameat(&self.directory, &self.name, &self.directory, name)?;
        match sys::fsync(&self.directory) {
            // Some file systems cannot sync directories; they have nothing better to offer.
            Err(rustix::io::Errno::INVAL) => Ok(()),
            result => Ok(result?),
        }
    }
}
