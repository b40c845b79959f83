//! The running studio as procedures see it: store, settings, registry, and the caller of one invocation.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wamp::client::{Invocation, Session};
use wamp::router::Router;
use wamp::{Dict, Payload};

use crate::admission;
use crate::development::Reports;
use crate::fault::Fault;
use crate::keys::{AccountKey, DeviceAuthid, DeviceKey};
use crate::registry::Registry;
use crate::rollout::Alarm;
use crate::store::{Device, Store, StoreError};

/// Longest wait for a device's answer to a request of ours.
pub(crate) const DEVICE_DEADLINE: Duration = Duration::from_secs(30);

/// What devices are told about this studio.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Router URL for `.flock` files.
    pub(crate) public_url: String,
    /// `host:port/`
    pub(crate) registry: String,
    /// `apps/`
    pub(crate) repository: String,
    /// `reswarmBaseURL` of heartbeat replies.
    pub(crate) base_url: Option<String>,
    /// `update_url` for `.flock` files; empty: devices have one of their own.
    pub(crate) update_url: String,
    /// The directory of the update bucket, where it is served here.
    pub(crate) bucket: Option<PathBuf>,
}

/// Shared by all procedures.
#[derive(Debug)]
pub(crate) struct Studio {
    pub(crate) store: Store,
    pub(crate) settings: Settings,
    /// The registry beside us, if there is one.
    pub(crate) registry: Option<Registry>,
    /// The router of this process, if there is one.
    pub(crate) router: Option<Router>,
    /// Rings when something that rollouts wait for has happened.
    pub(crate) alarm: Alarm,
    /// States of apps in development.
    pub(crate) development: Reports,
}

/// Who calls, as the router disclosed it; nobody when it did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) authid: Option<String>,
    pub(crate) role: String,
    pub(crate) session: Option<u64>,
}

impl Caller {
    pub(crate) fn of(invocation: &Invocation) -> Caller {
        let details = &invocation.details;
        if details.contains_key("forward_for") {
            // Came over a link between routers, which names the link's identity, not the caller's.
            return Caller::default();
        }
        let text = |key: &str| details.get(key).and_then(wamp::Value::as_str);
        Caller {
            authid: invocation.caller_authid(),
            role: text("caller_authrole").unwrap_or_default().to_owned(),
            session: details.get("caller").and_then(wamp::Value::as_u64),
        }
    }

    /// The calling account; only sessions in role `operator` have one.
    pub(crate) fn account(&self) -> Result<AccountKey, Fault> {
        let number = match (self.role.as_str(), &self.authid) {
            ("operator", Some(authid)) => protocol::number::decimal(authid),
            _ => None,
        };
        number
            .map(AccountKey)
            .ok_or_else(|| Fault::Denied("only accounts may call this procedure".to_owned()))
    }

    /// The calling device; only sessions in role `device` are one.
    pub(crate) fn device(&self) -> Result<DeviceAuthid, Fault> {
        let authid = match (self.role.as_str(), &self.authid) {
            ("device", Some(authid)) => DeviceAuthid::parse(authid),
            _ => None,
        };
        authid.ok_or_else(|| Fault::Denied("only devices may call this procedure".to_owned()))
    }
}

/// One invocation: who, what, and the session to answer and publish with.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) caller: Caller,
    pub(crate) payload: Payload,
    pub(crate) session: Session,
}

impl Request {
    /// The keyword arguments as a typed request.
    pub(crate) fn kwargs<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let kwargs = self
            .payload
            .kwargs()
            .map_err(|error| Fault::Invalid(error.to_string()))?;
        wamp::Value::Dict(kwargs)
            .deserialize()
            .map_err(|error| Fault::Invalid(error.to_string()))
    }

    /// The first positional argument, which has to be a dictionary.
    pub(crate) fn first_dict(&self) -> Result<serde_json::Map<String, Value>, Fault> {
        match self.payload.first::<Value>() {
            Ok(Some(Value::Object(members))) => Ok(members),
            Ok(Some(_)) => Err(Fault::Invalid(
                "the first argument is not a dictionary".to_owned(),
            )),
            Ok(None) => Err(Fault::Invalid("the first argument is missing".to_owned())),
            Err(error) => Err(Fault::Invalid(error.to_string())),
        }
    }
}

/// A reply of one positional value.
pub(crate) fn reply<T: Serialize + ?Sized>(value: &T) -> Result<Payload, Fault> {
    Payload::one(value).map_err(|error| Fault::Invalid(format!("the answer cannot be encoded: {error}")))
}

impl Studio {
    /// Publishes an event about a device to the accounts that may see the device. Observers are a convenience: what
    /// cannot be published is lost.
    pub(crate) async fn publish<T: Serialize>(
        &self,
        session: &Session,
        device: DeviceKey,
        topic: &str,
        event: &T,
    ) {
        let viewers = match self.store.viewers(device).await {
            Ok(viewers) => viewers,
            Err(error) => return tracing::error!(topic, %error, "event not published"),
        };
        let viewers = viewers.iter().map(|account| account.to_string().into()).collect();
        let options = Dict::from([("eligible_authid".to_owned(), wamp::Value::List(viewers))]);
        let published = match Payload::one(event) {
            Ok(payload) => session
                .publish(topic, options, payload)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = published {
            tracing::debug!(topic, error, "event not published");
        }
    }

    /// Has the open sessions of an account reach what the account may see now: at once, not at its next login. One that
    /// is joining at this very moment keeps what it was admitted with. A router that somebody else runs knows roles only.
    pub(crate) async fn renew_reach(&self, account: AccountKey) -> Result<(), StoreError> {
        if let Some(router) = &self.router {
            let reach = self.store.reach(account).await?;
            router.set_permissions(&account.to_string(), &admission::account_permissions(&reach));
        }
        Ok(())
    }

    /// The device that calls, with the proof that its session belongs to the swarm it names.
    pub(crate) async fn calling_device(&self, caller: &Caller) -> Result<Device, Fault> {
        let authid = caller.device()?;
        match self.store.device(authid.device).await? {
            Some(device) if device.swarm == authid.swarm => Ok(device),
            _ => Err(Fault::Denied(format!(
                "device {authid} is not known here any more"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: &str, authid: Option<&str>) -> Caller {
        Caller {
            authid: authid.map(str::to_owned),
            role: role.to_owned(),
            session: None,
        }
    }

    #[test]
    fn an_account_is_an_operator_with_a_number() {
        assert_eq!(caller("operator", Some("7")).account().unwrap(), AccountKey(7));
        for (role, authid) in [
            ("operator", None),
            ("operator", Some("7x")),
            ("device", Some("7")),
            ("system", Some("7")),
            ("", None),
        ] {
            assert!(
                matches!(caller(role, authid).account(), Err(Fault::Denied(_))),
                "{role} {authid:?}"
            );
        }
    }

    #[test]
    fn a_device_is_known_by_its_role_and_authid_only() {
        assert_eq!(caller("device", Some("2-3")).device().unwrap().to_string(), "2-3");
        for (role, authid) in [("device", None), ("device", Some("3")), ("operator", Some("2-3"))] {
            assert!(
                matches!(caller(role, authid).device(), Err(Fault::Denied(_))),
                "{role} {authid:?}"
            );
        }
    }
}
