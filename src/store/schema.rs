//! Opening the file: damage check, pragmas, schema steps (`app-lifecycle.md` 9.1 to 9.3).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::{FACT_ADOPT, Opened, StoreError};

const REFERENCE_TABLES: &str = include_str!("reference_1_tables.sql");
const REFERENCE_COLUMNS: &str = include_str!("reference_2_columns.sql");

/// Own steps, in order; a step that has shipped never changes.
const OWN_STEPS: &[&str] = &[
    include_str!("own_1.sql"),
    include_str!("own_2.sql"),
    include_str!("own_3.sql"),
];

/// How long another process (a shell on the device) may hold the file.
const BUSY: Duration = Duration::from_secs(5);

pub(super) fn open(path: &Path) -> Result<(Connection, Opened), StoreError> {
    let created = !path.metadata().is_ok_and(|metadata| metadata.len() > 0);
    match connect(path, created) {
        Ok(connection) => Ok((connection, Opened::Healthy { created })),
        Err(Trouble::Damaged) => {
            let damaged = set_aside(path)?;
            let connection = connect(path, true).map_err(|trouble| match trouble {
                Trouble::Failed(error) => error,
                Trouble::Damaged => StoreError::File {
                    doing: "replacing the damaged file",
                    source: std::io::Error::other("the new file is damaged too"),
                },
            })?;
            Ok((connection, Opened::Rebuilt { damaged }))
        }
        Err(Trouble::Failed(error)) => Err(error),
    }
}

enum Trouble {
    Damaged,
    Failed(StoreError),
}

/// Tells damage, which a new file repairs, from trouble that it would not (permissions, full disk).
fn trouble(doing: &'static str) -> impl Fn(rusqlite::Error) -> Trouble {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Damaged,
        _ => Trouble::Failed(StoreError::Sqlite { doing, source }),
    }
}

fn connect(path: &Path, created: bool) -> Result<Connection, Trouble> {
    let mut connection = journalled(path).map_err(trouble("opening"))?;
    pragmas(&connection).map_err(trouble("setting pragmas"))?;
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(trouble("checking"))?;
    if verdict != "ok" {
        return Err(Trouble::Damaged);
    }
    steps(&mut connection, created).map_err(trouble("preparing the tables"))?;
    Ok(connection)
}

/// A write-ahead log costs one sync of the disk per transaction, a rollback journal four. A file system that cannot
/// have one (it needs shared memory beside the file) gets the rollback journal; the reference opens both.
fn journalled(path: &Path) -> rusqlite::Result<Connection> {
    let open = |locking: &str, journal: &str| {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "locking_mode", locking)?;
        connection.pragma_update(None, "journal_mode", journal)?;
        // Shared memory that can only be read is noticed no earlier.
        connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
        Ok(connection)
    };
    let refused: rusqlite::Error = match open("NORMAL", "WAL") {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    match refused.sqlite_error_code() {
        // Another journal mends none of these.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::DatabaseBusy) => Err(refused),
        _ => {
            tracing::warn!(error = %refused, "no write-ahead log is possible here; the database costs more writes");
            // Alone with the file, SQLite needs no shared memory to read the log that there may be, and to leave it.
            let connection = open("EXCLUSIVE", "DELETE")?;
            connection.pragma_update(None, "locking_mode", "NORMAL")?;
            Ok(connection)
        }
    }
}

fn pragmas(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    // 2 is FULL; anything less could lose an acknowledged request in a power cut.
    if synchronous != 2 {
        return Err(rusqlite::Error::InvalidQuery);
    }
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn steps(connection: &mut Connection, created: bool) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(REFERENCE_TABLES)?;
    for statement in REFERENCE_COLUMNS.lines().filter(|line| line.starts_with("ALTER")) {
        match transaction.execute_batch(statement) {
            Err(error) if error.to_string().contains("duplicate column") => {}
            result => result?,
        }
    }
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS ReagentSchema (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL)",
    )?;
    let version: u32 = transaction
        .query_row("SELECT version FROM ReagentSchema", [], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    // A file of a newer version is left as it is: steps only add.
    for (number, step) in (1u32..).zip(OWN_STEPS).filter(|(number, _)| *number > version) {
        transaction.execute_batch(step)?;
        transaction.execute(
            "INSERT INTO ReagentSchema (id, version) VALUES (1, ?1)
             ON CONFLICT (id) DO UPDATE SET version = excluded.version",
            [number],
        )?;
    }
    if created {
        transaction.execute(
            "INSERT OR REPLACE INTO ReagentFacts (name, value) VALUES (?1, 'pending')",
            [FACT_ADOPT],
        )?;
    }
    one_row_per_app(&transaction)?;
    transaction.commit()
}

/// The reference leaves a second row behind when an app is renamed (W45). The newest request counts; the oldest state
/// row carries the name under which things still exist on the device.
fn one_row_per_app(transaction: &Connection) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "DELETE FROM RequestedAppStates WHERE id NOT IN (SELECT MAX(id) FROM RequestedAppStates GROUP BY app_key, stage);
         DELETE FROM AppStates WHERE id NOT IN (SELECT MIN(id) FROM AppStates GROUP BY app_key, stage);",
    )
}

/// Renames the file and its journals; nothing is deleted, somebody may want to look at it.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let stamp = crate::local_time::now().strftime("%Y%m%dT%H%M%S").to_string();
    let mut damaged = with_suffix(path, &format!(".damaged-{stamp}"));
    let mut attempt = 1;
    while damaged.exists() {
        attempt += 1;
        damaged = with_suffix(path, &format!(".damaged-{stamp}-{attempt}"));
    }
    // Journals first: a journal left beside the new file would be replayed into it.
    for journal in ["-journal", "-wal", "-shm"] {
        let from = with_suffix(path, journal);
        if from.exists() {
            rename(&from, &with_suffix(&damaged, journal))?;
        }
    }
    rename(path, &damaged)?;
    Ok(damaged)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(|source| StoreError::File {
        doing: "renaming the damaged file",
        source,
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
