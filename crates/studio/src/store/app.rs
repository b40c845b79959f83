//! Apps and their releases.

use rusqlite::{OptionalExtension, Row, named_params};
use serde_json::{Map, Value};

use super::{Store, StoreError, from_json, now, taken, to_json};
use crate::keys::{AccountKey, AppKey, ReleaseKey};

/// An app with its releases, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    pub key: AppKey,
    pub owner: AccountKey,
    pub name: String,
    /// Port rules that a new install starts with.
    pub ports: Vec<Value>,
    /// `NAME: {"defaultValue": …}`
    pub environment_template: Map<String, Value>,
    pub releases: Vec<Release>,
    pub created: String,
}

/// One version of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub key: ReleaseKey,
    pub version: String,
    pub created: String,
}

const SELECT: &str = "SELECT * FROM apps";

fn read(sql: &rusqlite::Transaction<'_>, row: RawApp) -> Result<App, StoreError> {
    let mut query = sql.prepare("SELECT * FROM releases WHERE app_key = ?1 ORDER BY release_key")?;
    let releases = query
        .query_map([row.key], |row| {
            Ok(Release {
                key: row.get("release_key")?,
                version: row.get("version")?,
                created: row.get("created")?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(App {
        key: row.key,
        owner: row.owner,
        name: row.name,
        ports: from_json("list of ports", &row.ports)?,
        environment_template: from_json("environment template", &row.environment_template)?,
        releases,
        created: row.created,
    })
}

struct RawApp {
    key: AppKey,
    owner: AccountKey,
    name: String,
    ports: String,
    environment_template: String,
    created: String,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<RawApp> {
    Ok(RawApp {
        key: row.get("app_key")?,
        owner: row.get("account_key")?,
        name: row.get("name")?,
        ports: row.get("ports")?,
        environment_template: row.get("environment_template")?,
        created: row.get("created")?,
    })
}

impl Store {
    /// Creates an app, with a first release when a version is given.
    pub async fn add_app(
        &self,
        name: String,
        owner: AccountKey,
        version: Option<String>,
        ports: Vec<Value>,
        environment_template: Map<String, Value>,
    ) -> Result<App, StoreError> {
        self.ask(move |sql| {
            sql.execute(
                "INSERT INTO apps (account_key, name, ports, environment_template, created)
                 VALUES (:owner, :name, :ports, :template, :now)",
                named_params! {
                    ":owner": owner, ":name": name, ":ports": to_json("list of ports", &ports)?,
                    ":template": to_json("environment template", &environment_template)?, ":now": now(),
                },
            )
            .map_err(|error| taken(error, "app", &name))?;
            let key = sql.last_insert_rowid();
            if let Some(version) = version {
                sql.execute(
                    "INSERT INTO releases (app_key, version, created) VALUES (?1, ?2, ?3)",
                    (key, version, now()),
                )?;
            }
            let row = sql.query_row(&format!("{SELECT} WHERE app_key = ?1"), [key], raw)?;
            read(sql, row)
        })
        .await
    }

    /// Adds a release; with `exists_ok` a version that is there already is no error.
    pub async fn add_release(
        &self,
        app: AppKey,
        version: String,
        exists_ok: bool,
    ) -> Result<App, StoreError> {
        self.ask(move |sql| {
            let added = sql.execute(
                "INSERT INTO releases (app_key, version, created) VALUES (?1, ?2, ?3)",
                (app, &version, now()),
            );
            match added.map_err(|error| taken(error, "version", &version)) {
                Ok(_) => {}
                Err(StoreError::Taken { .. }) if exists_ok => {}
                Err(error) => return Err(error),
            }
            let row = sql.query_row(&format!("{SELECT} WHERE app_key = ?1"), [app], raw)?;
            read(sql, row)
        })
        .await
    }

    pub async fn apps(&self) -> Result<Vec<App>, StoreError> {
        self.ask(|sql| {
            let mut query = sql.prepare(&format!("{SELECT} ORDER BY name"))?;
            let rows = query.query_map([], raw)?.collect::<Result<Vec<_>, _>>()?;
            rows.into_iter().map(|row| read(sql, row)).collect()
        })
        .await
    }

    /// Finds an app by name or key.
    pub async fn find_app(&self, text: String) -> Result<Option<App>, StoreError> {
        self.ask(move |sql| {
            let row = sql
                .query_row(
                    &format!("{SELECT} WHERE name = ?1 OR CAST(app_key AS TEXT) = ?1"),
                    [text],
                    raw,
                )
                .optional()?;
            row.map(|row| read(sql, row)).transpose()
        })
        .await
    }

    /// Removes an app and its releases; refused while it is installed anywhere.
    pub async fn remove_app(&self, key: AppKey) -> Result<(), StoreError> {
        self.ask(move |sql| {
            let installs: u64 =
                sql.query_row("SELECT count(*) FROM installs WHERE app_key = ?1", [key], |row| {
                    row.get::<_, i64>(0).map(i64::unsigned_abs)
                })?;
            if installs > 0 {
                return Err(StoreError::InUse(format!(
                    "the app is installed on {installs} device(s): remove it there first"
                )));
            }
            sql.execute("DELETE FROM apps WHERE app_key = ?1", [key])?;
            Ok(())
        })
        .await
    }
}
