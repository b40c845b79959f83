//! The growing file by its path.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::os;

/// The directory of uploads.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// Makes it if need be.
    pub(super) fn open(directory: &Path) -> io::Result<Place> {
        fs::create_dir_all(directory)?;
        Ok(Place(directory.to_owned()))
    }

    /// Bytes that may be written there.
    pub(super) fn available(&self) -> io::Result<u64> {
        os::space(&self.0).map(|space| space.available)
    }

    /// A new and empty file.
    pub(super) fn create(self, name: String) -> io::Result<Unfinished> {
        let path = self.0.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Unfinished {
            directory: self.0,
            path,
            file,
        })
    }
}

/// The file while it grows. Dropped, it goes.
#[derive(Debug)]
pub(super) struct Unfinished {
    directory: PathBuf,
    path: PathBuf,
    file: File,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Already renamed, or gone with its directory: nothing to tidy up.
        let _ = fs::remove_file(&self.path);
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
        fs::rename(&self.path, self.directory.join(name))?;
        os::sync_directory(&self.directory)
    }
}
