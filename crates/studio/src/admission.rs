//! Who may join the router, in which role, and what each role may do.
//!
//! Devices join as `<swarm>-<device>`, accounts as their decimal key, the studio's own component as `system` with a
//! secret that exists in memory only. What everybody in a role may do is in [`roles`]; what belongs to single devices,
//! [`device_permissions`] and [`account_permissions`] give to those that may have it.

use std::collections::HashMap;
use std::sync::Arc;

use wamp::router::{Authenticator, JoinRequest, Permission, Principal};
use wamp::uri::error;
use wamp::{Dict, Payload};

use crate::backend::Procedure;
use crate::fault::Fault;
use crate::keys::{AccountKey, DeviceAuthid};
use crate::store::{Reach, Store, StoreError};
use crate::studio::{Request, Studio};

/// The one realm.
pub(crate) const REALM: &str = "realm1";

/// Authid and role of the studio's own component.
pub(crate) const SYSTEM: &str = "system";

/// Role of Crossbar.io's own session, which calls the dynamic authenticator.
const ROUTER_ROLE: &str = "trusted";

/// Asks the store for the secret of whoever wants in.
pub(crate) fn authenticator(store: Store) -> Authenticator {
    Arc::new(move |request: JoinRequest| {
        let store = store.clone();
        Box::pin(async move {
            let Some(authid) = request.authid else {
                return Err(None);
            };
            match principal(&store, &authid).await {
                Ok(Some(Found {
                    secret,
                    role,
                    permissions,
                })) => {
                    let principal = Principal::Cra {
                        secret,
                        role: role.to_owned(),
                        salting: None,
                        extra: Dict::new(),
                    };
                    Ok(principal.with_permissions(permissions.into()))
                }
                Ok(None) => Err(None),
                Err(error) => {
                    tracing::error!(%error, "the fleet store did not answer a join");
                    Err(Some((
                        error::NETWORK_FAILURE.to_owned(),
                        "the studio cannot check credentials at the moment".to_owned(),
                    )))
                }
            }
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
    // The system's secret is the router's own business: the store does not know it.
    let found = principal(&studio.store, authid).await?;
    let Found { secret, role, .. } = found.ok_or_else(|| Fault::Denied("no such principal".to_owned()))?;
    let answer = Dict::from([
        ("secret".to_owned(), secret.into()),
        ("role".to_owned(), role.into()),
    ]);
    Ok(Payload::from_args(vec![answer.into()]))
}

/// Somebody who may join.
struct Found {
    secret: String,
    role: &'static str,
    /// Beside those of the role.
    permissions: Vec<Permission>,
}

async fn principal(store: &Store, authid: &str) -> Result<Option<Found>, StoreError> {
    if let Some(device) = DeviceAuthid::parse(authid) {
        let found = store.device_secret(device.swarm, device.device).await?;
        return Ok(found.map(|(secret, serial)| Found {
            secret,
            role: "device",
            permissions: device_permissions(&serial),
        }));
    }
    match protocol::number::decimal(authid) {
        // Only the plain form: "01" must not be a second name of account 1.
        Some(key) if key.to_string() == authid => {
            let secret = store.account_secret(AccountKey(key)).await?;
            // Asked for unknown accounts, too, so that both take the same time.
            let reach = store.reach(AccountKey(key)).await?;
            Ok(secret.map(|secret| Found {
                secret,
                role: "operator",
                permissions: account_permissions(&reach),
            }))
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

/// What belongs to one device: its procedures and topics, and its logs, which it publishes and does not read.
pub(crate) fn device_permissions(serial: &str) -> Vec<Permission> {
    vec![
        Permission {
            register: true,
            publish: true,
            subscribe: true,
            force_register: true,
            ..allow(&protocol::uri::device(serial, ""), true)
        },
        Permission {
            publish: true,
            ..allow(&protocol::uri::logs(serial, ""), true)
        },
    ]
}

/// What an account may reach at the devices it may see. Which procedures obey it, each device decides by itself; the
/// logs need READ, like their history.
pub(crate) fn account_permissions(reach: &Reach) -> Vec<Permission> {
    let at = |device: String, input: String| {
        [
            Permission {
                call: true,
                subscribe: true,
                ..allow(&device, true)
            },
            Permission {
                publish: true,
                subscribe: true,
                ..allow(&input, true)
            },
        ]
    };
    let logs = |uri: &str| Permission {
        subscribe: true,
        ..allow(uri, true)
    };
    match reach {
        Reach::Everything => vec![
            Permission {
                call: true,
                publish: true,
                subscribe: true,
                ..allow("re.mgmt.", true)
            },
            logs(protocol::uri::LOGS_PREFIX),
        ],
        Reach::Devices(devices) => devices
            .iter()
            .flat_map(|device| {
                let serial = &device.serial;
                let own = at(
                    protocol::uri::device(serial, ""),
                    protocol::uri::device(serial, "term_write."),
                );
                let logs = device.read.then(|| logs(&protocol::uri::logs(serial, "")));
                own.into_iter().chain(logs)
            })
            .collect(),
    }
}

/// What everybody in a role may do. The longest matching prefix decides, so a narrow line takes rights away, too.
///
/// Nobody but the system has anything below `re.mgmt.` and `reswarm.logs.` by role. The router shows a device those
/// subscriptions and registrations in its meta API that concern what the device may use, and no others.
pub(crate) fn roles() -> HashMap<String, Vec<Permission>> {
    let device = vec![
        Permission {
            call: true,
            ..allow("reswarm.", true)
        },
        // Not registered with a router of our own; and if it were, its answers are secrets.
        allow(PROCEDURE.0, false),
        // Where the reference listens, at a topic that is the same text for every device.
        Permission {
            subscribe: true,
            ..allow("reswarm.device.", true)
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
        let authenticate = authenticator(store.clone());
        let device_authid = format!("{swarm}-{}", device.device.key);
        let account_secret = store.account_secret(owner).await.unwrap().unwrap();
        for (authid, expected) in [
            (device_authid.as_str(), Some((device.secret.as_str(), "device"))),
            ("1", Some((account_secret.as_str(), "operator"))),
            ("01", None),
            ("2", None),
            ("99-1", None),
            ("1-99", None),
            ("nobody", None),
            // The studio itself is a session of the router's own process.
            (SYSTEM, None),
            ("", None),
        ] {
            match (authenticate(join(Some(authid))).await, expected) {
                (Ok(Principal::Personal { principal, .. }), Some(expected)) => {
                    let Principal::Cra { secret, role, .. } = *principal else {
                        panic!("{authid}: {principal:?}");
                    };
                    assert_eq!((secret.as_str(), role.as_str()), expected, "{authid}");
                }
                (Err(None), None) => {}
                (other, _) => panic!("{authid}: {other:?}"),
            }
        }
        assert!(matches!(authenticate(join(None)).await, Err(None)));
    }
}
