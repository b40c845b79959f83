//! Opening the database: pragmas in one place, numbered steps, each in one transaction with its version.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// The steps in order; step `n` leads to `user_version` n + 1.
const STEPS: &[&str] = &[
    include_str!("schema/001-fleet.sql"),
    include_str!("schema/002-compose.sql"),
    include_str!("schema/003-rollouts.sql"),
    include_str!("schema/004-rollout-waves.sql"),
    include_str!("schema/005-rollout-retries.sql"),
];

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::Open {
        path: path.display().to_string(),
        source,
    };
    let mut connection = Connection::open(path).map_err(failed)?;
    // What a device or a person was told is stored must survive a power cut: FULL.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;",
        )
        .map_err(failed)?;
    migrate(&mut connection, STEPS).map_err(|error| match error {
        StoreError::Sql(source) => failed(source),
        other => other,
    })?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = i64::try_from(steps.len()).expect("there are few steps");
    if found > known || found < 0 {
        return Err(StoreError::TooNew { found, known });
    }
    for (done, step) in (0_i64..)
        .zip(steps)
        .skip(usize::try_from(found).expect("checked: not negative"))
    {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", done + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_once_and_a_newer_schema_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, STEPS).unwrap();
        migrate(&mut connection, STEPS).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(
            migrate(&mut connection, STEPS),
            Err(StoreError::TooNew { found: 99, .. })
        ));
    }

    #[test]
    fn a_failing_step_leaves_the_version_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"];
        assert!(migrate(&mut connection, &steps).is_err());
        let version: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(version, 1);
        let tables: i64 = connection
            .query_row(
                "SELECT count(*) FROM sqlite_schema WHERE type = 'table'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(tables, 1);
    }
}
