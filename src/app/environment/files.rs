//! An app's data directory and the files that mirror its environment (`app-lifecycle.md` 2.3, 4.4).
//!
//! The directory is mounted into the container, which may put anything there: nothing is followed that could lead
//! out of it (W38). Others on the host are kept out by the stage's directory; below it the container's user, who is not
//! always root, must be able to read (W49). Every call blocks; callers run it on a blocking thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use protocol::{AppId, naming};
use rustix::fs::{self as sys, AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Longest file name that every file system in use takes, minus what a temporary name adds.
const LONGEST_NAME: usize = 240;
/// Kept from the start of every data directory of the reference that still has it: a secret nobody uses any more.
const RETIRED: &str = "DEVICE_SECRET.txt";

/// `<appsDir>/<stage>/<name>`, lower case. Refused when the name is not one plain path component.
pub(crate) fn data_dir(apps_dir: &Path, app: AppId, app_name: &str) -> io::Result<PathBuf> {
    let name = app_name.to_lowercase();
    if !naming::is_safe_app_name(&name) {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the app's name is not a plain name",
        ));
    }
    Ok(apps_dir.join(app.stage.lower()).join(name))
}

/// Creates the data directory and `<appsDir>/shared`, and returns the data directory.
pub(crate) fn prepare(apps_dir: &Path, app: AppId, app_name: &str) -> io::Result<PathBuf> {
    let data = data_dir(apps_dir, app, app_name)?;
    std::fs::create_dir_all(apps_dir.join("shared"))?;
    std::fs::create_dir_all(&data)?;
    let stage = File::open(apps_dir.join(app.stage.lower()))?;
    let private = Mode::RWXU;
    if Mode::from_raw_mode(sys::fstat(&stage)?.st_mode) != private {
        sys::fchmod(&stage, private)?;
    }
    loosen(&data)?;
    Ok(data)
}

