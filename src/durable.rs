//! The one way to replace a file so that a power cut leaves the old or the new content, never a mixture: write a
//! temporary file beside it, fsync, rename, fsync the directory. Must not know what the files mean.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::os::{self, OpenOptionsExt as _};

/// Links followed before a chain counts as a loop.
const MAX_LINKS: usize = 16;

/// Replaces what `path` names by `content`; a symbolic link stays and its target is replaced. An existing file keeps
/// mode and owner as far as the file system knows them, a new one gets `new_mode`. Blocks until the data is on disk.
///
/// On an error the old content is untouched. The temporary file is named `.<name>.new`, so that one left by a power
/// cut is taken over by the next attempt; callers do not run two replacements of one file at a time.
pub fn replace(path: &Path, content: &[u8], new_mode: u32) -> io::Result<()> {
    let target = resolve(path)?;
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(".new");
    let temporary = directory.join(temporary_name);

    write_new(&temporary, content, new_mode, &target)
        .and_then(|()| fs::rename(&temporary, &target))
        .inspect_err(|_| {
            // Nothing to gain from a half-written file, and its removal is not what the caller asked for.
            let _ = fs::remove_file(&temporary);
        })?;
    sync_directory(directory)
}

fn write_new(temporary: &Path, content: &[u8], new_mode: u32, target: &Path) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Exclusive creation never follows a link that somebody put there in between.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(new_mode)
        .open(temporary)?;
    match fs::metadata(target) {
        Ok(old) => {
            // FAT knows neither; the content matters more than either.
            os::take_owner(&file, &old);
            let _ = os::set_mode(&file, os::mode(&old));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file.write_all(content)?;
    file.sync_all()
}

/// Follows links at the end of the path by hand: the file itself need not exist.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = target.parent().unwrap_or(Path::new("")).join(link),
            // Not a link, or nothing there.
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Makes a rename in `directory` survive a power cut.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    os::sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_gets_the_wanted_mode_and_nothing_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        replace(&path, b"one", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(directory.path()), ["state"]);
    }

    #[test]
    fn an_existing_file_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn a_chain_of_links_stays_and_its_target_is_replaced_in_its_own_directory() {
        let directory = tempfile::tempdir().unwrap();
        let boot = directory.path().join("boot");
        fs::create_dir(&boot).unwrap();
        fs::write(boot.join("gate.flock"), "old").unwrap();
        symlink("boot/gate.flock", directory.path().join("inner")).unwrap();
        let outer = directory.path().join("outer");
        symlink(directory.path().join("inner"), &outer).unwrap();

        replace(&outer, b"new", 0o600).unwrap();
        assert_eq!(fs::read(boot.join("gate.flock")).unwrap(), b"new");
        assert!(fs::symlink_metadata(&outer).unwrap().is_symlink());
        assert_eq!(names(&boot), ["gate.flock"]);
        assert_eq!(names(directory.path()), ["boot", "inner", "outer"]);
    }

    #[test]
    fn a_temporary_file_left_by_a_power_cut_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(directory.path().join(".state.new"), "half of something longer").unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["state"]);
    }

    #[test]
    fn what_cannot_be_replaced_stays_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        // A directory in the way of the rename.
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "kept").unwrap();
        replace(&path, b"new", 0o600).unwrap_err();
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(names(directory.path()), ["state"]);

        replace(&directory.path().join("no/such/directory/state"), b"new", 0o600).unwrap_err();
        symlink("loop", directory.path().join("loop")).unwrap();
        replace(&directory.path().join("loop"), b"new", 0o600).unwrap_err();
    }
}
