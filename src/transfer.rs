//! Uploads of archives that are to be built (`write_data`, `logs-terminal-tunnel.md` 5): one at a time per container
//! name, the last one begun wins.
//!
//! A file appears under its name only when it is complete (weakness F5). Must not know: what is built from it, WAMP.

mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::{AppId, naming};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::journal::Chain;
use crate::logs::{Channel, Logs};
use crate::work::Works;
use upload::Upload;

/// An upload without a chunk for so long has failed (F6).
pub const EXPIRY: Duration = Duration::from_secs(120);
/// Uploads at once; further ones are refused.
const LIVE: usize = 16;
/// Between two progress messages of one upload (F8).
const TELL_EVERY: Duration = Duration::from_millis(250);

/// One call of `write_data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub part: Part,
    pub file_name: String,
    /// Names the upload: `dev_6_myapp`.
    pub container: String,
    /// Bytes announced; 0 when the sender does not know.
    pub total: u64,
    /// Tells overlapping uploads of one app apart.
    pub id: String,
}

/// What a chunk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Begin,
    Data(Vec<u8>),
    /// With the SHA-256 of the whole file, if the sender says it (F3).
    End(Option<String>),
}

/// Why a chunk was refused; the upload it belongs to has ended.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("We received a chunk without an active transfer")]
    NotActive,
    #[error("canceled")]
    Canceled,
    #[error(transparent)]
    Container(#[from] naming::BadContainerName),
    #[error("the file name {0:?} is not a plain name")]
    FileName(String),
    #[error("{0} is being uploaded by another transfer")]
    FileInUse(String),
    #[error("{LIVE} transfers are active already")]
    TooMany,
    #[error("not enough space on the device: {total} bytes are announced, {free} are free")]
    NoSpace { total: u64, free: u64 },
    #[error("{received} bytes arrived, {total} were announced")]
    Length { received: u64, total: u64 },
    #[error("the file's SHA-256 is {actual}, not {announced}")]
    Digest { actual: String, announced: String },
    #[error("writing {file_name}")]
    File {
        file_name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("internal error: the transfer panicked")]
    Panicked,
}

/// Handle of all uploads. Cloneable.
#[derive(Clone, Debug)]
pub struct Transfers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    serial: String,
    backend: Backend,
    logs: Logs,
    works: Works,
    /// By container name. Held while a chunk is written, so chunks are worked on in the order of their arrival (F4).
    uploads: Arc<tokio::sync::Mutex<BTreeMap<String, Upload>>>,
    failed: Mutex<BTreeSet<AppId>>,
    failure: Notify,
    stop: CancellationToken,
}

impl Transfers {
    /// Uploads go to `directory`; each is one of `works`. What an earlier run left unfinished is deleted.
    pub fn start(
        directory: &Path,
        serial: String,
        backend: Backend,
        logs: Logs,
        works: Works,
        stop: CancellationToken,
    ) -> Transfers {
        upload::delete_leftovers(directory);
        Transfers {
            inner: Arc::new(Inner {
                directory: directory.to_owned(),
                serial,
                backend,
                logs,
                works,
                uploads: Arc::default(),
                failed: Mutex::default(),
                failure: Notify::new(),
                stop,
            }),
        }
    }

    /// Takes a chunk. A stale one of an upload that another has taken the place of is ignored.
    pub async fn take(&self, chunk: Chunk) -> Result<(), TransferError> {
        let (app, name) = naming::parse_container(&chunk.container)?;
        let channel = match chunk.container.starts_with("pub_") {
            true => Channel::Publication,
            false => Channel::App,
        };
        let logs = &self.inner.logs;
        let container = chunk.container.clone();
        let uploads = Arc::clone(&self.inner.uploads).lock_owned().await;
        let result = match chunk.part {
            Part::Begin => {
                let begun = self.begin(uploads, chunk).await;
                if begun.is_ok() {
                    logs.clear_history_on(channel, app, &name);
                    logs.agent_line_on(channel, app, &name, "Received first package on device!");
                }
                begun
            }
            Part::Data(data) => self.append(uploads, &container, &chunk.id, data).await,
            Part::End(digest) => {
                let ended = self.end(uploads, &container, &chunk.id, digest).await;
                if matches!(ended, Ok(true)) {
                    let text = "File transfer has finished, starting build...";
                    logs.agent_line_on(channel, app, &name, text);
                }
                ended.map(drop)
            }
        };
        if result.is_err() {
            self.fail(app);
        }
        result
    }

