//! Rollouts: which device is where on the way to a version. Every step is stored before it is taken, so that a restart
//! goes on.

use rusqlite::{OptionalExtension, Row, Transaction, named_params};

use super::{Store, StoreError, now};
use crate::keys::{AccountKey, DeviceKey, RolloutKey};

/// Whether a rollout goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutState {
    Running,
    /// By a person, or by itself after failures. Devices that were asked go on.
    Paused,
    Done,
    Aborted,
}

impl RolloutState {
    pub fn as_str(self) -> &'static str {
        match self {
            RolloutState::Running => "running",
            RolloutState::Paused => "paused",
            RolloutState::Done => "done",
            RolloutState::Aborted => "aborted",
        }
    }

    fn parse(text: &str) -> RolloutState {
        match text {
            "running" => RolloutState::Running,
            "paused" => RolloutState::Paused,
            "done" => RolloutState::Done,
            // The schema admits no other.
            _ => RolloutState::Aborted,
        }
    }

    /// Whether it may still change.
    pub fn is_open(self) -> bool {
        matches!(self, RolloutState::Running | RolloutState::Paused)
    }
}

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    Waiting,
    /// Called, or about to be: again after a restart.
    Asked,
    /// It has the version and is about to start it, or tries it.
    Staged,
    Updated,
    Failed,
}

impl MemberState {
    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::Waiting => "waiting",
            MemberState::Asked => "asked",
            MemberState::Staged => "staged",
            MemberState::Updated => "updated",
            MemberState::Failed => "failed",
        }
    }

    fn parse(text: &str) -> MemberState {
        match text {
            "waiting" => MemberState::Waiting,
            "asked" => MemberState::Asked,
            "staged" => MemberState::Staged,
            "updated" => MemberState::Updated,
            // The schema admits no other.
            _ => MemberState::Failed,
        }
    }
}

/// A device of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub device: DeviceKey,
    pub name: String,
    pub serial: String,
    /// `DISCONNECTED`, `CONFIGURING`, `CONNECTED`, `EMERGENCY`
    pub status: String,
    pub agent_version: String,
    pub wave: u32,
    pub state: MemberState,
    /// The version it was asked to leave.
    pub from: String,
    pub reason: String,
    /// Seconds since 1970.
    pub asked: Option<i64>,
    pub excused: bool,
    /// It failed once and is to try again what failed there.
    pub retried: bool,
}

/// A rollout with its devices, in the order of their waves and names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    pub key: RolloutKey,
    pub version: String,
    pub account: AccountKey,
    pub state: RolloutState,
    pub reason: String,
    /// The wave that is asked at present; 0 is the canary group.
    pub wave: u32,
    pub waves: u32,
    /// The wave that may be without devices; any other was stored with some, so they were removed.
    pub may_be_empty: Option<u32>,
    pub threshold: u8,
    /// Seconds.
    pub patience: u32,
    pub created: String,
    pub updated: String,
    pub members: Vec<Member>,
}

impl Rollout {
    /// Devices that failed, whether somebody has looked at that or not.
    pub fn failures(&self) -> Vec<DeviceKey> {
        let failed = self
            .members
            .iter()
            .filter(|member| member.state == MemberState::Failed);
        failed.map(|member| member.device).collect()
    }
}

/// What a new rollout consists of.
#[derive(Clone, Debug)]
pub struct NewRollout {
    pub version: String,
    pub account: AccountKey,
    pub threshold: u8,
    pub patience: u32,
    /// The devices of each wave, the canary group first.
    pub waves: Vec<Vec<DeviceKey>>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Rollout> {
    Ok(Rollout {
        key: row.get("rollout_key")?,
        version: row.get("version")?,
        account: row.get("account_key")?,
        state: RolloutState::parse(&row.get::<_, String>("state")?),
        reason: row.get("reason")?,
        wave: row.get("wave")?,
        waves: row.get("waves")?,
        may_be_empty: row.get("may_be_empty")?,
        threshold: row.get("threshold")?,
        patience: row.get("patience")?,
        created: row.get("created")?,
        updated: row.get("updated")?,
        members: Vec::new(),
    })
}

fn read_member(row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        device: row.get("device_key")?,
        name: row.get("name")?,
        serial: row.get("serial_number")?,
        status: row.get("status")?,
        agent_version: row.get("agent_version")?,
        wave: row.get("wave")?,
        state: MemberState::parse(&row.get::<_, String>("state")?),
        from: row.get("from_version")?,
        reason: row.get("reason")?,
        asked: row.get("asked")?,
        excused: row.get("excused")?,
        retried: row.get("retried")?,
    })
}

