//! A bucket in a directory, served by `studio serve --bucket` or any web server. Whoever reads it meanwhile sees whole
//! files only.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{BucketError, Existing, disk};

/// The directory that holds `availableVersions.json`.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// A bucket that need not exist yet.
    pub fn new(root: PathBuf) -> Directory {
        Directory { root }
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BucketError> {
        match fs::read(self.root.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk("cannot read", name, error)),
        }
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let mut names = Vec::new();
        let mut waiting = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(place) = waiting.pop() {
            let entries = match fs::read_dir(self.root.join(&place)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(disk("cannot list", &place, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| disk("cannot list", &place, error))?;
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                // Being written, or not ours.
                if name.starts_with('.') {
                    continue;
                }
                let name = if place.is_empty() {
                    name
                } else {
                    format!("{place}/{name}")
                };
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => waiting.push(name),
                    Ok(_) => names.push(name),
                    Err(error) => return Err(disk("cannot list", &name, error)),
                }
            }
        }
        Ok(names)
    }

    pub(super) fn write(
        &self,
        name: &str,
        content: &[u8],
        existing: Existing<'_>,
    ) -> Result<bool, BucketError> {
        self.put(name, content, existing)
            .map_err(|error| disk("cannot write", name, error))
    }

    /// As [`super::Bucket::replace_unchanged`], among those who use this directory on this machine.
    pub(super) fn replace_unchanged(
        &self,
        name: &str,
        before: Option<&[u8]>,
        content: &[u8],
    ) -> Result<bool, BucketError> {
        let locked = fs::create_dir_all(&self.root).and_then(|()| self.lock());
        let _lock = locked.map_err(|error| disk("cannot lock the bucket for", name, error))?;
        if self.read(name)?.as_deref() != before {
            return Ok(false);
        }
        self.write(name, content, Existing::Replace)
    }

    /// Held as long as the file is open. Hidden, so nobody is served it. Another operator may have made it, who alone may
    /// write to it.
    fn lock(&self) -> io::Result<File> {
        let path = self.root.join(".lock");
        // For writing where that is allowed: over NFS nothing else can be locked.
        let file = match File::options().create(true).append(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(&path)?,
            opened => opened?,
        };
        file.lock()?;
        Ok(file)
    }

    fn put(&self, name: &str, content: &[u8], existing: Existing<'_>) -> io::Result<bool> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.root.join(name);
        let parent = path.parent().unwrap_or(&self.root);
        let changed = changed(&self.root, parent);
        fs::create_dir_all(parent)?;
        let mut file = tempfile::Builder::new()
            .prefix(".publish-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(parent)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        let done = match existing {
            Existing::Replace | Existing::ReplaceOnly(_) => file.persist(&path).map(|_| true),
            Existing::Keep => match file.persist_noclobber(&path) {
                Err(failure) if failure.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                other => other.map(|_| true),
            },
        };
        let done = done.map_err(|failure| failure.error)?;
        for directory in changed {
            File::open(directory)?.sync_all()?;
        }
        Ok(done)
    }
}

/// The directories that have to be on disk before a file in `parent` is: up to the root of the bucket, because whoever
/// made one of them may have been broken off; above it only those that are made now, and the one they are made in.
fn changed(root: &Path, parent: &Path) -> Vec<PathBuf> {
    let mut changed = Vec::new();
    for directory in parent.ancestors() {
        let directory = match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        };
        changed.push(directory.to_owned());
        let is_inside = directory != root && directory.starts_with(root);
        if !is_inside && directory.is_dir() {
            break;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::super::{Bucket, Created};
    use super::*;

    #[test]
    fn objects_are_made_once_replaced_when_asked_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(folder.path().join("new").to_str().unwrap()).unwrap();
        assert_eq!(bucket.read("linux/amd64/1.0.0/reagent").unwrap(), None);
        assert_eq!(bucket.list("linux/").unwrap(), Vec::<String>::new());
        assert_eq!(
            bucket.create("linux/amd64/1.0.0/reagent", b"one").unwrap(),
            Created::New
        );
        assert_eq!(
            bucket.create("linux/amd64/1.0.0/reagent", b"one").unwrap(),
            Created::Same
        );
        let refused = bucket.create("linux/amd64/1.0.0/reagent", b"two").unwrap_err();
        assert!(matches!(refused, BucketError::Published { .. }), "{refused}");
        assert_eq!(bucket.read("linux/amd64/1.0.0/reagent").unwrap().unwrap(), b"one");
        bucket.replace("version.txt", b"1.0.0").unwrap();
        bucket.replace("version.txt", b"1.0.1").unwrap();
        assert_eq!(bucket.read("version.txt").unwrap().unwrap(), b"1.0.1");
        assert_eq!(bucket.list("linux/").unwrap(), ["linux/amd64/1.0.0/reagent"]);
        assert_eq!(
            bucket.list("").unwrap(),
            ["linux/amd64/1.0.0/reagent", "version.txt"]
        );
    }

    #[test]
    fn every_directory_that_is_made_is_put_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("srv/bucket");
        let place = root.join("linux/amd64");
        let path = |name: &str| folder.path().join(name);
        let below = [
            path("srv/bucket/linux/amd64"),
            path("srv/bucket/linux"),
            root.clone(),
        ];
        let new = [&below[..], &[path("srv"), folder.path().to_owned()]].concat();
        assert_eq!(changed(&root, &place), new);
        fs::create_dir_all(&place).unwrap();
        assert_eq!(changed(&root, &place), below);
        assert_eq!(changed(&root, &root), [root.as_path()]);
        let relative = Path::new("there-is-no-such-bucket");
        assert_eq!(changed(relative, relative), [relative, Path::new(".")]);
    }

    #[test]
    fn what_somebody_else_changed_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(folder.path().join("new").to_str().unwrap()).unwrap();
        let replace = |before: Option<&[u8]>, content: &[u8]| {
            bucket
                .replace_unchanged("rollouts.json", before, content)
                .unwrap()
        };
        assert!(!replace(Some(b"one"), b"two"), "there is none yet");
        assert!(replace(None, b"one"));
        assert!(!replace(None, b"two"));
        assert!(!replace(Some(b"other"), b"two"));
        assert_eq!(bucket.read("rollouts.json").unwrap().unwrap(), b"one");
        assert!(replace(Some(b"one"), b"two"));
        assert_eq!(
            bucket.list("").unwrap(),
            ["rollouts.json"],
            "nothing else is shown"
        );
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for text in ["", "ftp://bucket", "s3://", "gs:///prefix"] {
            assert!(
                matches!(Bucket::open(text), Err(BucketError::Name(_))),
                "{text:?}"
            );
        }
    }
}
