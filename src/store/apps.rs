//! Apps, their requests and their state changes (`app-lifecycle.md` 9.4 to 9.6).

use std::collections::BTreeMap;

use protocol::{AppId, AppRequest, AppState, Stage};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value};

use super::{AppRow, Recorded, StateChange, Store, StoreError, now, outbox, signed, unsigned};

/// Newest rows of `AppStateHistory` kept per app (weakness W44).
const HISTORY_PER_APP: u32 = 1000;

impl Store {
    /// Every known app. A state that this version cannot read counts as FAILED: the app stays known and is looked at.
    pub async fn apps(&self) -> Result<Vec<AppRow>, StoreError> {
        self.call("reading the apps", |database| {
            let mut statement = database.connection.prepare_cached(
                "SELECT app_key, stage, app_name, version, release_key, state FROM AppStates ORDER BY id",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(AppRow {
                    app: app_id(row)?,
                    app_name: row.get("app_name")?,
                    version: row.get("version")?,
                    release_key: unsigned(row.get("release_key")?),
                    state: state(row, "state")?.unwrap_or(AppState::Failed),
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// Every stored request. One whose target this version cannot read is left out and stays in the file.
    pub async fn requests(&self) -> Result<Vec<AppRequest>, StoreError> {
        self.call("reading the requests", |database| {
            let mut statement = database.connection.prepare_cached(
                "SELECT r.*, o.version AS own_version, o.instance_key, o.app_cred_epoch, o.canceled
                 FROM RequestedAppStates r LEFT JOIN ReagentApps o ON o.app_key = r.app_key AND o.stage = r.stage
                 ORDER BY r.id",
            )?;
            let rows = statement.query_map([], request)?;
            rows.filter_map(Result::transpose).collect()
        })
        .await
    }

    /// The apps that were rebuilt from labels ([`Store::adopt`]) and not requested by anybody since.
    pub async fn adopted(&self) -> Result<Vec<AppId>, StoreError> {
        self.call("reading the adopted apps", |database| {
            let mut statement = database
                .connection
                .prepare_cached("SELECT app_key, stage FROM ReagentApps WHERE adopted = 1")?;
            let rows = statement.query_map([], app_id)?;
            rows.collect()
        })
        .await
    }

    /// The apps of which a build or a publication was asked for that has not ended, with the numbers of the requests. One
    /// that another agent has worked on since does not count.
    pub async fn unfinished(&self) -> Result<Vec<(AppId, u64)>, StoreError> {
        self.call("reading the unfinished builds", |database| {
            let mut statement = database.connection.prepare_cached(
                "SELECT app_key, stage, unfinished FROM ReagentApps WHERE unfinished > 0
                     AND history = (SELECT coalesce(max(id), 0) FROM AppStateHistory
                         WHERE app_key = ReagentApps.app_key AND stage = ReagentApps.stage)",
            )?;
            let rows = statement.query_map([], |row| Ok((app_id(row)?, unsigned(row.get("unfinished")?))))?;
            rows.collect()
        })
        .await
    }

    /// Makes a request durable, in one transaction. An app seen for the first time starts in `seed`. The stored target
    /// is the normalised one; epoch and instance key are kept when the request has none, the epoch never falls. Returns
    /// the number of the request, by which [`StateChange::finishes`] knows it.
    pub async fn commit_request(&self, request: AppRequest, seed: AppState) -> Result<u64, StoreError> {
        self.call("storing a request", move |database| {
            database.write("request", |transaction| {
                insert_app(transaction, &request, seed)?;
                upsert_request(transaction, &request, seed)?;
                upsert_extras(transaction, &request, false)
            })
        })
        .await
    }

    /// Takes an app found on the host into a database made from nothing. Does nothing when the app is known.
    pub async fn adopt(&self, request: AppRequest, seed: AppState) -> Result<(), StoreError> {
        self.call("adopting an app", move |database| {
            database.write("found app", |transaction| {
                if !known(transaction, request.app)? {
                    insert_app(transaction, &request, seed)?;
                    upsert_request(transaction, &request, seed)?;
                    upsert_extras(transaction, &request, true)?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Records a state: see [`Store::set_states`].
    pub async fn set_state(&self, change: StateChange) -> Result<Recorded, StoreError> {
        self.set_states(vec![change]).await
    }

    /// Records states that follow from one another without waiting, in one transaction: history, `AppStates`, the
    /// columns of the request that follow from the state (weakness W43), row deletion (9.5), the reports. Nothing but
    /// the report is written when nothing changes. Says what the last one did.
    pub async fn set_states(&self, changes: Vec<StateChange>) -> Result<Recorded, StoreError> {
        let reports = changes.iter().any(|change| change.report.is_some());
        let recorded = self
            .call("recording a state", move |database| {
                let state = changes.last().map_or("", |change| change.state.as_str());
                let recorded = database.write(state, |transaction| {
                    let mut recorded = Recorded::Kept;
                    for change in &changes {
                        recorded = record(transaction, change)?;
                        if let Some(report) = &change.report {
                            outbox::queue(transaction, report)?;
                        }
                    }
                    Ok(recorded)
                })?;
                for change in changes {
                    database.repeats.forget(change.app);
                }
                Ok(recorded)
            })
            .await?;
        if reports {
            self.outbox.send_modify(|count| *count += 1);
        }
        Ok(recorded)
    }

    /// Changes the stored goal of an app without a request: an app that the backend no longer lists goes.
    pub async fn set_target(&self, app: AppId, target: AppState) -> Result<(), StoreError> {
        self.call("changing a target", move |database| {
            database.write("target", |transaction| {
                transaction
                    .prepare_cached(
                        "UPDATE RequestedAppStates SET manually_requested_state = ?3
                         WHERE app_key = ?1 AND stage = ?2 AND manually_requested_state <> ?3",
                    )?
                    .execute(params![
                        signed(app.key),
                        app.stage.as_str(),
                        target.normalised().as_str()
                    ])
                    .map(drop)
            })
        })
        .await
    }

    /// The artefacts of an app exist under a new name now (weakness W45).
    pub async fn rename_app(&self, app: AppId, app_name: &str) -> Result<(), StoreError> {
        let app_name = app_name.to_owned();
        self.call("renaming an app", move |database| {
            database.write("rename", |transaction| {
                transaction
                    .prepare_cached("UPDATE AppStates SET app_name = ?3 WHERE app_key = ?1 AND stage = ?2")?
                    .execute(params![signed(app.key), app.stage.as_str(), app_name])
                    .map(drop)
            })
        })
        .await
    }

    /// Deletes the rows of an app.
    pub async fn forget_app(&self, app: AppId) -> Result<(), StoreError> {
        self.call("forgetting an app", move |database| {
            database.repeats.forget(app);
            database.write("forget", |transaction| delete_app(transaction, app))
        })
        .await
    }
}

fn app_id(row: &Row<'_>) -> rusqlite::Result<AppId> {
    let stage: String = row.get("stage")?;
    Ok(AppId {
        key: unsigned(row.get("app_key")?),
        // The CHECK constraint allows nothing else.
        stage: if stage == "DEV" { Stage::Dev } else { Stage::Prod },
    })
}

fn state(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<AppState>> {
    let text: String = row.get(column)?;
    Ok(text.parse().ok())
}

fn request(row: &Row<'_>) -> rusqlite::Result<Option<AppRequest>> {
    let app = app_id(row)?;
    let Some(target) = state(row, "manually_requested_state")? else {
        tracing::warn!(%app, "a stored request has an unknown target and is left alone");
        return Ok(None);
    };
    let text = |column: &str| -> rusqlite::Result<String> {
        Ok(row.get::<_, Option<String>>(column)?.unwrap_or_default())
    };
    let number = |column: &str| -> rusqlite::Result<u64> {
        Ok(unsigned(row.get::<_, Option<i64>>(column)?.unwrap_or_default()))
    };
    let own_version: Option<String> = row.get("own_version")?;
    let newest_version = text("newest_version")?;
    Ok(Some(AppRequest {
        app,
        app_name: row.get("app_name")?,
        target,
        current: state(row, "current_state")?,
        requestor_account_key: number("requestor_account_key")?,
        device_owner_account_key: number("device_owner_account_key")?,
        release_key: number("release_key")?,
        new_release_key: number("new_release_key")?,
        version: match own_version {
            Some(version) => version,
            None => text("version")?,
        },
        present_version: text("present_version")?,
        request_update: row.get("request_update")?,
        cancel_transition: !newest_version.is_empty() && text("canceled")? == newest_version,
        newest_version,
        environment: object(&text("environment_variables")?),
        environment_template: object(&text("environment_template")?),
        ports: serde_json::from_str(&text("ports")?).ok().flatten(),
        docker_compose: document(&text("docker_compose")?),
        new_docker_compose: document(&text("new_docker_compose")?),
        docker_credentials: BTreeMap::new(),
        instance_key: number("instance_key")?,
        app_cred_epoch: number("app_cred_epoch")?,
    }))
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok().flatten()
}

/// A document that cannot be read still makes a compose app: it must never be run as a single container.
fn document(text: &str) -> Option<Map<String, Value>> {
    if text.is_empty() {
        return None;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Some(Map::new()))
}

fn known(connection: &Connection, app: AppId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM AppStates WHERE app_key = ?1 AND stage = ?2)")?
        .query_row(params![signed(app.key), app.stage.as_str()], |row| row.get(0))
}

fn insert_app(connection: &Connection, request: &AppRequest, seed: AppState) -> rusqlite::Result<()> {
    if known(connection, request.app)? {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO AppStates (app_name, app_key, version, release_key, stage, state, timestamp)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            request.app_name,
            signed(request.app.key),
            request.present_version,
            signed(request.release_key),
            request.app.stage.as_str(),
            seed.as_str(),
            now(),
        ])?;
    Ok(())
}

/// 9.4, with (app_key, stage) as the identity: a renamed app keeps its row. `version` and `timestamp` are those of the
/// first insert. Never NULL where the reference's reader fails on it (9.2).
fn upsert_request(connection: &Connection, request: &AppRequest, seed: AppState) -> rusqlite::Result<()> {
    let app = request.app;
    let current: Option<String> = connection
        .prepare_cached("SELECT state FROM AppStates WHERE app_key = ?1 AND stage = ?2")?
        .query_row(params![signed(app.key), app.stage.as_str()], |row| row.get(0))
        .optional()?;
    let current = current.unwrap_or_else(|| seed.as_str().to_owned());
    let exists: Option<i64> = connection
        .prepare_cached("SELECT id FROM RequestedAppStates WHERE app_key = ?1 AND stage = ?2")?
        .query_row(params![signed(app.key), app.stage.as_str()], |row| row.get(0))
        .optional()?;
    let values = params![
        signed(app.key),
        app.stage.as_str(),
        request.app_name,
        request.present_version,
        request.newest_version,
        signed(request.release_key),
        signed(request.new_release_key),
        json(request.environment.as_ref()),
        json(request.environment_template.as_ref()),
        json(request.ports.as_ref()),
        json(request.docker_compose.as_ref()),
        json(request.new_docker_compose.as_ref()),
        request.target.normalised().as_str(),
        current,
        signed(request.requestor_account_key),
        request.request_update,
        signed(request.device_owner_account_key),
        request.version,
        now(),
    ];
    let statement = match exists {
        None => {
            "INSERT INTO RequestedAppStates (app_key, stage, app_name, present_version, newest_version, release_key,
                 new_release_key, environment_variables, environment_template, ports, docker_compose,
                 new_docker_compose, manually_requested_state, current_state, requestor_account_key, request_update,
                 device_owner_account_key, version, timestamp)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)"
        }
        Some(_) => {
            "UPDATE RequestedAppStates SET app_name = ?3, present_version = ?4, newest_version = ?5,
                 release_key = ?6, new_release_key = ?7, environment_variables = ?8, environment_template = ?9,
                 ports = ?10, docker_compose = ?11, new_docker_compose = ?12, manually_requested_state = ?13,
                 current_state = ?14, requestor_account_key = ?15, request_update = ?16,
                 device_owner_account_key = CASE WHEN ?17 <> 0 THEN ?17 ELSE device_owner_account_key END,
                 version = coalesce(version, ?18), timestamp = coalesce(timestamp, ?19)
             WHERE app_key = ?1 AND stage = ?2"
        }
    };
    connection.prepare_cached(statement)?.execute(values)?;
    Ok(())
}

fn json<T: serde::Serialize>(value: Option<&T>) -> String {
    // Maps with text keys and plain values always serialise; `null` is what the reference reads as "not set".
    serde_json::to_string(&value).unwrap_or_else(|_| "null".to_owned())
}

/// Returns the number of the request: one more than that of the request before it.
fn upsert_extras(connection: &Connection, request: &AppRequest, adopted: bool) -> rusqlite::Result<u64> {
    let once = request.target.is_once() && !request.cancel_transition;
    let canceled = match request.cancel_transition {
        true => request.newest_version.as_str(),
        false => "",
    };
    let mark: i64 = connection
        .prepare_cached(
            "INSERT INTO ReagentApps (app_key, stage, version, instance_key, app_cred_epoch, adopted, unfinished,
                 canceled, history)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, (SELECT coalesce(max(id), 0) FROM AppStateHistory
                 WHERE app_key = ?1 AND stage = ?2))
             ON CONFLICT (app_key, stage) DO UPDATE SET version = excluded.version,
                 instance_key = CASE WHEN excluded.instance_key <> 0 THEN excluded.instance_key ELSE instance_key END,
                 app_cred_epoch = max(excluded.app_cred_epoch, app_cred_epoch),
                 adopted = excluded.adopted, canceled = excluded.canceled, history = excluded.history,
                 unfinished = excluded.unfinished * (abs(unfinished) + 1)
             RETURNING unfinished",
        )?
        .query_row(
            params![
                signed(request.app.key),
                request.app.stage.as_str(),
                request.version,
                signed(request.instance_key),
                signed(request.app_cred_epoch),
                adopted,
                if once { 1 } else { -1 },
                canceled,
            ],
            |row| row.get(0),
        )?;
    Ok(mark.unsigned_abs())
}

fn record(connection: &Connection, change: &StateChange) -> rusqlite::Result<Recorded> {
    let app = change.app;
    let (key, stage) = (signed(app.key), app.stage.as_str());
    let old: Option<(String, String, i64)> = connection
        .prepare_cached(
            "SELECT state, version, release_key FROM AppStates WHERE app_key = ?1 AND stage = ?2",
        )?
        .query_row(params![key, stage], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let new = change.state.as_str();
    match old {
        None => {
            connection
                .prepare_cached(
                    "INSERT INTO AppStates (app_name, app_key, version, release_key, stage, state, timestamp)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    change.app_name,
                    key,
                    change.version,
                    signed(change.release_key),
                    stage,
                    new,
                    now(),
                ])?;
        }
        Some((state, version, release))
            if state == new && version == change.version && release == signed(change.release_key) => {}
        Some((state, ..)) => {
            connection
                .prepare_cached(
                    "INSERT INTO AppStateHistory (app_name, app_key, release_key, version, stage, state, timestamp)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    change.app_name,
                    key,
                    signed(change.release_key),
                    change.version,
                    stage,
                    state,
                    now(),
                ])?;
            connection
                .prepare_cached(
                    "UPDATE ReagentApps SET history = ?3 WHERE app_key = ?1 AND stage = ?2 AND unfinished > 0",
                )?
                .execute(params![key, stage, connection.last_insert_rowid()])?;
            prune_history(connection, app)?;
            connection
                .prepare_cached(
                    "UPDATE AppStates SET state = ?3, version = ?4, release_key = ?5 WHERE app_key = ?1 AND stage = ?2",
                )?
                .execute(params![key, stage, new, change.version, signed(change.release_key)])?;
            connection
                .prepare_cached(
                    "UPDATE RequestedAppStates SET current_state = ?3, present_version = ?4, release_key = ?5
                     WHERE app_key = ?1 AND stage = ?2",
                )?
                .execute(params![
                    key,
                    stage,
                    new,
                    change.version,
                    signed(change.release_key)
                ])?;
        }
    }
    if let Some(document) = &change.document {
        // Only one that is there takes the place of another (W13), and only of a request for an update: any other is newer.
        connection
            .prepare_cached(
                "UPDATE RequestedAppStates SET docker_compose = ?3
                 WHERE app_key = ?1 AND stage = ?2 AND (request_update = 1 OR newest_version = ?4)
                     AND coalesce(docker_compose, '') NOT IN ('', 'null')",
            )?
            .execute(params![key, stage, json(Some(document)), change.version])?;
    }
    if let Some(number) = change.finishes {
        connection
            .prepare_cached(
                "UPDATE ReagentApps SET unfinished = -unfinished
                 WHERE app_key = ?1 AND stage = ?2 AND unfinished = ?3",
            )?
            .execute(params![key, stage, signed(number)])?;
    }
    let gone = change.state == AppState::Removed
        && connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM RequestedAppStates WHERE app_key = ?1 AND stage = ?2
                     AND manually_requested_state IN ('REMOVED', 'UNINSTALLED'))",
            )?
            .query_row(params![key, stage], |row| row.get(0))?;
    if gone {
        delete_app(connection, app)?;
        return Ok(Recorded::Deleted);
    }
    Ok(Recorded::Kept)
}

fn prune_history(connection: &Connection, app: AppId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM AppStateHistory WHERE app_key = ?1 AND stage = ?2 AND id <= (
                 SELECT id FROM AppStateHistory WHERE app_key = ?1 AND stage = ?2
                 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![signed(app.key), app.stage.as_str(), HISTORY_PER_APP])?;
    Ok(())
}

fn delete_app(connection: &Connection, app: AppId) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM AppStates WHERE app_key = ?1 AND stage = ?2",
        "DELETE FROM RequestedAppStates WHERE app_key = ?1 AND stage = ?2",
        "DELETE FROM ReagentApps WHERE app_key = ?1 AND stage = ?2",
    ] {
        connection
            .prepare_cached(statement)?
            .execute(params![signed(app.key), app.stage.as_str()])?;
    }
    Ok(())
}