fn find(sql: &Transaction<'_>, condition: &str) -> Result<Option<Rollout>, StoreError> {
    let query = format!("SELECT * FROM rollouts {condition} ORDER BY rollout_key DESC LIMIT 1");
    let Some(mut rollout) = sql.query_row(&query, [], read).optional()? else {
        return Ok(None);
    };
    let mut members = sql.prepare(
        "SELECT rollout_devices.*, devices.name, serial_number, status, agent_version
         FROM rollout_devices JOIN devices USING (device_key)
         WHERE rollout_key = ?1 ORDER BY wave, devices.name",
    )?;
    rollout.members = members
        .query_map([rollout.key], read_member)?
        .collect::<Result<_, _>>()?;
    Ok(Some(rollout))
}

impl Store {
    /// Stores a new rollout. One at a time: while another is open, it is refused.
    pub async fn add_rollout(&self, new: NewRollout) -> Result<Rollout, StoreError> {
        self.ask(move |sql| {
            if let Some(open) = find(sql, "WHERE state IN ('running', 'paused')")? {
                return Err(StoreError::InUse(format!(
                    "the rollout of version {} is {}: wait for its end or abort it",
                    open.version,
                    open.state.as_str()
                )));
            }
            sql.execute(
                "INSERT INTO rollouts (version, account_key, waves, may_be_empty, threshold, patience, created, updated)
                 VALUES (:version, :account, :waves, :may_be_empty, :threshold, :patience, :now, :now)",
                named_params! {
                    ":version": new.version, ":account": new.account,
                    ":waves": u32::try_from(new.waves.len()).unwrap_or(u32::MAX),
                    ":may_be_empty": new.waves.first().filter(|canary| canary.is_empty()).map(|_| 0),
                    ":threshold": new.threshold, ":patience": new.patience, ":now": now(),
                },
            )?;
            let key = sql.last_insert_rowid();
            for (wave, devices) in (0_u32..).zip(&new.waves) {
                for device in devices {
                    sql.execute(
                        "INSERT INTO rollout_devices (rollout_key, device_key, wave) VALUES (?1, ?2, ?3)",
                        (key, device, wave),
                    )?;
                }
            }
            find(sql, "")?.ok_or(StoreError::Closed)
        })
        .await
    }

    /// The newest rollout, whatever its state.
    pub async fn rollout(&self) -> Result<Option<Rollout>, StoreError> {
        self.ask(|sql| find(sql, "")).await
    }

    /// Changes the state of an open rollout; answers it as it is then. Nothing changes when it is not open any more.
    pub async fn set_rollout(
        &self,
        key: RolloutKey,
        state: RolloutState,
        reason: String,
    ) -> Result<(), StoreError> {
        self.ask(move |sql| {
            sql.execute(
                "UPDATE rollouts SET state = :state, reason = :reason, updated = :now
                 WHERE rollout_key = :key AND state IN ('running', 'paused')",
                named_params! {":state": state.as_str(), ":reason": reason, ":now": now(), ":key": key},
            )?;
            Ok(())
        })
        .await
    }

    /// Pauses an open rollout. Who reads `reason` is told of the failures of `told` with it: they count no more.
    pub async fn pause_rollout(
        &self,
        key: RolloutKey,
        reason: String,
        told: Vec<DeviceKey>,
    ) -> Result<(), StoreError> {
        self.ask(move |sql| {
            let paused = sql.execute(
                "UPDATE rollouts SET state = 'paused', reason = :reason, updated = :now
                 WHERE rollout_key = :key AND state IN ('running', 'paused')",
                named_params! {":reason": reason, ":now": now(), ":key": key},
            )?;
            for device in told.iter().filter(|_| paused > 0) {
                sql.execute(
                    "UPDATE rollout_devices SET excused = 1
                     WHERE rollout_key = ?1 AND device_key = ?2 AND state = 'failed'",
                    (key, device),
                )?;
            }
            Ok(())
        })
        .await
    }

