//! SQLite (`app-lifecycle.md` 9): schema steps as `.sql`, one function per question, one writer thread.
//!
//! The database stays readable and writable by the Go reference. Own data lives in own tables (prefix `Reagent`).
//! Must not know: Docker, the network, why a state changes.

mod apps;
mod history;
mod outbox;
mod schema;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

pub use history::LogHistory;
use protocol::report::StateReport;
use protocol::{AppId, AppState};
use rusqlite::Connection;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};

/// Calls that may wait for the database thread; a full queue makes callers wait, nothing is dropped.
const QUEUE: usize = 64;

/// Handle of the database thread. Cloneable. Calls queue; the queue is bounded and a full queue waits.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Message>,
    outbox: Arc<watch::Sender<u64>>,
}

type Job = Box<dyn FnOnce(&mut Database) + Send>;

/// What the thread owns: the connection, and what need not be written at once.
struct Database {
    connection: Connection,
    /// Whether the file has a write-ahead log.
    write_ahead: bool,
    /// Reports that the backend confirmed. Their rows go with the next transaction, whatever it is for: a power cut
    /// before it repeats reports of states that are still the recorded ones.
    confirmed: BTreeSet<i64>,
    /// Reports that only repeat what is recorded; every connect asks for them again.
    repeats: outbox::Repeats,
}

impl Database {
    /// Like [`Database::write`], for what a power cut may undo: without a sync of the disk where the log allows it. The
    /// next `write` makes it durable, and neither a crash of the agent nor a power cut damages the file.
    fn write_unsynced<T>(
        &mut self,
        step: &str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        // A rollback journal needs its syncs to stay whole.
        if !self.write_ahead {
            return self.write(step, work);
        }
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        let result = self.write(step, work);
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        result
    }

    /// The one way to write: one transaction, one sync of the disk; none when `work` changes nothing. A test cuts the
    /// power at `step`.
    fn write<T>(
        &mut self,
        step: &str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let transaction = self.connection.transaction()?;
        let before = transaction.total_changes();
        let result = work(&transaction)?;
        if transaction.total_changes() != before {
            outbox::forget(&transaction, &self.confirmed)?;
            crate::crash::before(step);
            transaction.commit()?;
            crate::crash::after(step);
            self.confirmed.clear();
        }
        Ok(result)
    }

    /// Deletes what the backend confirmed, if nothing else is going to be written any more.
    fn forget_confirmed(&mut self) -> rusqlite::Result<()> {
        if self.confirmed.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        outbox::forget(&transaction, &self.confirmed)?;
        transaction.commit()
    }
}

enum Message {
    Run(Job),
    Close,
}

/// Why a database call failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("database: {doing}")]
    Sqlite {
        doing: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    /// The database thread is gone (shutdown).
    #[error("the database is closed")]
    Closed,
    /// A file operation around the database failed.
    #[error("database file: {doing}")]
    File {
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// What was found at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A healthy database, maybe just created in an empty place.
    Healthy { created: bool },
    /// The file was damaged; it was renamed to this path and a new one made.
    Rebuilt { damaged: std::path::PathBuf },
}

/// One row of `AppStates`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRow {
    pub app: AppId,
    pub app_name: String,
    pub version: String,
    pub release_key: u64,
    pub state: AppState,
}

/// A state to record (9.4) and the report that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    pub app: AppId,
    pub app_name: String,
    pub state: AppState,
    /// Installed version.
    pub version: String,
    pub release_key: u64,
    /// With this state the build or publication that the request of this number asked for has ended, one way or the other.
    pub finishes: Option<u64>,
    /// The compose document of the version that an update has just brought.
    pub document: Option<Map<String, Value>>,
    /// Queued in the same transaction, also when the state itself is not new.
    pub report: Option<StateReport>,
}

/// What recording a state did to the app's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The app is still known.
    Kept,
    /// REMOVED was what had been asked for: the rows are gone (9.5).
    Deleted,
}

/// A report waiting to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingReport {
    /// Identifies this report when it is confirmed; never used twice.
    pub number: i64,
    pub report: StateReport,
}

/// A fact that is set in a database made from nothing, until what runs on the host has been adopted into it.
pub const FACT_ADOPT: &str = "adopt";

impl Store {
    /// Opens or creates; a damaged file is renamed aside and replaced (logged loudly by the caller).
    pub async fn open(path: &Path) -> Result<(Store, Opened), StoreError> {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (ready, opened) = oneshot::channel();
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || match schema::open(&path) {
                Ok((connection, opened)) => {
                    // Nobody waits any more: the agent gave up starting.
                    if ready.send(Ok(opened)).is_ok() {
                        work(connection, inbox);
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(|source| StoreError::File {
                doing: "starting the thread",
                source,
            })?;
        let opened = opened.await.map_err(|_| StoreError::Closed)??;
        let outbox = Arc::new(watch::Sender::new(0));
        Ok((Store { jobs, outbox }, opened))
    }

    /// Flushes and closes; later calls fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        if self.jobs.send(Message::Close).await.is_ok() {
            self.jobs.closed().await;
        }
    }

    /// Changes whenever the outbox grows; read [`Store::pending_reports`] then.
    pub fn outbox_changed(&self) -> watch::Receiver<u64> {
        self.outbox.subscribe()
    }

    async fn call<T, F>(&self, doing: &'static str, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Database) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |database| drop(reply.send(job(database))));
        self.jobs
            .send(Message::Run(job))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer
            .await
            .map_err(|_| StoreError::Closed)?
            .map_err(|source| StoreError::Sqlite { doing, source })
    }
}

fn work(connection: Connection, mut inbox: mpsc::Receiver<Message>) {
    let journal: Result<String, _> = connection.pragma_query_value(None, "journal_mode", |row| row.get(0));
    let mut database = Database {
        connection,
        write_ahead: journal.is_ok_and(|mode| mode == "wal"),
        confirmed: BTreeSet::new(),
        repeats: outbox::Repeats::default(),
    };
    while let Some(Message::Run(job)) = inbox.blocking_recv() {
        job(&mut database);
    }
    if let Err(error) = database.forget_confirmed() {
        tracing::warn!(%error, "some reports will be sent twice");
    }
    if let Err((_, error)) = database.connection.close() {
        tracing::error!(%error, "closing the database");
    }
    // Only now the inbox goes: `close` returns when the file is closed.
    drop(inbox);
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Keys are unsigned on the wire and signed in SQLite: the bits are kept.
fn signed(key: u64) -> i64 {
    key as i64
}

fn unsigned(key: i64) -> u64 {
    key as u64
}

/// RFC 3339, seconds, local offset (9.6).
fn now() -> String {
    crate::local_time::now()
        .strftime("%Y-%m-%dT%H:%M:%S%:z")
        .to_string()
}