/// The reference makes data directory and `env` so that only root gets in (W49). It is opened once: `env` is readable
/// afterwards, and what an app does with the modes of its data later is its own affair.
fn loosen(data: &Path) -> io::Result<()> {
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

/// Writes `<name>.txt` for every variable, only where the content differs, and removes the retired secret.
pub(crate) fn write(
    apps_dir: &Path,
    app: AppId,
    app_name: &str,
    variables: &BTreeMap<String, String>,
) -> io::Result<()> {
    let data = prepare(apps_dir, app, app_name)?;
    let env = open_env(&data)?;
    let mut changed = false;
    for (name, value) in variables {
        if name.contains(['/', '\0']) || name.len() > LONGEST_NAME {
            tracing::warn!(%app, "a variable's name cannot be a file name; it gets no file");
            continue;
        }
        changed |= write_one(&env, &format!("{name}.txt"), value.as_bytes())?;
    }
    match sys::unlinkat(&env, RETIRED, AtFlags::empty()) {
        Ok(()) => changed = true,
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    if changed {
        sys::fsync(&env)?;
    }
    Ok(())
}

/// Deletes the data directory. Gone is success.
pub(crate) fn delete(apps_dir: &Path, app: AppId, app_name: &str) -> io::Result<()> {
    match std::fs::remove_dir_all(data_dir(apps_dir, app, app_name)?) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Moves the data of a renamed app, unless there is data under the new name already (W45).
pub(crate) fn rename(apps_dir: &Path, app: AppId, from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (data_dir(apps_dir, app, from)?, data_dir(apps_dir, app, to)?);
    if from == to || !from.exists() || to.exists() {
        return Ok(());
    }
    std::fs::rename(from, to)
}

/// The `env` directory itself, never what a link called `env` points to.
fn open_env(data: &Path) -> io::Result<OwnedFd> {
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
    Ok(env)
}

/// Replaces one file through a temporary one, so that a power cut leaves the old or the new content.
fn write_one(env: &OwnedFd, name: &str, content: &[u8]) -> io::Result<bool> {
    if unchanged(env, name, content) {
        return Ok(false);
    }
    let temporary = format!(".{name}.new");
    match sys::unlinkat(env, &temporary, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let readable = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = sys::openat(env, &temporary, flags, readable)?;
    sys::fchmod(&file, readable)?;
    let mut file = File::from(file);
    file.write_all(content)?;
    file.sync_all()?;
    sys::renameat(env, &temporary, env, name)?;
    Ok(true)
}

fn unchanged(env: &OwnedFd, name: &str, content: &[u8]) -> bool {
    // NONBLOCK: a pipe put there by the container must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = sys::openat(env, name, flags, Mode::empty()) else {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use protocol::Stage;

    use super::*;

    const APP: AppId = AppId {
        key: 6,
        stage: Stage::Prod,
    };

    fn variables(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_variable_gets_a_file_that_the_containers_user_can_read() {
        let home = tempfile::tempdir().unwrap();
        write(
            home.path(),
            APP,
            "MyApp",
            &variables(&[("A", "1"), ("B", "x\ny")]),
        )
        .unwrap();
        let env = home.path().join("prod/myapp/env");
        assert_eq!(std::fs::read_to_string(env.join("A.txt")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(env.join("B.txt")).unwrap(), "x\ny");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&env), 0o755);
        assert_eq!(mode(&env.join("A.txt")), 0o644);
        assert_eq!(mode(&home.path().join("prod")), 0o700);
        assert!(home.path().join("shared").is_dir());
    }

    #[test]
    fn what_the_reference_has_closed_is_opened_once() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("prod/x");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let close =
            |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir_all(data.join("env")).unwrap();
        close(&data.join("env"));
        close(&data);
        write(home.path(), APP, "x", &variables(&[("A", "1")])).unwrap();
        assert_eq!((mode(&data), mode(&data.join("env"))), (0o755, 0o755));
        // By the app itself: it stays.
        close(&data);
        write(home.path(), APP, "x", &variables(&[("A", "2")])).unwrap();
        assert_eq!(mode(&data), 0o700);
    }

    #[test]
    fn an_unchanged_file_is_not_written_again() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), APP, "x", &variables(&[("A", "1")])).unwrap();
        let file = home.path().join("prod/x/env/A.txt");
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
        let before = inode(&file);
        write(home.path(), APP, "x", &variables(&[("A", "1")])).unwrap();
        assert_eq!(inode(&file), before);
        write(home.path(), APP, "x", &variables(&[("A", "2")])).unwrap();
        assert_ne!(inode(&file), before);
    }

    #[test]
    fn links_put_there_by_the_container_lead_nowhere() {
        let home = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("victim"), "kept").unwrap();
        let data = home.path().join("prod/x");
        std::fs::create_dir_all(&data).unwrap();
        symlink(outside.path(), data.join("env")).unwrap();
        write(home.path(), APP, "x", &variables(&[("A", "1")])).unwrap();
        assert!(!outside.path().join("A.txt").exists());
        let file = data.join("env/B.txt");
        symlink(outside.path().join("victim"), &file).unwrap();
        write(home.path(), APP, "x", &variables(&[("B", "1")])).unwrap();
        assert_eq!(
            std::fs::read_to_string(outside.path().join("victim")).unwrap(),
            "kept"
        );
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    }

    #[test]
    fn the_retired_secret_goes_and_bad_names_get_no_file() {
        let home = tempfile::tempdir().unwrap();
        let env = home.path().join("prod/x/env");
        std::fs::create_dir_all(&env).unwrap();
        std::fs::write(env.join(RETIRED), "s").unwrap();
        write(home.path(), APP, "x", &variables(&[("../../y", "1"), ("A", "1")])).unwrap();
        assert!(!env.join(RETIRED).exists());
        assert_eq!(std::fs::read_dir(&env).unwrap().count(), 1);
        assert!(!home.path().join("y.txt").exists());
    }

    #[test]
    fn a_name_that_is_a_path_is_never_touched() {
        let home = tempfile::tempdir().unwrap();
        for name in ["..", "../../etc", ""] {
            assert!(delete(home.path(), APP, name).is_err(), "{name:?}");
            assert!(
                write(home.path(), APP, name, &variables(&[])).is_err(),
                "{name:?}"
            );
        }
        assert!(home.path().exists());
    }

    #[test]
    fn data_moves_with_a_renamed_app_and_is_deleted_with_it() {
        let home = tempfile::tempdir().unwrap();
        prepare(home.path(), APP, "old").unwrap();
        std::fs::write(home.path().join("prod/old/file"), "data").unwrap();
        rename(home.path(), APP, "old", "New").unwrap();
        assert_eq!(
            std::fs::read_to_string(home.path().join("prod/new/file")).unwrap(),
            "data"
        );
        delete(home.path(), APP, "new").unwrap();
        delete(home.path(), APP, "new").unwrap();
        assert!(!home.path().join("prod/new").exists());
    }
}
