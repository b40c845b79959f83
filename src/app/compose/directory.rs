//! The directory of a compose app (`app-lifecycle.md` 2.3, 5.2): the document and the variables, both secret (weakness
//! W41). Every call blocks; callers run it on a blocking thread.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use protocol::{AppId, Stage, naming};

use crate::os::{self, DirBuilderExt as _};

/// The document that the program is given.
pub(crate) const DOCUMENT: &str = "docker-compose.json";
/// The document of a version that has not run yet.
pub(crate) const NEXT_DOCUMENT: &str = "docker-compose.next.json";

const PRIVATE: u32 = 0o600;

/// `<appsDir>/compose/<name>` or, for DEV, `<appsDir>/build/<name>`, case preserved. Refused when the name is not one
/// plain path component (W38).
pub(crate) fn of(apps_dir: &Path, app: AppId, app_name: &str) -> io::Result<PathBuf> {
    if !naming::is_safe_app_name(app_name) {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the app's name is not a plain name",
        ));
    }
    let root = match app.stage {
        Stage::Prod => "compose",
        Stage::Dev => "build",
    };
    Ok(apps_dir.join(root).join(app_name))
}

/// The directories in which projects of this device lie, as compose knows them.
pub(crate) fn roots(apps_dir: &Path) -> Vec<PathBuf> {
    let apps_dir = std::path::absolute(apps_dir).unwrap_or_else(|_| apps_dir.to_owned());
    ["compose", "build"].map(|root| apps_dir.join(root)).into()
}

/// Where registry logins may lie for the time of a call. Emptied at start: a power cut leaves them behind.
pub(crate) fn private(downloads: &Path) -> PathBuf {
    downloads.join("registry-logins")
}

/// Makes the directory and replaces one file in it that only we may read.
pub(crate) fn write(directory: &Path, file: &str, content: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let path = directory.join(file);
    match fs::symlink_metadata(&path) {
        // A container may have the directory mounted: what it puts there must not lead us elsewhere.
        Ok(found) if found.is_symlink() => fs::remove_file(&path)?,
        // Of the reference, which lets everybody read it.
        Ok(found) if os::mode(&found) & 0o777 != PRIVATE => {
            os::set_mode_at(&path, PRIVATE)?;
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if fs::read(&path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    crate::durable::replace(&path, content, PRIVATE)
}

/// Removes the logins that a power cut left behind.
pub(crate) fn remove_private(downloads: &Path) -> io::Result<()> {
    gone(fs::remove_dir_all(private(downloads)))
}

/// Removes one file. Gone is success.
pub(crate) fn remove(directory: &Path, file: &str) -> io::Result<()> {
    gone(fs::remove_file(directory.join(file)))
}

/// Moves the directory of a renamed app, unless there is one under the new name already.
pub(crate) fn rename(apps_dir: &Path, app: AppId, from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (of(apps_dir, app, from)?, of(apps_dir, app, to)?);
    if from == to || !from.exists() || to.exists() {
        return Ok(());
    }
    fs::rename(from, to)
}

/// Deletes the directory. Gone is success.
pub(crate) fn delete(apps_dir: &Path, app: AppId, app_name: &str) -> io::Result<()> {
    gone(fs::remove_dir_all(of(apps_dir, app, app_name)?))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const APP: AppId = AppId {
        key: 6,
        stage: Stage::Prod,
    };

    #[test]
    fn the_directory_is_that_of_the_stage_and_never_another() {
        let apps = Path::new("/apps");
        assert_eq!(of(apps, APP, "MyApp").unwrap(), Path::new("/apps/compose/MyApp"));
        let dev = AppId {
            stage: Stage::Dev,
            ..APP
        };
        assert_eq!(of(apps, dev, "MyApp").unwrap(), Path::new("/apps/build/MyApp"));
        for name in ["", "..", "../../etc", "a/b"] {
            assert!(of(apps, APP, name).is_err(), "{name:?}");
            assert!(delete(apps, APP, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn files_are_private_even_where_the_reference_had_left_them_open() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("compose/x");
        let mode = || {
            fs::metadata(directory.join(DOCUMENT))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        write(&directory, DOCUMENT, b"{}").unwrap();
        assert_eq!(mode(), PRIVATE);
        fs::set_permissions(directory.join(DOCUMENT), Permissions::from_mode(0o755)).unwrap();
        write(&directory, DOCUMENT, b"{}").unwrap();
        assert_eq!(mode(), PRIVATE);
        write(&directory, DOCUMENT, b"{1}").unwrap();
        assert_eq!(fs::read(directory.join(DOCUMENT)).unwrap(), b"{1}");
        rename(home.path(), APP, "x", "y").unwrap();
        assert!(home.path().join("compose/y").join(DOCUMENT).exists());
        rename(home.path(), APP, "y", "x").unwrap();
        remove(&directory, DOCUMENT).unwrap();
        remove(&directory, DOCUMENT).unwrap();
        delete(home.path(), APP, "x").unwrap();
        delete(home.path(), APP, "x").unwrap();
        assert!(!directory.exists());
    }

    #[test]
    fn a_link_put_in_place_of_a_file_leads_nowhere() {
        let home = tempfile::tempdir().unwrap();
        let victim = home.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        symlink(&victim, home.path().join(DOCUMENT)).unwrap();
        write(home.path(), DOCUMENT, b"{}").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert_eq!(fs::read(home.path().join(DOCUMENT)).unwrap(), b"{}");
    }
}