    /// Ends the upload for a container; its next chunk is told so.
    pub async fn cancel(&self, container: &str) {
        if let Some(upload) = self.inner.uploads.lock().await.get_mut(container) {
            upload.cancel();
        }
    }

    /// An app whose upload has failed or was given up. Each is told once, to one who waits.
    pub async fn failed(&self) -> AppId {
        loop {
            let failure = self.inner.failure.notified();
            if let Some(app) = self.lock_failed().pop_first() {
                return app;
            }
            failure.await;
        }
    }

    fn fail(&self, app: AppId) {
        self.lock_failed().insert(app);
        self.inner.failure.notify_one();
    }

    fn lock_failed(&self) -> std::sync::MutexGuard<'_, BTreeSet<AppId>> {
        self.inner.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(
        &self,
        mut uploads: OwnedMutexGuard<BTreeMap<String, Upload>>,
        chunk: Chunk,
    ) -> Result<(), TransferError> {
        // Its file goes with it: the last one begun wins.
        uploads.remove(&chunk.container);
        if uploads.len() >= LIVE {
            return Err(TransferError::TooMany);
        }
        if uploads.values().any(|upload| upload.writes(&chunk.file_name)) {
            return Err(TransferError::FileInUse(chunk.file_name));
        }
        let directory = self.inner.directory.clone();
        let container = chunk.container.clone();
        let work = self.inner.works.begin();
        let upload = on_disk(move || Upload::begin(&directory, chunk, work)).await?;
        uploads.insert(container.clone(), upload);
        let (transfers, stop) = (self.clone(), self.inner.stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(transfers.expire(container)).await });
        Ok(())
    }

    async fn append(
        &self,
        mut uploads: OwnedMutexGuard<BTreeMap<String, Upload>>,
        container: &str,
        id: &str,
        data: Vec<u8>,
    ) -> Result<(), TransferError> {
        if !is_for(&mut uploads, container, id)? {
            return Ok(());
        }
        let name = container.to_owned();
        let (mut uploads, written) = on_disk(move || {
            let written = match uploads.get_mut(&name) {
                Some(upload) => upload.append(&data),
                None => Err(TransferError::NotActive),
            };
            Ok((uploads, written))
        })
        .await?;
        if written.is_err() {
            uploads.remove(container);
            return written;
        }
        let Some(upload) = uploads.get(container) else {
            return Ok(());
        };
        if let Some(progress) = upload.progress(TELL_EVERY) {
            let (backend, serial) = (self.inner.backend.clone(), self.inner.serial.clone());
            let (container, file_name) = (container.to_owned(), upload.file_name().to_owned());
            // Ends by its own deadline; at most one per upload and quarter of a second.
            tokio::spawn(async move {
                backend
                    .transfer_progress(&serial, &container, &file_name, &progress)
                    .await;
            });
        }
        Ok(())
    }

    /// Whether it was this upload that ended.
    async fn end(
        &self,
        mut uploads: OwnedMutexGuard<BTreeMap<String, Upload>>,
        container: &str,
        id: &str,
        digest: Option<String>,
    ) -> Result<bool, TransferError> {
        if !is_for(&mut uploads, container, id)? {
            return Ok(false);
        }
        let upload = uploads.remove(container).ok_or(TransferError::NotActive)?;
        // A slow disk holds up nobody else's chunks.
        drop(uploads);
        on_disk(move || upload.end(digest.as_deref())).await?;
        Ok(true)
    }

    /// Gives the upload of a container up when nothing has come for long.
    async fn expire(&self, container: String) {
        loop {
            let due = {
                let mut uploads = self.inner.uploads.lock().await;
                let Some(upload) = uploads.get(&container) else {
                    return;
                };
                let due = upload.last_chunk() + EXPIRY;
                if due <= Instant::now() {
                    uploads.remove(&container);
                    tracing::warn!(container, "an upload that stood still was given up");
                    if let Ok((app, _)) = naming::parse_container(&container) {
                        self.fail(app);
                    }
                    return;
                }
                due
            };
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Whether a chunk belongs to the upload of its container. One that was canceled is forgotten once it has been told so.
fn is_for(uploads: &mut BTreeMap<String, Upload>, container: &str, id: &str) -> Result<bool, TransferError> {
    let upload = uploads.get(container).ok_or(TransferError::NotActive)?;
    upload.is_for(id).inspect_err(|_| {
        uploads.remove(container);
    })
}

/// Runs file work on a blocking thread.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "a transfer died");
            Err(TransferError::Panicked)
        }
    }
}

#[cfg(test)]
mod tests;
