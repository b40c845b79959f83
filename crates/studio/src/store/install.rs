//! Installs: what people asked of one app on one device, and what the device answered.

use protocol::{AppId, AppState, Stage};
use rusqlite::{OptionalExtension, Row, Transaction, named_params};
use serde_json::{Map, Value};

use super::app::document;
use super::{Store, StoreError, from_json, now, to_json};
use crate::api::ReportView;
use crate::install::Plan;
use crate::keys::{AccountKey, AppKey, DeviceKey, ReleaseKey};

/// Reports kept per install; older ones are deleted as new ones arrive.
pub const REPORTS_KEPT: u32 = 100;

/// One app on one device, with the facts of both that a request needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Install {
    pub device: DeviceKey,
    pub device_name: String,
    pub serial: String,
    pub online: bool,
    pub device_owner: AccountKey,
    pub app: AppKey,
    pub app_name: String,
    pub stage: Stage,
    pub target: AppState,
    pub current: AppState,
    pub release: ReleaseKey,
    pub new_release: ReleaseKey,
    pub present_version: String,
    pub newest_version: String,
    /// Of the present release; `None`: a single container.
    pub docker_compose: Option<Map<String, Value>>,
    /// Of the newest one.
    pub new_docker_compose: Option<Map<String, Value>>,
    pub request_update: bool,
    pub update_status: String,
    pub requestor: AccountKey,
    pub environment: Map<String, Value>,
    pub environment_template: Map<String, Value>,
    pub ports: Vec<Value>,
    pub app_cred_epoch: u64,
    /// Counts requests: a delivery is up to date when the revision has not moved meanwhile.
    pub revision: u64,
    /// Counts reports of the device: a waiting client tells a fresh FAILED from an old one by it.
    pub reports: u64,
    pub updated: String,
}

/// A state report of a device about one of its apps.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    pub app: AppId,
    pub state: AppState,
    pub release: ReleaseKey,
    pub update_status: String,
}

/// What a state report led to.
#[derive(Clone, Debug, PartialEq)]
pub enum ReportOutcome {
    /// The studio did not install this app (a development app, or one already removed): nothing stored.
    Unknown,
    /// Stored; the install as it is now.
    Stored(Box<Install>),
    /// It was the last act of a removal: the install is gone. As it was at the end.
    Removed(Box<Install>),
}

const SELECT: &str = "SELECT installs.*, devices.name AS device_name, serial_number, status,
      devices.account_key AS device_owner, apps.name AS app_name, environment_template,
      present.version AS present_version, newest.version AS newest_version,
      present.docker_compose AS docker_compose, newest.docker_compose AS new_docker_compose
    FROM installs JOIN devices USING (device_key) JOIN apps ON apps.app_key = installs.app_key
    JOIN releases AS present ON present.release_key = installs.release_key
    JOIN releases AS newest ON newest.release_key = installs.new_release_key";

const ONE: &str = "WHERE installs.device_key = ?1 AND installs.app_key = ?2 AND installs.stage = ?3";

