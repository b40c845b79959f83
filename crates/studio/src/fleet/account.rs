//! Accounts and what they may do on devices.

use std::sync::Arc;

use wamp::Payload;

use super::check_name;
use crate::api::{AccountAdded, AddAccount, Grant};
use crate::fault::Fault;
use crate::keys::AccountKey;
use crate::studio::{Request, Studio, reply};

async fn require_admin(studio: &Studio, request: &Request) -> Result<AccountKey, Fault> {
    let account = request.caller.account()?;
    match studio.store.account(account).await? {
        Some(found) if found.admin => Ok(account),
        _ => Err(Fault::Denied("only administrators may do this".to_owned())),
    }
}

pub(super) async fn add(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    require_admin(&studio, &request).await?;
    let AddAccount { name, admin } = request.kwargs()?;
    check_name("an account", &name)?;
    let (account, secret) = studio.store.add_account(name, admin).await?;
    tracing::info!(account = account.name, key = %account.key, admin, "account added");
    reply(&AccountAdded {
        account: account.key,
        name: account.name,
        secret,
    })
}

pub(super) async fn list(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    require_admin(&studio, &request).await?;
    reply(&studio.store.accounts().await?)
}

pub(super) async fn grant(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let Grant {
        account: to,
        device,
        privilege,
    } = request.kwargs()?;
    let device = studio.device_for(account, &device).await?;
    studio.require_owner(account, device.owner, "the device").await?;
    if studio.store.account(to).await?.is_none() {
        return Err(Fault::NotFound(format!("no account {to}")));
    }
    studio.store.grant(to, device.key, privilege).await?;
    studio.renew_reach(to).await?;
    Ok(Payload::Empty)
}

pub(super) async fn revoke(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let Grant {
        account: from,
        device,
        privilege,
    } = request.kwargs()?;
    let device = studio.device_for(account, &device).await?;
    studio.require_owner(account, device.owner, "the device").await?;
    if studio.store.revoke(from, device.key, privilege).await? {
        studio.renew_reach(from).await?;
        return Ok(Payload::Empty);
    }
    Err(Fault::NotFound(format!(
        "account {from} does not hold {privilege} on device {:?}",
        device.name
    )))
}
