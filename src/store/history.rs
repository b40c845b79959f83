//! Log history of apps (`logs-terminal-tunnel.md` 2.8) and small remembered facts.

use protocol::AppId;
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, signed};

impl Store {
    /// The stored log history of an app (`logs-terminal-tunnel.md` 2.8), empty when there is none.
    pub async fn log_history(&self, app: AppId) -> Result<Vec<String>, StoreError> {
        self.call("reading a log history", move |connection| {
            let text: Option<String> = connection
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

    /// Replaces the stored log history of an app.
    pub async fn save_log_history(
        &self,
        app: AppId,
        app_name: &str,
        lines: Vec<String>,
    ) -> Result<(), StoreError> {
        let app_name = app_name.to_owned();
        let log = serde_json::Value::from(lines).to_string();
        self.call("saving a log history", move |connection| {
            let transaction = connection.transaction()?;
            transaction
                .prepare_cached(
                    "INSERT INTO LogHistory (app_name, app_key, stage, log_type, log) VALUES (?1, ?2, ?3, 'APP', ?4)
                     ON CONFLICT (app_name, app_key, stage, log_type) DO UPDATE SET log = excluded.log",
                )?
                .execute(params![app_name, signed(app.key), app.stage.as_str(), log])?;
            // Readers take the first row of (key, stage), whatever its type: all rows tell the same.
            transaction
                .prepare_cached("UPDATE LogHistory SET log = ?3 WHERE app_key = ?1 AND stage = ?2 AND log <> ?3")?
                .execute(params![signed(app.key), app.stage.as_str(), log])?;
            transaction.commit()
        })
        .await
    }

    /// Empties the stored log history of an app; never inserts a row.
    pub async fn clear_log_history(&self, app: AppId, _app_name: &str) -> Result<(), StoreError> {
        self.call("clearing a log history", move |connection| {
            connection
                .prepare_cached(
                    "UPDATE LogHistory SET log = '[]' WHERE app_key = ?1 AND stage = ?2 AND log <> '[]'",
                )?
                .execute(params![signed(app.key), app.stage.as_str()])?;
            Ok(())
        })
        .await
    }

    /// A small remembered fact (own table), for example the platform's base URL.
    pub async fn fact(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.call("reading a fact", move |connection| {
            connection
                .prepare_cached("SELECT value FROM ReagentFacts WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()
        })
        .await
    }

    /// Remembers a fact; writes only when it changes.
    pub async fn set_fact(&self, name: &'static str, value: &str) -> Result<(), StoreError> {
        let value = value.to_owned();
        self.call("remembering a fact", move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO ReagentFacts (name, value) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
                )?
                .execute([name, &value])?;
            Ok(())
        })
        .await
    }
}
