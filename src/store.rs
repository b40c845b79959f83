//! SQLite (`app-lifecycle.md` 9): schema steps as `.sql`, one function per question, one writer thread.
//!
//! The database stays readable and writable by the Go reference. Own data lives in own tables (prefix `Reagent`).

use std::path::Path;

use protocol::report::StateReport;
use protocol::{AppId, AppRequest, AppState};

/// Handle of the database thread. Cloneable. Calls queue; the queue is bounded and a full queue waits.
#[derive(Clone, Debug)]
pub struct Store {}

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

/// A report waiting to be sent, newest per app.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingReport {
    /// Identifies this report when it is confirmed; a newer report of the same app has another number.
    pub number: i64,
    pub report: StateReport,
}

impl Store {
    /// Opens or creates; a damaged file is renamed aside and replaced (logged loudly by the caller).
    pub async fn open(_path: &Path) -> Result<(Store, Opened), StoreError> {
        todo!()
    }

    /// Every known app.
    pub async fn apps(&self) -> Result<Vec<AppRow>, StoreError> {
        todo!()
    }

    /// Every stored request.
    pub async fn requests(&self) -> Result<Vec<AppRequest>, StoreError> {
        todo!()
    }

    /// The reports that the backend has not confirmed yet, oldest first.
    pub async fn pending_reports(&self) -> Result<Vec<PendingReport>, StoreError> {
        todo!()
    }

    /// Forgets a report that the backend confirmed; a newer one of the same app stays.
    pub async fn confirm_report(&self, _number: i64) -> Result<(), StoreError> {
        todo!()
    }

    /// The stored log history of an app (`logs-terminal-tunnel.md` 2.8), empty when there is none.
    pub async fn log_history(&self, _app: AppId) -> Result<Vec<String>, StoreError> {
        todo!()
    }

    /// Replaces the stored log history of an app.
    pub async fn save_log_history(
        &self,
        _app: AppId,
        _app_name: &str,
        _lines: Vec<String>,
    ) -> Result<(), StoreError> {
        todo!()
    }

    /// Empties the stored log history of an app; never inserts a row.
    pub async fn clear_log_history(&self, _app: AppId, _app_name: &str) -> Result<(), StoreError> {
        todo!()
    }

    /// A small remembered fact (own table), for example the platform's base URL.
    pub async fn fact(&self, _name: &'static str) -> Result<Option<String>, StoreError> {
        todo!()
    }

    /// Remembers a fact; writes only when it changes.
    pub async fn set_fact(&self, _name: &'static str, _value: &str) -> Result<(), StoreError> {
        todo!()
    }

    /// Flushes and closes; later calls fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        todo!()
    }
}
