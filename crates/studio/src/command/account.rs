//! `studio account …`

use std::io::Write;
use std::path::Path;

use protocol::Privilege;
use serde_json::Value;

use super::client::{DEADLINE, nothing};
use super::device::new_file;
use super::{Out, with_client};
use crate::api::{AccountAdded, AddAccount, Grant, uri};
use crate::cli::Place;
use crate::exit::{Exit, Failure};
use crate::keys::AccountKey;
use crate::table;

pub(super) async fn add(
    place: &Place,
    out: Out,
    name: String,
    admin: bool,
    file: &Path,
) -> Result<(), Failure> {
    let mut secret = new_file(file)?;
    let added: Result<AccountAdded, Failure> = with_client(place, async |client| {
        client.ask(uri::ACCOUNT_ADD, &AddAccount { name, admin }).await
    })
    .await;
    let added = added.inspect_err(|_| {
        // Still empty and ours.
        let _ = std::fs::remove_file(file);
    })?;
    writeln!(secret, "{}", added.secret)
        .and_then(|()| secret.sync_all())
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display())))?;
    let value = serde_json::json!({"account": added.account, "name": added.name, "file": file});
    out.result(&value, || {
        format!(
            "account {} added as {}; use it with --authid {} --secret-file {}\n",
            added.name,
            added.account,
            added.account,
            file.display()
        )
    });
    Ok(())
}

pub(super) async fn list(place: &Place, out: Out) -> Result<(), Failure> {
    let accounts: Vec<Value> = with_client(place, async |client| {
        client.ask(uri::ACCOUNT_LIST, &nothing()).await
    })
    .await?;
    out.result(&accounts, || {
        let rows: Vec<_> = accounts
            .iter()
            .map(|account| {
                let admin = account["admin"].as_bool().unwrap_or(false);
                [
                    account["key"].to_string(),
                    account["name"].as_str().unwrap_or_default().to_owned(),
                    if admin { "administrator" } else { "-" }.to_owned(),
                ]
            })
            .collect();
        table::render(["KEY", "NAME", "RIGHTS"], &rows)
    });
    Ok(())
}

pub(super) async fn grant(
    place: &Place,
    out: Out,
    account: u64,
    device: String,
    privilege: &str,
) -> Result<(), Failure> {
    let grant = read(account, device, privilege)?;
    with_client(place, async |client| {
        client.send(uri::ACCOUNT_GRANT, &grant, DEADLINE).await
    })
    .await?;
    out.result(&grant, || {
        format!(
            "account {} may now {} on {}\n",
            grant.account, grant.privilege, grant.device
        )
    });
    Ok(())
}

pub(super) async fn revoke(
    place: &Place,
    out: Out,
    account: u64,
    device: String,
    privilege: &str,
) -> Result<(), Failure> {
    let grant = read(account, device, privilege)?;
    with_client(place, async |client| {
        client.send(uri::ACCOUNT_REVOKE, &grant, DEADLINE).await
    })
    .await?;
    out.result(&grant, || {
        format!(
            "account {} may no longer {} on {}\n",
            grant.account, grant.privilege, grant.device
        )
    });
    Ok(())
}

fn read(account: u64, device: String, privilege: &str) -> Result<Grant, Failure> {
    let privilege: Privilege =
        serde_json::from_value(Value::from(privilege.to_uppercase())).map_err(|_| {
            Failure::new(
                Exit::Usage,
                format!("{privilege:?} is not one of READ, NETWORK, DEVELOP, MAINTAIN"),
            )
        })?;
    Ok(Grant {
        account: AccountKey(account),
        device,
        privilege,
    })
}
