//! An app's data directory and the files that mirror its environment (`app-lifecycle.md` 2.3, 4.4).
//!
//! The directory is mounted into the container, which may put anything there: nothing is followed that could lead
//! out of it (W38). Others on the host are kept out by the stage's directory; below it the container's user, who is not
//! always root, must be able to read (W49). Every call blocks; callers run it on a blocking thread.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use protocol::{AppId, naming};

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix::{Env, loosen, make_private};
#[cfg(windows)]
use windows::{Env, loosen, make_private};

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
    make_private(&apps_dir.join(app.stage.lower()))?;
    loosen(&data)?;
    Ok(data)
}

/// Writes `<name>.txt` for every variable, only where the content differs, and removes the retired secret.
pub(crate) fn write(
    apps_dir: &Path,
    app: AppId,
    app_name: &str,
    variables: &BTreeMap<String, String>,
) -> io::Result<()> {
    let data = prepare(apps_dir, app, app_name)?;
    let env = Env::open(&data)?;
    let mut changed = false;
    for (name, value) in variables {
        if name.contains(['/', '\0']) || name.len() > LONGEST_NAME {
            tracing::warn!(%app, "a variable's name cannot be a file name; it gets no file");
            continue;
        }
        changed |= env.write(&format!("{name}.txt"), value.as_bytes())?;
    }
    changed |= env.remove(RETIRED)?;
    match changed {
        true => env.sync(),
        false => Ok(()),
    }
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
