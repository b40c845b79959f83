//! Devices: identity, status, what they said of themselves.

use std::fmt;

use protocol::report::{ArchitectureUpdate, HostStats};
use rusqlite::{OptionalExtension, Row, named_params};

use super::{Store, StoreError, from_json, now, taken, to_json};
use crate::keys::{AccountKey, DeviceKey, SwarmKey};
use crate::secret;

/// A device without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub key: DeviceKey,
    pub swarm: SwarmKey,
    pub swarm_name: String,
    pub owner: AccountKey,
    pub owner_name: String,
    pub name: String,
    pub serial: String,
    /// `DISCONNECTED`, `CONFIGURING`, `CONNECTED`, `EMERGENCY`
    pub status: String,
    /// The WAMP session that reported last; none when disconnected.
    pub session: Option<u64>,
    /// RFC 3339, UTC.
    pub last_seen: Option<String>,
    pub stats: Option<HostStats>,
    pub tunnel_capable: Option<bool>,
    /// `amd64`, `armv7`, …; empty until the device said so.
    pub architecture: String,
    pub os: String,
    pub agent_version: String,
    pub created: String,
}

impl Device {
    /// Whether a session of the device is known to be up.
    pub fn is_online(&self) -> bool {
        self.status != "DISCONNECTED"
    }
}

/// A device as just made, with the secret for its identity file.
#[derive(Clone)]
pub struct NewDevice {
    pub device: Device,
    pub secret: String,
}

impl fmt::Debug for NewDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NewDevice")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// One status report.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange {
    /// `CONFIGURING`, `CONNECTED` or `EMERGENCY`
    pub status: &'static str,
    pub session: u64,
    pub stats: Option<HostStats>,
    pub tunnel_capable: Option<bool>,
}

const SELECT: &str = "SELECT devices.*, swarms.name AS swarm_name, accounts.name AS owner_name
    FROM devices JOIN swarms USING (swarm_key) JOIN accounts ON accounts.account_key = devices.account_key";

fn read(row: &Row<'_>) -> rusqlite::Result<(Device, Option<String>)> {
    // Session ids go up to 2^53, well inside i64.
    let session: Option<i64> = row.get("session_id")?;
    let device = Device {
        key: row.get("device_key")?,
        swarm: row.get("swarm_key")?,
        swarm_name: row.get("swarm_name")?,
        owner: row.get("account_key")?,
        owner_name: row.get("owner_name")?,
        name: row.get("name")?,
        serial: row.get("serial_number")?,
        status: row.get("status")?,
        session: session.and_then(|id| u64::try_from(id).ok()),
        last_seen: row.get("last_seen")?,
        stats: None,
        tunnel_capable: row.get("tunnel_capable")?,
        architecture: row.get("architecture")?,
        os: row.get("os")?,
        agent_version: row.get("agent_version")?,
        created: row.get("created")?,
    };
    Ok((device, row.get("stats")?))
}

fn finish((mut device, stats): (Device, Option<String>)) -> Result<Device, StoreError> {
    device.stats = stats
        .as_deref()
        .map(|text| from_json("device statistics", text))
        .transpose()?;
    Ok(device)
}

fn session_column(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(-1)
}

impl Store {
    /// Creates a device with a fresh serial number, secret and app credential key.
    pub async fn add_device(
        &self,
        name: String,
        swarm: SwarmKey,
        owner: AccountKey,
    ) -> Result<NewDevice, StoreError> {
        let serial = secret::uuid().map_err(StoreError::Random)?;
        let secret = secret::fresh().map_err(StoreError::Random)?;
        let app_cred_key = secret::fresh().map_err(StoreError::Random)?;
        self.ask(move |sql| {
            sql.execute(
                "INSERT INTO devices (swarm_key, account_key, name, serial_number, secret, app_cred_key, created)
                 VALUES (:swarm, :owner, :name, :serial, :secret, :app_cred_key, :now)",
                named_params! {
                    ":swarm": swarm, ":owner": owner, ":name": name, ":serial": serial, ":secret": secret,
                    ":app_cred_key": app_cred_key, ":now": now(),
                },
            )
            .map_err(|error| taken(error, "device", &name))?;
            let key = sql.last_insert_rowid();
            let device = sql.query_row(&format!("{SELECT} WHERE device_key = ?1"), [key], read)?;
            Ok(NewDevice { device: finish(device)?, secret })
        })
        .await
    }