    /// Goes on with a paused rollout. With `retry` its failures are tried again; else those that it told when it paused
    /// count no more. A wave that has no device left proves nothing, and somebody knows that now.
    pub async fn resume_rollout(&self, key: RolloutKey, retry: bool) -> Result<(), StoreError> {
        self.ask(move |sql| {
            if retry {
                sql.execute(
                    "UPDATE rollout_devices SET state = 'waiting', reason = '', asked = NULL, excused = 0, retried = 1
                     WHERE rollout_key = ?1 AND state = 'failed'",
                    [key],
                )?;
            }
            sql.execute(
                "UPDATE rollouts SET state = 'running', reason = '', updated = ?2,
                   may_be_empty = CASE WHEN EXISTS
                     (SELECT 1 FROM rollout_devices WHERE rollout_key = ?1 AND wave = rollouts.wave)
                     THEN may_be_empty ELSE wave END
                 WHERE rollout_key = ?1 AND state = 'paused'",
                (key, now()),
            )?;
            Ok(())
        })
        .await
    }

    /// The next wave begins.
    pub async fn set_wave(&self, key: RolloutKey, wave: u32) -> Result<(), StoreError> {
        self.ask(move |sql| {
            sql.execute(
                "UPDATE rollouts SET wave = ?2, updated = ?3 WHERE rollout_key = ?1 AND state = 'running'",
                (key, wave, now()),
            )?;
            Ok(())
        })
        .await
    }

    /// The device is about to be called. `false`: the rollout does not want that any more.
    pub async fn ask_member(&self, key: RolloutKey, device: DeviceKey, at: i64) -> Result<bool, StoreError> {
        self.ask(move |sql| {
            let changed = sql.execute(
                "UPDATE rollout_devices SET state = 'asked', asked = coalesce(asked, :at),
                   from_version = CASE state WHEN 'waiting'
                     THEN (SELECT agent_version FROM devices WHERE device_key = :device) ELSE from_version END
                 WHERE rollout_key = :key AND device_key = :device AND state IN ('waiting', 'asked')
                   AND (SELECT state FROM rollouts WHERE rollout_key = :key) = 'running'",
                named_params! {":key": key, ":device": device, ":at": at},
            )?;
            Ok(changed > 0)
        })
        .await
    }

    /// The device went before it could be asked: it is asked when it comes.
    pub async fn unask_member(&self, key: RolloutKey, device: DeviceKey) -> Result<(), StoreError> {
        self.ask(move |sql| {
            sql.execute(
                "UPDATE rollout_devices SET state = 'waiting', asked = NULL, from_version = ''
                 WHERE rollout_key = ?1 AND device_key = ?2 AND state = 'asked'",
                (key, device),
            )?;
            Ok(())
        })
        .await
    }

    /// What came of a device that was asked and has no outcome yet. One that was not asked, or had failed, for example
    /// because its word was lost, may turn out to run the version; it cannot fail.
    pub async fn settle_member(
        &self,
        key: RolloutKey,
        device: DeviceKey,
        state: MemberState,
        reason: String,
    ) -> Result<(), StoreError> {
        self.ask(move |sql| {
            sql.execute(
                "UPDATE rollout_devices SET state = :state, reason = :reason
                 WHERE rollout_key = :key AND device_key = :device
                   AND (state IN ('asked', 'staged') OR state IN ('waiting', 'failed') AND :state = 'updated')",
                named_params! {":key": key, ":device": device, ":state": state.as_str(), ":reason": reason},
            )?;
            Ok(())
        })
        .await
    }

    /// The device says of the very question at `asked` that the version failed there, also after it counted as updated.
    /// Nobody has looked at that failure.
    pub async fn fail_member(
        &self,
        key: RolloutKey,
        device: DeviceKey,
        asked: i64,
        reason: String,
    ) -> Result<(), StoreError> {
        self.ask(move |sql| {
            sql.execute(
                "UPDATE rollout_devices SET state = 'failed', reason = :reason, excused = 0
                 WHERE rollout_key = :key AND device_key = :device AND asked = :asked
                   AND state IN ('asked', 'staged', 'updated')",
                named_params! {":key": key, ":device": device, ":asked": asked, ":reason": reason},
            )?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests;
