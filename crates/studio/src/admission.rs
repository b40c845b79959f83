//! Who may join the router, in which role, and what each role may do.
//!
//! Devices join as `<swarm>-<device>`, accounts as their decimal key, the studio's own component as `system` with a
//! secret that exists in memory only.

use std::collections::HashMap;
use std::sync::Arc;

use wamp::router::{Authenticator, JoinRequest, Permission, Principal};
use wamp::uri::error;
use wamp::{Dict, Payload};

use crate::backend::Procedure;
use crate::fault::Fault;
use crate::keys::{AccountKey, DeviceAuthid};
use crate::store::{Store, StoreError};
use crate::studio::{Request, Studio};

/// The one realm.
pub(crate) const REALM: &str = "realm1";

/// Authid and role of the studio's own component.
pub(crate) const SYSTEM: &str = "system";

/// Role of Crossbar.io's own session, which calls the dynamic authenticator.
const ROUTER_ROLE: &str = "trusted";

/// Asks the store for the secret of whoever wants in.
pub(crate) fn authenticator(store: Store, system_secret: String) -> Authenticator {
    Arc::new(move |request: JoinRequest| {
        let store = store.clone();
        let system_secret = system_secret.clone();
        Box::pin(async move {
            let Some(authid) = request.authid else {
                return Err(None);
            };
            let (secret, role) = match secret_of(&store, &authid, system_secret).await {
                Ok(Some(found)) => found,
                Ok(None) => return Err(None),
                Err(error) => {
                    tracing::error!(%error, "the fleet store did not answer a join");
                    return Err(Some((
                        error::NETWORK_FAILURE.to_owned(),
                        "the studio cannot check credentials at the moment".to_owned(),
                    )));
                }
            };
            Ok(Principal::Cra {
                secret,
                role: role.to_owned(),
                salting: None,
                extra: Dict::new(),
            })
        })
    })
}

/// Answers an external router that asks for a client's secret. It registers like the backend's procedures.
pub(crate) const PROCEDURE: Procedure = ("reswarm.auth.authenticate", |studio, request| {
    Box::pin(authenticate(studio, request))
});

/// `(realm, authid, details)` to `{"secret", "role"}`. Only the router itself may ask: whoever is known to be a client
/// is refused, because the answer is somebody's secret.
async fn authenticate(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    if request.caller.role != ROUTER_ROLE {
        return Err(Fault::Denied(
            "only the router may ask for credentials".to_owned(),
        ));
    }
    let args = request.payload.args().unwrap_or_default();
    let text = |index: usize| args.get(index).and_then(wamp::Value::as_str);
    let (Some(REALM), Some(authid)) = (text(0), text(1)) else {
        return Err(Fault::Invalid(format!("expected (\"{REALM}\", authid, details)")));
    };
    // The system's secret is the router's own business.
    let found = match authid {
        SYSTEM => None,
        _ => secret_of(&studio.store, authid, String::new()).await?,
    };
    let (secret, role) = found.ok_or_else(|| Fault::Denied("no such principal".to_owned()))?;
    let answer = Dict::from([
        ("secret".to_owned(), secret.into()),
        ("role".to_owned(), role.into()),
    ]);
    Ok(Payload::from_args(vec![answer.into()]))
}

async fn secret_of(
    store: &Store,
    authid: &str,
    system_secret: String,
) -> Result<Option<(String, &'static str)>, StoreError> {
    if authid == SYSTEM {
        return Ok(Some((system_secret, SYSTEM)));
    }
    if let Some(device) = DeviceAuthid::parse(authid) {
        let secret = store.device_secret(device.swarm, device.device).await?;
        return Ok(secret.map(|secret| (secret, "device")));
    }
    match protocol::number::decimal(authid) {
        // Only the plain form: "01" must not be a second name of account 1.
        Some(key) if key.to_string() == authid => {
            let secret = store.account_secret(AccountKey(key)).await?;
            Ok(secret.map(|secret| (secret, "operator")))
        }
        _ => Ok(None),
    }
}

