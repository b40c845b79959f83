//! The report outbox (weakness W7): ordered per app, bounded, confirmed one by one.

use protocol::AppId;
use protocol::report::StateReport;
use rusqlite::{Connection, OptionalExtension, params};

use super::{PendingReport, Store, StoreError, signed, unsigned};

/// Reports kept per app while nobody can send them. When an app has more, its oldest go: they are states the app has
/// long left, and the newest is always there.
const PENDING_PER_APP: u32 = 32;

impl Store {
    /// The reports that the backend has not confirmed yet, oldest first; at most 32 per app.
    pub async fn pending_reports(&self) -> Result<Vec<PendingReport>, StoreError> {
        self.call("reading the outbox", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT number, report FROM ReagentReports ORDER BY number")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            let mut pending = Vec::new();
            for row in rows {
                let (number, text) = row?;
                match serde_json::from_str(&text) {
                    Ok(report) => pending.push(PendingReport { number, report }),
                    Err(error) => tracing::warn!(number, %error, "an unreadable report stays in the outbox"),
                }
            }
            Ok(pending)
        })
        .await
    }

    /// Forgets a report that the backend confirmed; a newer one of the same app stays.
    pub async fn confirm_report(&self, number: i64) -> Result<(), StoreError> {
        self.call("confirming a report", move |connection| {
            connection
                .prepare_cached("DELETE FROM ReagentReports WHERE number = ?1")?
                .execute([number])?;
            Ok(())
        })
        .await
    }

    /// Queues a report of the recorded state: state and release are filled in here, so that it can never overtake a
    /// change. Nothing is queued for an app without a row.
    pub async fn queue_report(&self, mut report: StateReport) -> Result<(), StoreError> {
        self.call("queueing a report", move |connection| {
            let transaction = connection.transaction()?;
            let recorded: Option<(String, i64)> = transaction
                .prepare_cached("SELECT state, release_key FROM AppStates WHERE app_key = ?1 AND stage = ?2")?
                .query_row(params![signed(report.app_key), report.stage.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            if let Some((state, release)) = recorded {
                report.state = state.parse().unwrap_or(report.state);
                report.release_key = unsigned(release);
                queue(&transaction, &report)?;
            }
            transaction.commit()
        })
        .await?;
        self.outbox.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// Adds one report inside the caller's transaction.
pub(super) fn queue(transaction: &Connection, report: &StateReport) -> rusqlite::Result<()> {
    let app = AppId {
        key: report.app_key,
        stage: report.stage,
    };
    let text = serde_json::to_string(report)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    transaction
        .prepare_cached("INSERT INTO ReagentReports (app_key, stage, report) VALUES (?1, ?2, ?3)")?
        .execute(params![signed(app.key), app.stage.as_str(), text])?;
    transaction
        .prepare_cached(
            "DELETE FROM ReagentReports WHERE app_key = ?1 AND stage = ?2 AND number NOT IN (
                 SELECT number FROM ReagentReports WHERE app_key = ?1 AND stage = ?2 ORDER BY number DESC LIMIT ?3)",
        )?
        .execute(params![signed(app.key), app.stage.as_str(), PENDING_PER_APP])?;
    Ok(())
}