/// Reads one row. A text that is no state cannot get into the table through this module.
fn read(row: &Row<'_>) -> rusqlite::Result<Result<Install, StoreError>> {
    let text = |column: &str| row.get::<_, String>(column);
    let count = |column: &str| row.get::<_, i64>(column).map(i64::unsigned_abs);
    let (stage, target, current) = (text("stage")?, text("target_state")?, text("current_state")?);
    let (environment, template, ports) = (
        text("environment")?,
        text("environment_template")?,
        text("ports")?,
    );
    let (present_document, newest_document) = (row.get("docker_compose")?, row.get("new_docker_compose")?);
    let install = Install {
        device: row.get("device_key")?,
        device_name: text("device_name")?,
        serial: text("serial_number")?,
        online: text("status")? != "DISCONNECTED",
        device_owner: row.get("device_owner")?,
        app: row.get("app_key")?,
        app_name: text("app_name")?,
        stage: Stage::Prod,
        target: AppState::Removed,
        current: AppState::Removed,
        release: row.get("release_key")?,
        new_release: row.get("new_release_key")?,
        present_version: text("present_version")?,
        newest_version: text("newest_version")?,
        docker_compose: None,
        new_docker_compose: None,
        request_update: row.get("request_update")?,
        update_status: text("update_status")?,
        requestor: row.get("requestor_account_key")?,
        environment: Map::new(),
        environment_template: Map::new(),
        ports: Vec::new(),
        app_cred_epoch: count("app_cred_epoch")?,
        revision: count("revision")?,
        reports: count("reports")?,
        updated: text("updated")?,
    };
    Ok((|| {
        Ok(Install {
            stage: from_json("stage", &format!("{stage:?}"))?,
            target: from_json("app state", &format!("{target:?}"))?,
            current: from_json("app state", &format!("{current:?}"))?,
            docker_compose: document(present_document)?,
            new_docker_compose: document(newest_document)?,
            environment: from_json("environment", &environment)?,
            environment_template: from_json("environment template", &template)?,
            ports: from_json("list of ports", &ports)?,
            ..install
        })
    })())
}

fn one(
    sql: &Transaction<'_>,
    device: DeviceKey,
    app: AppKey,
    stage: Stage,
) -> Result<Option<Install>, StoreError> {
    sql.query_row(&format!("{SELECT} {ONE}"), (device, app, stage.as_str()), read)
        .optional()?
        .transpose()
}

impl Store {
    pub async fn install(
        &self,
        device: DeviceKey,
        app: AppKey,
        stage: Stage,
    ) -> Result<Option<Install>, StoreError> {
        self.ask(move |sql| one(sql, device, app, stage)).await
    }

    /// All installs, or those of one device, by device and app name.
    pub async fn installs(&self, device: Option<DeviceKey>) -> Result<Vec<Install>, StoreError> {
        self.ask(move |sql| {
            let mut query = sql.prepare(&format!(
                "{SELECT} WHERE ?1 IS NULL OR installs.device_key = ?1 ORDER BY devices.name, apps.name, stage"
            ))?;
            query.query_map([device], read)?.collect::<Result<Vec<_>, _>>()?.into_iter().collect()
        })
        .await
    }

