//! A file system of its own, small enough to be full. Only root may have one.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Unmounted at its end.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Mounts one of so many MB.
    ///
    /// # Errors
    ///
    /// What `mount` complained about.
    pub fn mount(megabytes: u32) -> Result<SmallDisk, String> {
        let directory = tempfile::Builder::new()
            .prefix("reagent-disk-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let disk = SmallDisk { directory };
        std::fs::create_dir(disk.path()).map_err(|error| error.to_string())?;
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(disk.path())
            .output()
            .map_err(|error| error.to_string())?;
        match mount.status.success() {
            true => Ok(disk),
            false => Err(String::from_utf8_lossy(&mount.stderr).into_owned()),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// Takes every byte that is left.
    ///
    /// # Panics
    ///
    /// When that fails for another reason than a full disk.
    pub fn fill(&self) {
        fill(&self.path().join("ballast"));
    }
}

fn fill(ballast: &Path) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(ballast)
        .expect("a name for the ballast");
    for size in [64 * 1024, 1] {
        let block = vec![b'x'; size];
        let full = loop {
            if let Err(error) = file.write_all(&block) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process of the test may still be ending there.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