fn allow(uri: &str, prefix: bool) -> Permission {
    Permission {
        uri: uri.to_owned(),
        prefix,
        call: false,
        register: false,
        publish: false,
        subscribe: false,
        force_register: false,
        disclose: true,
    }
}

/// What each role may do. The longest matching prefix decides, so a narrow line takes rights away, too.
///
/// Roles are fixed when the router starts, so they cannot name single devices. Two limits follow: a device with valid
/// credentials of its own can offer procedures and publish under another device's serial number, and an account can
/// subscribe to the topics of devices that it may not see, if it knows their serial numbers or subscribes by prefix.
pub(crate) fn roles() -> HashMap<String, Vec<Permission>> {
    let device = vec![
        Permission {
            register: true,
            publish: true,
            subscribe: true,
            force_register: true,
            ..allow("re.mgmt.", true)
        },
        Permission {
            call: true,
            subscribe: true,
            ..allow("reswarm.", true)
        },
        Permission {
            publish: true,
            ..allow("reswarm.logs.", true)
        },
        Permission {
            publish: true,
            ..allow(protocol::uri::TESTAMENT_TOPIC, false)
        },
        Permission {
            call: true,
            ..allow("wamp.session.add_testament", false)
        },
        Permission {
            call: true,
            ..allow("wamp.session.flush_testaments", false)
        },
        Permission {
            call: true,
            subscribe: true,
            ..allow("wamp.subscription.", true)
        },
        Permission {
            subscribe: true,
            ..allow("wamp.registration.", true)
        },
    ];
    let system = vec![Permission {
        call: true,
        register: true,
        publish: true,
        subscribe: true,
        force_register: true,
        ..allow("", true)
    }];
    let operator = vec![
        Permission {
            call: true,
            ..allow("studio.", true)
        },
        Permission {
            subscribe: true,
            ..allow("studio.events.", true)
        },
        Permission {
            call: true,
            publish: true,
            subscribe: true,
            ..allow("re.mgmt.", true)
        },
        Permission {
            subscribe: true,
            ..allow("reswarm.logs.", true)
        },
    ];
    HashMap::from([
        ("device".to_owned(), device),
        (SYSTEM.to_owned(), system),
        ("operator".to_owned(), operator),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(authid: Option<&str>) -> JoinRequest {
        JoinRequest {
            realm: REALM.to_owned(),
            authid: authid.map(str::to_owned),
            methods: vec!["wampcra".to_owned()],
            authextra: Dict::new(),
        }
    }

    #[tokio::test]
    async fn everybody_gets_the_secret_and_role_of_their_own_kind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("studio.db")).await.unwrap();
        let owner = store.ensure_first_account("operator").await.unwrap().key;
        let swarm = store.first_swarm().await.unwrap();
        let device = store.add_device("press".to_owned(), swarm, owner).await.unwrap();
        let authenticate = authenticator(store.clone(), "system secret".to_owned());
        let device_authid = format!("{swarm}-{}", device.device.key);
        let account_secret = store.account_secret(owner).await.unwrap().unwrap();
        for (authid, expected) in [
            ("system", Some(("system secret", "system"))),
            (device_authid.as_str(), Some((device.secret.as_str(), "device"))),
            ("1", Some((account_secret.as_str(), "operator"))),
            ("01", None),
            ("2", None),
            ("99-1", None),
            ("1-99", None),
            ("nobody", None),
            ("", None),
        ] {
            match (authenticate(join(Some(authid))).await, expected) {
                (Ok(Principal::Cra { secret, role, .. }), Some(expected)) => {
                    assert_eq!((secret.as_str(), role.as_str()), expected, "{authid}");
                }
                (Err(None), None) => {}
                (other, _) => panic!("{authid}: {other:?}"),
            }
        }
        assert!(matches!(authenticate(join(None)).await, Err(None)));
    }
}
