//! Accounts, what they may do on which device, and the swarm they own.

use protocol::Privilege;
use rusqlite::{OptionalExtension, Row, named_params};
use serde::Serialize;

use super::{Store, StoreError, now, taken};
use crate::keys::{AccountKey, DeviceKey, SwarmKey};
use crate::secret;

/// A person or program that may use the studio. The secret stays in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    pub key: AccountKey,
    pub name: String,
    /// May do everything on every device.
    pub admin: bool,
}

/// Which devices an account may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// An administrator.
    Everything,
    /// Those it owns and those it was granted something on.
    Devices(Vec<DeviceReach>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReach {
    pub serial: String,
    /// Owner, or granted READ.
    pub read: bool,
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        key: row.get("account_key")?,
        name: row.get("name")?,
        admin: row.get("admin")?,
    })
}

impl Store {
    /// Makes sure that the first account (administrator) and the first swarm exist.
    pub async fn ensure_first_account(&self, name: &'static str) -> Result<Account, StoreError> {
        let secret = secret::fresh().map_err(StoreError::Random)?;
        self.ask(move |sql| {
            let first = sql
                .query_row(
                    "SELECT * FROM accounts WHERE admin ORDER BY account_key LIMIT 1",
                    [],
                    account,
                )
                .optional()?;
            if let Some(first) = first {
                return Ok(first);
            }
            sql.execute(
                "INSERT INTO accounts (name, secret, admin, created) VALUES (:name, :secret, 1, :now)",
                named_params! {":name": name, ":secret": secret, ":now": now()},
            )?;
            let first = sql.query_row("SELECT * FROM accounts ORDER BY account_key LIMIT 1", [], account)?;
            sql.execute(
                "INSERT INTO swarms (name, account_key) VALUES ('fleet', :owner)",
                named_params! {":owner": first.key},
            )?;
            Ok(first)
        })
        .await
    }

    /// Creates an account and answers its secret, which is shown this once.
    pub async fn add_account(&self, name: String, admin: bool) -> Result<(Account, String), StoreError> {
        let secret = secret::fresh().map_err(StoreError::Random)?;
        self.ask(move |sql| {
            sql.execute(
                "INSERT INTO accounts (name, secret, admin, created) VALUES (:name, :secret, :admin, :now)",
                named_params! {":name": name, ":secret": secret, ":admin": admin, ":now": now()},
            )
            .map_err(|error| taken(error, "account", &name))?;
            let added = sql.query_row(
                "SELECT * FROM accounts WHERE name = :name",
                named_params! {":name": name},
                account,
            )?;
            Ok((added, secret))
        })
        .await
    }

    pub async fn account(&self, key: AccountKey) -> Result<Option<Account>, StoreError> {
        self.ask(move |sql| {
            Ok(sql
                .query_row("SELECT * FROM accounts WHERE account_key = ?1", [key], account)
                .optional()?)
        })
        .await
    }

    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.ask(|sql| {
            let mut query = sql.prepare("SELECT * FROM accounts ORDER BY account_key")?;
            let rows = query.query_map([], account)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn account_secret(&self, key: AccountKey) -> Result<Option<String>, StoreError> {
        self.ask(move |sql| {
            Ok(sql
                .query_row(
                    "SELECT secret FROM accounts WHERE account_key = ?1",
                    [key],
                    |row| row.get(0),
                )
                .optional()?)
        })
        .await
    }

    /// The swarm that new devices join.
    pub async fn first_swarm(&self) -> Result<SwarmKey, StoreError> {
        self.ask(|sql| Ok(sql.query_row("SELECT min(swarm_key) FROM swarms", [], |row| row.get(0))?))
            .await
    }

    /// Whether the account may do this on the device: administrators and owners everything, others what was granted.
    pub async fn is_allowed(
        &self,
        account: AccountKey,
        device: DeviceKey,
        privilege: Privilege,
    ) -> Result<bool, StoreError> {
        self.ask(move |sql| {
            Ok(sql.query_row(
                "SELECT EXISTS (SELECT 1 FROM accounts JOIN devices ON device_key = :device
                   WHERE accounts.account_key = :account AND (admin OR devices.account_key = accounts.account_key))
                 OR EXISTS (SELECT 1 FROM grants
                   WHERE account_key = :account AND device_key = :device AND privilege = :privilege)",
                named_params! {":account": account, ":device": device, ":privilege": privilege.as_str()},
                |row| row.get(0),
            )?)
        })
        .await
    }

    /// The accounts that may see the device: administrators, its owner, everybody with a grant.
    pub async fn viewers(&self, device: DeviceKey) -> Result<Vec<AccountKey>, StoreError> {
        self.ask(move |sql| {
            let mut query = sql.prepare(
                "SELECT account_key FROM accounts WHERE admin
                 UNION SELECT account_key FROM devices WHERE device_key = ?1
                 UNION SELECT account_key FROM grants WHERE device_key = ?1",
            )?;
            let rows = query.query_map([device], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The devices that the account may see.
    pub async fn reach(&self, account: AccountKey) -> Result<Reach, StoreError> {
        self.ask(move |sql| {
            let admin = sql
                .query_row("SELECT admin FROM accounts WHERE account_key = ?1", [account], |row| {
                    row.get(0)
                })
                .optional()?;
            if admin == Some(true) {
                return Ok(Reach::Everything);
            }
            let mut query = sql.prepare(
                "SELECT serial_number, max(reads) FROM (
                   SELECT serial_number, 1 AS reads FROM devices WHERE account_key = :account
                   UNION ALL SELECT serial_number, privilege = :read FROM grants JOIN devices USING (device_key)
                     WHERE grants.account_key = :account)
                 GROUP BY serial_number",
            )?;
            let named = named_params! {":account": account, ":read": Privilege::Read.as_str()};
            let rows = query.query_map(named, |row| {
                Ok(DeviceReach {
                    serial: row.get(0)?,
                    read: row.get(1)?,
                })
            })?;
            Ok(Reach::Devices(rows.collect::<Result<_, _>>()?))
        })
        .await
    }

    /// Grants a privilege; granting twice is the same as once.
    pub async fn grant(
        &self,
        account: AccountKey,
        device: DeviceKey,
        privilege: Privilege,
    ) -> Result<(), StoreError> {
        self.ask(move |sql| {
            sql.execute(
                "INSERT OR IGNORE INTO grants VALUES (?1, ?2, ?3)",
                (account, device, privilege.as_str()),
            )?;
            Ok(())
        })
        .await
    }

    /// Takes a privilege back; `false` when it was not granted.
    pub async fn revoke(
        &self,
        account: AccountKey,
        device: DeviceKey,
        privilege: Privilege,
    ) -> Result<bool, StoreError> {
        self.ask(move |sql| {
            let gone = sql.execute(
                "DELETE FROM grants WHERE account_key = ?1 AND device_key = ?2 AND privilege = ?3",
                (account, device, privilege.as_str()),
            )?;
            Ok(gone > 0)
        })
        .await
    }

    /// A named setting of the studio itself, made with `fresh` when it does not exist yet.
    pub async fn setting_or(&self, name: &'static str, fresh: String) -> Result<String, StoreError> {
        self.ask(move |sql| {
            sql.execute("INSERT OR IGNORE INTO settings VALUES (?1, ?2)", (name, fresh))?;
            Ok(
                sql.query_row("SELECT value FROM settings WHERE name = ?1", [name], |row| {
                    row.get(0)
                })?,
            )
        })
        .await
    }
}
