//! The `.flock` on disk: strict load, atomic rewrite, backup (`session-and-api.md` 2).
//!
//! The device's identity is worth more than any other file here: it is written only when a value changes, always as a
//! whole (`durable`), and a file that does not parse is never touched (weaknesses R8-R11). Must not know WAMP.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use protocol::flock::{Flock, FlockDocument, FlockError};

use crate::durable;
use crate::journal::Chain;

/// Mode of a file that did not exist before: it holds secrets.
const NEW_MODE: u32 = 0o600;

/// The device's identity: values in memory and the file they came from. Cloneable; all clones share both.
#[derive(Clone, Debug)]
pub struct DeviceFile {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where changes are written; `None` keeps them in memory.
    path: Option<PathBuf>,
    document: Mutex<FlockDocument>,
    current: RwLock<Arc<Flock>>,
    /// Held while writing, so that the newest document is the last one written.
    writing: Mutex<()>,
}

/// Why there is no device identity to work with. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFileError {
    /// Missing, a directory, or not readable by this user.
    #[error(
        "failed to load .flock config file: cannot read {path}; check the path given to -config and who may read it"
    )]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Its content is not a device identity, and no good backup lies beside it.
    #[error(
        "failed to load .flock config file: {path} is damaged or incomplete and was left as it is; \
         download the file of this device again from the studio and replace it"
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: FlockError,
    },
}

impl DeviceFile {
    /// Loads, migrates and keeps a backup of the file at `path` (a link is followed). When its content is damaged, the
    /// backup of the last good version takes its place, loudly: changes then go to the backup only and the damaged
    /// file stays for its owner to look at. Blocks; called once at start, before anything else runs.
    pub fn load(path: &Path) -> Result<DeviceFile, DeviceFileError> {
        let unreadable = |source| DeviceFileError::Read {
            path: path.to_path_buf(),
            source,
        };
        // The backup lies beside the file itself, not beside a link to it.
        let place = fs::canonicalize(path).map_err(unreadable)?;
        let content = fs::read(&place).map_err(unreadable)?;
        let backup = backup_of(&place);
        let (mut document, place) = match parse(&content) {
            Ok(document) => (document, place),
            Err(source) => match fs::read(&backup).map(|content| parse(&content)) {
                Ok(Ok(document)) => {
                    tracing::error!(
                        file = %place.display(),
                        backup = %backup.display(),
                        error = %source,
                        "the .flock file is damaged: working with its backup; replace the file"
                    );
                    (document, backup)
                }
                _ => {
                    return Err(DeviceFileError::Damaged {
                        path: path.to_path_buf(),
                        source,
                    });
                }
            },
        };
        let migrated = document.migrate();
        let device = DeviceFile::new(document, Some(place));
        if migrated {
            device.shared.write();
        } else {
            device.shared.keep_backup(&content);
        }
        Ok(device)
    }

    /// An identity without a file: changes stay in memory. For tests and embedding.
    pub fn in_memory(flock: Flock) -> DeviceFile {
        DeviceFile::new(FlockDocument::issue(&flock), None)
    }

    fn new(document: FlockDocument, path: Option<PathBuf>) -> DeviceFile {
        let current = RwLock::new(Arc::new(document.flock()));
        DeviceFile {
            shared: Arc::new(Shared {
                path,
                document: Mutex::new(document),
                current,
                writing: Mutex::new(()),
            }),
        }
    }

    /// The identity as it is now. Cheap; ask again after every await.
    pub fn current(&self) -> Arc<Flock> {
        Arc::clone(&self.shared.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies `change`; says whether it changed anything. The new values count at once. The file is written (off the
    /// async threads, complete even when the caller goes away) only when something changed; a failed write is a
    /// warning and the values stay in memory (weakness R10).
    pub async fn update(&self, change: impl FnOnce(&mut FlockDocument)) -> bool {
        if !self.change_in_memory(change) {
            return false;
        }
        let shared = Arc::clone(&self.shared);
        if let Err(error) = tokio::task::spawn_blocking(move || shared.write()).await {
            tracing::error!(error = %Chain(&error), "the .flock file was not written");
        }
        true
    }

    fn change_in_memory(&self, change: impl FnOnce(&mut FlockDocument)) -> bool {
        let mut document = self.shared.document();
        let mut changed = document.clone();
        change(&mut changed);
        if changed == *document {
            return false;
        }
        *self
            .shared
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(changed.flock());
        *document = changed;
        true
    }
}

impl Shared {
    fn document(&self) -> MutexGuard<'_, FlockDocument> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the document as it is now, then its backup.
    fn write(&self) {
        let Some(path) = &self.path else { return };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = self.document().to_text();
        if let Err(error) = durable::replace(path, text.as_bytes(), NEW_MODE) {
            tracing::warn!(
                file = %path.display(),
                error = %Chain(&error),
                "cannot write the .flock file, going on with the values in memory"
            );
        }
        // Also when the file itself cannot be written: where its name is taken by a mount, the directory may be free.
        self.keep_backup(text.as_bytes());
    }

    /// Makes the backup equal to `good`; writes only when it differs. Working from the backup, there is nothing to do.
    fn keep_backup(&self, good: &[u8]) {
        let Some(path) = &self.path else { return };
        if path.extension().is_some_and(|extension| extension == "bak") {
            return;
        }
        let backup = backup_of(path);
        if fs::read(&backup).is_ok_and(|kept| kept == good) {
            return;
        }
        if let Err(error) = durable::replace(&backup, good, NEW_MODE) {
            tracing::warn!(
                file = %backup.display(),
                error = %Chain(&error),
                "cannot keep a backup of the .flock file"
            );
        }
    }
}

/// `<name>.bak` in the same directory.
fn backup_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    PathBuf::from(name)
}

fn parse(content: &[u8]) -> Result<FlockDocument, FlockError> {
    let text = std::str::from_utf8(content).map_err(|error| FlockError::Syntax(error.to_string()))?;
    FlockDocument::parse(text)
}

#[cfg(test)]
mod tests;
