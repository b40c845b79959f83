//! One upload: a file that grows beside its final name and takes it when it is complete. Blocks.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Chunk, TransferError};
use crate::work::Work;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix::{Place, Unfinished};
#[cfg(windows)]
use windows::{Place, Unfinished};

/// Longest file name that every file system in use takes, minus what the temporary name adds.
const LONGEST_NAME: usize = 220;
/// Never filled by an upload.
const RESERVE: u64 = 64 << 20;
/// Ends the name of a file that is not complete.
const UNFINISHED: &str = ".part";

/// An upload that has begun. Dropped without [`Upload::end`], its file goes.
#[derive(Debug)]
pub(super) struct Upload {
    id: String,
    file_name: String,
    total: u64,
    received: u64,
    digest: Sha256,
    last_chunk: Instant,
    told: Mutex<Option<Instant>>,
    /// `None` once canceled.
    file: Option<Unfinished>,
    _work: Work,
}

impl Upload {
    pub(super) fn begin(directory: &Path, chunk: Chunk, work: Work) -> Result<Upload, TransferError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let file_name = chunk.file_name;
        if !is_plain(&file_name) {
            return Err(TransferError::FileName(file_name));
        }
        let open = || -> io::Result<Result<Unfinished, u64>> {
            let place = Place::open(directory)?;
            let free = place.available()?.saturating_sub(RESERVE);
            if chunk.total > free {
                return Ok(Err(free));
            }
            // Numbered: one that is being completed may still have the same name.
            let name = format!(
                ".{file_name}.{}{UNFINISHED}",
                NUMBER.fetch_add(1, Ordering::Relaxed)
            );
            place.create(name).map(Ok)
        };
        let file = match open() {
            Ok(Ok(file)) => file,
            Ok(Err(free)) => {
                return Err(TransferError::NoSpace {
                    total: chunk.total,
                    free,
                });
            }
            Err(source) => return Err(TransferError::File { file_name, source }),
        };
        Ok(Upload {
            id: chunk.id,
            file_name,
            total: chunk.total,
            received: 0,
            digest: Sha256::new(),
            last_chunk: Instant::now(),
            told: Mutex::new(None),
            file: Some(file),
            _work: work,
        })
    }

    /// Whether a chunk with this id belongs to it. A canceled upload has ended for every id.
    pub(super) fn is_for(&self, id: &str) -> Result<bool, TransferError> {
        match self.file {
            Some(_) => Ok(self.id == id),
            None => Err(TransferError::Canceled),
        }
    }

    pub(super) fn writes(&self, file_name: &str) -> bool {
        self.file.is_some() && self.file_name == file_name
    }

    pub(super) fn file_name(&self) -> &str {
        &self.file_name
    }

    pub(super) fn last_chunk(&self) -> Instant {
        self.last_chunk
    }

    pub(super) fn cancel(&mut self) {
        self.file = None;
    }

    pub(super) fn append(&mut self, data: &[u8]) -> Result<(), TransferError> {
        self.last_chunk = Instant::now();
        let file = self.file.as_mut().ok_or(TransferError::Canceled)?;
        self.received += data.len() as u64;
        if self.total > 0 && self.received > self.total {
            return Err(TransferError::Length {
                received: self.received,
                total: self.total,
            });
        }
        self.digest.update(data);
        file.write(data).map_err(|source| TransferError::File {
            file_name: self.file_name.clone(),
            source,
        })
    }

    /// `41.667%`, if somebody should be told now: not too often, but always at the end.
    pub(super) fn progress(&self, every: Duration) -> Option<String> {
        let now = Instant::now();
        let mut told = self
            .told
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.total == 0 || (self.received < self.total && told.is_some_and(|at| now < at + every)) {
            return None;
        }
        *told = Some(now);
        #[expect(
            clippy::cast_precision_loss,
            reason = "three decimals of a percentage are shown"
        )]
        let percent = self.received as f64 / self.total as f64 * 100.0;
        Some(format!("{percent:.3}%"))
    }

    /// Gives the file its name, once it is whole and on the disk.
    pub(super) fn end(mut self, announced: Option<&str>) -> Result<(), TransferError> {
        let file = self.file.take().ok_or(TransferError::Canceled)?;
        if self.total > 0 && self.received != self.total {
            return Err(TransferError::Length {
                received: self.received,
                total: self.total,
            });
        }
        let actual = hex::encode(self.digest.finalize());
        if let Some(announced) = announced
            && !announced.eq_ignore_ascii_case(&actual)
        {
            return Err(TransferError::Digest {
                actual,
                announced: announced.to_owned(),
            });
        }
        file.complete(&self.file_name)
            .map_err(|source| TransferError::File {
                file_name: self.file_name.clone(),
                source,
            })
    }
}

/// Whether it names a file in a directory and nothing else (F1).
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= LONGEST_NAME
        && !name.contains(['/', '\\', '\0'])
}

/// Deletes what a run that was killed left unfinished.
pub(super) fn delete_leftovers(directory: &Path) {
    let unfinished = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with('.') && name.ends_with(UNFINISHED)
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| unfinished(&entry.file_name())) {
        if let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(file = %entry.path().display(), %error, "deleting an unfinished upload");
        }
    }
}