    /// Decides with `decide` on the install as it is, and stores the decision, in one transaction.
    pub async fn change_install<E, F>(
        &self,
        device: DeviceKey,
        app: AppKey,
        requestor: AccountKey,
        decide: F,
    ) -> Result<Result<Install, E>, StoreError>
    where
        E: Send + 'static,
        F: FnOnce(Option<&Install>) -> Result<Plan, E> + Send + 'static,
    {
        self.ask(move |sql| {
            let before = one(sql, device, app, Stage::Prod)?;
            let plan = match decide(before.as_ref()) {
                Ok(plan) => plan,
                Err(refusal) => return Ok(Err(refusal)),
            };
            sql.execute(
                "INSERT INTO installs (device_key, app_key, stage, target_state, current_state, release_key,
                   new_release_key, request_update, requestor_account_key, environment, ports, updated)
                 VALUES (:device, :app, 'PROD', :target, :current, :release, :new_release, :request_update,
                   :requestor, :environment, :ports, :now)
                 ON CONFLICT DO UPDATE SET target_state = excluded.target_state,
                   release_key = excluded.release_key, new_release_key = excluded.new_release_key,
                   request_update = excluded.request_update,
                   requestor_account_key = excluded.requestor_account_key,
                   environment = excluded.environment, ports = excluded.ports,
                   revision = revision + 1, updated = excluded.updated",
                named_params! {
                    ":device": device, ":app": app, ":target": plan.target.as_str(),
                    ":current": plan.current.as_str(), ":release": plan.release,
                    ":new_release": plan.new_release, ":request_update": plan.request_update,
                    ":requestor": requestor, ":environment": to_json("environment", &plan.environment)?,
                    ":ports": to_json("list of ports", &plan.ports)?, ":now": now(),
                },
            )?;
            let after = one(sql, device, app, Stage::Prod)?;
            after
                .map(Ok)
                .ok_or(StoreError::Sql(rusqlite::Error::QueryReturnedNoRows))
        })
        .await
    }

    /// Stores a state report. The report of UNINSTALLED that was asked for ends the install.
    pub async fn report_state(
        &self,
        device: DeviceKey,
        change: StateChange,
    ) -> Result<ReportOutcome, StoreError> {
        self.ask(move |sql| {
            let key = AppKey(change.app.key);
            let Some(before) = one(sql, device, key, change.app.stage)? else {
                return Ok(ReportOutcome::Unknown);
            };
            // The device says which release it runs: that ends an update.
            let arrived = change.release == before.new_release;
            sql.execute(
                "UPDATE installs SET current_state = :state, update_status = :update_status, reports = reports + 1,
                   release_key = CASE WHEN :arrived THEN new_release_key ELSE release_key END,
                   request_update = CASE WHEN :arrived THEN 0 ELSE request_update END, updated = :now
                 WHERE device_key = :device AND app_key = :app AND stage = :stage",
                named_params! {
                    ":state": change.state.as_str(), ":update_status": change.update_status,
                    ":arrived": arrived, ":now": now(), ":device": device, ":app": key,
                    ":stage": change.app.stage.as_str(),
                },
            )?;
            sql.execute(
                "INSERT INTO reports (device_key, app_key, stage, state, release_key, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (device, key, change.app.stage.as_str(), change.state.as_str(), change.release, now()),
            )?;
            sql.execute(
                "DELETE FROM reports WHERE report_key <= (
                   SELECT report_key FROM reports WHERE device_key = ?1 AND app_key = ?2 AND stage = ?3
                   ORDER BY report_key DESC LIMIT 1 OFFSET ?4) AND device_key = ?1 AND app_key = ?2 AND stage = ?3",
                (device, key, change.app.stage.as_str(), REPORTS_KEPT),
            )?;
            let after = one(sql, device, key, change.app.stage)?
                .ok_or(StoreError::Sql(rusqlite::Error::QueryReturnedNoRows))?;
            if after.current == AppState::Uninstalled && after.target == AppState::Uninstalled {
                sql.execute(
                    "DELETE FROM installs WHERE device_key = ?1 AND app_key = ?2 AND stage = ?3",
                    (device, key, change.app.stage.as_str()),
                )?;
                return Ok(ReportOutcome::Removed(Box::new(after)));
            }
            Ok(ReportOutcome::Stored(Box::new(after)))
        })
        .await
    }

    /// Stores the port rules as the device reports them; `false` when the app is not installed by the studio.
    pub async fn report_ports(
        &self,
        device: DeviceKey,
        app: AppId,
        ports: Vec<Value>,
    ) -> Result<bool, StoreError> {
        self.ask(move |sql| {
            let changed = sql.execute(
                "UPDATE installs SET ports = ?4, updated = ?5
                 WHERE device_key = ?1 AND app_key = ?2 AND stage = ?3",
                (
                    device,
                    AppKey(app.key),
                    app.stage.as_str(),
                    to_json("list of ports", &ports)?,
                    now(),
                ),
            )?;
            Ok(changed > 0)
        })
        .await
    }

    /// What the device reported about one app, oldest first.
    pub async fn reports(
        &self,
        device: DeviceKey,
        app: AppKey,
        stage: Stage,
    ) -> Result<Vec<ReportView>, StoreError> {
        self.ask(move |sql| {
            let mut query = sql.prepare(
                "SELECT at, state, coalesce(version, '') AS version
                 FROM reports LEFT JOIN releases USING (release_key)
                 WHERE device_key = ?1 AND reports.app_key = ?2 AND stage = ?3 ORDER BY report_key",
            )?;
            let rows = query.query_map((device, app, stage.as_str()), |row| {
                Ok(ReportView {
                    at: row.get("at")?,
                    state: row.get("state")?,
                    version: row.get("version")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
