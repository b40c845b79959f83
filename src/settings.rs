//! Validated settings: flags, derived paths, limits. Only these travel through the agent.

use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os::DirBuilderExt as _;

/// What the command line decided (`session-and-api.md` 1.3), validated.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: PathBuf,
    pub agent_dir: PathBuf,
    pub apps_dir: PathBuf,
    pub database: PathBuf,
    pub log_file: PathBuf,
    pub compressed_build_extension: String,
    pub debug: bool,
    pub debug_messaging: bool,
    pub pretty_logging: bool,
    pub offline: bool,
    pub network_manager: bool,
    pub update: bool,
    /// Empty when not given.
    pub environment: String,
    pub remote_update_url: String,
    /// Zero: no bound.
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    /// Zero: no pings.
    pub ping_interval: Duration,
}

/// Why a directory of 3.1 is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot create the directory {path}; create it or choose another with -agentDir and -appsDir")]
pub struct DirectoryError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl Settings {
    /// `<appsDir>/build`: uploaded build archives.
    pub fn build_dir(&self) -> PathBuf {
        beneath(&self.apps_dir, "build")
    }

    /// `<appsDir>/compose`: compose projects.
    pub fn compose_dir(&self) -> PathBuf {
        beneath(&self.apps_dir, "compose")
    }

    /// `<appsDir>/shared`: data that all apps see.
    pub fn shared_dir(&self) -> PathBuf {
        beneath(&self.apps_dir, "shared")
    }

    /// `<agentDir>/downloads`: everything incomplete, temporary or not for others.
    pub fn downloads_dir(&self) -> PathBuf {
        beneath(&self.agent_dir, "downloads")
    }

    /// Creates the directories of 3.1 with their parents, in that order. New ones get 0755, the downloads 0700
    /// (weakness R70); existing ones stay as they are.
    pub fn create_directories(&self) -> Result<(), DirectoryError> {
        let open = [
            self.apps_dir.clone(),
            self.build_dir(),
            self.compose_dir(),
            self.shared_dir(),
        ];
        for path in open {
            create(path, 0o755)?;
        }
        // Its parents are made first, or they would get its mode.
        create(self.agent_dir.clone(), 0o755)?;
        create(self.downloads_dir(), 0o700)
    }
}

fn create(path: PathBuf, mode: u32) -> Result<(), DirectoryError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(&path)
        .map_err(|source| DirectoryError { path, source })
}

/// Plain concatenation with `/`, as the contract derives its paths.
fn beneath(directory: &Path, name: &str) -> PathBuf {
    let mut path = directory.as_os_str().to_owned();
    path.push("/");
    path.push(name);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn settings(root: &Path) -> Settings {
        let config = root.join("device.flock").to_string_lossy().into_owned();
        crate::cli::settings(["-config".to_owned(), config])
            .map(|mut settings| {
                settings.agent_dir = root.join("agent/inner");
                settings.apps_dir = root.join("apps");
                settings
            })
            .unwrap()
    }

    #[test]
    fn all_directories_are_created_and_downloads_are_private() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path());
        settings.create_directories().unwrap();
        settings.create_directories().unwrap();
        for made in [
            "apps/build",
            "apps/compose",
            "apps/shared",
            "agent/inner/downloads",
        ] {
            assert!(root.path().join(made).is_dir(), "{made}");
        }
        let mode = |path: &str| {
            std::fs::metadata(root.path().join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode("agent/inner/downloads"), 0o700);
        assert_eq!(mode("agent/inner") & 0o022, 0, "others must not write here");
        assert_ne!(mode("agent/inner") & 0o555, 0o500, "others may look");
    }

    #[test]
    fn a_file_in_the_way_is_an_error_that_names_the_directory() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("apps"), "").unwrap();
        let error = settings(root.path()).create_directories().unwrap_err();
        assert_eq!(error.path, root.path().join("apps"));
        assert!(error.to_string().contains("-appsDir"), "{error}");
    }
}
