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

    pub(super) fn write(&self, name: &str, content: &[u8], existing: Existing) -> Result<bool, BucketError> {
        let path = self.root.join(name);
        let parent = path.parent().unwrap_or(&self.root);
        put(parent, &path, content, existing).map_err(|error| disk("cannot write", name, error))
    }
}

fn put(parent: &Path, path: &Path, content: &[u8], existing: Existing) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(parent)?;
    let mut file = tempfile::Builder::new()
        .prefix(".publish-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(parent)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    let done = match existing {
        Existing::Replace => file.persist(path).map(|_| true),
        Existing::Keep => match file.persist_noclobber(path) {
            Err(failure) if failure.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|_| true),
        },
    };
    let done = done.map_err(|failure| failure.error)?;
    File::open(parent)?.sync_all()?;
    Ok(done)
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
    fn what_is_no_bucket_is_refused() {
        for text in ["", "ftp://bucket", "s3://", "gs:///prefix"] {
            assert!(
                matches!(Bucket::open(text), Err(BucketError::Name(_))),
                "{text:?}"
            );
        }
    }
}
