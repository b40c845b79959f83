//! Who calls, and may they (`session-and-api.md` 6.2, and section 10 for the rules of later revisions).
//!
//! Identity that cannot be parsed is unprivileged, never `system`. Positive answers of the backend are remembered for
//! a few seconds (R61); denials and errors never are. Must not know what the handlers do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::number;
use protocol::privilege::Privilege;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::backend::{Backend, BackendError};
use crate::flock::DeviceFile;

/// How long a granted privilege is believed.
const GRANT_LIFETIME: Duration = Duration::from_secs(5);
/// Grants remembered at once; when full, expired ones go, then all.
const GRANT_LIMIT: usize = 256;

/// Who an invocation counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The platform's backend itself.
    System,
    /// A person's account.
    Account(u64),
    /// Undisclosed, unusable or contradictory identity: refused wherever a privilege is needed.
    Unprivileged,
}

/// What a procedure demands of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Anybody the router lets through.
    Open,
    /// Only the backend: `caller_authid` or `caller_authrole` is `system`.
    BackendOnly,
    /// A privilege; the text is the answer to those who lack it.
    Needs(Privilege, &'static str),
}

/// The identity facts of one invocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disclosed {
    /// `caller_authid`, `None` when not disclosed or not trustworthy.
    pub authid: Option<String>,
    /// `caller_authrole`.
    pub authrole: Option<String>,
}

/// Why a caller was turned away.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The caller lacks the privilege.
    #[error("{0}")]
    Denied(&'static str),
    /// The check itself failed; not a denial.
    #[error("privilege check failed")]
    Unchecked(#[from] BackendError),
}

/// The denial of [`Gate::BackendOnly`].
pub const BACKEND_ONLY_DENIAL: &str = "insufficient privileges";

/// Checks privileges. One per agent.
#[derive(Debug)]
pub struct Access {
    backend: Backend,
    device: DeviceFile,
    grants: Mutex<HashMap<(u64, Privilege), Instant>>,
}

impl Access {
    /// Checks against `backend` for the device of `device`.
    pub fn new(backend: Backend, device: DeviceFile) -> Access {
        Access {
            backend,
            device,
            grants: Mutex::new(HashMap::new()),
        }
    }

    /// Whether a call may proceed. `args` and `kwargs` may name the account that the backend calls for.
    pub async fn check(
        &self,
        gate: Gate,
        disclosed: &Disclosed,
        args: &[Value],
        kwargs: &Map<String, Value>,
    ) -> Result<(), Refusal> {
        let (privilege, denial) = match gate {
            Gate::Open => return Ok(()),
            Gate::BackendOnly => {
                let system = |text: &Option<String>| text.as_deref() == Some("system");
                let allowed = system(&disclosed.authid) || system(&disclosed.authrole);
                return if allowed {
                    Ok(())
                } else {
                    Err(Refusal::Denied(BACKEND_ONLY_DENIAL))
                };
            }
            Gate::Needs(privilege, denial) => (privilege, denial),
        };
        let account = match caller(disclosed.authid.as_deref(), args, kwargs) {
            Caller::System => return Ok(()),
            Caller::Unprivileged => return Err(Refusal::Denied(denial)),
            Caller::Account(account) => account,
        };
        if self.remembers((account, privilege)) {
            return Ok(());
        }
        let device = self.device.current();
        let granted = self
            .backend
            .check_privilege(account, privilege, device.device_key, device.swarm_key)
            .await?;
        if !granted {
            return Err(Refusal::Denied(denial));
        }
        self.remember((account, privilege));
        Ok(())
    }

    fn remembers(&self, grant: (u64, Privilege)) -> bool {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants.get(&grant).is_some_and(|until| *until > Instant::now())
    }

    fn remember(&self, grant: (u64, Privilege)) {
        let now = Instant::now();
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() >= GRANT_LIMIT {
            grants.retain(|_, until| *until > now);
        }
        if grants.len() >= GRANT_LIMIT {
            grants.clear();
        }
        grants.insert(grant, now + GRANT_LIFETIME);
    }
}

/// Who the call counts as: the backend may name the account it acts for, in kwargs or in the first dictionary.
pub fn caller(authid: Option<&str>, args: &[Value], kwargs: &Map<String, Value>) -> Caller {
    const KEY: &str = "requestor_account_key";
    let Some(authid) = authid else {
        return Caller::Unprivileged;
    };
    if authid != "system" {
        return number::decimal(authid)
            .filter(|account| *account > 0)
            .map_or(Caller::Unprivileged, Caller::Account);
    }
    let named = kwargs
        .get(KEY)
        .or_else(|| args.first().and_then(|first| first.get(KEY)));
    match named {
        None => Caller::System,
        Some(value) => number::positive(value).map_or(Caller::Unprivileged, Caller::Account),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn the_backend_is_system_unless_it_names_an_account() {
        let none = Map::new();
        assert_eq!(caller(Some("system"), &[], &none), Caller::System);
        assert_eq!(caller(Some("system"), &[json!("text")], &none), Caller::System);
        let kwargs = object(json!({ "requestor_account_key": "77" }));
        assert_eq!(caller(Some("system"), &[], &kwargs), Caller::Account(77));
        let first = [json!({ "requestor_account_key": 12.0 })];
        assert_eq!(caller(Some("system"), &first, &none), Caller::Account(12));
        assert_eq!(
            caller(Some("system"), &first, &kwargs),
            Caller::Account(77),
            "kwargs come first"
        );
    }

    #[test]
    fn an_unusable_account_key_takes_all_privileges_away() {
        for key in [
            json!(null),
            json!(0),
            json!(-5),
            json!("x"),
            json!(1.5),
            json!([]),
            json!(" 42"),
        ] {
            let kwargs = object(json!({ "requestor_account_key": key }));
            assert_eq!(
                caller(Some("system"), &[], &kwargs),
                Caller::Unprivileged,
                "{key}"
            );
        }
    }

    #[test]
    fn people_are_their_account_and_nothing_else() {
        let kwargs = object(json!({ "requestor_account_key": 1 }));
        assert_eq!(caller(Some("4711"), &[], &kwargs), Caller::Account(4711));
        for authid in [None, Some("0"), Some("-1"), Some("bob"), Some("")] {
            assert_eq!(caller(authid, &[], &kwargs), Caller::Unprivileged, "{authid:?}");
        }
    }
}