    pub async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.ask(|sql| {
            let mut query = sql.prepare(&format!("{SELECT} ORDER BY devices.name"))?;
            let rows = query.query_map([], read)?.collect::<Result<Vec<_>, _>>()?;
            rows.into_iter().map(finish).collect()
        })
        .await
    }

    pub async fn device(&self, key: DeviceKey) -> Result<Option<Device>, StoreError> {
        self.ask(move |sql| {
            let row = sql
                .query_row(&format!("{SELECT} WHERE device_key = ?1"), [key], read)
                .optional()?;
            row.map(finish).transpose()
        })
        .await
    }

    /// Finds a device as people name it: by name, by serial number, or by key.
    pub async fn find_device(&self, text: String) -> Result<Option<Device>, StoreError> {
        self.ask(move |sql| {
            let row = sql
                .query_row(
                    &format!(
                        "{SELECT} WHERE devices.name = ?1 OR serial_number = ?1
                           OR CAST(device_key AS TEXT) = ?1"
                    ),
                    [text],
                    read,
                )
                .optional()?;
            row.map(finish).transpose()
        })
        .await
    }

    /// The secret that the device's sessions prove and its serial number, if the device is in this swarm.
    pub async fn device_secret(
        &self,
        swarm: SwarmKey,
        key: DeviceKey,
    ) -> Result<Option<(String, String)>, StoreError> {
        self.ask(move |sql| {
            Ok(sql
                .query_row(
                    "SELECT secret, serial_number FROM devices WHERE swarm_key = ?1 AND device_key = ?2",
                    (swarm, key),
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?)
        })
        .await
    }

    /// All devices with their secrets: the registry's user list is made of them.
    pub async fn device_secrets(&self) -> Result<Vec<(DeviceKey, String)>, StoreError> {
        self.ask(|sql| {
            let mut query = sql.prepare("SELECT device_key, secret FROM devices ORDER BY device_key")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn app_cred_key(&self, key: DeviceKey) -> Result<Option<String>, StoreError> {
        self.ask(move |sql| {
            Ok(sql
                .query_row(
                    "SELECT app_cred_key FROM devices WHERE device_key = ?1",
                    [key],
                    |row| row.get(0),
                )
                .optional()?)
        })
        .await
    }

    /// Removes a device with its installs, reports and grants.
    pub async fn remove_device(&self, key: DeviceKey) -> Result<(), StoreError> {
        self.ask(move |sql| {
            sql.execute("DELETE FROM devices WHERE device_key = ?1", [key])?;
            Ok(())
        })
        .await
    }

    /// Stores a status report; answers the status before it.
    pub async fn set_status(&self, key: DeviceKey, change: StatusChange) -> Result<String, StoreError> {
        self.ask(move |sql| {
            let before = sql.query_row("SELECT status FROM devices WHERE device_key = ?1", [key], |row| {
                row.get(0)
            })?;
            let stats = change
                .stats
                .as_ref()
                .map(|stats| to_json("device statistics", stats))
                .transpose()?;
            sql.execute(
                "UPDATE devices SET status = :status, session_id = :session, last_seen = :now,
                   stats = coalesce(:stats, stats), tunnel_capable = coalesce(:tunnel_capable, tunnel_capable)
                 WHERE device_key = :key",
                named_params! {
                    ":status": change.status, ":session": session_column(change.session), ":now": now(),
                    ":stats": stats, ":tunnel_capable": change.tunnel_capable, ":key": key,
                },
            )?;
            Ok(before)
        })
        .await
    }

    /// Stores what the device runs on.
    pub async fn set_architecture(
        &self,
        key: DeviceKey,
        update: ArchitectureUpdate,
    ) -> Result<(), StoreError> {
        self.ask(move |sql| {
            sql.execute(
                "UPDATE devices SET architecture = ?2, os = ?3, agent_version = ?4 WHERE device_key = ?1",
                (key, update.architecture, update.os, update.agent_version),
            )?;
            Ok(())
        })
        .await
    }

    /// Marks the device disconnected if `session` is still its current session; answers the device if it changed.
    pub async fn disconnect(
        &self,
        key: DeviceKey,
        serial: String,
        session: u64,
    ) -> Result<Option<Device>, StoreError> {
        self.ask(move |sql| {
            let changed = sql.execute(
                "UPDATE devices SET status = 'DISCONNECTED', session_id = NULL, last_seen = :now
                 WHERE device_key = :key AND serial_number = :serial AND session_id = :session",
                named_params! {":key": key, ":serial": serial, ":session": session_column(session), ":now": now()},
            )?;
            if changed == 0 {
                return Ok(None);
            }
            finish(sql.query_row(&format!("{SELECT} WHERE device_key = ?1"), [key], read)?).map(Some)
        })
        .await
    }

    /// The session of each device that has one.
    pub async fn sessions(&self) -> Result<Vec<(DeviceKey, u64)>, StoreError> {
        self.ask(|sql| {
            let mut query =
                sql.prepare("SELECT device_key, session_id FROM devices WHERE session_id IS NOT NULL")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
            rows.map(|row| {
                let (device, session) = row?;
                Ok((device, u64::try_from(session).unwrap_or_default()))
            })
            .collect()
        })
        .await
    }

    /// Marks the devices disconnected whose current session is the one named; answers those that changed. When they went
    /// is not known.
    pub async fn disconnect_gone(&self, gone: Vec<(DeviceKey, u64)>) -> Result<Vec<Device>, StoreError> {
        self.ask(move |sql| {
            let mut devices = Vec::new();
            for (key, session) in gone {
                let changed = sql.execute(
                    "UPDATE devices SET status = 'DISCONNECTED', session_id = NULL
                     WHERE device_key = ?1 AND session_id = ?2",
                    (key, session_column(session)),
                )?;
                if changed > 0 {
                    let row = sql.query_row(&format!("{SELECT} WHERE device_key = ?1"), [key], read)?;
                    devices.push(finish(row)?);
                }
            }
            Ok(devices)
        })
        .await
    }

    /// Marks every device disconnected: when the router starts, no session of an earlier run exists.
    pub async fn disconnect_all(&self) -> Result<(), StoreError> {
        self.ask(|sql| {
            sql.execute(
                "UPDATE devices SET status = 'DISCONNECTED', session_id = NULL WHERE session_id IS NOT NULL",
                [],
            )?;
            Ok(())
        })
        .await
    }
}
