//! The report outbox (weakness W7): ordered per app, bounded, confirmed one by one.

use std::collections::BTreeSet;

use protocol::AppId;
use protocol::report::StateReport;
use rusqlite::{Connection, OptionalExtension, params};

use super::{PendingReport, Store, StoreError, signed, unsigned};

/// Reports kept per app while nobody can send them. When an app has more, its oldest go: they are states the app has
/// long left, and the newest is always there.
const PENDING_PER_APP: u32 = 32;

/// Reports that tell no news, at most one per app: kept in memory, because whoever misses them gets them again at the
/// next connect. Their numbers are negative and never used twice.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    reports: Vec<PendingReport>,
    used: i64,
}

impl Repeats {
    fn queue(&mut self, report: StateReport) {
        self.forget(app_of(&report));
        self.used -= 1;
        self.reports.push(PendingReport {
            number: self.used,
            report,
        });
    }

    fn confirm(&mut self, number: i64) {
        self.reports.retain(|pending| pending.number != number);
    }

    /// What a repeat would tell is not true any more.
    pub(super) fn forget(&mut self, app: AppId) {
        self.reports.retain(|pending| app_of(&pending.report) != app);
    }
}

impl Store {
    /// The reports that the backend has not confirmed yet, per app oldest first; at most 32 per app, and one that only
    /// repeats what is recorded.
    pub async fn pending_reports(&self) -> Result<Vec<PendingReport>, StoreError> {
        self.call("reading the outbox", |database| {
            let mut pending = written(&database.connection, &database.confirmed)?;
            pending.extend(database.repeats.reports.iter().cloned());
            Ok(pending)
        })
        .await
    }

    /// Forgets a report that the backend confirmed; a newer one of the same app stays. Not written by itself but with
    /// whatever is written next: after a power cut in between it is sent again, and nothing newer was recorded then.
    pub async fn confirm_report(&self, number: i64) -> Result<(), StoreError> {
        self.call("confirming a report", move |database| {
            if number < 0 {
                database.repeats.confirm(number);
            } else {
                database.confirmed.insert(number);
            }
            Ok(())
        })
        .await
    }

    /// Queues a report of the recorded state, without writing: state and release are filled in here, so that it can
    /// never overtake a change. Nothing is queued for an app without a row, or when the newest report that waits says
    /// the same.
    pub async fn queue_report(&self, mut report: StateReport) -> Result<(), StoreError> {
        self.call("queueing a report", move |database| {
            let recorded: Option<(String, i64)> = database
                .connection
                .prepare_cached("SELECT state, release_key FROM AppStates WHERE app_key = ?1 AND stage = ?2")?
                .query_row(params![signed(report.app_key), report.stage.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((state, release)) = recorded else {
                return Ok(());
            };
            report.state = state.parse().unwrap_or(report.state);
            report.release_key = unsigned(release);
            let waiting = written(&database.connection, &database.confirmed)?;
            let newest = waiting
                .iter()
                .rfind(|pending| app_of(&pending.report) == app_of(&report));
            if newest.is_none_or(|newest| newest.report != report) {
                database.repeats.queue(report);
            }
            Ok(())
        })
        .await?;
        self.outbox.send_modify(|count| *count += 1);
        Ok(())
    }
}

fn app_of(report: &StateReport) -> AppId {
    AppId {
        key: report.app_key,
        stage: report.stage,
    }
}

fn written(connection: &Connection, confirmed: &BTreeSet<i64>) -> rusqlite::Result<Vec<PendingReport>> {
    let mut statement =
        connection.prepare_cached("SELECT number, report FROM ReagentReports ORDER BY number")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    let mut pending = Vec::new();
    for row in rows {
        let (number, text) = row?;
        if confirmed.contains(&number) {
            continue;
        }
        match serde_json::from_str(&text) {
            Ok(report) => pending.push(PendingReport { number, report }),
            Err(error) => tracing::warn!(number, %error, "an unreadable report stays in the outbox"),
        }
    }
    Ok(pending)
}

/// Deletes confirmed reports inside the caller's transaction.
pub(super) fn forget(transaction: &Connection, confirmed: &BTreeSet<i64>) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached("DELETE FROM ReagentReports WHERE number = ?1")?;
    for number in confirmed {
        statement.execute([number])?;
    }
    Ok(())
}

/// Adds one report inside the caller's transaction.
pub(super) fn queue(transaction: &Connection, report: &StateReport) -> rusqlite::Result<()> {
    let app = app_of(report);
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
