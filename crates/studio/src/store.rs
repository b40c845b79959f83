//! The fleet store: SQLite behind one thread.
//!
//! Every question is one method that runs in one transaction on the store's thread; nothing else in the crate sees
//! SQL. The store knows nothing of WAMP, of processes, or of who may ask what.

mod account;
mod app;
mod device;
mod install;
mod rollout;
mod schema;

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

pub use account::{Account, DeviceReach, Reach};
pub use app::{App, NewRelease, Release};
pub use device::{Device, NewDevice, StatusChange};
pub use install::{Install, REPORTS_KEPT, ReportOutcome, StateChange};
pub use rollout::{Member, MemberState, NewRollout, Rollout, RolloutState};

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database file could not be opened or prepared.
    #[error("cannot open the fleet store {path}")]
    Open {
        path: String,
        #[source]
        source: rusqlite::Error,
    },
    /// Written by a newer studio: its data would be misread.
    #[error("the fleet store has schema {found}, this studio knows up to {known}: use the newer studio")]
    TooNew { found: i64, known: i64 },
    /// A statement failed.
    #[error("the fleet store failed")]
    Sql(#[from] rusqlite::Error),
    /// A stored value is not what this program writes.
    #[error("the fleet store holds an unusable {what}")]
    Content {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    /// The name is taken.
    #[error("{what} {name:?} exists already")]
    Taken { what: &'static str, name: String },
    /// Other rows depend on it.
    #[error("{0}")]
    InUse(String),
    /// No randomness for a new secret.
    #[error("the system gives no random numbers")]
    Random(#[source] std::io::Error),
    /// The store's thread is gone.
    #[error("the fleet store is closed")]
    Closed,
}

type Question = Box<dyn FnOnce(&mut Connection) + Send>;

/// What the store's thread is asked to do.
enum Job {
    Answer(Question),
    /// Close the database and end; tells when it is done.
    Close(oneshot::Sender<()>),
}

/// Jobs waiting for the store's thread. When full, askers wait: the router's own deadlines bound them.
const QUEUE: usize = 256;

/// Handle of the store. Cloneable; the thread ends, and the database closes, with the last handle.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens or creates the database, brings its schema up to date and starts the store's thread.
    pub async fn open(path: &Path) -> Result<Store, StoreError> {
        let shown = path.display().to_string();
        let path = path.to_owned();
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (opened, wait) = oneshot::channel();
        let spawned = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let mut connection = match schema::open(&path) {
                    Ok(connection) => connection,
                    Err(error) => {
                        // Nobody waits any more: nothing to tell.
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                if opened.send(Ok(())).is_err() {
                    return;
                }
                while let Some(job) = queue.blocking_recv() {
                    match job {
                        Job::Answer(question) => question(&mut connection),
                        Job::Close(closed) => {
                            // Closing the last connection folds the write-ahead log into the database file.
                            drop(connection);
                            // Whoever asked may have given up waiting.
                            let _ = closed.send(());
                            return;
                        }
                    }
                }
            });
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start the store's thread");
            return Err(StoreError::Closed);
        }
        tracing::debug!(path = shown, "fleet store open");
        wait.await.map_err(|_| StoreError::Closed)??;
        Ok(Store { jobs })
    }

    /// Answers what was asked before, then closes the database. Later questions get [`StoreError::Closed`].
    pub async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.jobs.send(Job::Close(closed)).await.is_ok() {
            // An error means that another handle closed it first.
            let _ = wait.await;
        }
    }

    /// Runs one question in one transaction, committed when it answers `Ok`.
    async fn ask<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            let result = (|| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let value = question(&transaction)?;
                transaction.commit()?;
                Ok(value)
            })();
            // The asker may have gone away; what it asked for is done or not, as the transaction says.
            let _ = answer.send(result);
        });
        self.jobs
            .send(Job::Answer(question))
            .await
            .map_err(|_| StoreError::Closed)?;
        wait.await.map_err(|_| StoreError::Closed)?
    }
}

/// The current time as stored and shown: RFC 3339, UTC, milliseconds.
pub(crate) fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        .to_string()
}

/// Turns a violated UNIQUE constraint into [`StoreError::Taken`].
fn taken(error: rusqlite::Error, what: &'static str, name: &str) -> StoreError {
    match error.sqlite_error() {
        Some(cause) if cause.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE => StoreError::Taken {
            what,
            name: name.to_owned(),
        },
        _ => StoreError::Sql(error),
    }
}

fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Content { what, source })
}

fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Content { what, source })
}

#[cfg(test)]
mod tests;
