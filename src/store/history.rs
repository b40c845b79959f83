//! Log history of apps (`logs-terminal-tunnel.md` 2.8) and small remembered facts.

use protocol::AppId;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, signed};

/// The newest lines of an app, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHistory {
    pub app: AppId,
    pub app_name: String,
    pub lines: Vec<String>,
}

impl Store {
    /// The stored log history of an app (`logs-terminal-tunnel.md` 2.8), empty when there is none.
    pub async fn log_history(&self, app: AppId) -> Result<Vec<String>, StoreError> {
        self.call("reading a log history", move |database| {
            let text: Option<String> = database
                .connection
                .prepare_cached(
                    "SELECT log FROM LogHistory WHERE app_key = ?1 AND stage = ?2 ORDER BY id LIMIT 1",
                )?
                .query_row(params![signed(app.key), app.stage.as_str()], |row| row.get(0))
                .optional()?;
            // The reference also stores the text `null`.
            Ok(text
                .and_then(|text| serde_json::from_str::<Option<Vec<String>>>(&text).ok().flatten())
                .unwrap_or_default())
        })
        .await
    }

    /// Replaces stored log histories, and a fact that belongs to them, in one transaction. Writes only what changes; an
    /// empty history never makes a row. A power cut may take the last of these writes back, all of it: the fact then tells
    /// from where to read the lines again.
    pub async fn save_log_histories(
        &self,
        histories: Vec<LogHistory>,
        fact: Option<(&'static str, String)>,
    ) -> Result<(), StoreError> {
        self.call("saving log histories", move |database| {
            database.write_unsynced("log histories", |transaction| {
                for history in &histories {
                    save(transaction, history)?;
                }
                match &fact {
                    Some((name, value)) => remember(transaction, name, value),
                    None => Ok(()),
                }
            })
        })
        .await
    }

    /// A small remembered fact (own table), for example the platform's base URL.
    pub async fn fact(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.call("reading a fact", move |database| {
            database
                .connection
                .prepare_cached("SELECT value FROM ReagentFacts WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()
        })
        .await
    }

    /// Remembers a fact; writes only when it changes.
    pub async fn set_fact(&self, name: &'static str, value: &str) -> Result<(), StoreError> {
        let value = value.to_owned();
        self.call("remembering a fact", move |database| {
            database.write(name, |transaction| remember(transaction, name, &value))
        })
        .await
    }
}

fn save(transaction: &Connection, history: &LogHistory) -> rusqlite::Result<()> {
    let (key, stage) = (signed(history.app.key), history.app.stage.as_str());
    let log = serde_json::Value::from(history.lines.clone()).to_string();
    if !history.lines.is_empty() {
        transaction
            .prepare_cached(
                "INSERT INTO LogHistory (app_name, app_key, stage, log_type, log) VALUES (?1, ?2, ?3, 'APP', ?4)
                 ON CONFLICT (app_name, app_key, stage, log_type) DO UPDATE SET log = excluded.log
                     WHERE log <> excluded.log",
            )?
            .execute(params![history.app_name, key, stage, log])?;
    }
    // Readers take the first row of (key, stage), whatever its type: all rows tell the same.
    transaction
        .prepare_cached("UPDATE LogHistory SET log = ?3 WHERE app_key = ?1 AND stage = ?2 AND log <> ?3")?
        .execute(params![key, stage, log])
        .map(drop)
}

fn remember(transaction: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO ReagentFacts (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
        )?
        .execute([name, value])
        .map(drop)
}
