//! Which account may do what through `studio.…`: administrators and owners everything, others what was granted.

use protocol::Privilege;

use crate::fault::Fault;
use crate::keys::AccountKey;
use crate::store::Device;
use crate::studio::Studio;

impl Studio {
    /// Finds a device that the account may see (READ). One it may not see is answered like one that does not exist.
    pub(crate) async fn device_for(&self, account: AccountKey, text: &str) -> Result<Device, Fault> {
        if let Some(device) = self.store.find_device(text.to_owned()).await?
            && self.sees(account, &device).await?
        {
            return Ok(device);
        }
        Err(Fault::NotFound(format!(
            "no device {text:?}: 'studio device list' shows those you may see"
        )))
    }

    /// Whether the account holds any privilege on the device.
    pub(crate) async fn sees(&self, account: AccountKey, device: &Device) -> Result<bool, Fault> {
        Ok(self.store.viewers(device.key).await?.contains(&account))
    }

    /// Refuses unless the account holds the privilege on the device.
    pub(crate) async fn require(
        &self,
        account: AccountKey,
        device: &Device,
        privilege: Privilege,
    ) -> Result<(), Fault> {
        if self.store.is_allowed(account, device.key, privilege).await? {
            return Ok(());
        }
        Err(Fault::Denied(format!(
            "your account needs the privilege {privilege} on device {:?}: its owner can grant it",
            device.name
        )))
    }

    /// Refuses unless the account owns the thing or is an administrator.
    pub(crate) async fn require_owner(
        &self,
        account: AccountKey,
        owner: AccountKey,
        what: &str,
    ) -> Result<(), Fault> {
        let admin = self
            .store
            .account(account)
            .await?
            .is_some_and(|account| account.admin);
        if admin || account == owner {
            return Ok(());
        }
        Err(Fault::Denied(format!(
            "only the owner of {what} and administrators may do this"
        )))
    }
}
