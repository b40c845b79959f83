//! What an update does to the disk, each step durable before the next one begins (`update-and-system.md` 9.2). The
//! order of these steps is what a power cut sees. Must not know why a file is moved.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::durable;
use crate::os::{self, OpenOptionsExt as _};

/// Free space that must remain for everybody else.
pub(crate) const RESERVE: u64 = 64 * 1024 * 1024;
/// A copy that is not complete yet. Without `reagent-`, which the manager script would take for a binary.
pub(crate) const NEAR: &str = ".update.part";
/// Read in one go when files are hashed.
const BLOCK: usize = 256 * 1024;

/// Opens a part of a download for appending; only the agent may read it.
pub(crate) fn open_part(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Writes on at the end of a part.
pub(crate) fn append(mut part: &File, content: &[u8]) -> io::Result<()> {
    part.write_all(content)
}

/// Makes a complete file executable and puts it on the disk for good: afterwards a power cut leaves it whole.
pub(crate) fn seal(path: &Path) -> io::Result<()> {
    let file = os::open_to_sync(path)?;
    os::set_mode(&file, 0o755)?;
    file.sync_all()?;
    durable::sync_directory(parent(path))
}

/// Gives a sealed file its visible name, newer by its modification time than everything in `older` (1.13, requirement
/// 5: the manager script picks by time, on devices whose clock may run backwards).
pub(crate) fn publish(sealed: &Path, visible: &Path, older: &[PathBuf]) -> io::Result<()> {
    let newest = older
        .iter()
        .filter_map(|path| fs::metadata(path).and_then(|found| found.modified()).ok())
        .max();
    let now = SystemTime::now();
    let time = match newest {
        Some(newest) if newest >= now => newest + Duration::from_secs(1),
        _ => now,
    };
    let dated = |path: &Path| {
        let file = os::open_to_sync(path)?;
        file.set_modified(time)?;
        file.sync_all()
    };
    dated(sealed)?;
    match fs::rename(sealed, visible) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let near = parent(visible).join(NEAR);
            copy(sealed, &near)
                .and_then(|()| dated(&near))
                .and_then(|()| fs::rename(&near, visible))
                .inspect_err(|_| {
                    let _ = remove(&near);
                })?;
            durable::sync_directory(parent(visible))?;
            return remove(sealed);
        }
        renamed => renamed?,
    }
    durable::sync_directory(parent(visible))?;
    durable::sync_directory(parent(sealed))
}

/// Copies a complete file to another file system, if there is room for it beside others.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let needed = fs::metadata(from)?.len().saturating_add(RESERVE);
    if needed > free_space(parent(to))? {
        return Err(io::ErrorKind::StorageFull.into());
    }
    // With its mode.
    fs::copy(from, to).map(|_| ())
}

/// Points the link `name` in `directory` to `target`, in one step whatever was there before.
pub(crate) fn relink(directory: &Path, name: &str, target: &Path) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    os::link_file(target, &temporary)?;
    fs::rename(&temporary, directory.join(name))?;
    durable::sync_directory(directory)
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// SHA-256 of a file, as lower-case hex. Blocks.
pub(crate) fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&block[..length]),
        }
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Bytes that this process may still write to the file system of `path`.
pub(crate) fn free_space(path: &Path) -> io::Result<u64> {
    os::space(path).map(|space| space.available)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use testkit::disk::SmallDisk;

    #[test]
    fn a_published_file_is_the_newest_even_when_the_clock_ran_backwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let future = SystemTime::now() + Duration::from_secs(10_000);
        for name in ["reagent-v1", "reagent-v2"] {
            fs::write(path(name), name).unwrap();
        }
        File::open(path("reagent-v1"))
            .unwrap()
            .set_modified(future)
            .unwrap();
        fs::write(path("part"), "new").unwrap();
        seal(&path("part")).unwrap();
        publish(
            &path("part"),
            &path("reagent-v3"),
            &[path("reagent-v1"), path("reagent-v2"), path("gone")],
        )
        .unwrap();
        let modified = fs::metadata(path("reagent-v3")).unwrap().modified().unwrap();
        assert!(modified > future, "{modified:?} {future:?}");
        assert!(!path("part").exists());
        let mode = fs::metadata(path("reagent-v3")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn a_file_comes_from_another_file_system_as_well_and_only_where_there_is_room() {
        let (Ok(downloads), Ok(agent), Ok(full)) =
            (SmallDisk::mount(1), SmallDisk::mount(80), SmallDisk::mount(1))
        else {
            return eprintln!("skipped: nothing can be mounted here");
        };
        let part = downloads.path().join("part");
        fs::write(&part, "new").unwrap();
        seal(&part).unwrap();
        let refused = publish(&part, &full.path().join("reagent-v3"), &[]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_dir(full.path()).unwrap().count(), 0);
        assert!(part.exists());

        let visible = agent.path().join("reagent-v3");
        publish(&part, &visible, &[]).unwrap();
        assert_eq!(fs::read(&visible).unwrap(), b"new");
        let mode = fs::metadata(&visible).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(fs::read_dir(agent.path()).unwrap().count(), 1);
        assert!(!part.exists());
    }

    #[test]
    fn a_link_is_replaced_and_one_left_by_a_power_cut_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("Reagent-active");
        std::os::unix::fs::symlink("reagent-v2", &link).unwrap();
        std::os::unix::fs::symlink("x", directory.path().join(".Reagent-active.new")).unwrap();
        relink(directory.path(), "Reagent-active", Path::new("reagent-v1")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("reagent-v1"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn digests_are_those_of_everybody_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, "abc").unwrap();
        assert_eq!(
            digest(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
