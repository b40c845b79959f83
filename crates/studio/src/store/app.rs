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
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    pub key: ReleaseKey,
    pub version: String,
    /// Of a Compose app; `None`: a single container.
    pub docker_compose: Option<Map<String, Value>>,
    pub created: String,
}

const SELECT: &str = "SELECT * FROM apps";

fn read(sql: &rusqlite::Transaction<'_>, row: RawApp) -> Result<App, StoreError> {
    let mut query = sql.prepare("SELECT * FROM releases WHERE app_key = ?1 ORDER BY release_key")?;
    let rows = query.query_map([row.key], |row| {
        let release = Release {
            key: row.get("release_key")?,
            version: row.get("version")?,
            docker_compose: None,
            created: row.get("created")?,
        };
        Ok((release, row.get::<_, Option<String>>("docker_compose")?))
    })?;
    let mut releases = Vec::new();
    for row in rows {
        let (release, docker_compose) = row?;
        releases.push(Release {
            docker_compose: document(docker_compose)?,
            ..release
        });
    }
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

/// A stored Compose document.
pub(super) fn document(text: Option<String>) -> Result<Option<Map<String, Value>>, StoreError> {
    text.map(|text| from_json("Compose document", &text)).transpose()
}

/// A new release.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRelease {
    pub version: String,
    pub docker_compose: Option<Map<String, Value>>,
}

impl NewRelease {
    fn insert(&self, sql: &rusqlite::Transaction<'_>, app: AppKey) -> Result<(), StoreError> {
        let document = self
            .docker_compose
            .as_ref()
            .map(|document| to_json("Compose document", document))
            .transpose()?;
        sql.execute(
            "INSERT INTO releases (app_key, version, docker_compose, created) VALUES (?1, ?2, ?3, ?4)",
            (app, &self.version, document, now()),
        )
        .map_err(|error| taken(error, "version", &self.version))?;
        Ok(())
    }
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
    /// Creates an app, with a first release when one is given.
    pub async fn add_app(
        &self,
        name: String,
        owner: AccountKey,
        release: Option<NewRelease>,
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
            let key = AppKey(sql.last_insert_rowid().unsigned_abs());
            if let Some(release) = release {
                release.insert(sql, key)?;
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
        release: NewRelease,
        exists_ok: bool,
    ) -> Result<App, StoreError> {
        self.ask(move |sql| {
            match release.insert(sql, app) {
                Ok(()) => {}
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
